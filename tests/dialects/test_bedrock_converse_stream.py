"""Converse's answers → canonical ones: golden files, recordings, any chunking, and the types of the official SDK."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.bedrock_converse import request_from_chat
from gateway.dialects.bedrock_converse_stream import Decoder, error_status, error_to_chat, reply_to_chat, usage_of
from gateway.dialects.eventstream import MessageSplitter, encode, event
from gateway.dialects.openai_chat import read_usage
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage
from tests.support import golden
from tests.support.recordings import Recordings

WHOLE = golden.cases("bedrock", "reply")
STREAMS = golden.cases("bedrock", "stream")
RECORDED = (
    "bedrock-converse-stream", "bedrock-converse-stream-reasoning", "bedrock-converse-stream-tool-call",
    "bedrock-guardrail-stream",
)  # fmt: skip


def eventstream(events: Iterable[Any]) -> bytes:
    return b"".join(
        encode(
            {":event-type": name, ":content-type": "application/json", ":message-type": "event"},
            json.dumps(content).encode(),
        )
        for name, content in events
    )


def decoded(blocks: Iterable[bytes]) -> list[dict[str, Any]]:
    decoder = Decoder("m", "1")
    chunks = [chunk for block in blocks for chunk in decoder.feed(block)] + decoder.end()
    return [chunk | {"created": 0} for chunk in chunks]


def cut(raw: bytes, at: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(at), len(raw)]
    return [raw[start:end] for start, end in pairwise(places)]


def accumulated(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """The message of a stream, as a client would put it together, and what else it said."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "reasoning_details": [], "tool_calls": []}
    finish = usage = None
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            delta = choice["delta"]
            for name in ("content", "reasoning_content"):
                message[name] += delta.get(name) or ""
            message["reasoning_details"] += delta.get("reasoning_details", [])
            for call in delta.get("tool_calls", []):
                if "id" in call:
                    assert call["index"] == len(message["tool_calls"])
                    message["tool_calls"].append(json.loads(json.dumps(call)))
                else:
                    message["tool_calls"][call["index"]]["function"]["arguments"] += call["function"]["arguments"]
            finish = choice["finish_reason"] or finish
    return {"message": message, "finish_reason": finish, "usage": usage}


@pytest.mark.parametrize("case", WHOLE)
def test_golden_whole(case: str) -> None:
    types = pytest.importorskip("openai.types.chat", reason="the openai SDK is not installed")
    made = reply_to_chat(WHOLE[case]["input"], "m", "1") | {"created": 0}
    assert made == WHOLE[case]["expected"]
    types.ChatCompletion.model_validate(made, strict=True)
    if (used := usage_of(WHOLE[case]["input"])) is not None:
        assert read_usage(made) == used


@pytest.mark.parametrize("case", STREAMS)
def test_golden_stream(case: str) -> None:
    types = pytest.importorskip("openai.types.chat", reason="the openai SDK is not installed")
    made = decoded([eventstream(STREAMS[case]["input"])])
    assert made == STREAMS[case]["expected"]
    for chunk in made:
        types.ChatCompletionChunk.model_validate(chunk, strict=True)


@given(st.sampled_from(sorted(STREAMS)), st.data())
def test_any_split_of_the_bytes_gives_the_same_chunks(case: str, data: st.DataObject) -> None:
    raw = eventstream(STREAMS[case]["input"])
    places = data.draw(st.lists(st.integers(0, len(raw)), max_size=20))
    assert decoded(cut(raw, places)) == STREAMS[case]["expected"]


@pytest.mark.parametrize("name", RECORDED)
def test_recordings(test_data: Recordings, name: str) -> None:
    for interaction in test_data.interactions(name):
        raw = interaction.response
        chunks = decoded(cut(raw, range(0, len(raw), 100)))
        answer = accumulated(chunks)
        events = [event(message) for message in MessageSplitter().feed(raw)]
        deltas = [content["delta"] for kind, content in events if kind == "contentBlockDelta"]
        assert answer["message"]["content"] == "".join(delta.get("text", "") for delta in deltas)
        arguments = "".join(delta["toolUse"]["input"] for delta in deltas if "toolUse" in delta)
        calls = answer["message"]["tool_calls"]
        assert "".join(call["function"]["arguments"] for call in calls) == arguments
        assert all(json.loads(call["function"]["arguments"]) for call in calls)
        (told,) = [content["usage"] for kind, content in events if kind == "metadata"]
        assert answer["usage"]["total_tokens"] == told["totalTokens"]
        assert answer["finish_reason"] in ("stop", "length", "tool_calls", "content_filter")


