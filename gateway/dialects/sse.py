"""Server-sent events (WHATWG HTML, section 9.2.6) and NDJSON as they arrive: in pieces cut anywhere.

The splitters give out whole events or lines and keep the beginning of the next. They change no byte: what they gave
out and ``rest`` together are what they were fed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

LIMIT = 16 * 1024 * 1024
"""Bytes of one event or line; images arrive as events of several megabytes."""

_USUAL_ENDS = (b"\n\n", b"\r\n\r\n")
# An empty line: LF, CRLF or CR right behind another line end; more empty lines belong to it. Behind LF, a CR counts
# once the next byte is known, lest CRLF be torn apart.
_EMPTY_LINES = re.compile(rb"(?:\n(?:\n|\r\n|\r(?=[^\n]))|\r\r)[\r\n]*+")
_LONGEST_CUT_END = 3  # CR LF CR, all of an empty line but its last byte
_BOM = b"\xef\xbb\xbf"


class EventSplitter:
    """Cuts a stream behind empty lines. Memory and time are linear in the size of one event."""

    __slots__ = ("_limit", "_parts", "_size", "_tail")

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._parts: list[bytes] = []  # an event not yet complete; joined once, when it is
        self._size = 0
        self._tail = b""  # the last bytes of _parts: an empty line may lie across two chunks

    def feed(self, chunk: bytes) -> bytes:
        """The complete events up to here, unchanged; ``b""`` while there is none.

        Raises ``ValueError`` when one event passes the limit.
        """
        # Servers send each event in a write of its own, so this line is what nearly every chunk costs.
        if not self._parts and chunk.endswith(_USUAL_ENDS):
            return chunk
        block = self._tail + chunk
        end = _end_of_last_empty_line(block)
        return self._give_out(chunk, len(block) - end) if end else self._keep(chunk, block)

    @property
    def rest(self) -> bytes:
        """What was fed and not given out: the beginning of an event."""
        return b"".join(self._parts)

    def _keep(self, chunk: bytes, block: bytes) -> bytes:
        if not self._parts and not chunk.strip(b"\r\n"):
            return chunk  # empty lines between events
        self._size += len(chunk)
        if self._size > self._limit:
            raise ValueError(f"an event is longer than {self._limit} bytes")
        self._parts.append(chunk)
        self._tail = block[-_LONGEST_CUT_END:]
        return b""

    def _give_out(self, chunk: bytes, behind: int) -> bytes:
        whole = b"".join([*self._parts, chunk])
        end = len(whole) - behind
        rest = whole[end:]
        self._parts = [rest] if rest else []
        self._size = behind
        self._tail = rest[-_LONGEST_CUT_END:]
        return whole[:end]


def _end_of_last_empty_line(block: bytes) -> int:
    if b"\r" not in block:
        return block.rfind(b"\n\n") + 2 if b"\n\n" in block else 0
    end = 0
    for match in _EMPTY_LINES.finditer(block):
        end = match.end()
    return end


def parse_events(block: bytes) -> Iterator[tuple[bytes, str | None, bytes]]:
    """Each event of ``block`` as its bytes with the empty line behind it, its name, its ``data`` lines joined with LF.

    ``block`` comes from ``EventSplitter``. The bytes of all events together are ``block``, so an event forwarded as it
    is stays what it was, ``id``, ``retry`` and comments included. Data is empty where there is no event: comments
    alone, empty lines. The name is ``None`` for the default, ``message``. A last event without its empty line, which
    the standard drops, is given as well: some servers close right behind ``[DONE]``, and only the data can tell a
    whole event from a torn one.
    """
    position = 0
    only_lf = b"\r" not in block
    while position < len(block):
        # The usual event is one line "data: …", maybe behind one "event: …", and an empty line: sought by memchr, not
        # line by line.
        name, start = None, position
        if only_lf and block.startswith(b"event: ", position):
            start = block.find(b"\n", position) + 1 or len(block)
            name = block[position + 7 : start - 1].decode(errors="replace") or None
        if only_lf and block.startswith(b"data: ", start):
            line_end = block.find(b"\n", start)
            if block.startswith(b"\n\n", line_end):
                yield block[position : line_end + 2], name, block[start + 6 : line_end]
                position = line_end + 2
                continue
        end = _end_of_event(block, position, only_lf)
        raw = block[position:end]
        yield raw, *_parse_event(raw)
        position = end


def _end_of_event(block: bytes, start: int, only_lf: bool) -> int:
    while block[start : start + 1] in (b"\n", b"\r"):
        start += 1  # empty lines before an event go with it
    if only_lf:
        end = block.find(b"\n\n", start)
        return end + 2 if end >= 0 else len(block)
    match = _EMPTY_LINES.search(block, start)
    return match.end() if match else len(block)


def _parse_event(raw: bytes) -> tuple[str | None, bytes]:
    name = None
    data = []
    for line in raw.removeprefix(_BOM).splitlines():  # bytes: at LF, CRLF and CR, as the standard wants
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ").decode(errors="replace") or None
    return (name, b"\n".join(data)) if data else (None, b"")


class LineSplitter:
    """Cuts a stream behind line feeds (NDJSON)."""

    __slots__ = ("_limit", "_parts", "_size")

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The complete lines up to here with their line feeds, blank ones included.

        Raises ``ValueError`` when one line passes the limit.
        """
        *lines, rest = chunk.split(b"\n")
        complete = [line + b"\n" for line in lines]
        if complete:
            complete[0] = b"".join([*self._parts, complete[0]])
            self._parts.clear()
            self._size = 0
        if rest:
            self._size += len(rest)
            if self._size > self._limit:
                raise ValueError(f"a line is longer than {self._limit} bytes")
            self._parts.append(rest)
        return complete

    @property
    def rest(self) -> bytes:
        """What was fed and not given out: the beginning of a line."""
        return b"".join(self._parts)


class LineBlocks:
    """``LineSplitter`` with the interface of ``EventSplitter``: whole lines as one block."""

    __slots__ = ("_splitter",)

    def __init__(self, limit: int = LIMIT) -> None:
        self._splitter = LineSplitter(limit)

    def feed(self, chunk: bytes) -> bytes:
        """The complete lines up to here, unchanged. Raises ``ValueError`` when one passes the limit."""
        return b"".join(self._splitter.feed(chunk))

    @property
    def rest(self) -> bytes:
        """What was fed and not given out: the beginning of a line."""
        return self._splitter.rest


def parse_lines(block: bytes) -> Iterator[tuple[bytes, str | None, bytes]]:
    """Each line of ``block`` as ``parse_events`` gives events: bytes, no name, JSON; a blank one has no data."""
    for raw in block.splitlines(keepends=True):
        yield raw, None, raw.strip()
