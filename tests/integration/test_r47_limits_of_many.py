"""R47: limits hold over workers and machines that share one Redis, and come back on every way out."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from gateway.testing import (
    GatewayFactory,
    GatewayProcess,
    RawClient,
    ScriptedUpstream,
    Truncated,
    as_asked,
    chat_stream,
    error,
    fetch_chat,
    hang_up,
)
from tests.support.ports import neighbours
from tests.support.redis import Redis, redis

__all__ = ["redis"]

KEYS = {name: f"hg-many-{name}" for name in ("alice", "bob")}
CONFIG = f"""
[state]
redis = "$redis"
redis_timeout = "1s"
[plugins.rate_limit]
requests_per_minute = 0
[keys.alice]
sha256 = "{hashlib.sha256(KEYS["alice"].encode()).hexdigest()}"
requests_per_minute = 100
[keys.bob]
sha256 = "{hashlib.sha256(KEYS["bob"].encode()).hexdigest()}"
max_concurrency = 5
[breaker]
failures = 0
error_rate = 0
[retry]
attempts = 1
[providers.stub]
type = "openai_compat"
base_url = "$upstream/v1"
timeouts = {{ first_token = "1s", idle = "0.5s" }}
[models.m]
targets = [{{ provider = "stub" }}]
"""


async def statuses(urls: list[str], requests: int, at_once: int = 40) -> Counter[int]:
    """Of so many of alice's requests, spread over ``urls``."""
    found: Counter[int] = Counter()
    left = iter(range(requests))

    async def some() -> None:
        for number in left:
            found[(await fetch_chat(urls[number % len(urls)], key=KEYS["alice"])).status] += 1

    await asyncio.gather(*(some() for _ in range(at_once)))
    return found


async def test_r47_two_gateways_on_one_redis_admit_the_limit_and_no_more(
    gateway_server: GatewayFactory, redis: Redis
) -> None:
    async with ScriptedUpstream(as_asked()) as upstream:
        gateways = [gateway_server(CONFIG, upstream=upstream.url, redis=redis.url) for _ in range(2)]
        found = await statuses([gateway.url for gateway in gateways], 600)
        assert found == {200: 100, 429: 500}
        assert len(upstream.calls) == 100
        reply = await fetch_chat(gateways[0].url, key=KEYS["alice"])
        assert reply.header("x-ratelimit-remaining-requests") == "0"
        assert 50 <= int(reply.header("retry-after") or "0") <= 61


async def test_r47_four_workers_admit_the_limit_and_no_more(tmp_path: Path, redis: Redis) -> None:
    pytest.importorskip("gunicorn")
    async with ScriptedUpstream(as_asked()) as upstream:
        config = CONFIG.replace("$redis", redis.url).replace("$upstream", upstream.url)
        environment = {"GATEWAY__ADMIN__PORT": str(neighbours(4)), "GATEWAY__SERVER__WORKERS": "4"}
        gateway = GatewayProcess(tmp_path, config, env=environment)
        gateway.start()
        try:
            assert await statuses([gateway.url], 600) == {200: 100, 429: 500}
            assert len(upstream.calls) == 100
        finally:
            gateway.end()


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(as_asked()) as upstream:
        yield upstream


async def test_r47_after_random_ends_nothing_is_held(
    gateway_server: GatewayFactory, redis: Redis, upstream: ScriptedUpstream
) -> None:
    gateways = [gateway_server(CONFIG, upstream=upstream.url, redis=redis.url) for _ in range(2)]
    chance = random.Random(47)
    scripts = [as_asked(), hang_up, error(500), chat_stream(20, pause=0.005), chat_stream(9, after=2, ending="reset")]

    async def one() -> None:
        upstream.script = chance.choice(scripts)
        with suppress(Truncated):
            async with RawClient(chance.choice(gateways).url) as client:
                await client.chat("m", key=KEYS["bob"], stream=chance.random() < 0.7)
                if chance.random() < 0.5:
                    await asyncio.sleep(chance.random() / 30)
                    (client.abort if chance.random() < 0.5 else client.leave)()
                    return
                await client.read()

    for _ in range(40):
        await asyncio.gather(*(one() for _ in range(10)))
    (gauge,) = redis.ask("KEYS", "hookgate:gauge:*")
    async with asyncio.timeout(5):
        while redis.ask("GET", gauge) != b"0":  # noqa: ASYNC110 - another program's
            await asyncio.sleep(0.05)
    assert redis.ask("KEYS", "hookgate:lease:*") == []
    upstream.script = chat_stream(5, pause=0.1)
    replies = await asyncio.gather(
        *(fetch_chat(gateways[number % 2].url, key=KEYS["bob"], stream=True) for number in range(6))
    )
    assert sorted(reply.status for reply in replies) == [200] * 5 + [429]


async def test_r47_a_killed_gateway_holds_nothing_for_long(
    gateway_server: GatewayFactory, redis: Redis, upstream: ScriptedUpstream
) -> None:
    first, second = (gateway_server(CONFIG, upstream=upstream.url, redis=redis.url) for _ in range(2))
    upstream.script = chat_stream(1000, pause=0.2)
    async with AsyncExitStack() as stack:
        for _ in range(5):
            client = await stack.enter_async_context(RawClient(first.url))
            await client.chat("m", key=KEYS["bob"], stream=True)
            await client.read_head()
        assert (await fetch_chat(second.url, key=KEYS["bob"])).status == 429
        first.checked = False
        first.process.kill()
    upstream.script = as_asked()
    async with asyncio.timeout(20):  # 10 s without a beat, and the others look every 2 s
        while (await fetch_chat(second.url, key=KEYS["bob"])).status == 429:  # noqa: ASYNC110 - another program's
            await asyncio.sleep(0.5)
    replies = await asyncio.gather(*(fetch_chat(second.url, key=KEYS["bob"]) for _ in range(5)))
    assert [reply.status for reply in replies] == [200] * 5
