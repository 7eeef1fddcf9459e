"""R40: heads and bodies have time limits, addresses a number of connections; who is slow harms nobody else."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter

import pytest

from gateway.testing import GatewayFactory, GatewayProcess, RawClient, ScriptedUpstream, as_asked, fetch_chat
from tests.integration.conftest import KEY

CONFIG = f"""
[server]
head_timeout = "1s"
body_timeout = "1s"
body_total = "3s"
max_connections_per_peer = 250
[plugins.rate_limit]
requests_per_minute = 0
[keys.alice]
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
[providers.stub]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
[models.m]
targets = [{{ provider = "stub" }}]
"""
HEAD = (
    f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 1000\r\n".encode()
)
SLACK = 1.5  # seconds: the sweep's step, and a machine that is busy


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, provider_port: int) -> GatewayProcess:
    return shared_gateway_server(CONFIG, port=str(provider_port))


@pytest.fixture(autouse=True)
async def upstream(provider_port: int) -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(as_asked(), port=provider_port) as scripted:
        yield scripted


async def drip(client: RawClient, first: bytes, piece: bytes, every: float) -> tuple[float, bytes]:
    """Send ``first``, then ``piece`` again and again; after how many seconds the other side had enough, its answer."""
    began = perf_counter()
    answer = asyncio.ensure_future(client.wait_closed(within=15))
    try:
        await client.send(first)
        while not answer.done():
            await asyncio.wait({answer}, timeout=every)
            if piece and not answer.done():
                await client.send(piece)
    except ConnectionError:
        pass
    return perf_counter() - began, await answer


@pytest.mark.parametrize(
    ("first", "piece", "limit", "status"),
    [
        (b"", b"", 1, b""),
        (b"GET / HT", b"", 1, b""),
        (HEAD, b"", 1, b""),
        (HEAD, b"X-A: b\r\n", 1, b""),
        (HEAD + b"\r\n{", b"", 1, b"408"),
        (HEAD + b"\r\n{", b" ", 3, b"408"),
    ],
    ids=["silent", "half a line", "half a head", "dripping head", "half a body", "dripping body"],
)
async def test_r40_the_slow_are_cut_in_time(
    gateway: GatewayProcess, first: bytes, piece: bytes, limit: float, status: bytes
) -> None:
    async with RawClient(gateway.url) as client:
        seconds, answer = await drip(client, first, piece, 0.3)
    assert limit - 0.05 <= seconds <= limit + SLACK + (2.0 if status else 0.0)  # behind a 408 the rest may still come
    assert answer.startswith(b"HTTP/1.1 " + status if status else b"") and bool(answer) == bool(status)


async def test_r40_a_second_head_on_a_connection_has_the_limit_too(gateway: GatewayProcess) -> None:
    async with RawClient(gateway.url) as client:
        await client.chat("m", key=KEY)
        assert (await client.read()).status == 200
        await asyncio.sleep(1.5)  # idle between requests is no slow head
        await client.chat("m", key=KEY)
        assert (await client.read()).status == 200
        seconds, answer = await drip(client, HEAD, b"X-A: b\r\n", 0.3)
    assert 0.95 <= seconds <= 1 + SLACK and answer == b""


async def test_r40_a_slow_but_steady_body_within_its_time_is_served(gateway: GatewayProcess) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    async with RawClient(gateway.url) as client:
        await client.send(HEAD.replace(b"1000", b"%d" % len(body)) + b"\r\n")
        for at in range(0, len(body), 15):
            await client.send(body[at : at + 15])
            await asyncio.sleep(0.4)
        assert (await client.read()).status == 200


def _descriptors(gateway: GatewayProcess) -> int:
    return len(list(Path(f"/proc/{gateway.pid}/fd").iterdir()))


def _resident(gateway: GatewayProcess) -> int:
    return int(Path(f"/proc/{gateway.pid}/statm").read_text().split()[1]) * 4096


async def test_r40_many_slow_connections_harm_nobody_and_all_go(gateway: GatewayProcess) -> None:
    await fetch_chat(gateway.url, key=KEY)
    base = _descriptors(gateway)
    kinds = [(HEAD, b"X-A: b\r\n"), (HEAD + b"\r\n", b" "), (b"", b"")]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RawClient(gateway.url)) for _ in range(180)]
        slow = [asyncio.ensure_future(drip(client, *kinds[at % 3], 0.5)) for at, client in enumerate(clients)]
        times = []
        while not all(task.done() for task in slow):
            began = perf_counter()
            assert (await fetch_chat(gateway.url, key=KEY)).status == 200
            times.append(perf_counter() - began)
            await asyncio.sleep(0.05)
        assert max(seconds for seconds, _ in await asyncio.gather(*slow)) < 3 + 2 + 2 * SLACK
        assert sorted(times)[len(times) // 2] < 0.1
    for _ in range(60):
        if _descriptors(gateway) <= base + 2:
            break
        await asyncio.sleep(0.05)
    assert _descriptors(gateway) <= base + 2


async def test_r40_one_address_has_so_many_connections(gateway: GatewayProcess) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RawClient(gateway.url, source="127.0.0.9")) for _ in range(250)]
        async with RawClient(gateway.url, source="127.0.0.9") as refused:
            assert await refused.wait_closed() == b""
        assert (await fetch_chat(gateway.url, key=KEY)).status == 200  # another address
        await clients[0].chat("m", key=KEY)
        assert (await clients[0].read()).status == 200
    await asyncio.sleep(0.2)
    async with RawClient(gateway.url, source="127.0.0.9") as again:
        await again.chat("m", key=KEY)
        assert (await again.read()).status == 200


async def test_r40_pipelining_is_bounded(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """Requests behind one that is being answered wait in the client's socket, not in our memory."""
    waiting = asyncio.Event()

    async def held(call: object) -> None:
        await waiting.wait()

    upstream.script = held
    request = b"GET / HTTP/1.1\r\nHost: x\r\nX-Fill: " + b"x" * 4000 + b"\r\n\r\n"
    async with RawClient(gateway.url) as client:
        await client.chat("m", key=KEY)
        await upstream.wait_calls()
        before = _resident(gateway)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                while True:
                    await client.send(request * 250)
        grown = _resident(gateway) - before
    waiting.set()
    assert grown < 4 << 20
