"""The event and line splitters, against a plain reading of the WHATWG standard."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.dialects.sse import EventSplitter, LineSplitter, parse_events

LINE_ENDS = (b"\n", b"\r\n", b"\r")
FIELDS = (
    rb"|data|data:|data: |data:  two|: comment|:|id: 7|retry: 10|event: ping|event:|event|data: [DONE]|dat| data: x"
    b'|data: {"a":"\xc3\xa9\xe6\xbc\xa2\xf0\x9f\x98\x80"}'
).split(b"|")
lines = st.sampled_from(FIELDS) | st.binary(max_size=12).map(lambda noise: noise.translate(None, b"\r\n"))


def cut(stream: bytes, sizes: list[int]) -> list[bytes]:
    """The stream in chunks of these sizes, over and over."""
    chunks, position, turn = [], 0, 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        chunks.append(stream[position : position + size])
        position, turn = position + size, turn + 1
    return chunks


def split(chunks: list[bytes]) -> tuple[list[bytes], bytes]:
    splitter = EventSplitter()
    return [block for chunk in chunks if (block := splitter.feed(chunk))], splitter.rest


def events_of(blocks: list[bytes]) -> list[tuple[str | None, bytes]]:
    return [(name, data) for block in blocks for _, name, data in parse_events(block) if data]


def by_the_standard(stream: bytes) -> list[tuple[str | None, bytes]]:
    """Events with data, line by line as section 9.2.6 words it; an unfinished last event is not given."""
    events: list[tuple[str | None, bytes]] = []
    name, data = b"", b""
    *whole_lines, _ = re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf"))
    for line in whole_lines:
        if not line:
            if data[:-1]:
                events.append((name.decode(errors="replace") or None, data[:-1]))
            name, data = b"", b""
        elif not line.startswith(b":"):
            field, _, value = line.partition(b":")
            value = value[1:] if value.startswith(b" ") else value
            if field == b"event":
                name = value
            elif field == b"data":
                data += value + b"\n"
    return events


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Mostly one kind of line end, as servers do; sometimes all of them."""
    ends = draw(st.sampled_from([[end] for end in LINE_ENDS] + [list(LINE_ENDS)]))
    return b"".join(line + draw(st.sampled_from(ends)) for line in draw(st.lists(lines, max_size=14)))


@given(st.one_of(streams(), st.binary(max_size=60)), st.lists(st.integers(1, 9), min_size=1))
@example(b"data: x\r\n\r\n", [10, 1])
@example(b"data: \xf0\x9f\x98\x80\n\n", [1])
def test_r33_no_byte_is_lost_or_changed(stream: bytes, sizes: list[int]) -> None:
    blocks, rest = split(cut(stream, sizes))
    assert b"".join(blocks) + rest == stream
    for block in [*blocks, rest]:
        assert b"".join(raw for raw, _, _ in parse_events(block)) == block


@given(streams(), st.lists(st.integers(1, 9), min_size=1))
@example(b"data: x\r\rdata: y\r\r", [9, 1])
@example(b"data: x\n\r\ndata: y\n\rdata: z\r\n\n", [1])
def test_r33_events_do_not_depend_on_the_chunks(stream: bytes, sizes: list[int]) -> None:
    blocks, _ = split(cut(stream, sizes))
    expected = by_the_standard(stream)
    found = events_of(blocks)
    # The last event waits in `rest` while its closing LF CR could still become LF CRLF.
    assert found == expected or (stream.endswith(b"\n\r") and found == expected[:-1])


@given(streams())
def test_every_block_ends_behind_an_empty_line(stream: bytes) -> None:
    blocks, _ = split(cut(stream, [7]))
    assert all(re.search(rb"(\n|\r)\Z", block) for block in blocks)


@pytest.mark.parametrize("size", [600_000, 3_000_000, 15_000_000])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_r33_large_events_pass(size: int, end: bytes) -> None:
    stream = b"event: image\ndata: " + b"x" * size + end
    blocks, rest = split(cut(stream, [1460, 65_536, 3]))
    assert blocks == [stream] and not rest
    assert events_of(blocks) == [("image", b"x" * size)]


