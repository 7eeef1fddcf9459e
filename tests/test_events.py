"""Streams of events: whole ones only, unchanged, and no end that is not the upstream's own taken for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.openai_chat import ChatStream, PlainStream
from gateway.dialects.openai_responses import ResponsesStream
from gateway.dialects.sse import LIMIT
from gateway.errors import UpstreamProtocolError, UpstreamTimeout, UpstreamUnreachable
from gateway.events import EventStream, InBandError
from gateway.exchange import Event
from gateway.testing import chat_events, event

DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"overloaded"}}\n\n'


async def source(*chunks: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if error is not None:
        raise error


async def collect(stream: EventStream) -> tuple[list[bytes], Exception | None]:
    """What the client would get, and what broke."""
    blocks: list[bytes] = []
    try:
        async for block in stream.blocks():
            blocks.append(block)
    except Exception as error:  # noqa: BLE001 - the error is what is tested
        return blocks, error
    return blocks, None


def chat(*chunks: bytes, error: Exception | None = None, terminated: bool = True, **options: Any) -> EventStream:
    return EventStream(source(*chunks, error=error), ChatStream(**options), terminated)


_TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)
_CHUNK = st.builds(lambda text: orjson.dumps({"choices": [{"delta": {"content": text}}]}), _TEXT)
_PRETTY = st.builds(
    lambda text: b'{\ndata: "choices":\ndata: [{"delta":' + orjson.dumps({"content": text}) + b"}]\ndata: }", _TEXT
)
_COMMENT = st.builds(lambda text: b":" + text.encode(), _TEXT)
_FIELDS = st.sampled_from([b"id: 7", b"retry: 10", b"unknown: x", b"event: message"])


@st.composite
def sse(draw: st.DrawFn) -> bytes:
    """A chat stream as peculiar as the standard allows."""
    ending = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    lines: list[bytes] = []
    for _ in range(draw(st.integers(1, 6))):
        lines += draw(st.lists(st.one_of(_COMMENT, _FIELDS), max_size=2))
        lines += draw(st.one_of(_CHUNK, _PRETTY).map(lambda data: [b"data: " + data])) if draw(st.booleans()) else []
        lines += [b""] * draw(st.integers(1, 2))
    lines += [b"data: [DONE]", b""]
    return b"".join(line.replace(b"\n", ending) + ending for line in lines)


@settings(max_examples=150, deadline=None)
@given(sse(), st.lists(st.integers(0, 400), max_size=12), st.booleans())
def test_r33_any_chunking_gives_the_same_bytes(stream: bytes, cuts: list[int], observed: bool) -> None:
    edges = [0, *sorted(cuts), len(stream)]
    chunks = [stream[a:b] for a, b in pairwise(edges) if a < b]
    seen: list[Event] = []
    made = EventStream(source(*chunks), ChatStream(), True, seen.append if observed else None)
    blocks, error = asyncio.run(collect(made))
    assert error is None
    assert b"".join(blocks) == stream
    assert not observed or seen[-1].data == b"[DONE]"


@settings(max_examples=30, deadline=None)
@given(sse())
def test_r33_byte_by_byte(stream: bytes) -> None:
    blocks, error = asyncio.run(collect(chat(*(stream[at : at + 1] for at in range(len(stream))))))
    assert (b"".join(blocks), error) == (stream, None)


async def test_r33_an_event_up_to_the_limit_passes_and_beyond_it_breaks() -> None:
    big = event({"choices": [], "image": "x" * (LIMIT - 100)})
    pieces = [big[at : at + 65536] for at in range(0, len(big), 65536)]
    blocks, error = await collect(chat(*pieces, DONE))
    assert error is None and b"".join(blocks) == big + DONE
    blocks, error = await collect(chat(b"data: ", *[b"x" * 65536] * (LIMIT // 65536 + 1)))
    assert isinstance(error, UpstreamProtocolError) and not blocks


@pytest.mark.parametrize("count", range(6))
async def test_r28_a_break_is_told_and_nothing_whole_is_lost(count: int) -> None:
    events = chat_events(3)
    lost = UpstreamUnreachable("gone")
    blocks, error = await collect(chat(*events[:count], events[count][:9], error=lost))
    assert error is lost
    assert blocks == events[:count]


@pytest.mark.parametrize("count", range(6))
async def test_r29_an_end_without_the_marker_is_an_error(count: int) -> None:
    blocks, error = await collect(chat(*chat_events(3)[:count]))
    assert isinstance(error, UpstreamProtocolError)
    assert blocks == chat_events(3)[:count]


async def test_r29_a_finish_reason_will_do_where_the_marker_is_known_to_be_omitted() -> None:
    events = chat_events(2, done=False)
    assert await collect(chat(*events, terminated=False)) == (events, None)
    _, error = await collect(chat(*events[:-1], terminated=False))
    assert isinstance(error, UpstreamProtocolError)
    _, error = await collect(chat(*events, error=UpstreamUnreachable("reset"), terminated=False))
    assert isinstance(error, UpstreamUnreachable)


async def test_a_marker_without_its_empty_line_ends_the_stream() -> None:
    assert await collect(chat(*chat_events(1, done=False), b"data: [DONE]")) == (
        [*chat_events(1, done=False), b"data: [DONE]"],
        None,
    )


@pytest.mark.parametrize("lost", [UpstreamUnreachable("reset"), UpstreamTimeout("stalled")])
async def test_what_happens_behind_the_marker_is_no_failure(lost: Exception) -> None:
    events = chat_events(1)
    assert await collect(chat(*events, error=lost)) == (events, None)


async def test_a_stream_without_marker_is_cut_when_its_connection_is() -> None:
    lost = UpstreamUnreachable("reset")
    stream = EventStream(source(b"data: a\n\n", error=lost), PlainStream(), True)
    assert await collect(stream) == ([b"data: a\n\n"], lost)


@pytest.mark.parametrize("joined", [True, False])
async def test_r30_an_error_inside_the_stream_is_forwarded_and_ends_it(joined: bool) -> None:
    events = [*chat_events(2, done=False)[:2], ERROR]
    chunks = [b"".join([*events, DONE])] if joined else [*events, DONE]
    blocks, error = await collect(chat(*chunks))
    assert isinstance(error, InBandError) and not error.orderly
    assert b"".join(blocks) == b"".join(events)


async def test_r30_a_failed_response_is_forwarded_whole_and_counts_as_failed() -> None:
    failed = b'event: response.failed\ndata: {"type":"response.failed","response":{"error":{}}}\n\n'
    blocks, error = await collect(EventStream(source(failed), ResponsesStream(), True))
    assert blocks == [failed]
    assert isinstance(error, InBandError) and error.orderly


@pytest.mark.parametrize("bad", [b"data: {\n\n", b"data: 5\n\n", b"data: \xff\n\n", b"data: {\ndata: ]\n\n"])
@pytest.mark.parametrize("joined", [True, False])
async def test_a_malformed_event_ends_the_stream_behind_the_good_ones(bad: bytes, joined: bool) -> None:
    good = chat_events(2)[:2]
    chunks = [b"".join([*good, bad, DONE])] if joined else [*good, bad, DONE]
    blocks, error = await collect(chat(*chunks))
    assert isinstance(error, UpstreamProtocolError)
    assert b"".join(blocks) == b"".join(good)


async def test_usage_nobody_asked_for_is_read_and_taken_out() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    events = chat_events(2, usage=usage)
    for chunks in (events, [b"".join(events)]):
        stream = chat(*chunks, strip_usage=True)
        blocks, error = await collect(stream)
        assert error is None and b"".join(blocks) == b"".join(events[:-2] + events[-1:])
        assert stream.usage is not None and stream.usage.total_tokens == 7


async def test_an_observer_sees_each_event_and_may_change_it() -> None:
    seen: list[bytes] = []

    def upper(item: Event) -> None:
        seen.append(item.data)
        if b"w1" in item.data:
            item.data = item.data.replace(b"w1", b"W1") + b"\n"

    events = chat_events(2)
    stream = EventStream(source(b"".join(events), b": bye\n\n"), ChatStream(), True, upper)
    blocks, error = await collect(stream)
    assert error is None
    changed = events[2].replace(b"w1", b"W1")[:-1] + b"data: \n\n"
    assert b"".join(blocks) == b"".join([*events[:2], changed, *events[3:], b": bye\n\n"])
    assert seen == [each[6:-2] for each in events]


async def test_a_report_is_whole_once_the_answer_has_ended() -> None:
    running = {"choices": [{"delta": {"content": "w"}}], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}
    ending = {
        "choices": [{"delta": {}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
    stream = chat(event(running), event(ending), DONE)
    told = []
    async for _ in stream.blocks():
        assert stream.usage is not None
        told.append((stream.usage.output_tokens, stream.counted))
    assert told == [(1, False), (2, True), (2, True)]
