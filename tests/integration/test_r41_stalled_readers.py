"""R41: readers that stop reading a fire-hose move nobody else, cost little, and are cut with their upstreams."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, perf_counter, sleep

import pytest

from gateway.testing import GatewayFactory, GatewayProcess, RawClient, fetch
from gateway.testing.wire import json_bytes
from tests.support.sampler import SAMPLER

READERS = 50
LIMIT = 4.0
CONFIG = f"""
[server]
reader_timeout = "{LIMIT}s"
[plugins]
folders = ["$folder"]
chain = ["request_id", "logging", "metrics", "sampler"]
[providers.hose]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
models = ["hose"]
[providers.pace]
type = "echo"
model = "pace"
delay = "20ms"
"""
# A provider in a process of its own, so that the test's loop is free to listen. It sends for ever, and prints its port,
# then for each call when it found the connection gone.
HOSE = r"""
import asyncio, time

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 4000)
BLOCK = b"%x\r\n%b\r\n" % (16 * len(EVENT), EVENT * 16)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def serve(reader, writer):
    try:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        while True:
            writer.write(BLOCK)
            await writer.drain()
    except OSError:
        print(time.monotonic(), flush=True)


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
"""


class Hose:
    def __init__(self, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen([sys.executable, "-c", HOSE], stdout=output)

    def lines(self) -> list[str]:
        return self._log.read_text().split("\n")[:-1]

    @property
    def cut(self) -> list[float]:
        """When each call's connection was found gone; ``monotonic`` is the machine's."""
        return [float(line) for line in self.lines()[1:]]


@pytest.fixture
def hose(tmp_path: Path) -> Iterator[Hose]:
    made = Hose(tmp_path / "hose")
    until = monotonic() + 10
    while not made.lines():
        assert monotonic() < until
        sleep(0.02)
    yield made
    made.process.kill()
    made.process.wait()


@pytest.fixture
def gateway(gateway_server: GatewayFactory, hose: Hose, tmp_path: Path) -> GatewayProcess:
    (tmp_path / "sampler.py").write_text(SAMPLER)
    return gateway_server(CONFIG, port=hose.lines()[0], folder=str(tmp_path))


def stalled(port: int) -> socket.socket:
    """A client that asks and never reads."""
    body = json_bytes({"model": "hose", "stream": True, "messages": [{"role": "user", "content": "hi"}]})
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    return client


async def paces(url: str, stop: asyncio.Event) -> list[float]:
    """Seconds to the first event of paced streams, and between their events."""
    times = []
    while not stop.is_set():
        async with RawClient(url) as client:
            before = perf_counter()
            await client.chat("pace", "one two three four five six seven eight nine ten", stream=True)
            await client.read_head()
            async for _ in client.body():
                now = perf_counter()
                times.append(now - before)
                before = now
    return times


async def p99(url: str, seconds: float) -> float:
    stop = asyncio.Event()
    running = [asyncio.ensure_future(paces(url, stop)) for _ in range(5)]
    await asyncio.sleep(seconds)
    stop.set()
    times = sorted(time for stream in await asyncio.gather(*running) for time in stream)
    assert len(times) > 20
    return times[len(times) * 99 // 100]


def resident(gateway: GatewayProcess) -> int:
    return int(Path(f"/proc/{gateway.pid}/statm").read_text().split()[1]) * 4096


def processor_time(gateway: GatewayProcess) -> int:
    """Hundredths of a second."""
    user, system = Path(f"/proc/{gateway.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return int(user) + int(system)


async def filled(gateway: GatewayProcess) -> None:
    """Every buffer on the way is full: the gateway has next to nothing to do."""
    until, before = monotonic() + LIMIT - 1.5, 0
    while True:
        spent = processor_time(gateway)
        if spent - before <= 5 or monotonic() > until:
            return
        before = spent
        await asyncio.sleep(0.3)


@pytest.mark.alone
async def test_r41_readers_that_stop_move_nobody_and_are_cut(gateway: GatewayProcess, hose: Hose) -> None:
    alone = await p99(gateway.url, 1.0)
    before = resident(gateway)
    await fetch(gateway.url + "/rounds")  # from here on
    began = monotonic()
    clients = [stalled(gateway.port) for _ in range(READERS)]
    try:
        await filled(gateway)
        rounds = sorted((await fetch(gateway.url + "/rounds")).json)
        beside = await p99(gateway.url, 1.0)
        grown = (resident(gateway) - before) / READERS
        assert not hose.cut
        while len(hose.cut) < READERS:
            assert monotonic() - began < LIMIT + 6.0, f"{len(hose.cut)} upstreams cut"
            await asyncio.sleep(0.05)
    finally:
        for client in clients:
            client.close()
    assert grown <= 1 << 20
    assert rounds[-1 - len(rounds) // 100] <= 0.1, rounds[-5:]  # seconds of processor time, while they fill
    assert beside <= 0.1 + 2 * alone, (beside, alone)  # other programs of the machine are in both
    assert min(hose.cut) - began >= LIMIT
    metrics = await gateway.metrics()
    assert metrics.value("hookgate_in_flight") == 0
    assert metrics.value("hookgate_upstream_connections", state="acquired") == 0
    assert metrics.value("hookgate_requests_total", outcome="client_gone") == READERS
