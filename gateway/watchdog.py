"""Time limits without a timer per request: one task looks at every running exchange a few times a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic

from gateway.errors import GatewayError

INTERVAL = 0.2
"""Seconds between two looks; a limit is noticed at most this late."""


class Guard:
    """The limit one task is under now. When it passes, the task is cancelled and ``caught`` says why.

    It stands in ``guards``, a ``Watchdog``'s, until it is closed.
    """

    __slots__ = ("at", "error", "fired", "guards", "task")

    def __init__(self, task: asyncio.Task[object], guards: set[Guard] | None = None) -> None:
        self.task: asyncio.Task[object] | None = task
        self.guards = guards
        if guards is not None:
            guards.add(self)
        self.at = inf
        self.error: Callable[[], GatewayError] | None = None
        self.fired: GatewayError | None = None

    def arm(self, seconds: float, error: Callable[[], GatewayError]) -> None:
        """From now on the task has ``seconds`` (0: no limit), then it fails with what ``error`` makes."""
        self.error = error
        self.at = monotonic() + seconds if seconds else inf

    def disarm(self) -> None:
        self.at = inf
        self.error = None  # it may hold the answer that is waited for, which holds the exchange, which holds this

    def close(self) -> None:
        """The exchange is over. Its task may be the connection's, which goes on to the next."""
        self.disarm()
        self.task = None
        if self.guards is not None:
            self.guards.discard(self)

    def split(self) -> Guard:
        """Another one for the same task. Who keeps this one may give it to the task that goes on with a call whose
        limits are told to it."""
        assert self.task is not None
        return Guard(self.task, self.guards)

    def fire(self, error: GatewayError) -> None:
        """Make the task fail with ``error`` at its next await. Only the first reason counts."""
        self.at = inf
        if self.fired is None and self.task is not None:
            self.fired = error
            self.task.cancel()

    def caught(self) -> GatewayError | None:
        """In ``except CancelledError``: our reason, or ``None`` when somebody else cancelled (raise on)."""
        error, self.fired = self.fired, None
        if error is not None and self.task is not None:
            self.task.uncancel()
        return error


class Watchdog:
    """Fires the guards whose limit has passed."""

    def __init__(self) -> None:
        self.guards: set[Guard] = set()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            now = monotonic()
            for guard in [guard for guard in self.guards if guard.at < now]:
                if guard.error is not None:
                    guard.fire(guard.error())
