"""Requests of Ollama's clients → canonical ones, and the lines of streams that pass through."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import ollama, ollama_client
from gateway.dialects.openai_chat import ERROR, PASS
from gateway.dialects.sse import LineBlocks, parse_lines
from gateway.errors import InvalidRequest
from gateway.exchange import Usage
from tests.support import golden
from tests.support.recordings import Recordings

TRANSLATIONS = {
    "client_chat": ollama_client.request_to_chat,
    "client_generate": ollama_client.generate_to_chat,
}
CASES = [(what, case, document) for what in TRANSLATIONS for case, document in golden.cases("ollama", what).items()]
USER = {"role": "user", "content": "hi"}


def chat(**fields: Any) -> dict[str, Any]:
    return ollama_client.request_to_chat({"model": "m", "messages": [USER], **fields})[0]


@pytest.mark.parametrize(("what", "document"), [(a, c) for a, _, c in CASES], ids=[f"{a}.{b}" for a, b, _ in CASES])
def test_golden(what: str, document: Any) -> None:
    body = document["input"]
    before = copy.deepcopy(body)
    request, dropped = TRANSLATIONS[what](body)
    assert {"request": request, "dropped": dropped} == document["expected"]
    assert body == before, "the parsed body belongs to the whole chain"


NOTHING = [
    {"tools": []}, {"tools": None}, {"format": ""}, {"format": None}, {"options": {}}, {"options": None},
    {"keep_alive": None}, {"think": None}, {"think": ""}, {"stream": True}, {"stream": None}, {"truncate": False},
    {"shift": True}, {"logprobs": False}, {"top_logprobs": 0}, {"options": {"stop": [], "num_predict": -1, "seed": -1}},
]  # fmt: skip


@pytest.mark.parametrize("more", NOTHING)
def test_what_asks_for_nothing_changes_nothing(more: dict[str, Any]) -> None:
    request, dropped = ollama_client.request_to_chat({"model": "m", "messages": [USER], **more})
    assert request == {"model": "m", "messages": [USER], "stream": True}
    assert dropped == []


def test_a_stream_is_the_default() -> None:
    assert chat()["stream"] is True
    assert chat(stream=False)["stream"] is False


@pytest.mark.parametrize(
    ("think", "expected"),
    [
        (True, {"reasoning": {"enabled": True}}),
        (False, {"reasoning_effort": "none"}),
        ("low", {"reasoning_effort": "low"}),
        ("max", {"reasoning_effort": "max"}),
    ],
)
def test_thinking(think: Any, expected: dict[str, Any]) -> None:
    request = chat(think=think)
    assert {name: value for name, value in request.items() if name.startswith("reasoning")} == expected
    assert ollama.chat_request(request, "m")[0]["think"] == think, "and back again"


def result(**more: Any) -> dict[str, Any]:
    return {"role": "tool", "content": "sun", **more}


def call(name: str, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": {"city": name}}, **more}


@pytest.mark.parametrize(
    ("calls", "results", "ids"),
    [
        ([call("a")], [result()], ["call_0"]),
        ([call("a"), call("b")], [result(), result()], ["call_0", "call_1"]),
        ([call("a"), call("b")], [result(tool_name="b"), result(tool_name="a")], ["call_1", "call_0"]),
        ([call("a"), call("a")], [result(tool_name="a"), result(tool_name="a")], ["call_0", "call_1"]),
        ([call("a", id="x"), call("b", id="y")], [result(tool_call_id="y"), result()], ["y", "x"]),
        ([call("a")], [result(name="a")], ["call_0"]),
    ],
)
def test_results_find_their_calls(calls: list[Any], results: list[Any], ids: list[str]) -> None:
    messages = [USER, {"role": "assistant", "content": "", "tool_calls": calls}, *results]
    made = chat(messages=messages)["messages"]
    assert [message["tool_call_id"] for message in made[2:]] == ids
    assert sorted(ids) == sorted(each["id"] for each in made[1]["tool_calls"])


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 20).decode()


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff\xe0", "image/jpeg"), (b"GIF89a", "image/gif"),
        (b"RIFF\1\0\0\0WEBPVP8 ", "image/webp"), (b"RIFF\1\0\0\0WAVEfmt ", "wav"), (b"ID3\4", "mp3"),
        (b"somethingelse", "image/jpeg"),
    ],
)  # fmt: skip
def test_images_are_known_by_their_first_bytes(head: bytes, part: str) -> None:
    data = base64.b64encode(head + bytes(range(40))).decode()
    content = chat(messages=[{**USER, "images": [data]}])["messages"][0]["content"]
    assert content[0] == {"type": "text", "text": "hi"}
    if "/" in part:
        assert content[1] == {"type": "image_url", "image_url": {"url": f"data:{part};base64,{data}"}}
    else:
        assert content[1] == {"type": "input_audio", "input_audio": {"data": data, "format": part}}


@pytest.mark.parametrize(
    "body",
    [
        {}, {"messages": []}, {"messages": {}}, {"messages": ["hi"]}, {"messages": [{"role": "developer"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        {"messages": [{"role": "user", "content": "hi", "images": "x"}]},
        {"messages": [{"role": "user", "content": "hi", "images": ["%%%%"]}]},
        {"messages": [result()]}, {"messages": [{"role": "assistant", "tool_calls": [call("a")]}, result(), result()]},
        {"messages": [{"role": "assistant", "tool_calls": {"a": 1}}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": {}}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "{}"}}]}]},
        {"messages": [USER], "tools": {"a": 1}}, {"messages": [USER], "tools": ["f"]},
        {"messages": [USER], "options": 5},
        {"messages": [USER], "format": "xml"}, {"messages": [USER], "think": 5},
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        ollama_client.request_to_chat(body)


@pytest.mark.parametrize("prompt", [None, "", 5, ["a"]])
def test_a_prompt_is_a_text(prompt: Any) -> None:
    with pytest.raises(InvalidRequest):
        ollama_client.generate_to_chat({"model": "m", "prompt": prompt})


words = st.text(min_size=1, max_size=8)
options = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2), "top_p": st.floats(0, 1), "top_k": st.integers(1, 100),
        "min_p": st.floats(0, 1), "seed": st.integers(0, 1000), "repeat_penalty": st.floats(0, 2),
        "stop": st.lists(words, min_size=1, max_size=3), "num_predict": st.integers(1, 1000),
    },
)  # fmt: skip


@given(words, words, options, st.sampled_from(["json", {"type": "object"}, None]))
def test_there_and_back_again_is_the_same(system: str, text: str, chosen: dict[str, Any], wanted: Any) -> None:
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": text, "images": [PNG]},
        {"role": "assistant", "content": "", "thinking": text,
         "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {"a": [1]}}}]},
        {"role": "tool", "content": text, "tool_call_id": "c1", "tool_name": "f"},
    ]  # fmt: skip
    body = {"model": "m", "messages": messages, "stream": False} | ({"options": chosen} if chosen else {})
    body |= {"format": wanted} if wanted else {}
    request, dropped = ollama_client.request_to_chat(body)
    assert dropped == []
    assert ollama.chat_request(request, "m") == (body, [])


@pytest.mark.parametrize("name", ["ollama-chat-tool-calls", "ollama-chat-stream-ndjson", "ollama-generate-stream"])
def test_recorded_requests_lose_nothing(test_data: Recordings, name: str) -> None:
    (recorded,) = test_data.interactions(name)
    translate = ollama_client.generate_to_chat if "generate" in name else ollama_client.request_to_chat
    request, dropped = translate(recorded.request_json)
    assert dropped == []
    assert request["messages"]


STREAMS = {"ollama-chat-stream-ndjson": Usage(17, 50), "ollama-generate-stream": Usage(17, 71)}


@pytest.mark.parametrize(("name", "usage"), STREAMS.items(), ids=STREAMS)
@given(data=st.data())
def test_recorded_streams_pass_however_they_are_cut(
    test_data: Recordings, name: str, usage: Usage, data: st.DataObject
) -> None:
    (recorded,) = test_data.interactions(name)
    raw = recorded.response
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=9)))
    reader, blocks = ollama_client.Reader(), LineBlocks()
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        for _, name_, line in parse_lines(blocks.feed(raw[start:end])):
            assert not reader.done
            assert reader.event(name_, line) == PASS
            assert reader.started
    assert (reader.done, reader.finished, reader.usage, blocks.rest) == (True, True, usage, b"")


@pytest.mark.parametrize(
    ("line", "started"),
    [
        ({"message": {"role": "assistant", "content": ""}, "done": False}, False),
        ({"response": "", "done": False}, False),
        ({"message": {"content": "x"}}, True), ({"message": {"thinking": "x"}}, True), ({"response": "x"}, True),
        ({"message": {"tool_calls": [{}]}}, True), ({"thinking": "x"}, True), ({"done": True}, True),
    ],
)  # fmt: skip
def test_a_stream_starts_with_what_says_something(line: dict[str, Any], started: bool) -> None:
    reader = ollama_client.Reader()
    assert reader.event(None, orjson.dumps(line)) == PASS
    assert reader.started is started


@pytest.mark.parametrize(("more", "status"), [({}, 502), ({"status": 429}, 429), ({"status": 200}, 502)])
def test_an_error_line_is_an_error(more: dict[str, int], status: int) -> None:
    line = orjson.dumps({"error": "boom", **more})
    reader = ollama_client.Reader()
    assert reader.event(None, line) == ERROR
    assert reader.refusal(line) == (status, line)
    assert not reader.done


@pytest.mark.parametrize("line", [b"{", b"[]", b"5"])
def test_a_line_that_is_none_is_malformed(line: bytes) -> None:
    with pytest.raises(ValueError):
        ollama_client.Reader().event(None, line)


def test_errors_are_texts_as_ollama_has_them() -> None:
    assert json.loads(ollama_client.error_body(404, "model_not_found", "no", "rid")) == {
        "error": "no (request id: rid)"
    }
    event = ollama_client.error_event(502, "stream_interrupted", "no", "rid")
    assert json.loads(event) == {"error": "no (request id: rid)", "status": 502}
    assert event.endswith(b"}\n")
    assert ollama_client.Reader().event(None, event) == ERROR
