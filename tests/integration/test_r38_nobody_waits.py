"""R38: while one tenant sends the longest bodies there are, the loop goes round and other streams keep their pace.

A plugin inside the gateway measures the processor time between its wake-ups: what another program takes from the
machine does not count, what blocks the loop does. One wake-up comes after at most one round of the loop.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

import pytest

from gateway.testing import GatewayFactory, GatewayProcess, RawClient, fetch
from tests.support.sampler import SAMPLER

CONFIG = """
[plugins]
folders = ["$folder"]
chain = ["request_id", "logging", "metrics", "rate_limit", "cache", "sampler"]
[plugins.rate_limit]
requests_per_minute = 0
[providers.sink]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
models = ["m"]
[providers.pace]
type = "echo"
model = "pace"
delay = "20ms"
"""
LONGEST = 0.05  # seconds of processor time of one round
ANSWER = b'{"object":"list","data":[],"usage":{"prompt_tokens":1,"total_tokens":1}}'


def _sink(listener: socket.socket, received: list[int]) -> None:
    """A provider in a thread of its own, so that the test's loop stays free to listen: reads, counts, answers."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, connection.makefile("rb") as stream:
            while head := stream.readline():
                length = 0
                while head not in (b"\r\n", b""):
                    if head.lower().startswith(b"content-length:"):
                        length = int(head.split(b":")[1])
                    head = stream.readline()
                left = length
                while left:
                    left -= len(stream.read(min(left, 1 << 20)))
                received.append(length)
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER)
                    + ANSWER
                )


@pytest.fixture
def sink() -> Iterator[tuple[int, list[int]]]:
    received: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_sink, args=(listener, received), daemon=True)
        thread.start()
        yield listener.getsockname()[1], received
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.fixture
def gateway(sink: tuple[int, list[int]], gateway_server: GatewayFactory, tmp_path: Path) -> GatewayProcess:
    (tmp_path / "sampler.py").write_text(SAMPLER)
    return gateway_server(CONFIG, folder=str(tmp_path), port=str(sink[0]))


def _post(url: str, path: str, body: bytes) -> int:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


async def _gaps(url: str, stop: asyncio.Event) -> list[float]:
    """Seconds between the events of paced streams, one after another."""
    gaps = []
    while not stop.is_set():
        async with RawClient(url) as client:
            await client.chat("pace", "one two three four five " * 20, stream=True)
            await client.read_head()
            before = perf_counter()
            async for _ in client.body():
                now = perf_counter()
                gaps.append(now - before)
                before = now
    return gaps


MB = 1 << 20
BODIES: dict[str, tuple[str, Callable[[], bytes], int]] = {
    "one string": ("/v1/chat/completions", lambda: b'{"model":"m","messages":"' + b"x" * (50 * MB) + b'"}', 200),
    "escapes": ("/v1/chat/completions", lambda: b'{"model":"m","messages":"' + b"\\n" * (25 * MB) + b'"}', 200),
    "44 MB of tokens": (
        "/v1/embeddings",
        lambda: b'{"model":"m","input":[' + b"100257," * (44 * MB // 7) + b"1]}",
        200,
    ),
    "250,000 messages": (
        "/v1/chat/completions",
        lambda: b'{"model":"m","messages":[' + b'{"role":"user","content":"%b"},' % (b"y" * 150) * 250_000 + b"{}]}",
        400,
    ),
    "brackets": ("/v1/embeddings", lambda: b'{"model":"m","input":[' + b"[]," * (15 * MB) + b"1]}", 200),
    "broken at the end": ("/v1/embeddings", lambda: b'{"model":"m","input":"' + b"x" * (50 * MB), 400),
}


@pytest.mark.alone
@pytest.mark.parametrize(("path", "make", "status"), BODIES.values(), ids=BODIES)
async def test_r38_the_longest_bodies_stop_nobody(
    gateway: GatewayProcess, sink: tuple[int, list[int]], path: str, make: Callable[[], bytes], status: int
) -> None:
    body = make()
    stop = asyncio.Event()
    streams = [asyncio.ensure_future(_gaps(gateway.url, stop)) for _ in range(5)]
    await asyncio.sleep(0.3)
    await fetch(gateway.url + "/rounds")  # from here on
    statuses = [await asyncio.to_thread(_post, gateway.url, path, body) for _ in range(3)]
    rounds = (await fetch(gateway.url + "/rounds")).json
    stop.set()
    gaps = sorted(gap for stream in await asyncio.gather(*streams) for gap in stream)
    assert statuses == [status] * 3
    assert sink[1] == ([len(body)] * 3 if status == 200 else [])
    assert len(rounds) > 50 and len(gaps) > 50
    rounds.sort()
    assert rounds[-1] < 2 * LONGEST and rounds[-1 - len(rounds) // 1000 - 1] < LONGEST, rounds[-5:]
    # The machine's other programs are in this one: the bound is wide, a body parsed in one go is wider.
    assert gaps[len(gaps) * 99 // 100] < 0.25, gaps[-5:]
