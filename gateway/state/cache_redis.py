"""The response cache's second tier where several processes share one: Redis, which lets each entry expire.

Nothing here can fail an exchange: a Redis that does not answer within ``redis_timeout``, or not at all, means misses,
and what would have been written is dropped and counted. Whether Redis is there is the link's to tell.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import attrs
from prometheus_client.core import CounterMetricFamily, Metric

from gateway.state.cache import Codec, Entry
from gateway.state.redis_link import CommandError, Link, RedisUnavailable

if TYPE_CHECKING:
    from gateway.runtime import Runtime

log = logging.getLogger("hookgate")

LARGEST = 1 << 20
"""Bytes of the largest answer: what others ask waits on the same connection until it has passed."""
QUEUE = 16 << 20
"""Bytes of entries waiting to be written; further ones stay in memory only."""
_STOP = 2.0  # seconds the last writes of a stopping gateway may take


@attrs.define(eq=False)
class Dropped:
    """Entries that were not written. Outlives reloads."""

    count: int = 0

    def collect(self) -> Iterator[Metric]:
        text = "Answers that Redis did not get: too large, too many at once, or it was not there."
        yield CounterMetricFamily("hookgate_cache_dropped", text, self.count)


class RedisTier:
    def __init__(self, link: Link, clock: Callable[[], float], dropped: Dropped) -> None:
        self._link = link
        self._clock = clock
        self._dropped = dropped
        self._prefix = f"{link.prefix}:cache:"
        self._queue: dict[str, Entry] = {}
        self._queued = 0
        self._wake = asyncio.Event()
        self._damage_told = False

    async def start(self, runtime: Runtime) -> None:
        runtime.registry.register(self._dropped)
        runtime.spawn(self._run(), "cache in Redis")

    async def read(self, key: str) -> Entry | None:
        """The entry; ``None`` also when Redis does not answer in time."""
        try:
            raw = await self._link.call("GET", self._prefix + key)
            return None if raw is None else self._of_today(Codec.loads(raw))
        except RedisUnavailable:
            return None
        except (CommandError, ValueError, TypeError) as error:
            self._tell_damage(error)
            return None

    def _of_today(self, entry: Entry) -> Entry:
        """By our clock: where that of the gateway that stored it is ahead, the answer would be one of the future."""
        ahead = entry.stored - self._clock()
        if ahead <= 0:
            return entry
        return attrs.evolve(entry, stored=entry.stored - ahead, expires=entry.expires - ahead)

    def offer(self, key: str, entry: Entry) -> None:
        """Have ``entry`` written soon, or not at all if Redis is not there or too much waits."""
        if not self._link.up or len(entry.body) > LARGEST or self._queued + entry.size > QUEUE:
            self._dropped.count += 1
            return
        if (older := self._queue.pop(key, None)) is not None:
            self._queued -= older.size
        self._queue[key] = entry
        self._queued += entry.size
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._write_queue()

    async def close(self) -> None:
        """Write what still waits; takes ``_STOP`` seconds at most."""
        try:
            async with asyncio.timeout(_STOP):
                await self._write_queue()
        except TimeoutError:
            self._dropped.count += len(self._queue)
            self._queue.clear()

    async def _write_queue(self) -> None:
        """One after the other: the calls of others pass between them."""
        while self._queue:
            key = next(iter(self._queue))
            entry = self._queue.pop(key)
            self._queued -= entry.size
            left = int((entry.expires - self._clock()) * 1000)
            if left <= 0:
                continue
            try:
                await self._link.call("SET", self._prefix + key, Codec.dumps(entry), "PX", left)
            except (RedisUnavailable, CommandError) as error:
                self._dropped.count += 1
                if isinstance(error, CommandError):
                    self._tell_damage(error)

    def _tell_damage(self, error: Exception) -> None:
        """One bad value is a miss, and its next answer replaces it."""
        if not self._damage_told:
            self._damage_told = True
            log.warning("cache in Redis: %s", error)
