"""Cohere's answers → canonical ones: golden files, recordings, any chunking, and the types of the official SDK."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.cohere_reply import Decoder, error_status, error_to_chat, reply_to_chat, usage_of
from gateway.dialects.openai_chat import read_usage
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage
from tests.support import golden
from tests.support.recordings import Recordings

WHOLE = golden.cases("cohere", "reply")
STREAMS = golden.cases("cohere", "stream")
START = {"id": "1", "type": "message-start", "delta": {"message": {"role": "assistant"}}}


def sse(events: Iterable[Any]) -> bytes:
    return b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in events)


def decoded(blocks: Iterable[bytes]) -> list[dict[str, Any]]:
    decoder = Decoder("m")
    chunks = [chunk for block in blocks for chunk in decoder.feed(block)] + decoder.end()
    return [chunk | {"created": 0} for chunk in chunks]


def cut(raw: bytes, at: Iterable[int]) -> list[bytes]:
    return [raw[start:end] for start, end in pairwise([0, *sorted(at), len(raw)])]


def deltas(chunks: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in chunks for choice in chunk["choices"]]


@pytest.mark.parametrize("case", WHOLE)
def test_golden_whole(case: str) -> None:
    types = pytest.importorskip("openai.types.chat", reason="the openai SDK is not installed")
    made = reply_to_chat(WHOLE[case]["input"], "m") | {"created": 0}
    assert made == WHOLE[case]["expected"]
    types.ChatCompletion.model_validate(made, strict=True)
    if (used := usage_of(WHOLE[case]["input"])) is not None:
        assert read_usage(made) == used


@pytest.mark.parametrize("case", STREAMS)
def test_golden_stream(case: str) -> None:
    types = pytest.importorskip("openai.types.chat", reason="the openai SDK is not installed")
    made = decoded([sse(STREAMS[case]["input"]) + b"data: [DONE]\n\n"])
    assert made == STREAMS[case]["expected"]
    for chunk in made:
        types.ChatCompletionChunk.model_validate(chunk, strict=True)


@given(st.sampled_from(sorted(STREAMS)), st.data())
def test_any_split_of_the_bytes_gives_the_same_chunks(case: str, data: st.DataObject) -> None:
    raw = sse(STREAMS[case]["input"]) + b"data: [DONE]\n\n"
    places = data.draw(st.lists(st.integers(0, len(raw)), max_size=20))
    assert decoded(cut(raw, places)) == STREAMS[case]["expected"]


@pytest.mark.parametrize(
    ("name", "finish", "tokens"),
    [("cohere-v2-chat-stream", "stop", (7, 109)), ("cohere-v2-chat-stream-tools", "tool_calls", (62, 28))],
)
def test_recorded_streams(test_data: Recordings, name: str, finish: str, tokens: tuple[int, int]) -> None:
    (recorded,) = test_data.interactions(name)
    for size in (1, 700, 1 << 20):
        chunks = decoded(cut(recorded.response, range(0, len(recorded.response), size)))
        assert [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]] == [finish]
        used = read_usage(chunks[-1])
        assert used is not None and (used.input_tokens, used.output_tokens) == tokens
        calls: dict[int, str] = {}
        for delta in deltas(chunks):
            for call in delta.get("tool_calls", []):
                calls[call["index"]] = calls.get(call["index"], "") + call["function"]["arguments"]
        assert [list(json.loads(each)) for each in calls.values()] == [["location"]] * (2 if calls else 0)
        assert chunks[0]["id"].count("-") == 4


def test_the_recorded_thoughts(test_data: Recordings) -> None:
    recorded = test_data.interactions("cohere-v2-thinking")[1]
    answer = reply_to_chat(json.loads(recorded.response))
    assert answer["choices"][0]["message"]["reasoning_content"].startswith("Okay, the user is asking")
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"] == {"prompt_tokens": 431, "completion_tokens": 661, "total_tokens": 1092}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({}, None),
        ({"billed_units": {"search_units": 1}}, None),
        ({"billed_units": {"input_tokens": 3}}, Usage(3, None, provenance="partial")),
        ({"billed_units": {}, "tokens": {"input_tokens": 3.0, "output_tokens": 2}}, Usage(3, 2)),
        ({"tokens": {"input_tokens": 30, "output_tokens": 2}, "cached_tokens": 20}, Usage(30, 2, 20)),
        ({"billed_units": {"input_tokens": True, "output_tokens": "x"}}, None),
    ],
)
def test_usage(usage: Any, expected: Usage | None) -> None:
    assert usage_of({"usage": usage}) == expected


@pytest.mark.parametrize("case", STREAMS)
def test_a_stream_that_is_cut_is_never_complete(case: str) -> None:
    events = STREAMS[case]["input"]
    for last in range(len(events)):
        decoder = Decoder()
        chunks = decoder.feed(sse(events[:last]))
        assert not decoder.done
        assert not any(choice["finish_reason"] for chunk in chunks for choice in chunk["choices"])
        with pytest.raises(UpstreamProtocolError):
            decoder.end()


def test_a_last_event_without_its_empty_line() -> None:
    decoder = Decoder()
    chunks = decoder.feed(sse(STREAMS["text"]["input"]).rstrip()) + decoder.end()
    assert [chunk | {"created": 0, "model": "m"} for chunk in chunks] == STREAMS["text"]["expected"]


def test_the_bare_beginning_of_an_answer_is_not_told_yet() -> None:
    assert Decoder().feed(sse([START])) == []


def end(reason: Any, **more: Any) -> dict[str, Any]:
    return {"type": "message-end", "delta": {"finish_reason": reason, **more}}


@pytest.mark.parametrize(
    ("event", "status", "message"),
    [
        (end("ERROR", error="It broke."), 502, "It broke."),
        (end("ERROR"), 502, "The model failed."),
        (end("TIMEOUT"), 504, "The model failed."),
        ({"type": "error", "message": "internal server error"}, 502, "internal server error"),
    ],
)
def test_errors_inside_a_stream(event: Any, status: int, message: str) -> None:
    with pytest.raises(StreamError) as caught:
        Decoder().feed(sse([START, event]))
    assert (caught.value.status, caught.value.message) == (status, message)


def test_an_error_that_has_no_type() -> None:
    with pytest.raises(StreamError, match="too many tokens"):
        Decoder().feed(b'data: {"id":"1","message":"too many tokens"}\n\n')


def test_a_whole_answer_that_says_it_failed() -> None:
    with pytest.raises(StreamError):
        reply_to_chat({"message": {"role": "assistant", "content": []}, "finish_reason": "ERROR"})


@pytest.mark.parametrize(
    "body",
    [{}, {"message": "x"}, {"message": {"content": [{}]}, "finish_reason": "COMPLETE"}, {"message": {"content": []}},
     {"message": {"content": [{"type": "text", "text": 1}]}, "finish_reason": "COMPLETE"},
     {"message": {"tool_calls": [{}]}, "finish_reason": "TOOL_CALL"}, {"message": {}, "finish_reason": []}],
)  # fmt: skip
def test_what_is_no_answer(body: Any) -> None:
    with pytest.raises(UpstreamProtocolError, match="not what Cohere answers"):
        reply_to_chat(body)


@pytest.mark.parametrize(
    "data",
    [b"{", b"[]", b'{"type":"content-delta"}', b'{"type":"tool-call-delta","index":3,"delta":{"message":{"tool_calls":'
     b'{"function":{"arguments":"x"}}}}}', b'{"type":"message-end","delta":{}}'],
)  # fmt: skip
def test_events_that_are_not_cohere_s(data: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        Decoder().feed(b"data: " + data + b"\n\n")


def test_an_event_without_an_end_is_not_collected_forever() -> None:
    decoder = Decoder()
    with pytest.raises(UpstreamProtocolError, match="too large"):
        for _ in range(17):
            decoder.feed(b"data: " + b"x" * (1 << 20))


def test_errors(test_data: Recordings) -> None:
    (recorded,) = test_data.interactions("cohere-v2-embed-404")
    code, message = error_to_chat(recorded.status, recorded.response)
    assert code == "model_not_found" and message.startswith("model 'nonexistent' not found")
    assert error_to_chat(500, b"<html>") == ("provider_error", "The provider answered 500.")
    assert [error_status(status) for status in (498, 499, 429)] == [401, 502, 429]


WORDS = [
    "message", "content", "text", "type", "thinking", "tool_calls", "id", "function", "name", "arguments", "tool_plan",
    "index", "delta", "finish_reason", "usage", "billed_units", "input_tokens", "citations", "COMPLETE",
]  # fmt: skip
junk: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["", "x", *WORDS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=12,
)
KINDS = ["message-start", "content-start", "content-delta", "tool-plan-delta", "tool-call-start", "tool-call-delta",
         "tool-call-end", "citation-start", "message-end"]  # fmt: skip


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(WORDS), junk, max_size=5)), max_size=4)
)
def test_no_event_breaks_more_than_its_stream(events: list[Any]) -> None:
    types = pytest.importorskip("openai.types.chat", reason="the openai SDK is not installed")
    decoder = Decoder()
    with contextlib.suppress(UpstreamProtocolError, StreamError):
        for chunk in decoder.feed(sse({**content, "type": kind} for kind, content in events)):
            types.ChatCompletionChunk.model_validate(chunk, strict=True)


@given(st.dictionaries(st.sampled_from(WORDS), junk, max_size=5))
def test_no_answer_breaks_more_than_its_exchange(body: dict[str, Any]) -> None:
    types = pytest.importorskip("openai.types.chat", reason="the openai SDK is not installed")
    with contextlib.suppress(UpstreamProtocolError, StreamError):
        reply_to_chat(body)
    with contextlib.suppress(UpstreamProtocolError, StreamError):
        made = reply_to_chat({"message": body, "finish_reason": "COMPLETE"})
        types.ChatCompletion.model_validate(made, strict=True)
