"""One endpoint: where its requests go, how long they may take, what becomes of its connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from yarl import URL

from gateway import Exchange, Surface
from gateway.body import parse_small
from gateway.config import Duration, Secret, Timeouts
from gateway.errors import (
    GatewayError,
    InvalidRequest,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.settings import Pool, ProviderConfig
from gateway.tails import safe_tail
from gateway.testing import (
    WHOLE_FAULTS,
    Call,
    Script,
    ScriptedUpstream,
    chat,
    chat_body,
    delayed,
    free_ports,
    hang_up,
    silent,
    stream,
    whole,
)
from gateway.upstream import Endpoint, Upstream
from gateway.watchdog import Guard, Watchdog

CHAT = Surface("chat", "openai_chat", "/chat/completions", repeatable=True)
RESPONSES = Surface("responses", "openai_responses", "/responses", repeatable=True, stores=True)
FILES = Surface("files", "openai_chat", "/files", "any")
Start = Callable[..., Endpoint]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    made = Upstream(Pool(max_connections=2))
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def exchanging(surface: Surface = CHAT, headers: Any = ()) -> AsyncIterator[Exchange]:
    """An exchange of the current task, under a running watchdog."""
    url = SimpleNamespace(raw_path="/v1/x", raw_query_string="")
    given = CIMultiDict(headers)
    raw = tuple((name.encode(), value.encode()) for name, value in given.items())
    request = SimpleNamespace(method="POST", rel_url=url, headers=given, raw_headers=raw)
    exchange = Exchange(request, surface, lambda _: asyncio.sleep(0))
    exchange.id = "id-1"
    watchdog = Watchdog()
    exchange.guard = Guard(asyncio.current_task())  # type: ignore[arg-type]
    watchdog.guards.add(exchange.guard)
    looking = asyncio.get_running_loop().create_task(watchdog.run())
    try:
        yield exchange
    finally:
        looking.cancel()


def limits(**seconds: float) -> Timeouts:
    return Timeouts(**{name: Duration(value) for name, value in seconds.items()})


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host/v1", "host/v1", "//host/v1", "https://", "https:///v1", "https://user@host/v1", "file:///etc/passwd",
        "https://api.openai.com@evil.test/v1", "https://evil.test/?q=api.openai.com", "https://evil.test#api.openai.com",
        "https://evil.test\\@api.openai.com/v1", "http://host /v1", "http://host/v1\r\nX: y", "http://hö.test/v1", "",
    ],
)  # fmt: skip
async def test_r21_what_is_no_plain_address_is_refused(upstream: Upstream, address: str) -> None:
    with pytest.raises(ValueError, match=r"address|URL|url|port|host"):
        upstream.endpoint("p", address)


_TAILS = st.lists(
    st.sampled_from([
        "a", "..", ".", "//", "/", "@evil.test", ":9", "%2e%2e", "%2f", "\\", "?q", "#f", "http://e.test", ";", "%00",
    ]),
    max_size=6,
).map("".join)  # fmt: skip


@given(_TAILS, st.sampled_from(["http://127.0.0.1:8000/v1", "https://api.test", "https://api.test:8443/a/b/"]))
def test_r21_no_path_leaves_the_origin(tail: str, base: str) -> None:
    async def build() -> Upstream:
        return Upstream(Pool())

    with asyncio.Runner() as runner:
        upstream = runner.run(build())
        endpoint = upstream.endpoint("p", base)
        runner.run(upstream.close())
    try:
        path = safe_tail(tail)
    except GatewayError:
        return
    url = endpoint.url(path)
    assert url.origin() == URL(base).origin()
    assert url.user is None and str(url).startswith(base.rstrip("/"))


async def test_r21_the_credential_goes_with_the_endpoint(upstream: Upstream) -> None:
    async with ScriptedUpstream(chat()) as one, ScriptedUpstream(chat()) as two, exchanging() as exchange:
        for name, server in (("one", one), ("two", two)):
            secret = Secret(f"key-{name}")
            endpoint = upstream.endpoint(
                name, f"{server.url}/v1", headers={"Authorization": secret.prefixed("Bearer ")}
            )
            for body in (b"{}", stream_of(b"{}")):
                answer = await endpoint.send(exchange, "POST", "/x", body=body)
                await answer.read()
        for name, server in (("one", one), ("two", two)):
            assert [call.header("authorization") for call in server.calls] == [f"Bearer key-{name}"] * 2


async def stream_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("streamed", [False, True], ids=["prepared", "session"])
async def test_a_request_carries_what_it_should(upstream: Upstream, streamed: bool) -> None:
    sent = {"anthropic-beta": "b", "Cookie": "c", "Authorization": "Bearer client", "Accept-Encoding": "gzip"}
    async with ScriptedUpstream(chat()) as server, exchanging(headers=sent) as exchange:
        endpoint = upstream.endpoint("p", f"{server.url}/base/v1/", headers={"X-Key": "k"})
        body = stream_of(b"a", b"b") if streamed else b"ab"
        answer = await endpoint.send(exchange, "POST", "/a%2Fb", query="x=%20y", body=body, headers={"X-More": "m"})
        assert (answer.status, await answer.read()) == (200, chat_body())
        (call,) = server.calls
        assert (call.target, bytes(call.body)) == ("/base/v1/a%2Fb?x=%20y", b"ab")
        assert call.header("anthropic-beta") == "b"
        assert (call.header("x-key"), call.header("x-more"), call.header("x-request-id")) == ("k", "m", "id-1")
        assert call.header("cookie") is None and call.header("authorization") is None
        assert call.header("accept-encoding") == "identity"


@pytest.mark.parametrize("streamed", [False, True], ids=["prepared", "session"])
@pytest.mark.parametrize("fault", WHOLE_FAULTS)
async def test_every_fault_is_an_error_and_gives_its_connection_back(
    upstream: Upstream, fault: str, streamed: bool
) -> None:
    async with ScriptedUpstream(WHOLE_FAULTS[fault]) as server, exchanging(FILES) as exchange:
        endpoint = upstream.endpoint("p", server.url)
        for _ in range(3):  # the pool has two
            try:
                answer = await endpoint.send(exchange, "POST", "/x", body=stream_of(b"{}") if streamed else b"{}")
                assert answer.status == 500 or fault.startswith("body shorter")
                await answer.read()
                assert answer.status == 500
            except UpstreamError as error:
                assert error.http_status == 502, error
                assert error.target == "p"
        assert upstream.stats()["acquired"] == 0


async def test_nobody_there_is_unreachable(upstream: Upstream) -> None:
    async with exchanging() as exchange:
        endpoint = upstream.endpoint("p", f"http://127.0.0.1:{free_ports(1)[0]}")
        with pytest.raises(UpstreamUnreachable):
            await endpoint.send(exchange, "POST", "/x", body=b"{}")


@pytest.mark.parametrize("surface", [CHAT, FILES], ids=["repeatable", "not repeatable"])
async def test_r46_a_lost_kept_connection_is_repeated_once_where_that_is_right(
    upstream: Upstream, surface: Surface
) -> None:
    async with ScriptedUpstream([chat(), hang_up, chat()]) as server, exchanging(surface) as exchange:
        endpoint = upstream.endpoint("p", server.url)
        await (await endpoint.send(exchange, "POST", "/x", body=b"{}")).read()
        if surface is CHAT:
            await (await endpoint.send(exchange, "POST", "/x", body=b"{}")).read()
        else:
            with pytest.raises(UpstreamUnreachable):
                await endpoint.send(exchange, "POST", "/x", body=b"{}")
        assert len(server.calls) == (3 if surface is CHAT else 2)


async def test_r46_a_provider_may_be_exempt_from_repeating() -> None:
    config = {"never": ProviderConfig(type="x", retry_ambiguous=False), "once": ProviderConfig(type="x")}
    upstream = Upstream(Pool())
    upstream.configure(config)
    for name, calls in (("never", 2), ("once", 3)):
        async with ScriptedUpstream([chat(), hang_up, chat()]) as server, exchanging() as exchange:
            endpoint = upstream.endpoint(name, server.url)
            await (await endpoint.send(exchange, "POST", "/x", body=b"{}")).read()
            with contextlib.suppress(UpstreamUnreachable):
                await endpoint.send(exchange, "POST", "/x", body=b"{}")
            assert len(server.calls) == calls
    await upstream.close()


@pytest.mark.parametrize(("store", "calls"), [(b"true", 2), (b"null", 2), (b"false", 3)])
async def test_r46_a_stored_response_is_not_repeated(upstream: Upstream, store: bytes, calls: int) -> None:
    async with ScriptedUpstream([chat(), hang_up, chat()]) as server, exchanging(RESPONSES) as exchange:
        exchange.payload = parse_small(b'{"model":"m","store":%b}' % store)
        endpoint = upstream.endpoint("p", server.url)
        await (await endpoint.send(exchange, "POST", "/x", body=exchange.payload.raw)).read()
        with contextlib.suppress(UpstreamUnreachable):
            await (await endpoint.send(exchange, "POST", "/x", body=exchange.payload.raw)).read()
        assert len(server.calls) == calls


async def test_r46_it_is_repeated_once_only(upstream: Upstream) -> None:
    async with ScriptedUpstream([chat(), hang_up]) as server, exchanging() as exchange:
        endpoint = upstream.endpoint("p", server.url)
        await (await endpoint.send(exchange, "POST", "/x", body=b"{}")).read()
        with pytest.raises(UpstreamUnreachable):
            await endpoint.send(exchange, "POST", "/x", body=b"{}")
        assert len(server.calls) == 3


async def flood(call: Call) -> None:
    await call.head(200, {"Transfer-Encoding": "chunked"})
    while True:
        await call.chunk(b"x" * 1000)
        await asyncio.sleep(0)


def dripping(count: int = 100, pause: float = 0.05) -> Script:
    return stream([b"x"] * count, pause=pause)


@pytest.mark.parametrize(
    ("script", "seconds", "message"),
    [
        (silent, {"first_token": 0.3}, "did not answer in time"),
        (silent, {"total": 0.3}, "did not answer in time"),
        (stream([b"x"], ending="stall"), {"idle": 0.3}, "stopped sending"),
        (stream([b"x"], ending="stall"), {"idle": 9, "total": 0.5}, "took too long"),
        (dripping(), {"idle": 0.3, "total": 0.5}, "took too long"),
        (flood, {"total": 0.5}, "took too long"),
    ],
    ids=["no head", "no head, total", "stall", "stall, total", "drip, total", "flood, total"],
)
async def test_r31_each_limit_holds(
    upstream: Upstream, script: Script, seconds: dict[str, float], message: str
) -> None:
    async with ScriptedUpstream(script) as server, exchanging() as exchange:
        endpoint = upstream.endpoint("p", server.url, timeouts=limits(**seconds))
        began = monotonic()
        with pytest.raises(UpstreamTimeout, match=message):
            await read_slowly(endpoint, exchange)
        assert monotonic() - began < 1.2
        await server.wait_aborted()
        assert upstream.stats()["acquired"] == 0


async def read_slowly(endpoint: Endpoint, exchange: Exchange) -> None:
    answer = await endpoint.send(exchange, "POST", "/x", body=b"{}")
    try:
        async for _ in answer.chunks():
            await asyncio.sleep(0.001)
    finally:
        answer.close()


async def test_r31_without_a_total_a_long_answer_is_not_cut(upstream: Upstream) -> None:
    async with ScriptedUpstream(dripping(30)) as server, exchanging() as exchange:
        endpoint = upstream.endpoint("p", server.url, timeouts=limits(idle=0.5, first_token=0.5, connect=0.5))
        answer = await endpoint.send(exchange, "POST", "/x", body=b"{}")
        assert await answer.read() == b"x" * 30


@pytest.mark.parametrize("streamed", [False, True], ids=["prepared", "session"])
async def test_connect_includes_the_wait_for_the_pool(upstream: Upstream, streamed: bool) -> None:
    async with ScriptedUpstream(silent) as server, exchanging() as exchange:
        endpoint = upstream.endpoint("p", server.url, timeouts=limits(connect=0.3))
        waiting = [asyncio.get_running_loop().create_task(endpoint.send(None, "POST", "/x", body=b"")) for _ in "ab"]
        await server.wait_calls(2)
        with pytest.raises(UpstreamTimeout, match="Connecting"):
            await endpoint.send(exchange, "POST", "/x", body=stream_of(b"{}") if streamed else b"{}")
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert upstream.stats()["acquired"] == 0


async def test_a_whole_answer_has_a_limit(upstream: Upstream) -> None:
    async with ScriptedUpstream(whole(200, b"x" * 100_000)) as server, exchanging() as exchange:
        endpoint = upstream.endpoint("p", server.url)
        answer = await endpoint.send(exchange, "POST", "/x", body=b"{}")
        with pytest.raises(UpstreamProtocolError, match="over 1000 bytes long"):
            await answer.read(1000)
        assert upstream.stats()["acquired"] == 0


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
async def test_r20_a_redirect_is_an_error(upstream: Upstream, status: int) -> None:
    async with ScriptedUpstream(whole(status, b"", {"Location": "/elsewhere"})) as server, exchanging() as exchange:
        endpoint = upstream.endpoint("p", server.url)
        with pytest.raises(UpstreamProtocolError, match="redirect"):
            await endpoint.send(exchange, "POST", "/x", body=b"{}")
        assert len(server.calls) == 1
        assert upstream.stats()["acquired"] == 0


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b"])
async def test_a_header_with_a_line_break_is_the_clients_fault(upstream: Upstream, value: str) -> None:
    async with ScriptedUpstream(chat()) as server, exchanging() as exchange:
        endpoint = upstream.endpoint("p", server.url)
        for body in (b"{}", stream_of(b"{}")):
            with pytest.raises(InvalidRequest):
                await endpoint.send(exchange, "POST", "/x", body=body, headers={"X-A": value})
        assert not server.calls


async def test_a_json_document_is_kept_for_its_time(upstream: Upstream) -> None:
    async with ScriptedUpstream(chat(), models=("a", "b")) as server:
        endpoint = upstream.endpoint("p", server.url, headers={"Authorization": "Bearer k"})
        for _ in range(3):
            listed = await endpoint.get_json("/models", 60.0)
            assert [model["id"] for model in listed["data"]] == ["a", "b"]
        assert len(server.requests) == 1
        assert server.requests[0].header("authorization") == "Bearer k"


@pytest.mark.parametrize(
    "script",
    [
        whole(500, b"{}"),
        whole(200, b"<html>"),
        whole(302, b"", {"Location": "/v1/models"}),
        hang_up,
        delayed(5, chat()),
    ],
    ids=["500", "not JSON", "redirect", "hung up", "late"],
)
async def test_a_json_document_that_cannot_be_had_is_an_error(upstream: Upstream, script: Script) -> None:
    async with ScriptedUpstream(script, models=()) as server:
        endpoint = upstream.endpoint("p", server.url, timeouts=limits(connect=0.2))
        with pytest.raises(UpstreamError):
            await endpoint.get_json("/models", 60.0)
