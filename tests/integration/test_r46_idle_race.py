"""R46: requests race with a server that closes idle connections; none is lost, none is carried out twice.

Twenty-five providers, each with its own address of loopback and so with its own idle connections, get bursts of
parallel requests with pauses of one to eight seconds between them.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from gateway.testing import Call, GatewayFactory, GatewayProcess, RawClient, ScriptedUpstream, Truncated, chat_body
from gateway.testing.answers import JSON
from gateway.testing.wire import json_bytes

PROVIDERS = 25
CALLERS = 50
BURSTS = 8
IDLE, JITTER = 5.0, 0.5
CONFIG = """
[pool]
max_connections = 5000
$keepalive
[breaker]
failures = 0
error_rate = 0.0
[plugins]
chain = ["request_id", "metrics"]
$providers
"""


class Server(asyncio.Protocol):
    """Answers chat requests that carry an id, and drops connections that have been idle for about five seconds."""

    def __init__(self, executed: Counter[str], running: set[Server]) -> None:
        self._executed = executed
        self._running = running
        self._data = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._running.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._running.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) < length:
            return
        self._data = b""
        self._executed[body.partition(b"id-")[2].partition(b'"')[0].decode()] += 1
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, self._answer)  # so that a burst needs as many connections as it has requests

    def close(self) -> None:
        self._transport.close()

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(ANSWER)
            self._timer = asyncio.get_running_loop().call_later(
                random.uniform(IDLE - JITTER, IDLE + JITTER), self.close
            )


BODY = chat_body()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


def start(gateway_server: GatewayFactory, port: int, keepalive: str = "") -> GatewayProcess:
    tables = [
        f'[providers.p{at}]\ntype = "openai_compat"\nbase_url = "http://127.0.1.{at + 1}:{port}/v1"\n'
        for at in range(PROVIDERS)
    ]
    return gateway_server(CONFIG, keepalive=keepalive, providers="".join(tables))


class Caller:
    """A client with a connection of its own, kept as long as the gateway keeps it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: RawClient | None = None

    async def ask(self, provider: str, number: str) -> int:
        """The status of the answer; 0 where there was none."""
        if self._client is None:
            self._client = await RawClient(self._url, timeout=30).__aenter__()
        try:
            await self._client.chat(f"{provider}/m", f"id-{number}")
            return (await self._client.read()).status
        except (Truncated, ConnectionError):
            await self.leave()
            return 0

    async def leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__()


async def bursts(gateway: GatewayProcess, provider: int, count: int, callers: int) -> Counter[int]:
    """How often each status came."""
    statuses: Counter[int] = Counter()
    crowd = [Caller(gateway.url) for _ in range(callers)]
    # Every pause once, in any order, and some of them right where a limit is.
    pauses = [second + random.random() for second in range(1, 8)]
    random.shuffle(pauses)
    await asyncio.sleep(random.uniform(0, 1.5))
    for burst in range(count):
        names = [f"{gateway.port}-{provider}-{burst}-{at}" for at in range(callers)]
        asked = (caller.ask(f"p{provider}", name) for caller, name in zip(crowd, names, strict=True))
        statuses.update(await asyncio.gather(*asked))
        if burst < count - 1:
            await asyncio.sleep(pauses[burst % len(pauses)])
    for caller in crowd:
        await caller.leave()
    return statuses


async def test_r46_ten_thousand_posts_against_a_server_that_drops_idle_connections(
    gateway_server: GatewayFactory,
) -> None:
    """Beside the default, where the gateway lets go first, a gateway that keeps connections for too long."""
    executed: Counter[str] = Counter()
    running: set[Server] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(executed, running), "0.0.0.0", 0, backlog=2000)
    port = server.sockets[0].getsockname()[1]
    usual, careless = start(gateway_server, port), start(gateway_server, port, 'keepalive = "9s"')
    results = await asyncio.gather(
        *(bursts(usual, provider, BURSTS, CALLERS) for provider in range(PROVIDERS)),
        *(bursts(careless, provider, BURSTS, 10) for provider in range(PROVIDERS)),
    )
    server.close()
    for connection in list(running):
        connection.close()
    while running:  # noqa: ASYNC110 - each ends in a turn of the loop or two
        await asyncio.sleep(0.01)
    statuses = sum(results[:PROVIDERS], Counter[int]())
    assert statuses.total() == PROVIDERS * CALLERS * BURSTS == 10_000
    assert statuses.total() - statuses[200] <= 1, statuses  # 0.01 %
    others = sum(results[PROVIDERS:], Counter[int]())
    assert others.total() - others[200] <= 2, others
    # The server reads nothing after it has begun to close: what it did not answer it has not done.
    assert len(executed) == statuses.total() + others.total()
    assert set(executed.values()) == {1}


async def test_r46_a_server_that_reads_and_then_closes_is_asked_twice_at_most(gateway_server: GatewayFactory) -> None:
    """Only on a reused connection, and only where a repeat costs no more than tokens."""
    executed: Counter[str] = Counter()

    async def script(call: Call) -> None:
        executed[call.request.body.decode(errors="replace")] += 1
        if len(call.request.connection.requests) > 1:
            call.close()  # read, perhaps carried out, and no word
        else:
            await call.answer(200, BODY, JSON)

    async with ScriptedUpstream(script, host="0.0.0.0") as upstream:
        gateway = start(gateway_server, upstream.port)
        async with RawClient(gateway.url) as client:
            for number in range(20):
                await client.chat("p0/m", f"id-{number}")
                assert (await client.read()).status == 200
                stored = json_bytes({"model": "p1/m", "input": f"id-{number}"})
                await client.request("POST", "/v1/responses", JSON, stored)
                await client.read()
    chats = [count for body, count in executed.items() if "messages" in body]
    stored_ones = [count for body, count in executed.items() if "input" in body]
    assert len(chats) == len(stored_ones) == 20
    assert max(chats) == 2 and 2 in chats
    assert max(stored_ones) == 1
