"""R50: equal requests under way together share one call, never its failure, and outlive the one who made it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gateway.testing import (
    Call,
    LocalGateway,
    RawClient,
    Response,
    ScriptedUpstream,
    Truncated,
    chat_body,
    chat_events,
    error,
    fetch,
)

SSE = {"Content-Type": "text/event-stream"}
JSON = {"Content-Type": "application/json"}
EVENTS = chat_events(6)
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
KEYS = {"sk-alice-0123456789abcdef": "alice", "sk-bob-0123456789abcdefgh": "bob"}
CONFIG = """
[plugins]
chain = ["request_id", "metrics", "auth", "rate_limit", "cache"]
[plugins.rate_limit]
requests_per_minute = 0
[plugins.cache]
SETTINGS
[retry]
attempts = 1
[providers.up]
type = "openai_compat"
base_url = "UPSTREAM/v1"
models = ["m"]
""" + "".join(f'[keys.{name}]\nsha256 = "{sha256(key.encode()).hexdigest()}"\n' for key, name in KEYS.items())
ALICE, BOB = KEYS


class Provider:
    """Answers when told to, in two parts where it streams."""

    def __init__(self) -> None:
        self.head, self.rest = asyncio.Event(), asyncio.Event()
        self.breaks = False

    async def __call__(self, call: Call) -> None:
        await self.head.wait()
        if not call.request.json.get("stream"):
            await call.answer(200, chat_body("hello", usage=USAGE), JSON)
            return
        await call.head(200, SSE.items() | {("Transfer-Encoding", "chunked")})
        await call.chunk(b"".join(EVENTS[:3]))
        await self.rest.wait()
        if self.breaks:
            call.close()
            return
        for each in EVENTS[3:]:
            await call.chunk(each)
        await call.chunk(b"")

    def go(self) -> None:
        self.head.set()
        self.rest.set()


def config(upstream: ScriptedUpstream, settings: str = "") -> str:
    return CONFIG.replace("UPSTREAM", upstream.url).replace("SETTINGS", settings)


@contextlib.asynccontextmanager
async def gateway_of(folder: Path, upstream: ScriptedUpstream, settings: str = "") -> AsyncIterator[LocalGateway]:
    async with upstream, LocalGateway(folder, config(upstream, settings)) as gateway:
        yield gateway


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


def waiting(gateway: LocalGateway) -> int:
    return sum(len(flight._places) for flight in gateway.plugin("cache")._flights.values())


async def asked(client: RawClient, *, key: str = ALICE, headers: dict[str, str] | None = None, **fields: Any) -> None:
    await client.chat("m", key=key, headers=headers or {}, **{"temperature": 0, **fields})


async def ask(gateway: LocalGateway, **fields: Any) -> Response:
    async with RawClient(gateway.url) as client:
        await asked(client, **fields)
        return await client.read()


def crowd(gateway: LocalGateway, size: int, **fields: Any) -> list[asyncio.Task[Response]]:
    return [asyncio.get_running_loop().create_task(ask(gateway, **fields)) for _ in range(size)]


async def length(client: RawClient) -> int:
    return sum([len(piece) async for piece in client.body()])


def states(answers: list[Response]) -> list[str]:
    return sorted(str(answer.header("x-gateway-cache")) for answer in answers)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hundred_equal_requests_are_one_call(tmp_path: Path, stream: bool) -> None:
    provider = Provider()
    async with gateway_of(tmp_path, upstream := ScriptedUpstream(provider)) as gateway:
        running = crowd(gateway, 100, stream=stream)
        await until(lambda: waiting(gateway) == 99)
        provider.go()
        answers = await asyncio.gather(*running)
        assert len(upstream.calls) == 1
        assert {answer.status for answer in answers} == {200}
        assert {answer.body for answer in answers} == {b"".join(EVENTS) if stream else chat_body("hello", usage=USAGE)}
        assert states(answers) == ["coalesced"] * 99 + ["miss"]
        assert {answer.header("content-type") for answer in answers} == {(SSE if stream else JSON)["Content-Type"]}
        await until(lambda: len(gateway.exchanges) == 100)
        if not stream:
            used = [exchange.usage for exchange in gateway.exchanges]
            assert [(each.input_tokens, each.output_tokens) for each in used if each is not None] == [(3, 4)] * 100
        assert all(exchange.outcome == "ok" for exchange in gateway.exchanges)
        assert not gateway.plugin("cache")._flights
        assert (await ask(gateway, stream=stream)).header("x-gateway-cache") == "hit"
        told = (await fetch(gateway.admin_url + "/metrics")).body
        assert b'hookgate_cache_total{state="coalesced"} 99.0' in told


@pytest.mark.parametrize("stream", [False, True])
async def test_the_leader_of_twenty_leaves_before_the_head_and_all_twenty_succeed(tmp_path: Path, stream: bool) -> None:
    provider = Provider()
    async with gateway_of(tmp_path, upstream := ScriptedUpstream(provider)) as gateway:
        async with RawClient(gateway.url) as leader:
            await asked(leader, stream=stream)
            await upstream.wait_calls(1)
            running = crowd(gateway, 20, stream=stream)
            await until(lambda: waiting(gateway) == 20)
            leader.abort()
            await upstream.wait_aborted(1, 5)
        await until(lambda: waiting(gateway) == 19)
        provider.go()
        answers = await asyncio.gather(*running)
        assert states(answers) == ["coalesced"] * 19 + ["miss"]
        assert len({(answer.status, answer.body) for answer in answers}) == 1
        assert answers[0].status == 200
        assert len(upstream.calls) == 2


async def test_the_leader_of_twenty_leaves_within_the_stream_and_all_twenty_get_all_of_it(tmp_path: Path) -> None:
    provider = Provider()
    async with gateway_of(tmp_path, upstream := ScriptedUpstream(provider)) as gateway:
        async with RawClient(gateway.url) as leader:
            await asked(leader, stream=True)
            await upstream.wait_calls(1)
            running = crowd(gateway, 20, stream=True)
            await until(lambda: waiting(gateway) == 20)
            provider.head.set()
            await leader.read_head()
            await until(lambda: not waiting(gateway))
            leader.abort()
            await until(lambda: len(gateway.exchanges) == 1)
        assert gateway.exchanges[0].outcome == "client_gone"
        provider.rest.set()
        answers = await asyncio.gather(*running)
        assert {answer.body for answer in answers} == {b"".join(EVENTS)}
        assert states(answers) == ["coalesced"] * 20
        assert len(upstream.calls) == 1
        await until(lambda: not gateway.plugin("cache")._flights)


async def test_who_reads_on_pays_for_the_call_when_its_leader_has_left(tmp_path: Path) -> None:
    provider = Provider()
    async with gateway_of(tmp_path, upstream := ScriptedUpstream(provider)) as gateway:
        async with RawClient(gateway.url) as leader, RawClient(gateway.url) as heir:
            for client in (leader, heir):
                await asked(client, stream=True)
            await upstream.wait_calls(1)
            await until(lambda: waiting(gateway) == 1)
            running = crowd(gateway, 3, stream=True)
            await until(lambda: waiting(gateway) == 4)
            provider.head.set()
            for client in (leader, heir):
                await client.read_head()
            await until(lambda: not waiting(gateway))
            for client in (leader, heir):
                client.abort()
                await until(lambda: len(gateway.exchanges) == 1 + (client is heir))  # noqa: B023 - asked within the turn
        provider.rest.set()
        await asyncio.gather(*running)
        await until(lambda: len(gateway.exchanges) == 5)
        whole = gateway.exchanges[2:]
        assert sorted(str(each.cache) for each in whole) == ["coalesced", "coalesced", "miss"]
        (payer,) = [each for each in whole if each.cache == "miss"]
        assert payer.target == gateway.exchanges[0].target is not None
        assert payer.usage is not None and payer.usage.output_tokens


async def test_nobody_left_ends_the_call(tmp_path: Path) -> None:
    provider = Provider()
    provider.head.set()
    async with gateway_of(tmp_path, upstream := ScriptedUpstream(provider)) as gateway:
        async with RawClient(gateway.url) as leader, RawClient(gateway.url) as follower:
            for client in (leader, follower):
                await asked(client, stream=True)
                await client.read_head()
            leader.abort()
            await until(lambda: len(gateway.exchanges) == 1)
            assert upstream.calls[0].aborted is None
            follower.abort()
            await upstream.wait_aborted(1, 5)
        await until(lambda: not gateway.plugin("cache")._flights)


async def test_a_late_joiner_gets_what_has_come_and_then_the_rest(tmp_path: Path) -> None:
    provider = Provider()
    provider.head.set()
    async with gateway_of(tmp_path, upstream := ScriptedUpstream(provider)) as gateway:
        async with RawClient(gateway.url) as leader, RawClient(gateway.url) as late:
            await asked(leader, stream=True)
            await leader.read_head()
            await asked(late, stream=True)
            head = await late.read_head()
            assert head.get("x-gateway-cache") == "coalesced"
            pieces = late.body()
            got = b""
            while len(got) < len(b"".join(EVENTS[:3])):
                got += await anext(pieces)
            assert got == b"".join(EVENTS[:3])
            provider.rest.set()
            assert got + b"".join([piece async for piece in pieces]) == b"".join(EVENTS)
        assert len(upstream.calls) == 1


async def test_a_leaders_failure_is_its_own(tmp_path: Path) -> None:
    provider = Provider()

    async def fails(call: Call) -> None:
        await provider.head.wait()
        await error(500)(call)

    async with gateway_of(tmp_path, upstream := ScriptedUpstream([fails, provider])) as gateway:
        running = crowd(gateway, 6)
        await until(lambda: waiting(gateway) == 5)
        provider.go()
        answers = await asyncio.gather(*running)
        assert sorted(answer.status for answer in answers) == [200] * 5 + [500]
        assert len(upstream.calls) >= 2


async def test_an_answer_that_is_no_complete_success_is_not_shared(tmp_path: Path) -> None:
    provider = Provider()

    async def withheld(call: Call) -> None:
        await provider.head.wait()
        body = chat_body("half").replace(b'"stop"', b'"content_filter"')
        await call.answer(200, body, JSON)

    async with gateway_of(tmp_path, upstream := ScriptedUpstream([withheld, provider])) as gateway:
        running = crowd(gateway, 3)
        await until(lambda: waiting(gateway) == 2)
        provider.go()
        answers = await asyncio.gather(*running)
        assert sorted(b"half" in answer.body for answer in answers) == [False, False, True]
        assert 2 <= len(upstream.calls) <= 3


async def test_a_stream_that_breaks_breaks_honestly_for_all(tmp_path: Path) -> None:
    provider = Provider()
    provider.breaks = True
    provider.head.set()
    async with gateway_of(tmp_path, ScriptedUpstream(provider)) as gateway, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RawClient(gateway.url)) for _ in range(4)]
        for client in clients:
            await asked(client, stream=True)
            await client.read_head()
        provider.rest.set()
        for client in clients:
            got = b""
            with pytest.raises(Truncated):
                async for piece in client.body():
                    got += piece
            assert got.startswith(b"".join(EVENTS[:3]))
            assert b'"error"' in got and b"[DONE]" not in got
        await until(lambda: len(gateway.exchanges) == 4)
        assert {exchange.outcome for exchange in gateway.exchanges} == {"upstream_failed"}
        provider.breaks = False
        assert (await ask(gateway, stream=True)).header("x-gateway-cache") == "miss"


async def test_the_time_limits_of_the_call_hold_for_the_shared_stream(tmp_path: Path) -> None:
    provider = Provider()
    provider.head.set()
    async with upstream_with_idle(tmp_path, provider) as gateway, RawClient(gateway.url) as leader:
        await asked(leader, stream=True)
        await leader.read_head()
        got = b""
        with pytest.raises(Truncated):
            async for piece in leader.body():
                got += piece
        assert b"stopped sending" in got


@contextlib.asynccontextmanager
async def upstream_with_idle(folder: Path, provider: Provider) -> AsyncIterator[LocalGateway]:
    async with ScriptedUpstream(provider) as upstream:
        text = config(upstream).replace('models = ["m"]', 'models = ["m"]\ntimeouts = { idle = "300ms" }')
        async with LocalGateway(folder, text) as gateway:
            yield gateway


async def test_who_has_waited_enough_calls_alone(tmp_path: Path) -> None:
    provider = Provider()
    upstream = ScriptedUpstream([provider, error(418), error(418)])
    async with gateway_of(tmp_path, upstream, 'coalesce_wait = "300ms"') as gateway:
        async with RawClient(gateway.url) as leader:
            await asked(leader)
            await upstream.wait_calls(1)
            assert (await ask(gateway)).status == 418
            provider.go()
            assert (await leader.read()).status == 200
        exchange = gateway.exchanges[0]
        assert exchange.upstream_seconds >= 0.3, "waiting for another's call is no overhead of the gateway"


@pytest.mark.parametrize(
    ("settings", "first", "second"),
    [
        pytest.param("", {}, {"key": BOB}, id="another key"),
        pytest.param("", {}, {"seed": 1}, id="another body"),
        pytest.param("", {}, {"stream": True}, id="another mode"),
        pytest.param("", {"temperature": 1}, {"temperature": 1}, id="chance"),
        pytest.param("", {}, {"headers": {"Cache-Control": "no-store"}}, id="no-store"),
        pytest.param("", {}, {"headers": {"Cache-Control": "no-cache"}}, id="no-cache"),
        pytest.param("", {}, {"headers": {"Cache-Control": "max-age=0"}}, id="max-age=0"),
        pytest.param("coalesce = false", {}, {}, id="turned off"),
    ],
)
async def test_what_may_not_share_an_answer_does_not_share_a_call(
    tmp_path: Path, settings: str, first: dict[str, Any], second: dict[str, Any]
) -> None:
    provider = Provider()
    async with gateway_of(tmp_path, upstream := ScriptedUpstream(provider), settings) as gateway:
        running = crowd(gateway, 1, **first)
        await upstream.wait_calls(1)
        running += crowd(gateway, 1, **second)
        await upstream.wait_calls(2, 5)
        provider.go()
        assert "coalesced" not in states(await asyncio.gather(*running))


@pytest.mark.parametrize(
    ("settings", "fields", "second"),
    [
        pytest.param('scope = "global"', {}, {"key": BOB}, id="the operator shares"),
        pytest.param("always = true", {"temperature": 1}, {}, id="the operator caches always"),
        pytest.param("", {"temperature": 1, "headers": {"Cache-Control": "max-age=60"}}, {}, id="clients ask"),
    ],
)
async def test_what_may_share_an_answer_shares_a_call(
    tmp_path: Path, settings: str, fields: dict[str, Any], second: dict[str, Any]
) -> None:
    provider = Provider()
    async with gateway_of(tmp_path, upstream := ScriptedUpstream(provider), settings) as gateway:
        running = crowd(gateway, 1, **fields)
        await upstream.wait_calls(1)
        running += crowd(gateway, 1, **{**fields, **second})
        await until(lambda: waiting(gateway) == 1)
        provider.go()
        assert states(await asyncio.gather(*running)) == ["coalesced", "miss"]


async def test_only_if_cached_does_not_wait_for_a_call(tmp_path: Path) -> None:
    provider = Provider()
    async with gateway_of(tmp_path, upstream := ScriptedUpstream(provider)) as gateway:
        running = crowd(gateway, 1)
        await upstream.wait_calls(1)
        assert (await ask(gateway, headers={"Cache-Control": "only-if-cached"})).status == 504
        provider.go()
        await asyncio.gather(*running)


async def test_a_reload_leaves_the_call_to_those_who_share_it(tmp_path: Path) -> None:
    provider = Provider()
    async with gateway_of(tmp_path, upstream := ScriptedUpstream(provider)) as gateway:
        running = crowd(gateway, 5, stream=True)
        await until(lambda: waiting(gateway) == 4)
        provider.head.set()
        await until(lambda: not waiting(gateway))
        await gateway.reload(config(upstream, 'ttl = "1h"'))
        running += crowd(gateway, 2, stream=True)
        await upstream.wait_calls(2, 5)
        provider.rest.set()
        answers = await asyncio.gather(*running)
        assert {answer.body for answer in answers} == {b"".join(EVENTS)}
        assert states(answers) == ["coalesced"] * 5 + ["miss"] * 2
        assert len(upstream.calls) == 2


async def test_a_follower_who_does_not_read_holds_nobody_up_and_is_cut(tmp_path: Path) -> None:
    begun, size = asyncio.Event(), 200
    piece = chat_events(1)[1].replace(b"w0 ", b"x" * 100_000)

    async def script(call: Call) -> None:
        await call.head(200, SSE.items() | {("Transfer-Encoding", "chunked")})
        await call.chunk(piece)
        await begun.wait()
        for _ in range(size):
            await call.chunk(piece)
        for each in EVENTS[-2:]:
            await call.chunk(each)
        await call.chunk(b"")

    async with gateway_of(tmp_path, upstream := ScriptedUpstream(script), 'max_entry = "256KiB"') as gateway:
        async with RawClient(gateway.url) as leader, RawClient(gateway.url) as stopped, RawClient(gateway.url) as late:
            for client in (leader, stopped):
                await asked(client, stream=True)
                await client.read_head()
            begun.set()
            assert await length(leader) == (size + 1) * len(piece) + len(b"".join(EVENTS[-2:]))
            with pytest.raises(Truncated):
                await length(stopped)
            begun.clear()
            await asked(late, stream=True)
            assert (await late.read_head()).get("x-gateway-cache") == "miss"
        assert len(upstream.calls) == 2


async def test_a_long_whole_answer_is_shared(tmp_path: Path) -> None:
    provider, body = Provider(), chat_body("x" * 300_000)

    async def script(call: Call) -> None:
        await provider.head.wait()
        await call.answer(200, body, JSON)

    async with gateway_of(tmp_path, upstream := ScriptedUpstream(script)) as gateway:
        running = crowd(gateway, 5)
        await until(lambda: waiting(gateway) == 4)
        provider.go()
        assert {answer.body for answer in await asyncio.gather(*running)} == {body}
        assert len(upstream.calls) == 1


async def test_what_a_stream_used_is_known_of_everybody_who_got_it(tmp_path: Path) -> None:
    provider, events = Provider(), chat_events(3, usage=USAGE)

    async def script(call: Call) -> None:
        await call.head(200, SSE.items() | {("Transfer-Encoding", "chunked")})
        await call.chunk(events[0] + events[1])
        await provider.rest.wait()
        await call.chunk(b"".join(events[2:]))
        await call.chunk(b"")

    async with gateway_of(tmp_path, ScriptedUpstream(script)) as gateway:
        running = crowd(gateway, 3, stream=True, stream_options={"include_usage": True})
        flights = gateway.plugin("cache")._flights
        await until(lambda: any(each.stream and len(each.stream._readers) == 3 for each in flights.values()))
        provider.go()
        answers = await asyncio.gather(*running)
        assert {answer.body for answer in answers} == {b"".join(events)}
        await until(lambda: len(gateway.exchanges) == 3)
        used = [(each.cache, each.usage and each.usage.total_tokens) for each in gateway.exchanges]
        assert sorted(used) == [("coalesced", 7), ("coalesced", 7), ("miss", 7)]
