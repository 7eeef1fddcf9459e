"""The cache's tier in a real Redis: entries expire by themselves; what goes wrong is a miss and holds nobody up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateway.state import cache_redis
from gateway.state.cache_redis import Dropped, RedisTier
from gateway.state.redis_link import Link
from tests.contract.tier import Clock, Opened, TierContract, entry, found, warnings
from tests.support.linked import DOWN, impatient, linked, told, until
from tests.support.redis import Redis, redis

__all__ = ["impatient", "redis"]

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@contextlib.asynccontextmanager
async def running(link: Link, clock: Callable[[], float], dropped: Dropped) -> AsyncIterator[RedisTier]:
    """The tier as the plugin runs it."""
    tasks = []

    def spawn(coro: Any, name: str) -> None:
        tasks.append(asyncio.create_task(coro, name=name))

    tier = RedisTier(link, clock, dropped)
    runtime: Any = SimpleNamespace(spawn=spawn, registry=CollectorRegistry())
    await tier.start(runtime)
    try:
        yield tier
    finally:
        await tier.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def opened(url: str, clock: Callable[[], float], **more: Any) -> AsyncIterator[RedisTier]:
    async with linked(url, **more) as link, running(link, clock, Dropped()) as tier:
        yield tier


class TestContract(TierContract):
    @pytest.fixture
    def opened(self, redis: Redis, clock: Clock) -> Opened:
        return lambda: opened(redis.url, clock)

    @pytest.fixture
    def damage(self, redis: Redis) -> Callable[[str], None]:
        return lambda key: redis.ask("SETRANGE", f"hookgate:cache:{key}", 60, "forged")


async def test_an_entry_expires_in_redis_itself(redis: Redis, clock: Clock) -> None:
    async with opened(redis.url, clock) as tier:
        tier.offer("k", entry(expires=clock.now + 0.5))
        await found(tier, "k", entry(expires=clock.now + 0.5))
        assert 0 < redis.ask("PTTL", "hookgate:cache:k") <= 500
        await asyncio.sleep(0.6)
        assert await tier.read("k") is None
        tier.offer("old", entry(expires=clock.now))
        tier.offer("new", entry())
        await found(tier, "new", entry())
    assert redis.ask("KEYS", "*cache*") == [b"hookgate:cache:new"]


async def test_gateways_with_another_prefix_keep_apart(redis: Redis, clock: Clock) -> None:
    async with opened(redis.url, clock) as one, opened(redis.url, clock, redis_prefix="other") as two:
        one.offer("k", entry(b"one"))
        await found(one, "k", entry(b"one"))
        assert await two.read("k") is None


async def test_an_entry_of_a_gateway_whose_clock_is_ahead_lives_as_long_by_ours(redis: Redis, clock: Clock) -> None:
    async with opened(redis.url, clock) as tier:
        tier.offer("k", entry(expires=1600.0))
        await found(tier, "k", entry(expires=1600.0))
        clock.now = 970.0
        read = await tier.read("k")
        assert read is not None and (read.stored, read.expires) == (970.0, 1570.0)
        assert read.is_fresh(clock.now)


async def test_what_is_too_large_or_too_much_is_dropped_and_counted(redis: Redis, clock: Clock) -> None:
    dropped = Dropped()
    async with linked(redis.url) as link:
        tier = RedisTier(link, clock, dropped)  # nobody runs it: nothing is written
        tier.offer("large", entry(os.urandom(cache_redis.LARGEST + 1)))
        assert (dropped.count, tier._queued) == (1, 0)
        for number in range(100):
            tier.offer(str(number), entry(b"x" * cache_redis.LARGEST))
        assert len(tier._queue) == 15 and dropped.count == 86
        assert tier._queued == sum(waiting.size for waiting in tier._queue.values()) <= cache_redis.QUEUE
        tier.offer("0", entry())
        assert tier._queued == sum(waiting.size for waiting in tier._queue.values())
    registry = CollectorRegistry()
    registry.register(dropped)
    assert registry.get_sample_value("hookgate_cache_dropped_total") == 86


@pytest.mark.parametrize("trouble", ["killed", "hangs"])
async def test_r48_without_redis_all_is_a_miss_and_nothing_waits(
    redis: Redis, clock: Clock, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    dropped = Dropped()
    async with linked(redis.url, 0.1) as link, running(link, clock, dropped) as tier:
        tier.offer("k", entry())
        await found(tier, "k", entry())
        redis.kill() if trouble == "killed" else redis.stop()
        began = time.perf_counter()
        for _ in range(100):
            assert await tier.read("k") is None
            tier.offer("lost", entry())
        assert time.perf_counter() - began < 5, "five times 100 ms, and not a hundred times"
        await until(lambda: dropped.count)
        assert not link.up
        redis.restart()
        await until(lambda: link.up)
        tier.offer("k", entry(b"again"))
        await found(tier, "k", entry(b"again"))
    assert told(caplog) == [DOWN]  # that it is back is no warning


async def test_a_stop_does_not_wait_for_a_redis_that_hangs(redis: Redis, clock: Clock) -> None:
    async with opened(redis.url, clock, patience=0.1) as tier:
        redis.stop()
        for number in range(50):
            tier.offer(str(number), entry())
        began = time.perf_counter()
        await tier.close()
        assert time.perf_counter() - began < 1.9


async def test_what_somebody_else_put_there_is_a_miss(
    redis: Redis, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    redis.ask("SET", "hookgate:cache:text", "dear diary")
    redis.ask("LPUSH", "hookgate:cache:list", "dear diary")
    async with opened(redis.url, clock) as tier:
        assert [await tier.read(key) for key in ("text", "list", "text")] == [None] * 3
        tier.offer("list", entry())
        await found(tier, "list", entry())
    assert len(warnings(caplog)) == 1


async def test_a_user_that_may_not_write_there_is_told_of_once(
    redis: Redis, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    redis.ask("ACL", "SETUSER", "bob", "on", ">safe", "~hookgate:probe", "~hookgate:alive", "+@all")
    dropped = Dropped()
    url = redis.url.replace("//", "//bob:safe@")
    async with linked(url) as link, running(link, clock, dropped) as tier:
        for number in range(10):
            tier.offer(str(number), entry())
        await until(lambda: dropped.count == 10)
        assert await tier.read("0") is None
    assert len(warnings(caplog)) == 1 and "NOPERM" in caplog.text
