"""Which gateway processes share a Redis, and which of them have died."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from gateway.state.redis_pipe import CommandError, RedisUnavailable
from gateway.state.redis_scripts import BEAT, REAP

if TYPE_CHECKING:
    from gateway.state.redis_link import Link

log = logging.getLogger("hookgate")

BEAT_EVERY = 2.0
"""Seconds."""
DEAD_AFTER = 10.0
"""Seconds without a beat after which the others take a process for dead and give back what its requests held."""


class Processes:
    """This one among them: ``link.processes``."""

    def __init__(self, link: Link) -> None:
        self.name = secrets.token_hex(8)
        self.alive = 1
        """How many there are, this one included, as last heard."""
        self.on_death: list[Callable[[str], Awaitable[None]]] = []
        """Called with the name of a dead one; maybe by several processes, and more than once."""
        self._link = link
        self._alive = f"{link.prefix}:alive"
        self._beat = link.script(BEAT)
        self._refused = False
        self._reap = link.script(REAP)

    def lease(self, name: str) -> str:
        """Key of what the requests of a process hold."""
        return f"{self._link.prefix}:lease:{name}"

    async def run(self) -> None:
        while True:
            await asyncio.sleep(BEAT_EVERY)
            await self.try_to_beat()

    async def try_to_beat(self) -> None:
        if self._link.up:
            try:
                await self.beat()
            except RedisUnavailable:
                pass  # the link has told; the next beat tells that we live
            except CommandError as error:
                if not self._refused:
                    self._refused = True
                    log.error("Redis refused a command of ours: %s", error)

    async def leave(self) -> None:
        """This one ends; it holds nothing any more."""
        with contextlib.suppress(RedisUnavailable, CommandError):
            await self._link.call("ZREM", self._alive, self.name)

    async def beat(self) -> None:
        """Tell that this one lives, and clear up behind the dead."""
        limit = int(DEAD_AFTER * 1000)
        alive, *dead = await self._beat.call([self._alive], self.name, limit)
        self.alive = max(1, alive)
        for name in (each.decode() for each in dead):
            for callback in tuple(self.on_death):
                await callback(name)
            released = await self._reap.call([self._alive, self.lease(name)], name, limit)
            log.warning("gateway process %s is gone; %d of its requests held limits or money", name, released)
