"""``on_disconnect = "drain"``: the call outlives its client and is read to its end; then all is over at once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest

from gateway import Exchange, Usage, drain
from gateway.admission import Gate
from gateway.testing import (
    Call,
    LocalGateway,
    RawClient,
    Response,
    Script,
    ScriptedUpstream,
    chat_body,
    chat_events,
    error,
    fetch_chat,
)
from gateway.testing.answers import JSON, SSE, USAGE

COUNTS = """
from gateway import hookimpl

class Plugin:
    def __init__(self, settings, runtime):
        self.calls = []

    @hookimpl
    async def on_reply(self, exchange, reply):
        self.calls.append("on_reply")

    @hookimpl
    async def on_finish(self, exchange):
        self.calls.append("on_finish")
"""
KEYS = {"drain": "hg-drain-0123", "plain": "hg-plain-0123"}
CONFIG = """
[server]
shutdown_grace = "100ms"
reader_timeout = "1s"
[plugins]
folders = ["FOLDER"]
chain = ["counts", "auth", "rate_limit", "cache"]
rate_limit = { requests_per_minute = 0 }
[keys.drain]
sha256 = "DRAIN"
on_disconnect = "drain"
max_concurrency = 30
[keys.plain]
sha256 = "PLAIN"
[retry]
attempts = 3
backoff = "1ms"
[breaker]
failures = 0
error_rate = 0
[providers.up]
type = "openai_compat"
base_url = "UPSTREAM/v1"
max_concurrency = 30
queue = 10
[models.m]
targets = [{ provider = "up" }]
fallbacks = ["n"]
[models.n]
targets = [{ provider = "up", model = "other" }]
"""
EVENTS = chat_events(40, usage=USAGE)
REPORTED = Usage(5, 2)
Way = Literal["leave", "abort"]


class Provider:
    """Answers in two parts, the second when told to. ``head``: it has sent nothing before that."""

    def __init__(self) -> None:
        self.rest = asyncio.Event()
        self.holds_head = False
        self.breaks = False

    async def __call__(self, call: Call) -> None:
        streamed = call.request.json.get("stream")
        if self.holds_head:
            await self.rest.wait()
        if not streamed:
            await call.answer(200, chat_body("hello"), JSON)
            return
        await call.head(200, SSE)
        await call.chunk(b"".join(EVENTS[:21]))
        await self.rest.wait()
        if self.breaks:
            call.close()
            return
        for event in EVENTS[21:]:
            await call.chunk(event)
        await call.chunk(b"")


@attrs.define
class Scene:
    provider: Provider
    upstream: ScriptedUpstream
    gateway: LocalGateway

    @property
    def server(self) -> Any:
        return self.gateway._server

    @property
    def active(self) -> int:
        return sum(len(each.dispatcher.active) for each in self.server._living)

    @property
    def running(self) -> int:
        gate: Gate = self.server.generation.plugins.runtime.admission.gates["up"]
        return gate.running + gate.waiting

    async def visit(self, *, key: str = "drain", way: Way = "leave", path: str = "", **fields: Any) -> None:
        """Ask, have what comes before the provider waits, and leave."""
        async with RawClient(self.gateway.url) as client:
            known = len(self.upstream.calls)
            await client.chat("m", key=KEYS[key], headers={"Cache-Control": "no-store"}, **fields)
            if not self.provider.holds_head:
                await client.read_head()
                received = b""
                async for piece in client.body():
                    received += piece
                    if b"w19 " in received:
                        break
            else:
                await self.upstream.wait_calls(known + 1)
            client.abort() if way == "abort" else client.leave()

    async def until(self, condition: Callable[[], bool], within: float = 3.0) -> None:
        async with asyncio.timeout(within):
            while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0.005)

    async def over(self, count: int = 1) -> None:
        await self.until(lambda: len(self.gateway.exchanges) >= count and not self.active)


@asynccontextmanager
async def scene(folder: Path, script: Script | None = None, settings: str = CONFIG) -> AsyncIterator[Scene]:
    provider = Provider()
    (folder / "counts.py").write_text(COUNTS)
    async with ScriptedUpstream(script or provider) as upstream:
        digests = {name: sha256(key.encode()).hexdigest() for name, key in KEYS.items()}
        text = settings.replace("FOLDER", str(folder)).replace("UPSTREAM", upstream.url)
        text = text.replace("DRAIN", digests["drain"]).replace("PLAIN", digests["plain"])
        async with LocalGateway(folder, text) as gateway:
            yield Scene(provider, upstream, gateway)


def hooks(on: Scene) -> list[str]:
    calls: list[str] = on.gateway.plugin("counts").calls
    return calls


@pytest.mark.parametrize("way", ["leave", "abort"])
@pytest.mark.parametrize(("stream", "holds_head"), [(True, False), (True, True), (False, True)])
async def test_r35_the_usage_is_the_one_the_provider_reports_at_the_end(
    tmp_path: Path, stream: bool, holds_head: bool, way: Way
) -> None:
    async with scene(tmp_path) as on:
        on.provider.holds_head = holds_head
        await on.visit(stream=stream, way=way)
        await asyncio.sleep(0.1)
        assert not on.gateway.exchanges and on.active == 1 and on.running == 1
        on.provider.rest.set()
        await on.over()
        (exchange,) = on.gateway.exchanges
        assert (exchange.outcome, exchange.usage) == ("client_gone", REPORTED)
        assert hooks(on) == ["on_reply", "on_finish"]
        assert on.running == 0
        (call,) = on.upstream.calls
        await on.upstream.until(lambda: call.finished is not None)
        assert call.aborted is None


async def test_other_keys_calls_end_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        for on.provider.holds_head in (True, False):
            await on.visit(key="plain", stream=True)
            await on.upstream.wait_aborted(len(on.upstream.calls), within=1.0)
        await on.over(2)
        assert [each.outcome for each in on.gateway.exchanges] == ["client_gone"] * 2
        made = [each.usage and (each.usage.output_tokens, each.usage.provenance) for each in on.gateway.exchanges]
        assert made == [(0, "estimated"), (20, "estimated")]


async def test_r27_twenty_drains_leave_nothing_behind(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await fetch_chat(on.gateway.url, "m", key=KEYS["plain"])  # what is made once is not an exchange's
        before = len(asyncio.all_tasks()), on.upstream.open_connections
        on.gateway.exchanges.clear()
        for holds_head in (True, False):
            on.provider.holds_head = holds_head
            on.provider.rest.clear()
            await asyncio.gather(*(on.visit(stream=not holds_head or at % 2 == 0) for at in range(10)))
            assert on.active == 10 and on.running == 10
            on.provider.rest.set()
            await on.until(lambda: not on.active)
        assert [each.usage for each in on.gateway.exchanges] == [REPORTED] * 20
        assert on.running == 0
        counters = on.gateway.plugin("rate_limit").store._counters
        held = [counter.used for name, counter in counters.items() if "concurrency" in name]
        assert held and not any(held)
        assert on.server.generation.upstream.stats()["acquired"] == 0
        await on.until(lambda: len(asyncio.all_tasks()) <= before[0] + on.upstream.open_connections - before[1])
        assert not on.server._watchdog.guards
        reply = await fetch_chat(on.gateway.url, "m", key=KEYS["drain"])
        assert reply.status == 200


async def test_the_next_request_of_a_connection_is_not_taken_for_the_last_one(tmp_path: Path) -> None:
    async with scene(tmp_path) as on, RawClient(on.gateway.url) as client:
        await client.chat("m", key=KEYS["drain"])
        assert (await client.read()).status == 200
        on.provider.holds_head = True
        await client.chat("m", key=KEYS["plain"])
        await on.upstream.wait_calls(2)
        client.leave()
        await on.upstream.wait_aborted(within=1.0)


async def test_who_waits_for_room_has_no_call_that_could_go_on(tmp_path: Path) -> None:
    narrow = CONFIG.replace("max_concurrency = 30\nqueue", "max_concurrency = 1\nqueue")
    async with scene(tmp_path, settings=narrow) as on:
        on.provider.holds_head = True
        async with RawClient(on.gateway.url) as first, RawClient(on.gateway.url) as second:
            await first.chat("m", key=KEYS["plain"])
            await on.upstream.wait_calls()
            await second.chat("m", key=KEYS["drain"])
            await on.until(lambda: on.running == 2)
            second.leave()
            await on.until(lambda: len(on.gateway.exchanges) == 1, 1.0)
            assert on.gateway.exchanges[0].usage is None
        assert len(on.upstream.calls) == 1


async def test_nobody_left_is_no_reason_to_ask_another_target(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def fails(call: Call) -> None:
        await go_on.wait()
        await error(500)(call)

    async with scene(tmp_path, fails) as on:
        on.provider.holds_head = True
        await on.visit()
        await asyncio.sleep(0.1)
        go_on.set()
        await on.over()
        assert len(on.upstream.calls) == 1
        (exchange,) = on.gateway.exchanges
        assert (exchange.outcome, exchange.usage) == ("client_gone", None)


async def test_what_breaks_while_it_is_read_on_is_estimated(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        on.provider.breaks = True
        await on.visit(stream=True)
        await asyncio.sleep(0.05)
        on.provider.rest.set()
        await on.over()
        (exchange,) = on.gateway.exchanges
        assert exchange.outcome == "client_gone" and hooks(on) == ["on_reply", "on_finish"]
        assert exchange.usage == Usage(5, 20, provenance="estimated")


@pytest.mark.parametrize(("holds_head", "made"), [(False, 20), (True, 0)])
async def test_nobody_is_read_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds_head: bool, made: int
) -> None:
    monkeypatch.setattr(drain, "LIMIT", 0.2)
    async with scene(tmp_path) as on:
        on.provider.holds_head = holds_head
        await on.visit(stream=True)
        await on.over()
        assert len(on.gateway.exchanges) == 1
        used = on.gateway.exchanges[0].usage
        assert used == Usage(5, made, provenance="estimated")
        await on.upstream.wait_aborted(within=1.0)


async def test_r52_a_stop_waits_for_its_grace_and_then_interrupts(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.visit(stream=True)
        await asyncio.sleep(0.05)
        began = asyncio.get_running_loop().time()
        await on.server.stop()
        assert 0.1 <= asyncio.get_running_loop().time() - began < 2.0
        (exchange,) = on.gateway.exchanges
        assert exchange.outcome == "client_gone" and hooks(on) == ["on_reply", "on_finish"]
        assert exchange.usage == Usage(5, 20, provenance="estimated")
        await on.upstream.wait_aborted(within=1.0)


async def test_r53_a_reload_waits_for_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.visit(stream=True)
        await on.gateway.reload()
        await asyncio.sleep(0.1)
        assert len(on.server._living) == 2
        on.provider.rest.set()
        await on.until(lambda: len(on.server._living) == 1)


async def test_who_stops_reading_is_cut_and_read_on_for(tmp_path: Path) -> None:
    filler = chat_events(1)[1].replace(b"w0 ", b"x" * 60_000)

    async def floods(call: Call) -> None:
        await call.head(200, SSE)
        for event in (EVENTS[0], *[filler] * 200, *EVENTS[21:]):
            await call.chunk(event)
        await call.chunk(b"")

    async with scene(tmp_path, floods) as on, RawClient(on.gateway.url) as client:
        await client.chat("m", key=KEYS["drain"], stream=True)
        await on.until(lambda: bool(on.gateway.exchanges), 5.0)
        (exchange,) = on.gateway.exchanges
        assert (exchange.outcome, exchange.usage) == ("client_gone", REPORTED)
        assert on.upstream.calls[0].aborted is None


# Calls that several clients share.


async def ask(on: Scene, key: str) -> Response:
    return await fetch_chat(on.gateway.url, "m", key=KEYS[key], stream=True, temperature=0)


@asynccontextmanager
async def asking(on: Scene) -> AsyncIterator[RawClient]:
    """Of an answer that is shared; its head is here."""
    async with RawClient(on.gateway.url) as client:
        await client.chat("m", key=KEYS["drain"], stream=True, temperature=0)
        await client.read_head()
        yield client


async def test_r50_who_follows_has_nothing_to_read_on(tmp_path: Path) -> None:
    async with scene(tmp_path) as on, asking(on) as leader:
        async with asking(on):
            pass
        await on.until(lambda: len(on.gateway.exchanges) == 1, 1.0)
        assert on.gateway.exchanges[0].cache == "coalesced" and on.active == 1
        assert on.gateway.exchanges[0].usage is None
        on.provider.rest.set()
        assert [piece async for piece in leader.body()]
        await on.over(2)
        assert on.gateway.exchanges[1].usage == REPORTED and len(on.upstream.calls) == 1


@pytest.mark.parametrize("followed", [True, False])
async def test_r50_who_leads_pays_for_the_call_also_when_it_has_left(tmp_path: Path, followed: bool) -> None:
    async with scene(tmp_path) as on:
        follower: asyncio.Task[Response] | None = None
        async with asking(on):
            if followed:
                follower = asyncio.get_running_loop().create_task(ask(on, "drain"))
                await on.until(lambda: on.active == 2)
        await asyncio.sleep(0.1)
        assert on.active == 1 + followed
        on.provider.rest.set()
        await on.over(1 + followed)
        gone = [each for each in on.gateway.exchanges if each.outcome == "client_gone"]
        assert [each.usage for each in gone] == [REPORTED] and len(on.upstream.calls) == 1
        if follower is not None:
            assert (await follower).body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("breaks", [True, False])
async def test_r55_what_was_read_on_is_gone_without_the_collector(tmp_path: Path, breaks: bool) -> None:
    async with scene(tmp_path) as on:
        on.provider.breaks = breaks
        gc.collect()
        gc.disable()
        try:
            await on.visit(stream=True)
            await asyncio.sleep(0.05)
            on.provider.rest.set()
            await on.over()
            await asyncio.sleep(0.05)
            on.gateway.exchanges.clear()
            assert [each for each in gc.get_objects() if type(each) in (Exchange, drain.Drain)] == []
        finally:
            gc.enable()
