"""One connection to Redis. Calls made in one turn of the event loop go out in one write; answers come in order.

Commands are packed and answers read by hiredis (``pip install 'hookgate[redis]'``), which is imported with the first
connection. Its bytes go straight into and out of the transport: redis-py's pipelines cost three to six times as much.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    Future = asyncio.Future[Any]

Command = tuple[str | bytes | int | float, ...]
MOST_WAITING = 10_000
"""Calls that may wait for their answers."""
_GRACE = 0.001
# Replies that say: nobody can work with this server now. All others are about the command.
_TROUBLE = frozenset(
    ("OOM", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "MISCONF", "NOREPLICAS", "TRYAGAIN", "NOAUTH")
)


class RedisUnavailable(Exception):
    """Redis gave no answer in time, is not connected, or can do nothing now. For plugins: clients never see it."""


class CommandError(Exception):
    """Redis refused a command: a mistake in the command or the script, or one that the user may not give."""

    def __init__(self, said: str) -> None:
        super().__init__(said.partition(", with args")[0])  # what follows repeats what was sent

    @property
    def code(self) -> str:
        """The first word of what Redis said: ``ERR``, ``WRONGTYPE``, ``NOPERM``, …"""
        return str(self).partition(" ")[0]


class Owner(Protocol):
    """Who is told how a pipe is doing."""

    def answered(self, seconds: float) -> None:
        """A call got its answer after so long."""

    def failed(self, pipe: Pipe, why: str, error: Exception) -> None:
        """A call was answered too late, or not with what was asked; ``why`` is ``timeout`` or ``refused``."""

    def lost(self, pipe: Pipe, error: Exception, calls: int) -> None:
        """The connection is gone, and with it the answers of so many calls."""


class _Call:
    __slots__ = ("again", "future", "sent")

    def __init__(self, future: Future, again: Command | None) -> None:
        self.future = future
        self.again = again
        self.sent = 0.0


class Pipe(asyncio.Protocol):
    def __init__(self, owner: Owner, timeout: float) -> None:
        import hiredis

        self.closed = False
        self._owner = owner
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._pack = hiredis.pack_command
        self._nothing = object()
        self._reader = hiredis.Reader(replyError=CommandError, notEnoughData=self._nothing)
        self._garbled = hiredis.ProtocolError
        self._transport: asyncio.WriteTransport | None = None
        self._packed: list[bytes] = []
        self._unsent: list[_Call] = []
        self._waiting: deque[_Call] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def full(self) -> bool:
        return len(self._waiting) + len(self._unsent) >= MOST_WAITING

    def send(self, command: Command, again: Command | None = None, future: Future | None = None) -> Future:
        """The answer to come. ``again`` is sent instead where Redis does not know the script of ``command``.

        Raises ``TypeError`` for a command that cannot be packed.
        """
        packed = self._pack(command)  # type: ignore[arg-type]  # its types want a tuple of one
        if not self._unsent:
            self._loop.call_soon(self._flush)
        call = _Call(future or self._loop.create_future(), again)
        self._packed.append(packed)
        self._unsent.append(call)
        return call.future

    def _flush(self) -> None:
        if self.closed or self._transport is None:
            return
        now = monotonic()  # not of send(): our own turn's time is not Redis's. uvloop's clock has milliseconds only
        for call in self._unsent:
            call.sent = now
        self._waiting += self._unsent
        self._transport.write(b"".join(self._packed))
        self._unsent, self._packed = [], []
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout, self._look)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # asyncio's types know no better

    def data_received(self, data: bytes) -> None:
        now = monotonic()
        try:
            self._reader.feed(data)
            while not self.closed and (reply := self._reader.gets()) is not self._nothing:
                if not self._waiting:  # an error tells why the server does not want us
                    raise self._garbled(str(reply) if type(reply) is CommandError else "answers nobody asked for")
                self._answer(self._waiting.popleft(), reply, now)
        except self._garbled as error:
            self._lose(error)

    def _answer(self, call: _Call, reply: Any, now: float) -> None:
        future = call.future
        if future.done():  # too late, or whoever asked has left
            return
        if type(reply) is not CommandError:
            future.set_result(reply)
            self._owner.answered(now - call.sent)
        elif reply.code == "NOSCRIPT" and call.again is not None:
            self.send(call.again, future=future)
        elif reply.code in _TROUBLE:
            _fail(future, str(reply))
            self._owner.failed(self, "refused", reply)
        else:
            future.set_exception(reply)

    def _look(self) -> None:
        """Come back for what is due."""
        due = monotonic() - self._timeout
        # After a long turn of ours the answer may lie in the socket: timers come before reading, so read first.
        self._timer = self._loop.call_later(_GRACE, self._expire, due)

    def _expire(self, due: float) -> None:
        """Fail what was sent before ``due``."""
        self._timer = None
        for call in self._waiting:
            if call.sent > due:
                self._timer = self._loop.call_later(call.sent - due, self._look)
                return
            if not call.future.done():
                late = TimeoutError(f"no answer within {self._timeout * 1000:g} ms")
                _fail(call.future, str(late))
                self._owner.failed(self, "timeout", late)
                if self.closed:
                    return

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(error or ConnectionError("Redis closed the connection"))

    def _lose(self, error: Exception) -> None:
        if not self.closed:
            self._owner.lost(self, error, self.close(str(error)))

    def close(self, reason: str) -> int:
        """Fail all that wait; how many those were."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        waited = [call.future for call in (*self._waiting, *self._unsent) if not call.future.done()]
        self._waiting.clear()
        self._unsent.clear()
        for future in waited:
            _fail(future, reason)
        return len(waited)


def _fail(future: Future, reason: str) -> None:
    future.set_exception(RedisUnavailable(reason))
    future.exception()  # seen: whoever waits may have been cancelled in this very turn