def test_the_recorded_signature_goes_back_byte_for_byte(test_data: Recordings) -> None:
    (interaction,) = test_data.interactions("bedrock-converse-stream-reasoning")
    message = accumulated(decoded([interaction.response]))["message"]
    signatures = [
        content["delta"]["reasoningContent"]["signature"]
        for kind, content in map(event, MessageSplitter().feed(interaction.response))
        if kind == "contentBlockDelta" and "signature" in content["delta"].get("reasoningContent", {})
    ]
    chat = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", **message}]}
    block = request_from_chat(chat, "m")[0]["messages"][1]["content"][0]["reasoningContent"]["reasoningText"]
    assert [block["signature"]] == signatures
    assert block["text"] == message["reasoning_content"] != ""


def test_cached_tokens_are_part_of_the_input(test_data: Recordings) -> None:
    first, second = test_data.interactions("bedrock-cache-write-read")
    written, read = (usage_of(json.loads(each.response)) for each in (first, second))
    assert written == Usage(1324, 5, 0, 1322)
    assert read == Usage(1324, 5, 1322, 0)
    assert reply_to_chat(json.loads(second.response))["usage"]["total_tokens"] == 1329


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({}, None),
        (None, None),
        ({"inputTokens": 3}, Usage(3, None, provenance="partial")),
        ({"outputTokens": True}, None),
    ],
)
def test_counts_that_are_missing_are_not_zero(usage: Any, expected: Usage | None) -> None:
    assert usage_of({"usage": usage}) == expected


def test_what_is_kept_for_an_hour_and_how_it_was_served_are_told_whole_and_streamed() -> None:
    details = [{"ttl": "5m", "inputTokens": 4}, {"ttl": "1h", "inputTokens": 6}, {"ttl": "1h"}, 7]
    told = {
        "usage": {"inputTokens": 3, "outputTokens": 2, "cacheWriteInputTokens": 10, "cacheDetails": details},
        "serviceTier": {"type": "flex"},
    }
    expected = Usage(13, 2, None, 10, cache_write_1h_tokens=6, service_tier="flex")
    assert usage_of(told) == expected
    decoder = Decoder()
    decoder.feed(eventstream([("metadata", told)]))
    assert decoder.usage == expected


@pytest.mark.parametrize("case", STREAMS)
def test_a_stream_that_is_cut_is_never_complete(case: str) -> None:
    events = STREAMS[case]["input"]
    end = next(index for index, (name, _) in enumerate(events) if name == "messageStop")
    for last in range(end):
        decoder = Decoder()
        chunks = decoder.feed(eventstream(events[:last]) + eventstream(events[last : last + 1])[:-1])
        assert not decoder.done
        assert not any(choice["finish_reason"] for chunk in chunks for choice in chunk["choices"])
        with pytest.raises(UpstreamProtocolError, match="ended before"):
            decoder.end()


def test_the_last_event_is_the_usage() -> None:
    events = STREAMS["text"]["input"]
    decoder = Decoder()
    decoder.feed(eventstream(events[:-1]))
    assert not decoder.done, "whoever stops reading here loses the usage"
    decoder.feed(eventstream(events[-1:]))
    assert decoder.done


def test_a_stream_without_usage_is_complete() -> None:
    chunks = decoded([eventstream([["messageStop", {"stopReason": "end_turn"}]])])
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == ["stop"]


def test_an_exception_before_any_content_leaves_nothing_behind() -> None:
    raw = eventstream([["messageStart", {"role": "assistant"}]])
    decoder = Decoder()
    assert decoder.feed(raw) == []
    failure = encode({":message-type": "exception", ":exception-type": "throttlingException"}, b'{"message":"Slow"}')
    with pytest.raises(StreamError) as caught:
        decoder.feed(failure)
    assert (caught.value.status, caught.value.message) == (429, "Slow")


