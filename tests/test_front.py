"""The front door on a socket of its own: what is let in, how refusals look, which connections are ended and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from gateway.errors import InvalidRequest
from gateway.front import Front, refusal
from gateway.testing import RawClient


def test_r62_a_refusal_is_json_and_tells_no_version() -> None:
    response = refusal(InvalidRequest("No."), "req-1")
    assert response.headers["server"] == "hookgate" and response.content_type == "application/json"
    assert response.keep_alive is False


async def hello(request: Any) -> web.StreamResponse:
    if request.path == "/broken":
        raise RuntimeError("a secret detail")
    if request.path == "/wait":
        await asyncio.sleep(0.6)
    return web.Response(text="hello", headers={"server": "hookgate"})


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[tuple[Front, str]]:
    front = Front(hello, {}, access_log=None, keepalive_timeout=75.0, **settings)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(front, "127.0.0.1", 0)
    sweep = loop.create_task(front.sweep())
    try:
        yield front, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        sweep.cancel()
        await asyncio.gather(sweep, return_exceptions=True)
        server.close()
        await front.shutdown(1.0)
        await server.wait_closed()


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\n"], ids=["nothing", "a byte", "half"])
async def test_r40_a_head_that_does_not_come_ends_the_connection(sent: bytes) -> None:
    async with served(head_timeout=0.3) as (_, url), RawClient(url) as client:
        await client.send(sent)
        await asyncio.sleep(0.15)
        with pytest.raises(TimeoutError):
            await client.wait_closed(0.05)
        assert await client.wait_closed(1) == b""


async def test_r40_waiting_for_an_answer_or_for_a_next_request_is_not_slow() -> None:
    async with served(head_timeout=0.2) as (_, url), RawClient(url) as client:
        for path in ("/", "/wait", "/"):
            await client.request("GET", path)
            assert (await client.read()).status == 200
            await asyncio.sleep(0.5)


async def test_r40_a_next_head_has_the_limit_again() -> None:
    async with served(head_timeout=0.2) as (_, url), RawClient(url) as client:
        await client.request("GET", "/")
        assert (await client.read()).status == 200
        await client.send(b"GET / HT")
        assert await client.wait_closed(1) == b""


async def test_r40_one_address_has_so_many_connections() -> None:
    async with served(max_per_peer=2) as (front, url):
        async with RawClient(url) as one, RawClient(url) as two, RawClient(url) as third:
            assert await third.wait_closed(1) == b""
            for client in (one, two):
                await client.request("GET", "/")
                assert (await client.read()).status == 200
        for _ in range(50):
            if not front.peers:
                break
            await asyncio.sleep(0.02)
        assert not front.peers
        async with RawClient(url) as again:
            await again.request("GET", "/")
            assert (await again.read()).status == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n", 500),
    ],
    ids=["long header", "long target", "nonsense", "two lengths", "broken handler"],
)
async def test_r62_aiohttps_own_errors_are_in_our_shape(sent: bytes, status: int) -> None:
    async with served() as (_, url), RawClient(url) as client:
        await client.send(sent)
        answer = await client.read()
        assert answer.status == status and "error" in answer.json
        assert answer.header("server") == "hookgate" and answer.header("connection") == "close"
        assert b"secret" not in answer.body and b"aiohttp" not in answer.head.raw
        assert await client.wait_closed(1) == b""


async def ask(client: RawClient, path: str = "/") -> int:
    await client.request("GET", path)
    return (await client.read()).status


async def test_idle_connections_can_be_closed_and_others_stay() -> None:
    async with served() as (front, url), RawClient(url) as idle, RawClient(url) as busy, RawClient(url) as fresh:
        assert await ask(idle) == 200
        await busy.request("GET", "/wait")
        await asyncio.sleep(0.2)
        since = asyncio.get_running_loop().time() - 0.1
        assert await ask(fresh) == 200
        assert front.close_idle(0.0) == 3
        front.close_idle(since)
        assert await idle.wait_closed(1) == b""
        assert front.close_idle(since) == 2
        assert (await busy.read()).status == 200
        assert await ask(fresh) == 200


async def test_routes_can_be_replaced_under_open_connections() -> None:
    async def other(request: Any) -> web.StreamResponse:
        return web.Response(status=202)

    async def exact(request: Any) -> web.StreamResponse:
        return web.Response(status=203)

    async with served() as (front, url), RawClient(url) as client:
        assert [await ask(client, "/"), await ask(client, "/exact")] == [200, 200]
        front.handler, front.exact = other, {("GET", "/exact"): exact}
        assert [await ask(client, "/"), await ask(client, "/exact")] == [202, 203]


@pytest.mark.parametrize("outlives", [True, False])
async def test_what_outlives_its_client_is_not_cancelled(outlives: bool) -> None:
    ended: list[str] = []
    asked: list[bool] = []

    async def handle(request: Any) -> web.StreamResponse:
        def goes_on() -> bool:
            asked.append(True)
            return outlives

        request.protocol.outlived = goes_on
        try:
            await asyncio.sleep(0.3)
            ended.append("whole" if request.transport is None else "with its client")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return web.Response(text="to nobody")

    async with served(handler_cancellation=True) as (front, url):
        front.handler = handle
        async with RawClient(url) as client:
            await client.request("GET", "/")
            await asyncio.sleep(0.1)
            client.leave()
            await asyncio.sleep(0.1)
            assert ended == ([] if outlives else ["cancelled"])
            await asyncio.sleep(0.3)
        assert ended == (["whole"] if outlives else ["cancelled"]) and asked == [True]
        assert not front.connections