def test_an_event_beyond_the_limit_is_refused() -> None:
    splitter = EventSplitter(limit=100)
    assert splitter.feed(b"data: " + b"x" * 94) == b""
    with pytest.raises(ValueError, match="100 bytes"):
        splitter.feed(b"x")


def test_the_limit_is_for_one_event_not_for_the_stream() -> None:
    splitter = EventSplitter(limit=100)
    event = b"data: " + b"x" * 70 + b"\n\n"
    for _ in range(50):
        assert splitter.feed(event[:40]) == b""
        assert splitter.feed(event[40:]) == event


def test_a_whole_event_in_its_own_chunk_is_not_copied() -> None:
    chunk = b"data: x\n\n"
    assert EventSplitter().feed(chunk) is chunk


def test_the_end_of_one_event_and_the_beginning_of_the_next() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: 1\n\ndata: 2") == b"data: 1\n\n"
    assert splitter.rest == b"data: 2"
    assert splitter.feed(b"\n\n") == b"data: 2\n\n"
    assert splitter.rest == b""


@pytest.mark.parametrize(
    ("raw", "name", "data"),
    [
        (b"data: x\n\n", None, b"x"),
        (b"data:x\n\n", None, b"x"),
        (b"data:  x \n\n", None, b" x "),
        (b"data: a\ndata: b\n\n", None, b"a\nb"),
        (b"data: a\r\ndata: b\r\n\r\n", None, b"a\nb"),
        (b"data\ndata\n\n", None, b"\n"),
        (b"event: ping\ndata: {}\n\n", "ping", b"{}"),
        (b"data: {}\nevent: ping\n\n", "ping", b"{}"),
        (b"event: a\nevent: b\ndata: {}\n\n", "b", b"{}"),
        (b"event:\ndata: {}\n\n", None, b"{}"),
        (b"event: \xff\ndata: {}\n\n", "\ufffd", b"{}"),
        (b": keep-alive\n\n", None, b""),
        (b"id: 1\nretry: 5\n\n", None, b""),
        (b"event: ping\n\n", None, b""),
        (b"Data: x\n\n", None, b""),
        (b"\n\n\ndata: x\n\n", None, b"x"),
        (b"\n", None, b""),
        (b"data: x\rdata: y\r\r", None, b"x\ny"),
        (b"\xef\xbb\xbfdata: x\n\n", None, b"x"),
        (b"data: [DONE]", None, b"[DONE]"),
        (b"data: [DONE]\n", None, b"[DONE]"),
    ],
)
def test_one_event(raw: bytes, name: str | None, data: bytes) -> None:
    assert list(parse_events(raw)) == [(raw, name, data)]


def test_events_of_a_block_keep_their_own_bytes() -> None:
    block = b": hello\n\nid: 1\ndata: a\n\nevent: b\r\ndata: c\r\n\r\n"
    raws = [b": hello\n\n", b"id: 1\ndata: a\n\n", b"event: b\r\ndata: c\r\n\r\n"]
    assert list(parse_events(block)) == list(zip(raws, [None, None, "b"], [b"", b"a", b"c"], strict=True))


@given(st.binary(max_size=60).map(lambda noise: noise.replace(b"0", b"\n")), st.lists(st.integers(1, 9), min_size=1))
def test_lines_do_not_depend_on_the_chunks(stream: bytes, sizes: list[int]) -> None:
    splitter = LineSplitter()
    found = [line for chunk in cut(stream, sizes) for line in splitter.feed(chunk)]
    assert b"".join(found) + splitter.rest == stream
    assert found == re.findall(rb"[^\n]*\n", stream)


def test_a_line_beyond_the_limit_is_refused() -> None:
    splitter = LineSplitter(limit=10)
    assert splitter.feed(b"12345\n12345") == [b"12345\n"]
    with pytest.raises(ValueError, match="10 bytes"):
        splitter.feed(b"678901")


def test_the_beginning_of_a_named_event_behind_a_whole_one() -> None:
    for rest in (b"event: y", b"event: y\n", b"event: y\nid: 1"):
        assert list(parse_events(b"data: x\n\n" + rest)) == [(b"data: x\n\n", None, b"x"), (rest, None, b"")]
    assert list(parse_events(b"event: y\ndata: x")) == [(b"event: y\ndata: x", "y", b"x")]
