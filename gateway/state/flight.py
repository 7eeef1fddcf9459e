"""Single flight: one call answers all who ask the same while it is under way.

Who asks first leads: the call is its own, with retries and fallbacks. Who asks the same meanwhile waits for the head of
a good answer and then follows. A stream is read by a task of its own into a buffer that everybody reads at their own
pace, the leader, too; so the leader's leaving ends nothing that others follow. Before the head there is nothing to go
on with: a leader who leaves then ends its call, and one of those who waited leads anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from operator import attrgetter
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import attrs

from gateway.errors import GatewayError, StreamInterrupted, UpstreamError
from gateway.exchange import Exchange, Reply, Usage

if TYPE_CHECKING:
    from gateway.state.cache import Entry

AHEAD = 1 << 16
"""Bytes that are read ahead of the reader who sets the pace, once there are more than are held."""
_PIECE = 1 << 16  # bytes given at once to a reader who is behind
Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
State = Literal["called", "whole", "streamed", "failed", "left"]


class WaitedEnough(GatewayError):
    """Nobody sees it: a follower calls for itself."""

    status = 503
    code = "overloaded"


class Flight:
    """A call under way, and those who wait for its answer. It stands in ``flights`` while it can be joined."""

    __slots__ = (
        "_flights", "_key", "_places", "began", "complete", "dropped", "entry", "followers", "headers", "led", "state",
        "stream",
    )  # fmt: skip

    def __init__(self, flights: dict[str, Flight], key: str, began: float) -> None:
        self._flights = flights
        self._key = key
        self._places: set[asyncio.Future[None]] = set()
        self.began = began
        """Of the cache's clock, seconds: an answer is as old as its call."""
        self.state: State = "called"
        self.led = True
        """The leader's exchange is not over."""
        self.entry: Entry | None = None
        """The answer, where it is whole."""
        self.stream: SharedStream | None = None
        self.followers: dict[Exchange, None] = {}
        """Those of a stream, in the order they came."""
        self.headers: dict[str, str] = {}
        self.dropped: tuple[str, ...] = ()
        self.complete: bool | None = None
        """Whether a stream that has ended was a complete success; ``None`` while nobody has looked."""
        flights[key] = self

    @property
    def awaited(self) -> bool:
        return bool(self._places)

    async def settled(self, exchange: Exchange, seconds: float) -> bool:
        """Wait for the head of the answer, or for there being none; ``False`` when ``seconds`` were not enough.

        Then follow at once, before anything else is awaited: somebody must want a stream for it to go on.
        """
        if self.state != "called":
            return True
        if seconds <= 0:
            return False
        place = asyncio.get_running_loop().create_future()
        self._places.add(place)
        exchange.guard.arm(seconds, _waited_enough)
        began = perf_counter()
        try:
            await place
        except asyncio.CancelledError:
            self._places.discard(place)
            if self.stream is not None:
                self.stream.end_unwanted()
            error = exchange.guard.caught()
            if error is None:
                raise
            if not isinstance(error, WaitedEnough):
                raise error from None
            return False
        finally:
            exchange.guard.disarm()
            exchange.upstream_seconds += perf_counter() - began
        self._places.discard(place)
        return True

    def settle(self, state: State) -> None:
        """Tell all who wait how it is. Only the first word counts."""
        if self.state != "called":
            return
        self.state = state
        for place in self._places:
            if not place.done():
                place.set_result(None)

    def land(self, entry: Entry | None) -> None:
        """Share a whole answer; ``None``: it is not one to be shared."""
        self.entry = entry
        self.settle("failed" if entry is None else "whole")

    def leave(self, entry: Entry | None, gone: bool) -> None:
        """The leader's exchange is over; ``entry`` is what it made for the cache, ``gone`` that its client left."""
        self.led = False
        if entry is None and gone:
            self.settle("left")
        else:
            self.land(entry)
        if self.stream is None or self.stream.ended:
            self.forget()

    def forget(self) -> None:
        """Nobody else can join."""
        if self._flights.get(self._key) is self:
            del self._flights[self._key]


