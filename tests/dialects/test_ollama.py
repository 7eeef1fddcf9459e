"""OpenAI requests → Ollama requests, against golden files and what may go wrong."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import ollama
from gateway.errors import InvalidRequest
from tests.support import golden

USER = {"role": "user", "content": "hi"}
TRANSLATIONS = {
    "chat_request": ollama.chat_request,
    "generate_request": ollama.generate_request,
    "embed_request": ollama.embed_request,
}
CASES = [(what, case, document) for what in TRANSLATIONS for case, document in golden.cases("ollama", what).items()]


def chat(**fields: Any) -> dict[str, Any]:
    request, _ = ollama.chat_request({"messages": [USER], **fields}, "m")
    return request


def parts(*content: Any) -> dict[str, Any]:
    message: dict[str, Any] = chat(messages=[{"role": "user", "content": list(content)}])["messages"][0]
    return message


@pytest.mark.parametrize(("what", "case", "document"), CASES, ids=[f"{what}.{case}" for what, case, _ in CASES])
def test_golden(what: str, case: str, document: Any) -> None:
    body = document["input"]
    before = copy.deepcopy(body)
    request, dropped = TRANSLATIONS[what](body, body["model"])
    assert {"request": request, "dropped": dropped} == document["expected"]
    assert body == before, "the parsed body belongs to the whole chain"


def test_golden_keeps_the_order_of_keys() -> None:
    schema = {"type": "object", "properties": {"zebra": {}, "apple": {}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    assert b'"zebra":{},"apple":{}' in ollama.encode(chat(tools=tools))


def test_the_model_is_the_target_s_not_the_client_s() -> None:
    assert ollama.chat_request({"model": "alias", "messages": [USER]}, "llama3:8b")[0]["model"] == "llama3:8b"


def test_configured_defaults_give_way_to_the_client() -> None:
    configured = {"num_ctx": 8192, "temperature": 0.9, "num_predict": 100}
    body = {"messages": [USER], "temperature": 0.2, "options": {"num_ctx": 4096}}
    request, _ = ollama.chat_request(body, "m", options=configured, keep_alive="10m")
    assert request["options"] == {"num_ctx": 4096, "temperature": 0.2, "num_predict": 100}
    assert request["keep_alive"] == "10m"
    assert ollama.chat_request(body | {"keep_alive": 0}, "m", keep_alive="10m")[0]["keep_alive"] == 0
    assert configured == {"num_ctx": 8192, "temperature": 0.9, "num_predict": 100}


def test_ollama_s_default_temperature_is_not_overruled() -> None:
    assert "options" not in chat()


def test_streaming_is_said_aloud_because_ollama_s_default_is_on() -> None:
    assert chat()["stream"] is False
    assert chat(stream=True)["stream"] is True


@pytest.mark.parametrize(
    ("effort", "think"),
    [("none", False), ("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high"), ("xhigh", "max"),
     ("max", "max")],
)  # fmt: skip
def test_reasoning_effort(effort: str, think: object) -> None:
    assert chat(reasoning_effort=effort)["think"] == think
    assert chat(reasoning={"effort": effort})["think"] == think


def test_think_itself_wins_over_reasoning_effort() -> None:
    assert chat(reasoning_effort="high", think=False)["think"] is False


def test_an_image_may_be_a_bare_data_url() -> None:
    assert parts({"type": "image_url", "image_url": "DATA:image/png;BASE64,aGk="})["images"] == ["aGk="]


def test_a_refusal_part_is_text() -> None:
    assert parts({"type": "refusal", "refusal": "No."}, {"type": "text", "text": "Why?"})["content"] == "No.\nWhy?"


def test_a_tool_result_takes_the_name_of_the_latest_call_with_its_id() -> None:
    def call(name: str) -> dict[str, Any]:
        return {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": name, "arguments": {"a": 1}}}]}

    result = {"role": "tool", "tool_call_id": "1", "content": "x"}
    messages = chat(messages=[call("f"), result, call("g"), result, {"role": "tool", "name": "h", "content": ""}])
    assert [message.get("tool_name") for message in messages["messages"]] == [None, "f", None, "g", "h"]
    assert messages["messages"][0]["tool_calls"][0]["function"]["arguments"] == {"a": 1}


def test_integers_of_any_size_survive() -> None:
    number = 10**40
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": f'{{"n": {number}}}'}}]
    request = chat(messages=[{"role": "assistant", "content": None, "tool_calls": calls}], options={"seed": number})
    sent = json.loads(ollama.encode(request))
    assert sent["messages"][0]["tool_calls"][0]["function"]["arguments"] == {"n": number}
    assert sent["options"] == {"seed": number}


@pytest.mark.parametrize("url", ["http://127.0.0.1/x.png", "https://example.com/x.png", "file:///etc/passwd", "", None])
def test_r23_an_image_is_not_fetched(url: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"messages\[0\]\.content\[0\]\.image_url: must be a data: URL"):
        parts({"type": "image_url", "image_url": {"url": url}})


def refused(match: str, **fields: Any) -> Any:
    return pytest.param(fields, match, id=match)


def tool_call(**function: Any) -> list[Any]:
    return [{"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": function}]}]


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        refused("^messages: must be a list with", messages=[]),
        refused("^messages: must be a list", messages="hi"),
        refused(r"^messages\[1\].role: must be one of", messages=[USER, {"role": "function", "content": "x"}]),
        refused(r"^messages\[0\].role", messages=["hi"]),
        refused(r"^messages\[0\].role: ", messages=[{"role": ["user"], "content": "x"}]),
        refused(r"^messages\[0\].content: ", messages=[{"role": "user", "content": 5}]),
        refused(r"content\[0\]: this provider takes", messages=[{"role": "user", "content": [{"type": "file"}]}]),
        refused(r"content\[0\]: this", messages=[{"role": "user", "content": ["hi"]}]),
        refused(r"content\[0\]: ", messages=[{"role": "user", "content": [{"type": "text", "text": 5}]}]),
        refused(r"content\[0\]", messages=[{"role": "user", "content": [{"type": {}, "text": "x"}]}]),
        refused(
            "must be encoded in base64",
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": "data:image/svg+xml,<svg/>"}]}],
        ),
        refused("function.name: must be a string", messages=tool_call(arguments="{}")),
        refused("arguments: is not valid JSON", messages=tool_call(name="f", arguments="{")),
        refused("arguments: is not valid", messages=tool_call(name="f", arguments='{"x": NaN}')),
        refused("arguments: is not", messages=tool_call(name="f", arguments='{"x":' * 5000 + "1" + "}" * 5000)),
        refused("arguments: must be a JSON object", messages=tool_call(name="f", arguments="[1]")),
        refused(r"tool_calls: must be a list", messages=[{"role": "assistant", "tool_calls": {"0": 1}}]),
        refused("^tools: must be a list", tools={"a": 1}),
        refused(r"^tools\[0\]: must be an object", tools=["f"]),
        refused(r"^tools\[0\].function: must be an object", tools=[{"type": "function", "function": "f"}]),
        refused(r"^tools\[0\].function.name", tools=[{"type": "function"}]),
        refused("^options: must be an object", options=[1]),
        refused("^reasoning_effort: must be one of none, minimal", reasoning_effort="lots"),
        refused("^reasoning_effort: must be", reasoning_effort=["low"]),
        refused("^response_format.json_schema.schema: ", response_format={"type": "json_schema"}),
        refused("^response_format.json_schema: ", response_format={"type": "json_schema", "json_schema": 1}),
    ],
)
def test_what_cannot_be_asked_is_refused(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        chat(**fields)


def test_a_request_nested_beyond_any_parser_is_refused() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"x": deep}
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        ollama.encode({"options": deep})


@pytest.mark.parametrize("texts", [[1, 2], [[1, 2], [3]], None, 7, ["a", 1], {"a": 1}])
def test_embeddings_of_token_ids_are_refused(texts: Any) -> None:
    with pytest.raises(InvalidRequest, match="it takes no token ids"):
        ollama.embed_request({"input": texts}, "m")


def test_an_unknown_encoding_of_embeddings_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="encoding_format"):
        ollama.embed_request({"input": "a", "encoding_format": "hex"}, "m")


@pytest.mark.parametrize("prompt", [[1, 2], [[1]], ["a", "b"], 5, {}])
def test_prompts_other_than_one_string_are_refused(prompt: Any) -> None:
    with pytest.raises(InvalidRequest, match="one string"):
        ollama.generate_request({"prompt": prompt}, "m")


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = (
    "messages", "tools", "tool_choice", "options", "reasoning", "reasoning_effort", "response_format", "stop", "stream",
    "logprobs", "top_logprobs", "think", "n", "prompt", "input", "suffix", "encoding_format", "max_tokens",
)  # fmt: skip
MESSAGE_FIELDS = ("content", "tool_calls", "tool_call_id", "name", "reasoning", "refusal")
messages = st.lists(
    st.dictionaries(st.sampled_from(MESSAGE_FIELDS), json_values).flatmap(
        lambda rest: st.sampled_from(["system", "user", "assistant", "tool"]).map(lambda role: {"role": role, **rest})
    ),
    min_size=1,
    max_size=3,
)


@given(st.dictionaries(st.sampled_from(FIELDS), json_values), st.none() | messages)
def test_any_json_is_translated_or_refused(body: dict[str, Any], some: list[Any] | None) -> None:
    if some is not None:
        body["messages"] = some
    for translate in TRANSLATIONS.values():
        try:
            request, dropped = translate(body, "m")
        except InvalidRequest:
            continue
        assert json.loads(ollama.encode(request))["model"] == "m"
        assert all(isinstance(name, str) for name in dropped)


@given(st.dictionaries(st.sampled_from(["user", "logit_bias", "x_new", "audio"]), st.integers(min_value=2)))
def test_an_unknown_field_is_never_lost_in_silence(extra: dict[str, int]) -> None:
    _, dropped = ollama.chat_request({"messages": [USER], **extra}, "m")
    assert dropped == list(extra)
