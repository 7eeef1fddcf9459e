"""The pool's rules, kept by the installed aiohttp: how old connections get, and what a dead address costs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from time import monotonic

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from gateway.connector import NAMES_KEPT, NEXT_ADDRESS, Connector, Handler
from gateway.prepared import Route
from gateway.settings import Pool
from gateway.testing import ScriptedUpstream, chat, stream
from gateway.units import Duration
from tests.support.names import Names, black_hole

TIMEOUT = aiohttp.ClientTimeout(total=5)


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Ours and aiohttp's: for how long connections lie idle and names are known."""
    made = Clock()
    monkeypatch.setattr("aiohttp.connector.monotonic", made)
    return made


class Pooled:
    """A session on a connector of ours, and the two ways on which requests take connections from it."""

    def __init__(self, server: ScriptedUpstream, connector: Connector) -> None:
        self.server = server
        self.connector = connector
        self.session = aiohttp.ClientSession(connector=connector)
        self.route = Route(self.session, URL(f"http://up.test:{server.port}"), True, TIMEOUT, 65536)

    async def ask(self, *, prepared: bool = False) -> None:
        if prepared:
            connection, message, payload = await self.route.call("GET", "/x", b"", None)
            payload.on_eof(connection.release)
            assert message.code == 200
            await payload.read()
        else:
            async with self.session.get(f"http://up.test:{self.server.port}/x", timeout=TIMEOUT) as reply:
                await reply.read()

    @property
    def made(self) -> int:
        return len(self.server.connections)


@contextlib.asynccontextmanager
async def pooled(
    clock: Clock, *, names: Names | None = None, max_age: float, keepalive: float = 4.0
) -> AsyncIterator[Pooled]:
    settings = Pool(max_age=Duration(max_age), keepalive=Duration(keepalive))
    async with ScriptedUpstream(chat()) as server:
        made = Pooled(server, Connector(settings, names or Names(("127.0.0.1", 0)), clock))
        try:
            yield made
        finally:
            await made.session.close()


@pytest.mark.parametrize("prepared", [True, False], ids=["prepared", "session"])
async def test_a_connection_past_its_age_is_not_put_back(clock: Clock, prepared: bool) -> None:
    async with pooled(clock, max_age=100, keepalive=11) as pool:
        for _ in range(9):
            await pool.ask(prepared=prepared)
            clock.ahead += 10
        await pool.ask(prepared=prepared)  # 90 s old: eleven more in the pool would be beyond its age
        assert pool.made == 1
        await pool.server.until(lambda: pool.server.open_connections == 0)
        await pool.ask(prepared=prepared)
        assert pool.made == 2


@pytest.mark.parametrize("prepared", [True, False], ids=["prepared", "session"])
async def test_an_idle_connection_past_its_age_is_not_taken(clock: Clock, prepared: bool) -> None:
    async with pooled(clock, max_age=1, keepalive=10) as pool:
        await pool.ask(prepared=prepared)
        assert pool.server.open_connections == 1
        clock.ahead += 1
        await pool.ask(prepared=prepared)
        assert pool.made == 2


@given(st.floats(0.001, 1e5), st.floats(0, 1e5))
def test_no_connection_is_taken_from_the_pool_past_its_age(max_age: float, keepalive: float) -> None:
    async def limits() -> tuple[float, float]:
        connector = Connector(Pool(max_age=Duration(max_age), keepalive=Duration(keepalive)), clock=lambda: 0.0)
        connection = connector._factory()
        await connector.close()
        assert isinstance(connection, Handler)
        assert connector._keepalive_timeout is not None
        return connection._until, connector._keepalive_timeout

    put_back_until, idle = asyncio.run(limits())
    assert put_back_until > 0 and idle <= keepalive
    assert put_back_until + idle <= max_age * 1.000001
    assert put_back_until >= max_age * 0.44, "short only where keepalive leaves no more"


async def test_a_running_answer_is_not_cut(clock: Clock) -> None:
    async with pooled(clock, max_age=100) as pool:
        pool.server.script = stream([b"x"] * 10, pause=0.02)
        async with pool.session.get(f"http://up.test:{pool.server.port}/x") as reply:
            assert await reply.content.readexactly(1) == b"x"
            clock.ahead += 1000
            assert await reply.read() == b"x" * 9
        await pool.server.until(lambda: pool.server.open_connections == 0)
        assert pool.made == 1


async def test_without_an_age_a_connection_is_kept_for_ever(clock: Clock) -> None:
    async with pooled(clock, max_age=0, keepalive=1e9) as pool:
        for _ in range(3):
            await pool.ask()
            clock.ahead += 1e8
        assert pool.made == 1


async def test_r56_a_name_is_looked_up_again_after_seconds(clock: Clock) -> None:
    assert NAMES_KEPT <= 30
    names = Names(("127.0.0.1", 0))
    async with pooled(clock, names=names, max_age=1) as pool:
        for ahead in (0.0, NAMES_KEPT - 2, 4.0):
            clock.ahead += ahead
            await pool.ask()
        assert (pool.made, names.lookups) == (3, 2)


@pytest.mark.parametrize("dead", ["::1", "127.0.0.2"])
async def test_r56_a_dead_address_costs_no_more_than_300_ms(dead: str) -> None:
    with contextlib.ExitStack() as held:
        try:
            hole = held.enter_context(black_hole(dead))
        except OSError:
            pytest.skip(f"this machine has no {dead}")
        costs = []
        for _ in range(3):  # the quickest counts: a busy machine is no fault of ours
            async with ScriptedUpstream(chat()) as server:
                names = Names((dead, hole), (dead, hole), ("127.0.0.1", server.port))
                if ":" not in dead:
                    names.at = names.at[1:]  # several of one family are tried one after the other
                pool = Pooled(server, Connector(Pool(), names))
                began = monotonic()
                await pool.ask()
                costs.append(monotonic() - began)
                await pool.session.close()
        assert NEXT_ADDRESS <= min(costs) <= 0.3, costs
