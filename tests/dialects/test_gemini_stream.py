"""Gemini's streams → chunks, and as they pass through: recordings cut anywhere, both framings, errors, completeness."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk

from gateway.dialects import gemini_reply
from gateway.dialects.gemini_stream import Decoder, Reader
from gateway.dialects.openai_chat import ERROR, PASS
from gateway.dialects.sse import EventSplitter, parse_events
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage
from tests.support import gemini as support
from tests.support.recordings import Recordings

USED = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}


def piece(*parts: Any, reason: str | None = None, index: int | None = None, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}}
    if reason:
        candidate["finishReason"] = reason
    if index is not None:
        candidate["index"] = index
    return {"candidates": [candidate], "modelVersion": "m", "responseId": "r1", **more}


TEXT = [
    piece({"text": "Hm.", "thought": True}),
    piece({"text": "Grüße"}, usageMetadata={"promptTokenCount": 3, "totalTokenCount": 3}),
    piece({"text": "", "thoughtSignature": "c2ln"}, {"functionCall": {"name": "f", "args": {"a": 1}}}),
    piece({"text": ""}, reason="STOP", usageMetadata=USED),
]
ARRAY = json.dumps(TEXT, indent=1).encode()
SSE = support.sse(TEXT)


@pytest.mark.parametrize("body", [SSE, ARRAY, SSE.rstrip(), SSE.replace(b"\r\n", b"\n")])
def test_either_framing_gives_the_same_chunks(body: bytes) -> None:
    choice = support.joined(chunks := support.decoded([body]))[0]
    assert (choice["content"], choice["reasoning_content"], choice["finish"]) == ("Grüße", "Hm.", "tool_calls")
    assert choice["calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}
    assert [detail["data"] for detail in choice["details"]] == ["c2ln"]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] == 5
    assert {chunk["id"] for chunk in chunks} == {"r1"}


@given(st.sampled_from([SSE, ARRAY]), st.lists(st.integers(0, 10_000), max_size=8))
def test_any_cut_gives_the_same(body: bytes, places: list[int]) -> None:
    def timeless(blocks: list[bytes]) -> list[dict[str, Any]]:
        return [chunk | {"created": 0} for chunk in support.decoded(blocks)]

    assert timeless(support.cut(body, places)) == timeless([body])


def test_recorded_streams_decode_whole_and_byte_by_byte(test_data: Recordings) -> None:
    seen = 0
    for interaction in support.recorded(test_data, True):
        body = interaction.response
        decoder = Decoder()
        chunks = [chunk for byte in body for chunk in decoder.feed(bytes([byte]))] + decoder.end()
        for chunk in chunks:
            ChatCompletionChunk.model_validate(chunk)
        recorded = support.told(support.pieces(body))
        choice = support.joined(chunks)[0]
        assert (choice["content"], choice["reasoning_content"]) == (recorded["text"], recorded["thoughts"])
        calls = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in choice["calls"]]
        assert calls == recorded["calls"]
        assert decoder.done and decoder.usage == recorded["usage"]
        assert choice["finish"] == ("tool_calls" if calls else "stop")
        seen += 1
    assert seen >= 8


def through(reader: Reader, body: bytes, size: int) -> None:
    splitter = EventSplitter()
    for start in range(0, len(body), size):
        for _, name, data in parse_events(splitter.feed(body[start : start + size])):
            assert not data or reader.event(name, data) == PASS
    assert not splitter.rest.strip()


def test_recorded_streams_pass_through(test_data: Recordings) -> None:
    for interaction in support.recorded(test_data, True):
        recorded = support.pieces(interaction.response)
        body = support.sse(recorded) if not interaction.streamed else interaction.response
        for size in (1, 7, 1000, len(body)):
            reader = Reader()
            through(reader, body, size)
            assert reader.done and reader.finished and reader.started and reader.until_eof
            assert reader.usage == support.told(recorded)["usage"]


def test_streams_recorded_by_others_decode(test_data: Recordings) -> None:
    folder = test_data.folder.parent / "vercel-ai-fixtures"
    for path in sorted(folder.glob("google-*.chunks.txt")):
        recorded = [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
        choice = support.joined(support.decoded([support.sse(recorded)]))[0]
        told = support.told(recorded)
        assert choice["content"] == told["text"], path.name
        if path.name == "google-stream-tool-call-arguments.chunks.txt":
            places = [json.loads(call["function"]["arguments"])["location"] for call in choice["calls"]]
            assert places == ["Boston", "San Francisco"]
        else:
            assert len(choice["calls"]) == len(told["calls"]), path.name


def test_a_stream_without_its_reason_is_not_complete() -> None:
    for parts in (TEXT[:-1], []):
        reader, decoder = Reader(), Decoder()
        through(reader, body := support.sse(parts), 100)
        decoder.feed(body)
        assert not reader.done and not decoder.done
        with pytest.raises(UpstreamProtocolError, match="before it was complete"):
            decoder.end()


def test_an_array_without_its_end_is_not_complete() -> None:
    decoder = Decoder()
    decoder.feed(ARRAY.rstrip()[:-1])
    assert decoder.done
    with pytest.raises(UpstreamProtocolError, match="before it was complete"):
        decoder.end()


def test_every_candidate_has_to_end() -> None:
    parts = [piece({"text": "a"}, index=0), piece({"text": "b"}, index=1), piece(reason="STOP", index=1)]
    last = piece(reason="MAX_TOKENS", index=0)
    for body, complete in ((parts, False), ([*parts, last], True)):
        reader = Reader()
        through(reader, support.sse(body), 100)
        assert reader.done is complete
    choices = support.joined(support.decoded([support.sse([*parts, last])]))
    assert {index: choice["finish"] for index, choice in choices.items()} == {0: "length", 1: "stop"}


def test_a_blocked_prompt_is_an_answer() -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}
    reader = Reader()
    through(reader, body := support.sse([blocked]), 10)
    assert reader.done and reader.started and reader.usage == Usage(3, None, provenance="partial")
    choice = support.joined(support.decoded([body]))[0]
    assert (choice["content"], choice["finish"]) == ("The prompt was blocked: SAFETY.", "content_filter")


def test_an_answer_that_is_withheld_says_so() -> None:
    choice = support.joined(support.decoded([support.sse([{"candidates": [{"finishReason": "SAFETY"}]}])]))[0]
    assert (choice["content"], choice["finish"]) == ("The answer was withheld: SAFETY.", "content_filter")


@pytest.mark.parametrize("wrap", [b"data: %b\r\n\r\n", b"[%b]"])
def test_an_error_inside_the_stream(wrap: bytes) -> None:
    error = b'{"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}'
    with pytest.raises(StreamError) as caught:
        Decoder().feed(wrap % error)
    reader = Reader()
    assert reader.event(None, error) == ERROR and not reader.done
    assert (caught.value.status, caught.value.code, caught.value.message) == (503, "overloaded", "busy")
    assert reader.refusal(error) == (503, error)


@pytest.mark.parametrize("body", [b"data: x\n\n", b"data: []\n\n", b'data: {"candidates": 1}\n\n', b"[1]", b"[{]"])
def test_what_is_no_stream_is_an_error(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        Decoder().feed(body)


def test_an_opening_without_content_has_not_started() -> None:
    reader = Reader()
    assert reader.event(None, json.dumps({"usageMetadata": {"promptTokenCount": 1}}).encode()) == PASS
    assert not reader.started
    reader.event(None, json.dumps(TEXT[0]).encode())
    assert reader.started


def test_logprobs_come_with_the_piece_they_belong_to() -> None:
    part = piece({"text": "4"}, reason="STOP")
    part["candidates"][0]["logprobsResult"] = {"chosenCandidates": [{"token": "4", "logProbability": -0.5}]}
    found = [each["choices"][0]["logprobs"] for each in support.decoded([support.sse([part])]) if each["choices"]]
    assert [each["content"][0]["logprob"] for each in found if each] == [-0.5]


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
                        st.sampled_from(["candidates", "content", "parts", "text", "finishReason", "usageMetadata",
                                         "promptFeedback", "index", "logprobsResult", "error"]), inner, max_size=3),
                    max_leaves=8))  # fmt: skip
def test_any_piece_is_read_or_an_error_of_ours(body: Any) -> None:
    data = json.dumps(body).encode()
    try:
        Decoder().feed(b"data: " + data + b"\n\n")
        gemini_reply.reply_to_chat(body)
    except (UpstreamProtocolError, StreamError):
        pass
    try:
        Reader().event(None, data)
    except ValueError:
        pass
