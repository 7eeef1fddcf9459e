"""Canonical requests → Gemini's, against golden files, Google's own types, and what may go wrong."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import gemini, gemini_client
from gateway.dialects.capabilities import Capabilities
from gateway.errors import InvalidRequest
from tests.support import golden

USER = {"role": "user", "content": "hi"}
CASES = golden.cases("gemini", "request")


def capabilities(names: dict[str, Any]) -> Capabilities:
    flags: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in names.items()}
    return Capabilities(**flags)


def ask(caps: Capabilities | None = None, **fields: Any) -> dict[str, Any]:
    request, _ = gemini.request_from_chat({"messages": [USER], **fields}, "m", caps=caps or Capabilities())
    return request


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    document = CASES[case]
    body = document["input"]
    before = copy.deepcopy(body)
    request, dropped = gemini.request_from_chat(body, "gemini-x", caps=capabilities(document["caps"]))
    assert {"request": request, "dropped": dropped} == document["expected"]
    assert body == before, "the parsed body belongs to the whole chain"


@pytest.mark.parametrize("case", CASES)
def test_google_s_own_types_take_the_request(case: str) -> None:
    types = pytest.importorskip("google.genai.types")
    request = CASES[case]["expected"]["request"]
    for content in request["contents"]:
        types.Content.model_validate(content)
    types.GenerationConfig.model_validate(request.get("generationConfig", {}))
    for tool in request.get("tools", ()):
        types.Tool.model_validate(tool)
    types.ToolConfig.model_validate(request.get("toolConfig", {}))


def test_a_count_is_asked_with_the_whole_request() -> None:
    request, _ = gemini.count_from_chat({"messages": [USER], "temperature": 1}, "m")
    contents = [{"role": "user", "parts": [{"text": "hi"}]}]
    assert request == {"generateContentRequest": {"model": "models/m", "contents": contents}}


@pytest.mark.parametrize(
    ("effort", "budget"),
    [("none", 0), ("minimal", 1024), ("low", 1024), ("medium", 8192), ("high", 24576), ("max", 24576)],
)
def test_an_effort_is_a_budget_for_models_that_count(effort: str, budget: int) -> None:
    for fields in ({"reasoning_effort": effort}, {"reasoning": {"effort": effort}}):
        config = ask(**fields)["generationConfig"]["thinkingConfig"]
        assert config == {"thinkingBudget": budget, **({"includeThoughts": True} if budget else {})}


@pytest.mark.parametrize(
    ("efforts", "effort", "level"),
    [(("low", "high"), "medium", "LOW"), (("low", "high"), "none", "LOW"), (("low", "high"), "max", "HIGH"),
     (("minimal", "low"), "minimal", "MINIMAL")],
)  # fmt: skip
def test_an_effort_is_the_nearest_level_the_model_knows(efforts: tuple[str, ...], effort: str, level: str) -> None:
    caps = Capabilities(budget_thinking=False, efforts=efforts)
    assert ask(caps, reasoning_effort=effort)["generationConfig"]["thinkingConfig"]["thinkingLevel"] == level


def test_a_model_that_does_not_think_is_not_told_to() -> None:
    caps = Capabilities(budget_thinking=False, efforts=())
    request, dropped = gemini.request_from_chat({"messages": [USER], "reasoning_effort": "high"}, "m", caps=caps)
    assert "generationConfig" not in request and dropped == ["reasoning_effort"]


def test_thinking_that_cannot_be_switched_off_stays_on() -> None:
    body = {"messages": [USER], "reasoning": {"enabled": False}}
    request, dropped = gemini.request_from_chat(body, "m", caps=Capabilities(always_thinks=True))
    assert "generationConfig" not in request and dropped == ["reasoning_effort"]


def test_thinking_alone_leaves_the_amount_to_the_model() -> None:
    assert ask(reasoning={"enabled": True})["generationConfig"]["thinkingConfig"] == {"includeThoughts": True}


def named(*names: str) -> list[Any]:
    return [{"type": "function", "function": {"name": name}} for name in names]


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        (None, None),
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ({"type": "function", "function": {"name": "f"}}, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": named("f", "g")}},
         {"mode": "VALIDATED", "allowedFunctionNames": ["f", "g"]}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": named("f")}},
         {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)  # fmt: skip
def test_tool_choice(choice: Any, config: Any) -> None:
    request = ask(tools=named("f", "g"), tool_choice=choice)
    assert request.get("toolConfig", {}).get("functionCallingConfig") == config


def test_strict_tools_are_validated() -> None:
    tools = [{"type": "function", "function": {"name": "f", "strict": True}}]
    assert ask(tools=tools)["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}


def test_what_the_model_cannot_do_is_dropped_and_said() -> None:
    caps = Capabilities(forced_tools=False, sampling=False)
    body = {"messages": [USER], "tools": named("f"), "tool_choice": "required", "temperature": 1, "modalities": ["x"]}
    request, dropped = gemini.request_from_chat(body, "m", caps=caps)
    assert request["toolConfig"] == {"functionCallingConfig": {"mode": "AUTO"}}
    assert dropped == ["tool_choice", "temperature", "modalities"]


def test_pictures_are_asked_for() -> None:
    assert ask(modalities=["text", "image"])["generationConfig"] == {"responseModalities": ["TEXT", "IMAGE"]}


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"tools": {"a": 1}}, "^tools: must be a list"),
        ({"tools": ["f"]}, r"^tools\[0\]: must be an object"),
        ({"tools": [{"type": "function"}]}, r"^tools\[0\].function.name"),
        ({"tools": named("f"), "tool_choice": "sometimes"}, "^tool_choice: must be"),
        ({"reasoning_effort": "lots"}, "^reasoning_effort: must be one of none, minimal"),
        ({"reasoning": {"max_tokens": -1}}, "^reasoning.max_tokens"),
        ({"response_format": {"type": "json_schema"}}, "^response_format.json_schema.schema"),
        ({"extra_body": {"google": 1}}, "^extra_body.google: must be an object"),
    ],
)
def test_what_cannot_be_asked_is_refused(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        ask(**fields)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = (
    "tools", "tool_choice", "reasoning", "reasoning_effort", "response_format", "stop", "logprobs", "modalities",
    "extra_body", "web_search_options", "n", "x_new",
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_any_json_is_translated_or_refused(fields: dict[str, Any]) -> None:
    for caps in (Capabilities(), Capabilities(json_schema=False, budget_thinking=False)):
        try:
            request, dropped = gemini.request_from_chat({"messages": [USER], **fields}, "m", caps=caps)
        except InvalidRequest:
            continue
        json.dumps(request)
        assert all(isinstance(name, str) for name in dropped)


texts = st.text(min_size=1, max_size=20)
objects = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=3)


@given(
    system=st.none() | texts,
    question=texts,
    answer=texts,
    calls=st.lists(st.tuples(st.sampled_from(["f", "g"]), objects, st.none() | st.just("c2ln")), max_size=3),
    config=st.fixed_dictionaries(
        {}, optional={"temperature": st.floats(0, 2), "seed": st.integers(0, 9), "top_k": st.integers(1, 9),
                      "max_completion_tokens": st.integers(1, 99), "stop": st.lists(texts, min_size=1, max_size=3),
                      "reasoning_effort": st.sampled_from(["low", "high"])},
    ),
)  # fmt: skip
def test_what_both_can_say_survives_the_way_there_and_back(
    system: str | None, question: str, answer: str, calls: list[Any], config: dict[str, Any]
) -> None:
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": question})
    made = []
    for number, (name, arguments, signature) in enumerate(calls):
        text = json.dumps(arguments, separators=(",", ":"), ensure_ascii=False)
        call = {"id": f"id{number}", "type": "function", "function": {"name": name, "arguments": text}}
        made.append(call | ({"extra_content": {"google": {"thought_signature": signature}}} if signature else {}))
    messages.append({"role": "assistant", "content": answer, **({"tool_calls": made} if made else {})})
    messages += [{"role": "tool", "tool_call_id": call["id"], "content": "x"} for call in made]
    caps = Capabilities(budget_thinking=False, efforts=("low", "high"))
    request, dropped = gemini.request_from_chat({"messages": messages, **config}, "m", caps=caps)
    back, lost = gemini_client.request_to_chat(request)
    assert back == {"messages": messages, **config} and dropped == lost == []