class SharedStream:
    """A stream cut loose from the exchange it was called for, read by a task of its own while anybody wants it.

    Up to ``limit`` bytes all of it is held, nobody is waited for, and others can join. Beyond, the leader sets the pace
    (when it leaves, the reader who is furthest), no more than about ``limit`` bytes are held, and a reader who is
    further behind is cut: nobody's slowness holds up the others or fills the memory.
    """

    __slots__ = (
        "__weakref__", "_call", "_close", "_first", "_flight", "_guard", "_limit", "_pacer", "_readers", "_reported",
        "_room", "_source", "_task", "base", "ended", "error", "events", "held", "parts", "size",
    )  # fmt: skip

    def __init__(self, flight: Flight, exchange: Exchange, reply: Reply, limit: int) -> None:
        """Takes over ``reply`` and what the core holds for its call; the leader's client gets a reader's place."""
        self._flight = flight
        self._limit = limit
        self._source = reply.stream
        self._first, reply.first = reply.first, b""
        self._close = reply.close
        self._reported = reply.usage
        self._call, exchange.call = exchange.call, None
        # The call's time limits go on in this guard; the exchange's, for its own client, in another.
        self._guard = exchange.guard
        exchange.guard = self._guard.split()
        self._readers: set[Reader] = set()
        self._pacer: Reader | None = None
        self._room: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.events = reply.events
        self.parts: list[bytes] = []
        self.base = 0
        """Parts that are held no more."""
        self.held = 0
        """Bytes of ``parts``."""
        self.size = 0
        """Bytes that have come."""
        self.ended = False
        self.error: Exception | None = None
        """Why it broke."""
        self.join(reply)

    @property
    def end(self) -> int:
        return self.base + len(self.parts)

    @property
    def usage(self) -> Usage | None:
        reported = self.events.usage if self.events is not None else None
        if reported is None and self.ended and self.error is None:
            reported = self._reported
        return None if reported is None else attrs.evolve(reported)

    def start(self, spawn: Spawn) -> None:
        self._task = self._guard.task = spawn(self._run(), "single flight")
        self._task.add_done_callback(self._over)

    def join(self, reply: Reply) -> None:
        """Have ``reply`` tell the stream from its beginning."""
        reader = Reader(self)
        self._readers.add(reader)
        self._pacer = self._pacer or reader
        reply.stream, reply.close, reply.events = reader, reader.leave, reader

    def leave(self, reader: Reader) -> None:
        self._readers.discard(reader)
        if reader is self._pacer:
            self._pacer = max(self._readers, key=attrgetter("sent"), default=None)
            self.read_on(self._pacer)
        self.end_unwanted()

    def end_unwanted(self) -> None:
        """End the call when nobody reads its answer or is about to."""
        if self._readers or self._flight.awaited:
            return
        if self.ended:
            self._flight.stream = None  # a circle that would stay until the collector runs, with all it holds
        elif self._task is not None:
            self._flight.forget()
            self._task.cancel()

    async def _run(self) -> None:
        assert self._source is not None
        try:
            if self._first:
                self._push(self._first)
                self._first = b""
            async for block in self._source:
                self._push(block)
                if self.size > self._limit:
                    self._guard.disarm()
                    await self._paced()
        except asyncio.CancelledError:
            if (fired := self._guard.caught()) is None:
                raise
            self.error = fired
        except Exception as error:  # noqa: BLE001 - every reader raises it
            self.error = error.with_traceback(None)  # its frames hold this

    def _push(self, block: bytes) -> None:
        self.parts.append(block)
        self.held += len(block)
        self.size += len(block)
        for reader in self._readers:
            reader.wake()

    async def _paced(self) -> None:
        self._flight.forget()
        while self._pacer is not None and self.size - self._pacer.sent > AHEAD:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        self._trim()

    def read_on(self, reader: Reader | None) -> None:
        """Where it sets the pace, the call may go on with it."""
        if reader is self._pacer and self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _trim(self) -> None:
        spare = len(self.parts) if self._pacer is None else self._pacer.at - self.base
        gone = 0
        while self.held > self._limit and gone < spare:
            self.held -= len(self.parts[gone])
            gone += 1
        del self.parts[:gone]
        self.base += gone

    def _over(self, task: asyncio.Task[None]) -> None:
        """However it ended, also when the task was cancelled before it began."""
        if task.cancelled():
            self.error = StreamInterrupted("The call was ended.")
        self.ended = True
        if self._close is not None:
            self._close()
        if self._call is not None:
            # Clients leave at the terminal marker, and then all is well.
            told = self.events is not None and self.events.delivered
            self._call.end("ok" if told else "client_gone" if task.cancelled() else _outcome(self.error))
        self._guard.close()
        self._source = self._close = self._call = self._task = None
        for reader in self._readers:
            reader.wake()
        if not self._flight.led or self.error is not None:
            self._flight.forget()
        self.end_unwanted()


class Reader:
    """One client's place in a shared stream: its bytes in order, and what the core wants of ``Reply.events``."""

    __slots__ = ("_asking", "_place", "_stream", "at", "sent")

    def __init__(self, stream: SharedStream) -> None:
        self._stream = stream
        self._asking = False
        self._place: asyncio.Future[None] | None = None
        self.at = 0
        """Parts it has been given."""
        self.sent = 0
        """Bytes of them."""

    @property
    def usage(self) -> Usage | None:
        return self._stream.usage

    @property
    def counted(self) -> bool:
        """It is all of the answer that ``usage`` tells of (``gateway.events``)."""
        events = self._stream.events
        return events is not None and bool(events.counted)

    @property
    def delivered(self) -> bool:
        """All there is has been written to this client: it asked for more behind the terminal marker."""
        stream = self._stream
        return self._asking and self.at == stream.end and stream.events is not None and bool(stream.events.delivered)

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> bytes:
        stream = self._stream
        self._asking = True
        stream.read_on(self)
        while self.at == stream.end and not stream.ended:
            self._place = asyncio.get_running_loop().create_future()
            await self._place
        if self.at < stream.base:
            raise StreamInterrupted("The answer was read too slowly to be shared.")
        if self.at == stream.end:
            if stream.error is not None:
                raise stream.error.with_traceback(None)
            raise StopAsyncIteration
        self._asking = False
        first = last = self.at - stream.base
        size = 0
        while last < len(stream.parts) and (last == first or size + len(stream.parts[last]) <= _PIECE):
            size += len(stream.parts[last])
            last += 1
        self.at += last - first
        self.sent += size
        return stream.parts[first] if last == first + 1 else b"".join(stream.parts[first:last])

    def wake(self) -> None:
        if self._place is not None and not self._place.done():
            self._place.set_result(None)

    def leave(self) -> None:
        """The client's exchange is over."""
        self._stream.leave(self)


def _outcome(error: Exception | None) -> str:
    return "ok" if error is None else "upstream_failed" if isinstance(error, UpstreamError) else "failed"


def _waited_enough() -> GatewayError:
    return WaitedEnough("Another call for the same answer took too long.")
