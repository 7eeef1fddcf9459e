"""A thousand open streams are cheap to hold."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from gateway.testing import Call, GatewayFactory, GatewayProcess, RawClient, ScriptedUpstream, chat_events
from gateway.testing.answers import SSE

STREAMS = 1000
BAR = 30_000
"""Resident bytes a stream may add (DESIGN section 7)."""
CONFIG = """
[pool]
max_connections = 2000
[plugins.rate_limit]
requests_per_minute = 0
[providers.stub]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
[models.m]
targets = [{ provider = "stub" }]
"""
EVENTS = chat_events(20)


async def slow(call: Call) -> None:
    """Some words, then silence; the test ends before a limit passes."""
    await call.head(200, SSE)
    for event in EVENTS[:4]:
        await call.chunk(event)
    await call.stall()


def resident(gateway: GatewayProcess) -> int:
    return int(Path(f"/proc/{gateway.pid}/statm").read_text().split()[1]) * 4096


async def opened(stack: AsyncExitStack, url: str) -> RawClient:
    client = await stack.enter_async_context(RawClient(url, timeout=30))
    await client.chat("m", "Hello. " * 60, stream=True)
    await client.read_head()
    events = client.events()
    for _ in range(3):
        await anext(events)
    return client


async def test_a_thousand_open_streams_stay_within_the_bar(gateway_server: GatewayFactory) -> None:
    async with ScriptedUpstream(slow) as upstream, AsyncExitStack() as stack:
        gateway = gateway_server(CONFIG, port=str(upstream.port))
        for _ in range(3):  # what is made once is not a stream's
            async with AsyncExitStack() as warm:
                await asyncio.gather(*(opened(warm, gateway.url) for _ in range(10)))
        await asyncio.sleep(0.3)
        before = resident(gateway)
        for _ in range(20):
            await asyncio.gather(*(opened(stack, gateway.url) for _ in range(STREAMS // 20)))
        assert (await gateway.metrics()).value("hookgate_in_flight") == STREAMS
        added = (resident(gateway) - before) / STREAMS
        assert added <= BAR, f"{added:.0f} bytes a stream"