@pytest.mark.parametrize("reason", ["malformed_model_output", "malformed_tool_use"])
def test_output_that_could_not_be_read_is_no_answer(reason: str) -> None:
    with pytest.raises(StreamError, match="could not be read"):
        Decoder().feed(eventstream([["messageStop", {"stopReason": reason}]]))
    with pytest.raises(StreamError, match="could not be read"):
        reply_to_chat({"output": {"message": {"content": []}}, "stopReason": reason})


def test_a_reason_nobody_knows_is_a_stop_and_told() -> None:
    (chunk,) = decoded([eventstream([["messageStop", {"stopReason": "new_reason"}]])])
    assert chunk["choices"][0]["finish_reason"] == "stop"
    assert chunk["choices"][0]["native_finish_reason"] == "new_reason"


@pytest.mark.parametrize(
    "body",
    [{}, {"output": {}}, {"output": {"message": {"content": None}}}, {"output": {"message": {"content": ["x"]}}},
     {"output": {"message": {"content": [{"toolUse": {}}]}}, "stopReason": "tool_use"},
     {"output": {"message": {"content": [{"text": "x"}]}}}, {"output": {"message": {"content": [{"text": 1}]}}}],
)  # fmt: skip
def test_what_is_no_answer(body: Any) -> None:
    with pytest.raises(UpstreamProtocolError, match="not what Converse answers"):
        reply_to_chat(body)


@pytest.mark.parametrize(
    "told",
    [["contentBlockDelta", {}], ["contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": "x"}}}],
     ["contentBlockStart", {"start": "x"}], ["contentBlockDelta", {"contentBlockIndex": 0, "delta": "x"}],
     ["messageStop", {}], ["contentBlockStop", {}]],
)  # fmt: skip
def test_events_that_are_not_the_service_s(told: Any) -> None:
    with pytest.raises(UpstreamProtocolError):
        Decoder().feed(eventstream([told]))


def test_events_nobody_knows_are_passed_over() -> None:
    assert Decoder().feed(eventstream([["somethingNew", {"a": 1}]])) == []


def test_errors(test_data: Recordings) -> None:
    (recorded,) = test_data.interactions("bedrock-converse-400-invalid-model")
    kind = recorded.headers["x-amzn-errortype"]
    expected = ("validation", "The provided model identifier is invalid.")
    assert error_to_chat(recorded.status, recorded.response, kind) == expected
    assert error_status(424, "ModelErrorException") == 502
    assert error_status(408, "ModelTimeoutException:http://x") == 504
    assert error_status(418, "") == 418


WORDS = [
    "output", "message", "content", "text", "toolUse", "toolUseId", "name", "input", "reasoningContent", "delta",
    "reasoningText", "redactedContent", "signature", "contentBlockIndex", "start", "stopReason", "usage", "inputTokens",
    "citationsContent", "end_turn",
]  # fmt: skip
junk: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["", "x", *WORDS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=12,
)
KINDS = ["messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"]


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(WORDS), junk, max_size=5)), max_size=4)
)
def test_no_event_breaks_more_than_its_stream(events: list[Any]) -> None:
    types = pytest.importorskip("openai.types.chat", reason="the openai SDK is not installed")
    decoder = Decoder()
    with contextlib.suppress(UpstreamProtocolError, StreamError):
        for chunk in decoder.feed(eventstream(events)):
            types.ChatCompletionChunk.model_validate(chunk, strict=True)


@given(st.dictionaries(st.sampled_from(WORDS), junk, max_size=5))
def test_no_answer_breaks_more_than_its_exchange(body: dict[str, Any]) -> None:
    types = pytest.importorskip("openai.types.chat", reason="the openai SDK is not installed")
    with contextlib.suppress(UpstreamProtocolError, StreamError):
        reply_to_chat(body)
    with contextlib.suppress(UpstreamProtocolError, StreamError):
        made = reply_to_chat({"output": {"message": {"content": [body, body]}}, "stopReason": "end_turn"})
        types.ChatCompletion.model_validate(made, strict=True)
