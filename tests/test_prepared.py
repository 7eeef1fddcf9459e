"""The fast way upstream against the installed aiohttp: same requests, same answers, same pool as aiohttp's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from yarl import URL

from gateway.prepared import ReusedConnectionLost, Route, lines, supported
from gateway.settings import Pool
from gateway.testing import Call, Script, ScriptedUpstream, chat, hang_up, raw, silent, stream, whole
from gateway.upstream import Upstream

OK = chat("hi")
HEADERS = CIMultiDict([("Content-Type", "application/json"), ("X-A", "1"), ("X-A", "2"), ("User-Agent", "t")])


@contextlib.asynccontextmanager
async def route(
    script: Script | list[Script], base: str = ""
) -> AsyncIterator[tuple[ScriptedUpstream, Upstream, Route]]:
    async with ScriptedUpstream(script) as server:
        upstream = Upstream(Pool(max_connections=2))
        timeout = aiohttp.ClientTimeout(total=None)
        try:
            yield server, upstream, Route(upstream.session, URL(server.url + base), True, timeout, 65536)
        finally:
            await upstream.close()


async def exchange(
    way: Route, body: bytes | None = b"{}", method: str = "POST", path: str = "/v1/x"
) -> tuple[int, bytes]:
    connection, message, payload = await way.call(method, path, lines(HEADERS.items()), body)
    payload.on_eof(connection.release)
    return message.code, await payload.read()


def test_the_installed_aiohttp_is_supported() -> None:
    assert supported()


@pytest.mark.parametrize(
    "body", [None, b"", b"{}", b"x" * 65536, b"y" * 3_000_000], ids=["none", "0", "2", "64k", "3M"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
async def test_the_request_means_what_aiohttps_own_would(method: str, body: bytes | None) -> None:
    async with route(OK) as (server, upstream, way):
        await exchange(way, body, method)
        async with upstream.session.request(
            method, f"{server.url}/v1/x", data=body, headers=HEADERS, allow_redirects=False
        ) as answer:
            await answer.read()
        ours, theirs = server.calls
        assert (ours.method, ours.target, ours.body) == (theirs.method, theirs.target, theirs.body)
        assert ours.head.start == theirs.head.start

        # aiohttp adds Accept and Accept-Encoding; an empty body may be told or not, RFC 9110 section 8.6.
        def meaning(call: Any) -> list[tuple[str, str]]:
            left_out = {"accept", "accept-encoding"} | (set() if body else {"content-length"})
            return sorted((name.lower(), value) for name, value in call.headers if name.lower() not in left_out)

        assert meaning(ours) == meaning(theirs)
        assert len(server.connections) == 1, "the second took the first one's connection"


@pytest.mark.parametrize("text", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b", "\r\n\r\nGET /admin HTTP/1.1"])
@pytest.mark.parametrize("place", ["value", "name", "path", "method"])
async def test_a_line_break_never_reaches_the_wire(text: str, place: str) -> None:
    parts: dict[str, Any] = {"method": "POST", "path": "/x", "headers": [("X-A", "1")], "body": b"{}"}
    if place == "value":
        parts["headers"] = [("X-A", text)]
    elif place == "name":
        parts["headers"] = [(text, "1")]
    else:
        parts[place] = text if place == "method" else f"/{text}"
    async with route(OK) as (server, _, way):
        with pytest.raises(ValueError, match="line break"):
            await way.call(**parts | {"headers": lines(parts["headers"])})
        assert not server.connections


@given(st.dictionaries(st.sampled_from(["A", "B", "C"]), st.text(max_size=6)))
def test_line_breaks_are_found_in_any_text(headers: dict[str, str]) -> None:
    if any(char in value for value in headers.values() for char in "\r\n\0"):
        with pytest.raises(ValueError, match="line break"):
            lines(headers.items())
    else:
        expected = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        assert lines(headers.items()) == expected.encode("utf-8", "surrogateescape")


DYING: dict[str, Script] = {"closed": hang_up, "reset": raw(b"", "reset")}


@pytest.mark.parametrize("name", DYING)
async def test_r46_a_kept_connection_that_dies_is_told_apart(name: str) -> None:
    async with route([OK, DYING[name], OK]) as (server, _, way):
        assert (await exchange(way))[0] == 200
        with pytest.raises(ReusedConnectionLost):
            await exchange(way)
        assert len(server.connections) == 1


@pytest.mark.parametrize("name", DYING)
async def test_r46_a_fresh_connection_that_dies_is_not(name: str) -> None:
    async with route(DYING[name]) as (_, _, way):
        with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)) as lost:
            await exchange(way)
        assert not isinstance(lost.value, ReusedConnectionLost)


async def test_r46_a_kept_connection_that_dies_behind_the_first_byte_is_not() -> None:
    async with route([OK, raw(b"HTTP/1.1 200 OK\r\nContent-Ty")]) as (_, _, way):
        await exchange(way)
        with pytest.raises(aiohttp.ClientError) as lost:
            await exchange(way)
        assert not isinstance(lost.value, ReusedConnectionLost)


async def interim(call: Call) -> None:
    await call.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    await call.answer(200, b"final")


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        (interim, (200, b"final")),
        (whole(204, b""), (204, b"")),
        (whole(503, b"no"), (503, b"no")),
        (stream([b"a", b"b"]), (200, b"ab")),
        (raw(b"HTTP/1.0 200 OK\r\n\r\nuntil close"), (200, b"until close")),
        (raw(b"HTTP/1.1 200 OK\r\nX: " + b"h" * 9000 + b"\r\nContent-Length: 2\r\n\r\nok", "keep"), (200, b"ok")),
    ],
    ids=["interim", "204", "503", "chunked", "HTTP/1.0", "9 KB header"],
)
async def test_any_answer_is_read_and_the_connection_given_back(script: Script, answer: tuple[int, bytes]) -> None:
    async with route(script) as (_, upstream, way):
        for _ in range(3):  # the pool has two
            assert await exchange(way) == answer
        assert upstream.stats()["acquired"] == 0


async def test_a_head_answer_has_no_body() -> None:
    async with route([raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "keep"), OK]) as (server, _, way):
        assert await exchange(way, None, "HEAD") == (200, b"")
        assert (await exchange(way))[0] == 200
        assert len(server.connections) == 1


async def test_idle_connections_are_forgotten_on_demand() -> None:
    async with route(OK) as (server, upstream, way):
        await exchange(way)
        assert upstream.stats()["idle"] == 1
        way.forget_idle()
        assert upstream.stats()["idle"] == 0
        await server.until(lambda: server.open_connections == 0)


async def test_a_full_pool_is_waited_for_no_longer_than_connecting_may_take() -> None:
    async with ScriptedUpstream(silent) as server:
        upstream = Upstream(Pool(max_connections=1))
        timeout = aiohttp.ClientTimeout(total=None, connect=0.2, sock_connect=0.2)
        way = Route(upstream.session, URL(server.url), True, timeout, 65536)
        held = await way._connector.connect(way._request, [], timeout)
        with pytest.raises(aiohttp.ConnectionTimeoutError):
            await exchange(way)
        held.close()
        await upstream.close()


async def test_r35_an_exchange_is_sent_once_there_is_a_connection() -> None:
    async with route(silent) as (server, _, way):
        exchange_ = SimpleNamespace(sent=False)
        call = asyncio.ensure_future(way.call("POST", "/x", b"", b"{}", exchange_))
        assert not exchange_.sent
        await server.wait_calls()
        assert exchange_.sent
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    async with route(silent) as (server, _, way):
        await server.stop()
        exchange_ = SimpleNamespace(sent=False)
        with pytest.raises(aiohttp.ClientConnectorError):
            await way.call("POST", "/x", b"", b"{}", exchange_)
        assert not exchange_.sent
