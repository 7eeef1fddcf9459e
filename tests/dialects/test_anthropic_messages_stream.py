"""Anthropic's streams read: recordings at any split, what they become, and what ends them."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.anthropic_messages_stream import Decoder, Reader
from gateway.dialects.anthropic_usage import usage_of
from gateway.dialects.openai_chat import ERROR, PASS
from gateway.dialects.sse import EventSplitter, parse_events
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage
from tests.support import golden
from tests.support.anthropic import decoded, encoded, message_of, sse
from tests.support.recordings import Recordings

START = {
    "type": "message_start",
    "message": {"id": "msg_1", "model": "claude-x", "usage": {"input_tokens": 5, "output_tokens": 1}},
}
STOP: list[dict[str, Any]] = [
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
]  # fmt: skip


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


TEXT = block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Él 漢 😀"})
THINKING = block(
    0, {"type": "thinking", "thinking": "", "signature": ""}, {"type": "thinking_delta", "thinking": "Hm."},
    {"type": "signature_delta", "signature": "c2ln"},
)  # fmt: skip
CALL = block(
    1, {"type": "tool_use", "id": "t1", "name": "f", "input": {}}, {"type": "input_json_delta", "partial_json": '{"a"'},
    {"type": "input_json_delta", "partial_json": ":1}"},
)  # fmt: skip
WHOLE = sse([START, {"type": "ping"}, *THINKING, *CALL, *STOP])


def recorded(test_data: Recordings) -> dict[str, bytes]:
    """Every recorded stream and every fixture of one, as bytes."""
    streams = {
        f"{name}-{index}": each.response
        for name in test_data.names("anthropic")
        for index, each in enumerate(test_data.interactions(name))
        if each.streamed
    }
    fixtures: Path = test_data.folder.parent / "vercel-ai-fixtures"
    for path in [*fixtures.glob("anthropic-*.chunks.txt"), fixtures / "duplicate-message-start.chunks.txt"]:
        streams[path.name] = sse([json.loads(line) for line in path.read_text().splitlines() if line])
    assert len(streams) > 10
    return streams


def deltas(*events: dict[str, Any]) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in decoded([sse([START, *events, *STOP])]) if chunk["choices"]][1:-1]


def read(stream: bytes) -> Reader:
    reader = Reader()
    for _, name, data in parse_events(stream):
        assert reader.event(name, data) == PASS
    return reader


@pytest.mark.parametrize("case", golden.cases("anthropic_messages", "stream_to_chat"))
def test_golden(case: str) -> None:
    document = golden.cases("anthropic_messages", "stream_to_chat")[case]
    assert decoded([sse(document["input"])]) == document["expected"]


def test_recordings_pass_the_reader_to_the_end(test_data: Recordings) -> None:
    for name, stream in recorded(test_data).items():
        reader = read(stream)
        assert reader.done, name
        assert reader.finished
        assert reader.started
        assert reader.usage is not None
        assert reader.usage.provenance == "reported"
        last = [json.loads(data) for _, _, data in parse_events(stream) if b'"message_delta"' in data][-1]
        assert reader.usage.output_tokens == usage_of(last).output_tokens  # type: ignore[union-attr]


def test_what_prices_need_is_told_by_a_stream_as_by_a_message(test_data: Recordings) -> None:
    (answer,) = test_data.interactions("anthropic-stream-server-web-search")
    decoder = Decoder()
    decoder.feed(answer.response)
    for used in (read(answer.response).usage, decoder.usage):
        assert used == Usage(10423, 341, 0, 0, cache_write_1h_tokens=0, web_searches=1, service_tier="standard")


@pytest.mark.parametrize("size", [1, 7, 100])
def test_recordings_in_small_pieces_are_the_same(test_data: Recordings, size: int) -> None:
    for name, stream in recorded(test_data).items():
        if size == 1 and len(stream) > 8000:
            continue
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert decoded(pieces) == decoded([stream]), name
        splitter, reader = EventSplitter(), Reader()
        for piece in pieces:
            for _, event, data in parse_events(splitter.feed(piece)):
                assert not data or reader.event(event, data) == PASS
        assert (reader.done, reader.usage) == (True, read(stream).usage), name


def test_recordings_become_chunks_and_the_same_message_again(test_data: Recordings) -> None:
    pytest.importorskip("openai", reason="the openai SDK is not installed")
    from openai.types.chat import ChatCompletionChunk

    for name, stream in recorded(test_data).items():
        chunks = decoded([stream])
        for chunk in chunks:
            ChatCompletionChunk.model_validate(chunk | {"created": 1}, strict=True)
        again = encoded(chunks)
        assert decoded([again]) == chunks, name
        before, after = read(stream).usage, read(again).usage
        assert before is not None
        assert after is not None
        assert (after.input_tokens, after.output_tokens) == (before.input_tokens, before.output_tokens)
        assert after.cached_tokens == (before.cached_tokens or 0)


def test_the_official_sdk_s_types_accept_what_becomes_of_recordings(test_data: Recordings) -> None:
    types = pytest.importorskip("anthropic.types", reason="the anthropic SDK is not installed")
    for stream in recorded(test_data).values():
        types.Message.model_validate(message_of(encoded(decoded([stream]))))


@given(st.data())
def test_any_split_of_the_bytes_gives_the_same(data: st.DataObject) -> None:
    stream = data.draw(st.sampled_from([WHOLE, WHOLE.replace(b"\n", b"\r\n"), sse([START, *TEXT, *STOP])]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    blocks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decoded(blocks) == decoded([stream])
    splitter, reader = EventSplitter(), Reader()
    for piece in blocks:
        for _, name, event in parse_events(splitter.feed(piece)):
            if event:
                assert reader.event(name, event) == PASS
    assert reader.done
    assert reader.usage == Usage(5, 9)


def test_thinking_keeps_its_place_and_signature() -> None:
    form = {"format": "anthropic-claude-v1", "index": 0}
    redacted = block(2, {"type": "redacted_thinking", "data": "b3BhcXVl"})
    assert deltas(*THINKING, *TEXT, *redacted) == [
        {"reasoning_content": "Hm.", "reasoning_details": [{"type": "reasoning.text", "text": "Hm.", **form}]},
        {"reasoning_details": [{"type": "reasoning.text", "signature": "c2ln", **form}]},
        {"content": "Él 漢 😀"},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "b3BhcXVl", **form, "index": 2}]},
    ]


def test_calls_are_counted_apart_from_blocks_and_need_no_arguments() -> None:
    none = block(
        3, {"type": "tool_use", "id": "t2", "name": "g", "input": {}}, {"type": "input_json_delta", "partial_json": ""}
    )
    told = [call for delta in deltas(*TEXT, *CALL, *none) for call in delta.get("tool_calls", [])]
    assert [(call["index"], call["function"]["arguments"]) for call in told] == [
        (0, ""), (0, '{"a"'), (0, ":1}"), (1, ""), (1, "{}"),
    ]  # fmt: skip


def test_what_servers_do_by_themselves_is_not_the_client_s_call() -> None:
    search = block(
        0, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "input_json_delta", "partial_json": '{"query":"x"}'},
    )  # fmt: skip
    assert deltas(*search, *block(1, {"type": "web_search_tool_result", "content": []})) == []


def test_blocks_that_start_with_their_content() -> None:
    started: list[dict[str, Any]] = [{"type": "text", "text": "Hi"}, {"type": "thinking", "thinking": "Hm."},
               {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]  # fmt: skip
    given_deltas = deltas(*(event for index, start in enumerate(started) for event in block(index, start)))
    assert given_deltas[0] == {"content": "Hi"}
    assert given_deltas[1]["reasoning_content"] == "Hm."
    assert given_deltas[3]["tool_calls"][0]["function"]["arguments"] == '{"a":1}'


def test_finish_comes_before_usage_and_later_counts_replace_earlier_ones() -> None:
    end = {
        "type": "message_delta",
        "delta": {"stop_reason": "max_tokens"},
        "usage": {"input_tokens": 7, "output_tokens": 9},
    }
    decoder = Decoder()
    *_, last, usage = decoder.feed(sse([START, *TEXT, end, STOP[1]]))
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["choices"][0]["native_finish_reason"] == "max_tokens"
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 16)
    assert (decoder.done, decoder.usage) == (True, Usage(7, 9))
    assert decoder.feed(b"garbage\n\n") == [], "what follows the end is ignored"


def test_before_the_end_usage_is_partial() -> None:
    decoder, reader = Decoder(), Reader()
    assert len(decoder.feed(sse([START]))) == 1
    assert reader.event("message_start", json.dumps(START).encode()) == PASS
    assert decoder.usage == reader.usage == Usage(5, 1, provenance="partial")
    assert not reader.started


@pytest.mark.parametrize(
    ("event", "started"),
    [
        ({"type": "ping"}, False),
        ({"type": "content_block_start", "content_block": {"type": "text", "text": ""}}, False),
        ({"type": "content_block_start", "content_block": {"type": "tool_use"}}, True),
        ({"type": "content_block_delta", "delta": {}}, True), ({"type": "message_delta", "delta": {}}, True),
    ],
)  # fmt: skip
def test_an_answer_has_started_with_its_first_content(event: dict[str, Any], started: bool) -> None:
    reader = Reader()
    reader.event(None, json.dumps(event).encode())
    assert reader.started == started


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [("overloaded_error", 529, "overloaded"), ("rate_limit_error", 429, "rate_limit_exceeded"),
     ("api_error", 500, "api_error"), ("new_error", 502, "new_error")],
)  # fmt: skip
def test_an_error_inside_the_stream_has_the_status_it_would_have_had(kind: str, status: int, code: str) -> None:
    event = {"type": "error", "error": {"type": kind, "message": "Busy."}}
    with pytest.raises(StreamError, match="Busy") as raised:
        Decoder().feed(sse([START, event]))
    assert (raised.value.status, raised.value.code) == (status, code)
    reader, data = Reader(), json.dumps(event).encode()
    assert reader.event("error", data) == ERROR
    assert reader.refusal(data) == (status, data)
    assert not reader.done


def test_an_error_event_without_a_type_is_one_by_its_name() -> None:
    assert Reader().event("error", b"{}") == ERROR
    assert Reader().refusal(b"{}")[0] == 502


def test_a_stream_without_its_end_is_cut_and_a_last_line_may_lack_its_empty_one() -> None:
    for length in range(0, len(WHOLE) - 3, 7):
        decoder = Decoder()
        decoder.feed(WHOLE[:length])
        with pytest.raises(UpstreamProtocolError):
            decoder.end()
    decoder = Decoder()
    decoder.feed(WHOLE[:-2])
    assert decoder.end()[-1]["usage"]


@pytest.mark.parametrize(
    "event",
    [b"data: {\n\n", b"data: []\n\n", b'data: {"type":"message_start"}\n\n',
     b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"x"}}\n\n',
     b'data: {"type":"content_block_start","content_block":1}\n\n'],
)  # fmt: skip
def test_malformed_events_are_refused(event: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        Decoder().feed(event)


def test_events_of_a_kind_to_come_are_ignored() -> None:
    assert Decoder().feed(b'event: x\ndata: {"type":["x"]}\n\ndata: {"type":"news"}\n\n') == []
    for data in (b"x", b"[]"):
        with pytest.raises(ValueError):
            Reader().event(None, data)


def test_memory_does_not_grow_with_the_stream() -> None:
    decoder = Decoder()
    decoder.feed(sse([START, TEXT[0]]))
    piece = sse([TEXT[1]])
    decoder.feed(piece)
    tracemalloc.start()
    try:
        for _ in range(10_000):
            decoder.feed(piece)
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()
