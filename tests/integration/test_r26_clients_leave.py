"""R26 and R27: a client that leaves takes its upstream request with it, and nothing stays behind."""

from __future__ import annotations

import asyncio
import hashlib
from time import monotonic
from typing import Literal

import pytest

from gateway.testing import (
    Call,
    GatewayFactory,
    GatewayProcess,
    Script,
    ScriptedUpstream,
    as_asked,
    chat_events,
    delayed,
    silent,
)
from gateway.testing.answers import SSE, USAGE
from tests.integration.conftest import KEY, Door

CONFIG = f"""
[pool]
max_connections = 2
[plugins.rate_limit]
requests_per_minute = 10_000_000
[keys.alice]
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
max_concurrency = 4
[providers.stub]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
[models.m]
targets = [{{ provider = "stub" }}]
"""
ROUNDS = 8


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, provider_port: int) -> GatewayProcess:
    return shared_gateway_server(CONFIG, port=str(provider_port))


async def settled(gateway: GatewayProcess) -> None:
    """Nothing in flight and no connection in use, within a second."""
    until = monotonic() + 1.0
    while True:
        metrics = await gateway.metrics()
        left = [
            metrics.value("hookgate_in_flight"),
            metrics.value("hookgate_upstream_connections", state="acquired"),
        ]
        if left == [0, 0]:
            return
        assert monotonic() < until, left
        await asyncio.sleep(0.02)


async def served_at_once(door: Door, upstream: ScriptedUpstream) -> None:
    upstream.script = as_asked()
    began = monotonic()
    reply = await door.chat()
    assert reply.status == 200
    assert monotonic() - began < 1.0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("way", ["fin", "rst"])
async def test_r26_leaving_before_the_first_byte_aborts_the_call(
    door: Door, gateway: GatewayProcess, upstream: ScriptedUpstream, stream: bool, way: Literal["fin", "rst"]
) -> None:
    upstream.script = delayed(8, as_asked())
    for turn in range(1, ROUNDS + 1):
        async with door.client() as client:
            await client.chat(stream=stream, key=KEY)
            await upstream.wait_calls(turn)
            client.leave() if way == "fin" else client.abort()
            await upstream.wait_aborted(turn, within=1.0)
    assert len(upstream.calls) == ROUNDS
    await settled(gateway)
    await served_at_once(door, upstream)


def paced(gap_after: int) -> Script:
    """The events up to ``gap_after``, then nothing more."""

    async def script(call: Call) -> None:
        await call.head(200, SSE)
        for event in chat_events(20, usage=USAGE)[:gap_after]:
            await call.chunk(event)
        await call.stall()

    return script


LAST = len(chat_events(20, usage=USAGE)) - 1
PHASES: dict[str, tuple[Script, int]] = {
    "waiting for the head": (silent, 0),
    "held event": (paced(1), 0),  # the role alone says nothing; the head waits for more
    "first event": (paced(2), 2),
    "middle": (paced(10), 10),
    "final usage event": (paced(LAST), LAST - 1),  # the gateway takes the usage event out
}


@pytest.mark.parametrize("phase", PHASES)
async def test_r27_leaving_at_any_phase_frees_everything(
    door: Door, gateway: GatewayProcess, upstream: ScriptedUpstream, phase: str
) -> None:
    upstream.script, count = PHASES[phase]
    for turn in range(1, 2 * ROUNDS + 1):
        async with door.client() as client:
            await client.chat(stream=True, key=KEY)
            await upstream.wait_calls(turn)
            if count:
                await client.read_head()
                events = client.events()
                for _ in range(count):
                    await anext(events)
        await upstream.wait_aborted(turn, within=1.0)
    assert len(upstream.calls) == 2 * ROUNDS
    await settled(gateway)
    await served_at_once(door, upstream)


async def test_r27_leaving_while_waiting_for_the_pool_frees_the_place(
    door: Door, gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    upstream.script = silent
    async with door.client() as one, door.client() as two:
        await one.chat(key=KEY)
        await two.chat(key=KEY)
        await upstream.wait_calls(2)
        for _ in range(ROUNDS):
            async with door.client() as third:
                await third.chat(key=KEY)
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.05)
        assert len(upstream.calls) == 2
    await upstream.wait_aborted(2)
    await settled(gateway)
    await served_at_once(door, upstream)
    assert len(upstream.calls) == 3


async def test_r27_many_leave_at_once_at_any_moment(
    door: Door, gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    async def script(call: Call) -> None:
        await asyncio.sleep(0.01)
        await call.head(200, SSE)
        for event in chat_events(20, usage=USAGE):
            await call.chunk(event)
            await asyncio.sleep(0.005)
        await call.chunk(b"")

    async def visit(stay: float) -> None:
        async with door.client() as client:
            await client.chat(stream=True, key=KEY)
            await asyncio.sleep(stay)

    upstream.script = script
    for _ in range(20):
        await asyncio.gather(*(visit(step * 0.03) for step in range(5)))
    await settled(gateway)
    await served_at_once(door, upstream)
