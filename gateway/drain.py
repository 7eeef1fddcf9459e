"""``on_disconnect = "drain"``: the call of a client that leaves goes on, for the usage its provider reports at the end.

The connection asks the exchange before it cancels it. From then on every write fails, the answer is read and dropped,
and until its end the exchange counts as running: for its limits, for a reload and for a stop, which may interrupt it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from gateway.errors import GatewayError, UpstreamTimeout

if TYPE_CHECKING:
    from gateway.exchange import Exchange, Reply

LIMIT = 600.0
"""Seconds that are read on at most, within the time limits of the provider."""


class Drain:
    """The readiness of one exchange to go on without its client."""

    __slots__ = ("_exchange", "_timer")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._timer: asyncio.TimerHandle | None = None
        exchange.request.protocol.outlived = self.begin

    @property
    def begun(self) -> bool:
        """The client has left, and the call goes on."""
        return self._timer is not None

    def begin(self) -> bool:
        """The client has left. Whether the exchange goes on: only with a call of its own that has been sent."""
        if not self._exchange.sent:
            return False
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(LIMIT, self._exchange.guard.fire, _too_long())
        return True

    async def finish(self, reply: Reply | None) -> None:
        """Read what is left of the answer where the client left in the midst of it. Raises nothing but cancellation."""
        exchange = self._exchange
        if self.begun and exchange.outcome != "ok":
            exchange.outcome = "client_gone"  # also where the provider broke off before it was noticed
        try:
            if reply is not None and reply.stream is not None and reply.events is not None and self._is_left():
                await self._read(reply)
        finally:
            exchange.request.protocol.outlived = exchange.drain = None
            if self._timer is not None:
                self._timer.cancel()

    def _is_left(self) -> bool:
        exchange = self._exchange
        cancelled = isinstance(exchange.error, asyncio.CancelledError)
        return exchange.outcome == "client_gone" and not cancelled and self.begin()

    async def _read(self, reply: Reply) -> None:
        assert reply.stream is not None
        try:
            with contextlib.suppress(GatewayError):  # it broke, or took too long: what was reported until then counts
                async for _ in reply.stream:
                    pass
        except asyncio.CancelledError:
            if self._exchange.guard.caught() is None:
                raise


def _too_long() -> GatewayError:
    return UpstreamTimeout("The provider's answer took too long to be waited for by nobody.")
