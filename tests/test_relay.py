"""Streams in, streams out: no byte changed, no event torn, no ending claimed that the provider did not send."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import pytest
from aiohttp import web

from gateway.errors import UpstreamUnreachable
from gateway.exchange import Exchange, Reply, Surface
from gateway.relay import send_stream, send_whole
from gateway.testing import RawClient, Truncated, chat_events
from gateway.watchdog import Guard, Watchdog

SURFACE = Surface("chat", "openai_chat", "/chat/completions")
Send = Callable[[web.Request, Exchange], Any]


async def source(*chunks: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if error is not None:
        raise error


@attrs.define
class Stage:
    url: str
    exchanges: list[Exchange]


@contextlib.asynccontextmanager
async def stage(send: Send) -> AsyncIterator[Stage]:
    """A server whose every request is answered by ``send``, with a guard as the dispatcher gives."""
    made = Stage("", [])
    watchdog = Watchdog()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        exchange = Exchange(request, SURFACE, lambda _: asyncio.sleep(0))
        guard = exchange.guard = Guard(asyncio.current_task())  # type: ignore[arg-type]
        watchdog.guards.add(guard)
        made.exchanges.append(exchange)
        response: web.StreamResponse = await send(request, exchange)  # type: ignore[arg-type]
        return response

    server = web.Server(handle)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    looking = asyncio.get_running_loop().create_task(watchdog.run())
    try:
        yield made
    finally:
        looking.cancel()
        listening.close()
        await server.shutdown(0.1)


IMPATIENT = 0.5  # seconds a reader may stop


async def firehose() -> AsyncIterator[bytes]:
    while True:
        yield b"data: " + b"x" * 65000 + b"\n\n"


@pytest.mark.parametrize("kind", ["stream", "large event", "whole"])
async def test_r41_a_reader_that_stops_is_cut(kind: str) -> None:
    async def send(request: web.Request, exchange: Exchange) -> web.StreamResponse:
        if kind == "stream":
            return await send_stream(request, exchange, Reply(200), firehose(), True, IMPATIENT)
        if kind == "large event":
            return await send_stream(request, exchange, Reply(200), source(b"x" * (30 << 20)), True, IMPATIENT)
        return await send_whole(request, exchange, Reply(200, {}, b"x" * (30 << 20)), IMPATIENT)

    async with stage(send) as made, RawClient(made.url) as client:
        await client.request("GET", "/")
        await client.read_head()
        await asyncio.sleep(2.0)
        (exchange,) = made.exchanges
        assert exchange.outcome == "client_gone"
        # What had been buffered is lost too: the connection was aborted, not closed politely.
        with pytest.raises(Truncated):
            async for _ in client.body():
                pass


@pytest.mark.alone
async def test_r41_a_slow_reader_that_reads_is_not_cut() -> None:
    size = 12 << 20

    async def send(request: web.Request, exchange: Exchange) -> web.StreamResponse:
        return await send_stream(request, exchange, Reply(200), source(b"x" * size), False, IMPATIENT)

    async with stage(send) as made, RawClient(made.url) as client:
        await client.request("GET", "/")
        await client.read_head()
        received = 0
        async for piece in client.body():
            received += len(piece)
            await asyncio.sleep(len(piece) / (6 << 20))
        assert received == size
        assert made.exchanges[0].outcome == "ok"


@pytest.mark.parametrize("error", [UpstreamUnreachable("The provider is gone."), KeyError("our own mistake")])
async def test_r28_whatever_breaks_a_stream_is_told_and_cut(error: Exception) -> None:
    first = chat_events(1)[0]

    async def send(request: web.Request, exchange: Exchange) -> web.StreamResponse:
        return await send_stream(request, exchange, Reply(200), source(first, error=error), True, IMPATIENT)

    async with stage(send) as made, RawClient(made.url) as client:
        await client.request("GET", "/")
        with pytest.raises(Truncated) as cut:
            await client.read()
        told = cut.value.received
        assert told.startswith(first + b'data: {"error":') and told.endswith(b"\n\n")
        assert b"mistake" not in told
        expected = "upstream_failed" if isinstance(error, UpstreamUnreachable) else "failed"
        assert made.exchanges[0].outcome == expected


async def test_r35_of_a_stream_that_breaks_it_is_known_what_was_sent() -> None:
    events = chat_events(200)[:-2]
    replies: list[Reply] = []

    async def send(request: web.Request, exchange: Exchange) -> web.StreamResponse:
        reply = Reply(200)
        reply.events = object() if exchange.path == "/events" else None
        reply.first = b"".join(events[:2])
        replies.append(reply)
        blocks = source(*events[2:], error=UpstreamUnreachable("The provider is gone."))
        return await send_stream(request, exchange, reply, blocks, True, IMPATIENT)

    async with stage(send) as made:
        for path in ("/events", "/bytes"):
            async with RawClient(made.url) as client:
                await client.request("GET", path)
                with pytest.raises(Truncated):
                    await client.read()
    sent = sum(map(len, events))
    assert [each.reply_bytes for each in made.exchanges] == [sent, sent]
    assert replies[0].sample.tokens(sent) == pytest.approx(200, rel=0.02)


async def test_taps_get_exactly_what_the_client_gets() -> None:
    tapped: dict[str, list[bytes]] = {}

    async def send(request: web.Request, exchange: Exchange) -> web.StreamResponse:
        reply = Reply(200, {}, None if "stream" in exchange.path else b"x" * int(exchange.path[1:]))
        reply.taps.append(tapped.setdefault(exchange.path, []).append)
        if reply.body is None:
            return await send_stream(request, exchange, reply, source(b"one", b"two"), False, IMPATIENT)
        return await send_whole(request, exchange, reply, IMPATIENT)

    async with stage(send) as made, RawClient(made.url) as client:
        for path in ("/stream", "/0", "/9", "/65535", "/65536", "/3000000"):
            await client.request("GET", path)
            reply = await client.read()
            assert b"".join(tapped[path]) == reply.body
            assert made.exchanges[-1].reply_bytes == len(reply.body)
            assert reply.body == b"onetwo" or reply.header("content-length") == path[1:]
