"""R14: the key is looked at before a byte of the body; a stranger learns 401 and costs nothing."""

from __future__ import annotations

import asyncio
import http.client
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

import pytest

from gateway.testing import GatewayProcess, RawClient, ScriptedUpstream
from tests.integration.conftest import KEY, Door

PATH = "/v1/chat/completions"
MB = 1 << 20
LENGTH = 50 * MB
HOSTILE = {
    "sql": "' OR 1=1; DROP TABLE keys; --",
    "unicode": "\N{SNOWMAN}\u202e",
    "prefix": KEY[:-1],
    "longer": KEY + "x",
    "other case": KEY.upper(),
    "empty": "",
    "spaces": "   ",
    "glob": "*",
    "control": "a\x7f\x01b",
    "nul": "a\0b",
    "long": "k" * 8000,
    "megabyte": "k" * MB,
}
HEADERS = ["Authorization", "x-api-key", "api-key", "x-goog-api-key"]


def resident(gateway: GatewayProcess) -> int:
    lines = Path(f"/proc/{gateway.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


async def test_r14_a_stranger_is_answered_before_the_body(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """nginx in front reads the whole body first (proxy_request_buffering); the gateway reads none of it."""
    async with RawClient(gateway.url) as client:
        await client.request("POST", PATH, {"Authorization": "Bearer wrong", "Content-Length": str(LENGTH)})
        assert (await client.read()).status == 401
    assert upstream.requests == []


def _blocking_upload(door: Door, key: str, length: int) -> tuple[int, bytes]:
    """As a simple client does it: everything is sent first, then the answer is read."""
    parts = urlsplit(door.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    try:
        headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Host": door.host or parts.netloc,
        }
        connection.request("POST", PATH, bytes(length), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("attempt", range(3))
async def test_r14_the_401_reaches_who_sends_50_mb_first(
    door: Door, gateway: GatewayProcess, upstream: ScriptedUpstream, attempt: int
) -> None:
    before = resident(gateway)
    status, body = await asyncio.to_thread(_blocking_upload, door, "wrong", LENGTH)
    assert status == 401 and b'"error"' in body
    assert resident(gateway) - before < 2 * MB
    assert upstream.requests == []


async def test_r14_who_leaves_after_the_401_leaves_no_trace(gateway: GatewayProcess) -> None:
    for leave in (RawClient.leave, RawClient.abort):
        async with RawClient(gateway.url) as client:
            await client.request("POST", PATH, {"Content-Length": str(LENGTH)})
            await client.send(bytes(100_000))
            assert (await client.read_head()).start.startswith("HTTP/1.1 401")
            leave(client)
    await asyncio.sleep(0.2)  # the gateway's output is checked for tracebacks when it ends


async def test_r14_an_endless_body_is_cut(gateway: GatewayProcess) -> None:
    async with RawClient(gateway.url) as client:
        await client.request("POST", PATH, {"Transfer-Encoding": "chunked"})
        began = perf_counter()
        with pytest.raises(ConnectionError):
            while perf_counter() - began < 10:
                await client.send(b"400\r\n" + bytes(1024) + b"\r\n")
                await asyncio.sleep(0.01)
    assert perf_counter() - began < 6


async def test_r14_nothing_behind_an_unread_body_is_taken_for_a_request(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    async with RawClient(gateway.url) as client:
        await client.request("POST", PATH, {"Content-Length": "5"})
        assert (await client.read()).header("connection") == "close"
        await client.request("GET", "/v1/models", {"Authorization": f"Bearer {KEY}"})
        assert await client.wait_closed(5) == b""


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("key", HOSTILE.values(), ids=HOSTILE)
async def test_r14_hostile_keys_are_refused(
    gateway: GatewayProcess, upstream: ScriptedUpstream, header: str, key: str
) -> None:
    value = f"Bearer {key}" if header == "Authorization" else key
    body = b'{"model":"m","messages":[]}'
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{header}: ".encode()
    async with RawClient(gateway.url) as client:
        await client.send(head + value.encode() + b"\r\n\r\n" + body)
        assert (await client.read()).status in (400, 401, 431)
    assert upstream.requests == []


@pytest.mark.alone
async def test_r14_wrong_keys_are_not_much_slower_than_right_ones(gateway: GatewayProcess) -> None:
    async def slowest_of_most(key: str) -> float:
        times = []
        async with RawClient(gateway.url) as client:
            for _ in range(300):
                began = perf_counter()
                await client.request("GET", "/v1/models", {"Authorization": f"Bearer {key}"})
                await client.read()
                times.append(perf_counter() - began)
        return sorted(times)[240]

    assert await slowest_of_most("x" * 7000) < 4 * await slowest_of_most(KEY) + 0.02
