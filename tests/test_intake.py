"""The way in, at a front door without a gateway behind it: bodies by their kind, limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from gateway.body import Payload
from gateway.config import Duration, Server, Size
from gateway.errors import Forbidden, GatewayError, InvalidRequest, RequestTimeout, UpstreamTimeout
from gateway.exchange import Exchange, Principal, Surface
from gateway.front import Front
from gateway.intake import FORM_HEAD, Intake, StreamedBody
from gateway.testing import RawClient
from gateway.watchdog import Guard, Watchdog

JSON = Surface("chat", "openai_chat", "/chat/completions", "json")
ANY = Surface("audio", "openai_chat", "/audio/transcriptions", "any")
FORM = {"Content-Type": "multipart/form-data; boundary=cut"}
MODEL = b'--cut\r\nContent-Disposition: form-data; name="model"\r\n\r\nsmall\r\n'
FILE = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n%b\r\n'
END = b"--cut--\r\n"

Use = Callable[[Exchange], Awaitable[Any]]


class Reader:
    """Reads what comes in at ``url`` with an ``Intake``; ``exchange`` and ``outcome`` are the last one's."""

    def __init__(self, use: Use, surface: Surface, principal: Principal | None, **settings: Any) -> None:
        self.intake = Intake(Server(**settings))
        self.watchdog = Watchdog()
        self.url = ""
        self.exchange: Exchange | None = None
        self.outcome: Any = None
        self._facts = use, surface, principal

    async def handle(self, request: Any) -> web.StreamResponse:
        use, surface, principal = self._facts
        exchange = self.exchange = Exchange(request, surface, self.intake.read)
        exchange.principal = principal
        guard = exchange.guard = Guard(asyncio.current_task())  # type: ignore[arg-type]
        self.watchdog.guards.add(guard)
        try:
            self.outcome = await use(exchange)
        except GatewayError as error:
            self.outcome = error
        finally:
            self.watchdog.guards.discard(guard)
        status = self.outcome.http_status if isinstance(self.outcome, GatewayError) else 200
        return web.Response(status=status)


async def take(exchange: Exchange) -> Any:
    """Read, and take a streamed body's blocks as a provider's connection does: in a task of its own."""
    payload = await exchange.read()
    if payload.raw is not None:
        return payload

    async def sent() -> bytes:
        return b"".join([block async for block in payload.chunks()])

    writer = asyncio.get_running_loop().create_task(sent())
    try:
        await asyncio.wait({writer})
        return await writer
    except asyncio.CancelledError:
        writer.cancel()
        raise exchange.guard.caught() or InvalidRequest("cancelled by somebody else") from None


@asynccontextmanager
async def reading(
    use: Use = take, surface: Surface = ANY, principal: Principal | None = None, **settings: Any
) -> AsyncIterator[Reader]:
    reader = Reader(use, surface, principal, **settings)
    front = Front(reader.handle, {}, access_log=None, lingering_time=0.1)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(front, "127.0.0.1", 0)
    watching = loop.create_task(reader.watchdog.run())
    reader.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield reader
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        server.close()
        await front.shutdown(1.0)
        await server.wait_closed()


async def post(
    reader: Reader,
    body: bytes | None,
    headers: dict[str, str] | None = None,
    *,
    method: str = "POST",
    target: str = "/",
) -> int:
    async with RawClient(reader.url) as client:
        await client.request(method, target, headers or {}, body)
        return (await client.read()).status


async def test_json_is_parsed_whatever_its_type_says() -> None:
    async with reading(surface=JSON) as reader:
        assert await post(reader, b'{"model":"m","stream":true}', {"Content-Type": "text/plain"}) == 200
        assert isinstance(reader.outcome, Payload)
        assert reader.exchange is not None and (reader.exchange.model, reader.exchange.stream) == ("m", True)


async def test_where_any_body_is_served_its_type_decides() -> None:
    async with reading() as reader:
        assert await post(reader, b'{"model":"m"}', {"Content-Type": "application/json; charset=utf-8"}) == 200
        assert reader.outcome.json() == {"model": "m"}
        assert await post(reader, b'{"model":"m"}', {"Content-Type": "audio/wav"}) == 200
        assert reader.outcome == b'{"model":"m"}' and reader.exchange is not None and reader.exchange.model is None


async def test_no_body_is_an_empty_one() -> None:
    async with reading() as reader:
        for headers in ({}, {"Content-Type": "application/json"}):
            assert await post(reader, None, headers, method="GET") == 200
            assert reader.outcome.raw == b"" and reader.outcome.model is None


@pytest.mark.parametrize("size", [0, 1000, FORM_HEAD - 200])
@pytest.mark.parametrize("first", [True, False], ids=["model first", "file first"])
async def test_a_form_is_sent_on_as_it_came(first: bool, size: int) -> None:
    parts = [MODEL, FILE % bytes(size)]
    body = b"".join(parts if first else parts[::-1]) + END
    async with reading() as reader:
        assert await post(reader, body, FORM) == 200
        assert reader.outcome == body
        assert reader.exchange is not None and reader.exchange.model == "small"


