from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from gateway.errors import Overloaded
from gateway.state.meters import Meter, Period, Ticket
from gateway.state.shared import Without
from tests.contract.store import StoreContract, meter, take
from tests.support.redis import Redis
from tests.support.shared import Gateway, joined


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    redis = Redis(tmp_path_factory.mktemp("redis"))
    try:
        yield redis.start()
    finally:
        redis.kill()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def world(stack: AsyncExitStack, server: Redis) -> Gateway:
    server.ask("FLUSHALL")
    return await joined(stack, server)


class TestContract(StoreContract): ...


async def test_r47_gateways_share_every_limit(stack: AsyncExitStack, server: Redis) -> None:
    one, other = await joined(stack, server), await joined(stack, server)
    rate, gauge, purse = meter("rate", 50), meter("gauge", 20), meter("purse", 1000)
    tickets = await asyncio.gather(
        *(take(each.store, [rate, gauge, purse], [1, 1, 10]) for each in (one, other) for _ in range(40))
    )
    assert sum(ticket.refused < 0 for ticket in tickets) == 20
    for ticket in tickets:
        if ticket.home is not None:
            ticket.home.settle(ticket, [1, 0, 10])
    assert [await one.used(each) for each in (rate, gauge, purse)] == [20, 0, 200]
    assert [await other.used(each) for each in (rate, gauge, purse)] == [20, 0, 200]


async def test_a_new_period_begins_with_what_the_ledger_knows(stack: AsyncExitStack, server: Redis) -> None:
    asked: list[str] = []

    async def spent(meter: Meter, period: Period) -> int:
        asked.append(period.id)
        await asyncio.sleep(0.01)
        return 70

    one, other = await joined(stack, server), await joined(stack, server)
    one.store.spent = other.store.spent = spent
    purse = meter("purse", 100, per="month")
    tickets = await asyncio.gather(*(take(each.store, [purse], [10]) for each in (one, other) for _ in range(3)))
    assert sorted(ticket.refused for ticket in tickets) == [-1, -1, -1, 0, 0, 0]
    assert set(asked) == {time.strftime("%Y-%m-01", time.gmtime())}
    server.ask("FLUSHALL")  # Redis forgets, the ledger does not
    assert (await take(one.store, [purse], [30])).used == [100]


async def test_who_leaves_while_redis_is_asked_holds_nothing(world: Gateway) -> None:
    """A ticket is settled by whoever holds it, also when it was never told that it was granted."""
    gauge, purse = meter("gauge", 5), meter("purse", 100)
    await take(world.store, [gauge, purse], [1, 10])
    for _ in range(20):
        ticket = Ticket([gauge, purse], [1, 10])
        asking = asyncio.ensure_future(world.store.reserve(ticket))
        await asyncio.sleep(0)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        world.store.settle(ticket, [0, 0])
    assert [await world.used(gauge), await world.used(purse)] == [1, 10]


async def test_r48_while_redis_is_away_each_has_its_share(stack: AsyncExitStack, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    server = Redis(tmp_path / "own").start()
    stack.callback(server.kill)
    one, other = await joined(stack, server, patience=0.04), await joined(stack, server, patience=0.04)
    await one.processes.beat()
    await other.processes.beat()
    await one.processes.beat()
    rate, purse, gauge = meter("rate", 20, seconds=60), meter("purse", 1000), meter("gauge", 6)
    first = await take(one.store, [rate, purse, gauge], [4, 200, 1])
    server.stop()
    tickets = [await take(one.store, [rate, purse, gauge], [1, 100, 1]) for _ in range(10)]
    assert sum(ticket.refused < 0 for ticket in tickets) == 3  # half of the six at once
    for ticket in tickets:
        one.store.settle(ticket, [1, 90, 0])
    one.store.settle(first, [4, 150, 0])
    again = [await take(one.store, [rate, purse], [1, 100]) for _ in range(10)]
    assert sum(ticket.refused < 0 for ticket in again) == 1  # of the 800 that were left it had 400, and 270 are spent
    for ticket in again:
        one.store.settle(ticket, [1, 100])
    server.cont()
    async with asyncio.timeout(10):
        while not (one.link.up and other.link.up):  # noqa: ASYNC110 - both are waited for
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.1)
    assert [await other.used(each) for each in (purse, gauge)] == [520, 0]
    # What was asked of Redis when it hung may be counted twice.
    assert 8 <= await other.used(rate) <= 13


@pytest.mark.parametrize(("without", "granted"), [("open", 50), ("closed", 0)])
async def test_r48_what_happens_without_redis_is_the_operators_word(
    stack: AsyncExitStack, tmp_path: Path, without: Without, granted: int
) -> None:
    (tmp_path / "own").mkdir()
    server = Redis(tmp_path / "own").start()
    stack.callback(server.kill)
    gateway = await joined(stack, server, without, patience=0.04)
    server.kill()
    await asyncio.sleep(0.1)
    passed = 0
    for _ in range(50):
        with suppress(Overloaded):
            passed += (await take(gateway.store, [meter("rate", 1, "same")], [1])).refused < 0
    assert passed == granted
