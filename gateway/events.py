"""An upstream's stream as whole events: what its dialect makes of each, and whether it was complete.

Only whole events are forwarded, so that an upstream's death never leaves half an event in front of our error event.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from gateway.dialects.openai_chat import DROP, ERROR, PASS
from gateway.dialects.sse import EventSplitter, LineBlocks, parse_events, parse_lines
from gateway.errors import GatewayError, StreamInterrupted, UpstreamError, UpstreamProtocolError
from gateway.exchange import Event, Usage


class StreamReader(Protocol):
    """What a dialect brings to read its own streams."""

    until_eof: bool
    done: bool
    finished: bool
    started: bool

    @property
    def usage(self) -> Usage | None: ...

    def event(self, name: str | None, data: bytes) -> int: ...

    def refusal(self, data: bytes) -> tuple[int, bytes]: ...


class InBandError(StreamInterrupted):
    """The upstream's own error event, already in the client's dialect: it is forwarded, then the stream ends.

    ``orderly``: it came as the dialect's own last event (``response.failed``), so the stream is failed but not cut.
    """

    __slots__ = ("data", "orderly")

    def __init__(self, data: bytes, orderly: bool = False) -> None:
        super().__init__("The provider reported an error inside its stream.")
        self.data = data
        self.orderly = orderly


class EventStream:
    """An upstream's bytes as whole events for the client; knows at the end whether the stream was complete."""

    __slots__ = (
        "_complete",
        "_parse",
        "_serialise",
        "_source",
        "_splitter",
        "delivered",
        "failed",
        "observer",
        "reader",
    )

    def __init__(
        self,
        source: AsyncIterator[bytes],
        reader: StreamReader,
        terminated: bool,
        on_event: Callable[[Event], None] | None = None,
        lines: bool = False,
    ) -> None:
        """``lines``: the stream is NDJSON, each line an event."""
        self._source = source
        self.reader = reader
        self._complete = terminated
        self.observer = on_event
        """Sees each event, and may change it."""
        self._splitter: EventSplitter | LineBlocks = LineBlocks() if lines else EventSplitter()
        self._parse = parse_lines if lines else parse_events
        self._serialise = _as_line if lines else _as_event
        self.failed: GatewayError | None = None
        self.delivered = False
        """The terminal marker, and so all there is, has been written to the client."""

    @property
    def started(self) -> bool:
        """The first event that says something has come."""
        return self.reader.started

    @property
    def usage(self) -> Usage | None:
        """What the provider reported up to now."""
        return self.reader.usage

    @property
    def counted(self) -> bool:
        """The answer has come to its end: what is reported is all of it."""
        return self.reader.done or self.reader.finished

    async def blocks(self) -> AsyncIterator[bytes]:
        """Whole events, as many as each upstream read completed.

        Raises ``UpstreamError`` when the upstream breaks, sends what is not its protocol, or ends without its
        terminal marker. After an in-band error event the stream ends with ``InBandError``.
        """
        reader = self.reader
        feed = self._splitter.feed
        try:
            async for chunk in self._source:
                try:
                    block = feed(chunk)
                except ValueError as error:
                    raise UpstreamProtocolError("The provider sent an event that is too large.") from error
                if block and (block := self._check(block)):
                    yield block
                    self.delivered = reader.done and not reader.until_eof
                if self.failed is not None:
                    raise self.failed
        except UpstreamError:
            # Behind the terminal marker nothing is missing, however the connection ended.
            if self.failed is not None or reader.until_eof or not reader.done:
                raise
        rest = self._splitter.rest
        if rest.strip() and not reader.done and (block := self._check(rest)):
            yield block
        if self.failed is not None:
            raise self.failed
        if not (reader.done or (reader.finished and not self._complete)):
            raise UpstreamProtocolError("The provider's stream ended before it was complete.")

    def _check(self, block: bytes) -> bytes:
        out: list[bytes] = []
        try:
            if block.startswith(b"data: ") and block.find(b"\n") == len(block) - 2 and self.observer is None:
                # The usual case, one plain event: nothing to take apart.
                if self.reader.event(None, block[6:-2]) == PASS:
                    return block
            if self._take_apart(block, out):
                return block
        except ValueError as error:
            self.failed = UpstreamProtocolError("The provider sent a malformed event.")
            self.failed.__cause__ = error
        return b"".join(out)

    def _take_apart(self, block: bytes, out: list[bytes]) -> bool:
        """Append to ``out`` what the client gets of ``block``; whether that is all of it, as it is."""
        same = True
        for raw, name, data in self._parse(block):
            verdict = self.reader.event(name, data) if data else PASS
            if verdict == DROP:
                same = False
                continue
            if self.observer is not None and data and verdict == PASS:
                event = Event(data, name)
                self.observer(event)
                if event.data is not data:
                    raw, same = self._serialise(event), False
            out.append(raw)
            if verdict == ERROR:
                self.failed = InBandError(data, orderly=self.reader.done and not self.reader.until_eof)
                return False
        return same


def _as_line(event: Event) -> bytes:
    return event.data + b"\n"


def _as_event(event: Event) -> bytes:
    head = f"event: {event.name}\n".encode() if event.name else b""
    return head + b"".join(b"data: " + line + b"\n" for line in event.data.split(b"\n")) + b"\n"
