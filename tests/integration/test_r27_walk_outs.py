"""R27: two hundred clients that leave, at any moment of any kind of answer, leave nothing behind in a pool of two."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import attrs
import pytest

from gateway.testing import (
    Call,
    GatewayFactory,
    GatewayProcess,
    RawClient,
    ScriptedUpstream,
    as_asked,
    chat_body,
    chat_events,
    fetch_chat,
    free_ports,
)
from gateway.testing.answers import JSON, SSE, USAGE
from tests.support.gauges import GAUGES, gauges

CONFIG = """
[pool]
max_connections = 2
[plugins]
folders = ["$folder"]
chain = ["request_id", "metrics", "gauges"]
[providers.stub]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
max_concurrency = 2
queue = 10
[providers.deaf]
type = "openai_compat"
base_url = "http://127.0.0.1:$deaf/v1"
max_concurrency = 5
[models.m]
targets = [{ provider = "stub", max_concurrency = 3 }]
[models.deaf]
targets = [{ provider = "deaf" }]
"""
WALK_OUTS = 200
EVENTS = chat_events(20, usage=USAGE)
LARGE = chat_body("x" * (3 << 20))  # beyond what is held: it flows through
# Phase → how much of a stream and of a whole answer the upstream sends before it stops.
PHASES = {"head": (0, 0), "first": (2, 1), "middle": (11, len(LARGE) // 2), "last": (len(EVENTS) - 1, len(LARGE) - 1)}


@attrs.frozen
class Visit:
    """One client: what it asks for, when it leaves and how."""

    phase: str
    stream: bool
    reset: bool


@pytest.fixture(scope="module")
def deaf() -> Iterator[int]:
    """A port that connects to nobody: its queue of connections is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def gateway(
    shared_gateway_server: GatewayFactory, port: int, deaf: int, tmp_path_factory: pytest.TempPathFactory
) -> GatewayProcess:
    folder: Path = tmp_path_factory.mktemp("plugins")
    (folder / "gauges.py").write_text(GAUGES)
    return shared_gateway_server(CONFIG, port=str(port), deaf=str(deaf), folder=str(folder))


@pytest.fixture
async def upstream(port: int) -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(as_asked(), port=port) as scripted:
        yield scripted


async def stops(call: Call) -> None:
    """As much of an answer as the last message says, then silence."""
    body = call.request.json
    count, size = PHASES[body["messages"][-1]["content"]]
    if body.get("stream") and count:
        await call.head(200, SSE)
        for event in EVENTS[:count]:
            await call.chunk(event)
    elif size:
        await call.head(200, {**JSON, "Content-Length": str(len(LARGE))})
        await call.send(LARGE[:size])
    await call.stall()


async def walk_out(gateway: GatewayProcess, upstream: ScriptedUpstream, visit: Visit) -> None:
    """Come, wait for the phase, leave; the upstream must notice within a second."""
    known = len(upstream.calls)
    async with RawClient(gateway.url) as client:
        if visit.phase == "connect":
            await client.chat("deaf", stream=visit.stream)
            await asyncio.sleep(random.uniform(0.0, 0.05))
        else:
            await client.chat("m", visit.phase, stream=visit.stream)
            await upstream.wait_calls(known + 1, within=5)
            await hear(client, visit)
        client.abort() if visit.reset else client.leave()
        if visit.phase != "connect":
            call = upstream.calls[known]
            await upstream.until(lambda: call.aborted is not None, within=1.0)


async def hear(client: RawClient, visit: Visit) -> None:
    count, size = PHASES[visit.phase]
    if not size:
        return
    await client.read_head()
    pieces: Any = client.events() if visit.stream else client.body()
    wanted = min(count, len(EVENTS) - 2) if visit.stream else size  # the gateway takes the usage event out
    while wanted > 0:
        wanted -= 1 if visit.stream else len(await anext(pieces))
        if visit.stream:
            await anext(pieces)


async def settled(gateway: GatewayProcess) -> None:
    """Every gauge is back at zero within a second."""
    until = monotonic() + 1.0
    while True:
        shown = await gauges(gateway)
        held = [shown["acquired"]]
        for name in ("in_flight", "running", "waiting"):
            held += shown[name].values()
        held.append((await gateway.metrics()).value("hookgate_in_flight"))
        if not any(held):
            assert {"stub", "stub/m", "deaf"} <= set(shown["running"])
            return
        assert monotonic() < until, shown
        await asyncio.sleep(0.02)


async def answered_at_once(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    upstream.script = as_asked()
    for stream in (False, True):
        began = monotonic()
        assert (await fetch_chat(gateway.url, stream=stream)).status == 200
        assert monotonic() - began < 1.0


async def test_r27_two_hundred_walk_outs_leave_nothing_behind(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    upstream.script = stops
    visits = [Visit(phase, stream, reset) for phase in ("connect", *PHASES) for stream in (True, False)
              for reset in (True, False)] * (WALK_OUTS // 20)  # fmt: skip
    random.shuffle(visits)
    for visit in visits:
        await walk_out(gateway, upstream, visit)
    assert len(visits) == WALK_OUTS
    assert len(upstream.calls) == WALK_OUTS * 4 // 5
    await settled(gateway)
    await answered_at_once(gateway, upstream)


async def test_r27_a_crowd_that_leaves_while_it_waits_leaves_nothing_behind(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    """Two are served and ten wait; all leave at once or at moments of their own."""
    upstream.script = stops

    async def visit(number: int, stay: float) -> None:
        async with RawClient(gateway.url) as client:
            await client.chat("m", random.choice(list(PHASES)), stream=number % 2 == 0)
            await asyncio.sleep(stay)
            client.abort() if number % 3 else client.leave()

    for at_once in (True, False) * 5:
        await asyncio.gather(*(visit(at, 0.1 if at_once else random.uniform(0.0, 0.2)) for at in range(12)))
    await settled(gateway)
    assert all(call.aborted is not None or call.connection.closed is not None for call in upstream.calls)
    await answered_at_once(gateway, upstream)
