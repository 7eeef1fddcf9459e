"""R48: a Redis that dies, hangs, pauses or is full costs requests nothing they notice, and is used again soon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.testing import GatewayFactory, GatewayProcess, ScriptedUpstream, as_asked, fetch_chat
from tests.support.redis import Redis, redis
from tests.support.steady import Steady

__all__ = ["redis"]

CONFIG = """
[state]
redis = "$redis"
[plugins.rate_limit]
requests_per_minute = 1_000_000
max_concurrency = 10_000
limits = [{ tokens = 1_000_000_000, per = "day" }]
[plugins.cache]
always = true
[providers.stub]
type = "openai_compat"
base_url = "$upstream/v1"
[models.m]
targets = [{ provider = "stub" }]
"""

Trouble = Callable[[Redis], None]


def pause(redis: Redis) -> None:
    redis.ask("CLIENT", "PAUSE", 2500, "ALL")


def fill(redis: Redis) -> None:
    redis.ask("CONFIG", "SET", "maxmemory", 1)


def empty(redis: Redis) -> None:
    redis.ask("CONFIG", "SET", "maxmemory", 0)


TROUBLES: dict[str, tuple[Trouble, Trouble]] = {
    "killed": (Redis.kill, Redis.restart),
    "hung": (Redis.stop, Redis.cont),
    "paused": (pause, lambda redis: None),
    "full": (fill, empty),
}


def told(gateway: GatewayProcess, words: str) -> int:
    return sum(words in line for line in gateway.stderr.splitlines())


@pytest.mark.alone
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_r48_requests_go_on_and_redis_is_used_again(
    gateway_server: GatewayFactory, redis: Redis, trouble: str
) -> None:
    begin, end = TROUBLES[trouble]
    async with ScriptedUpstream(as_asked()) as upstream:
        gateway = gateway_server(CONFIG, upstream=upstream.url, redis=redis.url)
        await fetch_chat(gateway.url)
        before = Steady(gateway.url)
        await before.run(1.0)
        during = Steady(gateway.url)
        begin(redis)
        await during.run(2.0)
        end(redis)
        async with asyncio.timeout(10):
            while (await gateway.metrics()).value("hookgate_redis_up") != 1:
                await during.run(0.1)
        await during.run(0.5)
    for load in (before, during):
        assert set(load.statuses) == {200}
    # What is added at most is the one time limit of 40 ms, for those under way when it began.
    assert during.quantile(0.9) <= before.quantile(0.9) + 0.05
    # A line for each change; behind an outage a busy Redis may be left alone once more.
    assert 1 <= told(gateway, "Redis is not reachable") == told(gateway, "Redis is back") <= 3
    used = int(redis.ask("HGET", next(key for key in redis.ask("KEYS", "hookgate:rate:*") if b"requests" in key), "s"))
    # It was told of what was used meanwhile when it was back; what was under way when it hung may count twice.
    assert len(during.statuses) + len(before.statuses) * (trouble != "killed") <= used
    assert used <= len(during.statuses) + len(before.statuses) + 30


async def test_a_start_without_redis_serves(gateway_server: GatewayFactory, redis: Redis) -> None:
    redis.kill()
    async with ScriptedUpstream(as_asked()) as upstream:
        gateway = gateway_server(CONFIG, upstream=upstream.url, redis=redis.url)
        assert (await fetch_chat(gateway.url)).status == 200
        assert (await gateway.metrics()).value("hookgate_redis_up") == 0


async def test_closed_means_503(gateway_server: GatewayFactory, redis: Redis) -> None:
    redis.kill()
    closed = CONFIG.replace("[plugins.rate_limit]", '[plugins.rate_limit]\nwithout_redis = "closed"')
    async with ScriptedUpstream(as_asked()) as upstream:
        gateway = gateway_server(closed, upstream=upstream.url, redis=redis.url)
        reply = await fetch_chat(gateway.url)
        assert (reply.status, reply.header("retry-after")) == (503, "1")
        redis.start()
        async with asyncio.timeout(10):
            while (await fetch_chat(gateway.url)).status != 200:  # noqa: ASYNC110 - another program's
                await asyncio.sleep(0.2)