async def blocks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_a_body_without_a_model_has_none_to_replace() -> None:
    body = StreamedBody(blocks(b"ab", b"c"))
    before = body.sent
    assert body.growth("other") == 0
    assert b"".join([block async for block in body.chunks("other")]) == b"abc"
    assert (before, body.sent) == (False, True)
    assert body.get("model") is None
    with pytest.raises(InvalidRequest):
        body.json()


async def test_a_model_is_replaced_where_it_stands() -> None:
    async def renamed(exchange: Exchange) -> tuple[int, bytes]:
        payload = await exchange.read()
        return payload.growth("much-larger"), b"".join([block async for block in payload.chunks("much-larger")])

    body = FILE % b"model small" + MODEL + END
    async with reading(renamed) as reader:
        assert await post(reader, body, FORM) == 200
        assert reader.outcome == (6, body.replace(b"\r\nsmall\r\n", b"\r\nmuch-larger\r\n"))


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"model":"large"}', {"Content-Type": "application/json"}),
        (MODEL.replace(b"small", b"large") + END, FORM),
        (b'{"model":"large"}', {"Content-Type": "text/plain"}),
        (b'{"model":"large"}', {}),
    ],
    ids=["json", "form", "text", "no type"],
)
async def test_r16_a_limited_key_and_another_model(body: bytes, headers: dict[str, str]) -> None:
    named = headers.get("Content-Type", "text/plain") != "text/plain"
    for models, status in ((("small",), 403), (("l*", "small"), 200 if named else 403), (("*",), 200)):
        async with reading(principal=Principal("p", models)) as reader:
            assert await post(reader, body, headers) == status
            assert isinstance(reader.outcome, Forbidden) == (status == 403)


async def test_r36_a_length_that_is_too_large_and_chunks_that_become_so() -> None:
    chunked = {"Transfer-Encoding": "chunked", "Content-Type": "audio/wav"}
    async with reading(max_body=Size(100)) as reader:
        assert await post(reader, bytes(100), {"Content-Type": "audio/wav"}) == 200
        assert await post(reader, bytes(101), {"Content-Type": "audio/wav"}) == 413
        assert await post(reader, b"64\r\n" + bytes(100) + b"\r\n0\r\n\r\n", chunked) == 200
        assert await post(reader, b"64\r\n" + bytes(100) + b"\r\n1\r\nx\r\n0\r\n\r\n", chunked) == 413
        assert await post(reader, bytes(101), {"Content-Type": "application/json"}) == 413


@pytest.mark.parametrize("surface", [JSON, ANY], ids=["json", "streamed"])
async def test_r40_a_pause_and_a_whole_that_take_too_long(surface: Surface) -> None:
    limited = partial(reading, surface=surface, body_timeout=Duration(0.4), body_total=Duration(1.0))
    for pieces, pause in ((1, 0), (20, 0.2)):
        async with limited() as reader, RawClient(reader.url) as client:
            await client.request("POST", "/", {"Content-Length": "1000"})
            answer = asyncio.ensure_future(client.read())
            for _ in range(pieces):
                await client.send(b" ")
                await asyncio.wait({answer}, timeout=pause)
                if answer.done():
                    break
            assert (await answer).status == 408
            assert isinstance(reader.outcome, RequestTimeout)


@pytest.mark.parametrize("surface", [JSON, ANY], ids=["json", "streamed"])
async def test_a_body_that_ends_early_is_not_a_whole_one(surface: Surface) -> None:
    async with reading(surface=surface) as reader:
        async with RawClient(reader.url) as client:
            await client.request("POST", "/", {"Content-Length": "1000"})
            await client.send(b'{"model":"m"}')
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.2)
        assert not isinstance(reader.outcome, (Payload, bytes))


async def test_a_providers_time_stands_still_while_the_client_sends() -> None:
    async def timed(exchange: Exchange) -> Any:
        payload = await exchange.read()
        exchange.guard.arm(0.5, lambda: UpstreamTimeout("The provider was too slow."))
        async for _ in payload.chunks():
            pass
        return exchange.guard.at - asyncio.get_running_loop().time()

    async with reading(timed) as reader, RawClient(reader.url) as client:
        await client.request("POST", "/", {"Content-Length": "4"})
        for _ in range(4):
            await asyncio.sleep(0.3)
            await client.send(b"x")
        assert (await client.read()).status == 200
        assert 0.3 < reader.outcome <= 0.5


async def test_100_continue_is_said_when_the_body_is_wanted() -> None:
    async with reading(max_body=Size(10)) as reader:
        for length, said in ((5, b"HTTP/1.1 100"), (50, b"HTTP/1.1 413")):
            async with RawClient(reader.url) as client:
                await client.request("POST", "/", {"Content-Length": str(length), "Expect": "100-continue"})
                assert (await client.read_some()).startswith(said)


@pytest.mark.parametrize(
    "query", ["model=x", "MODEL=x", "a&%6dodel", "stream_options=1", "base_url=http://x", "Api_Key=k"]
)
async def test_r17_the_query_does_not_steer(query: str) -> None:
    async with reading(surface=JSON) as reader:
        assert await post(reader, b'{"model":"m"}', target=f"/?{query}") == 400
        assert await post(reader, b'{"model":"m"}', target="/?api-version=1&models=2") == 200


def test_ids_are_unique() -> None:
    ids = [intake.new_id() for intake in (Intake(Server()), Intake(Server())) for _ in range(1000)]
    assert len(set(ids)) == 2000
