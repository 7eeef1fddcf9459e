from __future__ import annotations

import asyncio
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.state import memory
from gateway.state.memory import Memory
from gateway.state.meters import Meter, Period, Ticket
from tests.contract.store import StoreContract, meter, take


class Moved:
    """A store whose clock only the test moves."""

    def __init__(self) -> None:
        self.store = Memory()
        self.now = 1000.0
        self.store.clock = lambda: self.now

    async def wait(self, seconds: float) -> None:
        self.now += seconds

    async def used(self, meter: Meter) -> int:
        return self.store.used(meter)


@pytest.fixture
def world() -> Moved:
    return Moved()


class TestContract(StoreContract): ...


def reserve(store: Memory, meters: list[Meter], amounts: list[int]) -> Ticket:
    ticket = Ticket(meters, amounts)
    assert store.reserve(ticket) is None
    return ticket


@given(st.integers(1, 50), st.lists(st.tuples(st.floats(0, 40), st.integers(1, 60)), max_size=60))
def test_r47_no_stretch_of_the_window_sees_more_than_the_limit(limit: int, steps: list[tuple[float, int]]) -> None:
    world, rate = Moved(), meter("rate", limit, seconds=60)
    granted: deque[float] = deque()
    for wait, calls in steps:
        world.now += wait
        for _ in range(calls):
            if reserve(world.store, [rate], [1]).refused < 0:
                granted.append(world.now)
        recent = [at for at in granted if at > world.now - 60]
        assert len(recent) <= limit


def test_r47_three_windows_of_too_much_grant_three_times_the_limit() -> None:
    world, rate = Moved(), meter("rate", 100, seconds=60)
    windows = []
    for _ in range(3):
        passed = 0
        for _ in range(6000):
            world.now += 0.0101666  # a window and the part by which what was used outlives it
            passed += reserve(world.store, [rate], [1]).refused < 0
        windows.append(passed)
    assert windows == [100, 100, 100]


@given(st.integers(1, 1000), st.floats(0, 59))
def test_r47_whoever_waits_as_told_gets_in(limit: int, later: float) -> None:
    world, rate = Moved(), meter("rate", limit, seconds=60)
    for number in range(limit):
        if number == limit // 2:
            world.now += later
        assert reserve(world.store, [rate], [1]).refused < 0
    refused = reserve(world.store, [rate], [1])
    world.now += refused.wait - 0.001
    assert reserve(world.store, [rate], [1]).refused == 0
    world.now += 0.002
    assert reserve(world.store, [rate], [1]).refused < 0


def test_a_refund_is_of_the_time_it_was_reserved_at() -> None:
    world, rate = Moved(), meter("rate", 100, seconds=60)
    early = reserve(world.store, [rate], [60])
    world.now += 30
    reserve(world.store, [rate], [40])
    world.store.settle(early, [10])
    assert world.store.used(rate) == 50
    world.now += 31  # the early one is out of the window, and with it its refund
    assert world.store.used(rate) == 40


def test_a_refund_of_what_is_forgotten_gives_nothing_back() -> None:
    world, rate = Moved(), meter("rate", 100, seconds=60)
    early = reserve(world.store, [rate], [60])
    world.now += 61
    reserve(world.store, [rate], [40])
    world.store.settle(early, [10])
    assert world.store.used(rate) == 40


async def test_a_new_period_begins_with_what_the_ledger_knows() -> None:
    asked: list[tuple[str, str]] = []

    async def spent(meter: Meter, period: Period) -> int:
        asked.append((meter.owner, period.id))
        await asyncio.sleep(0)
        return 70

    world, purse = Moved(), meter("purse", 100, per="month")
    world.store.spent = spent
    world.store.calendar = lambda: 1_795_000_000.0  # 2026-11-18
    tickets = await asyncio.gather(*(take(world.store, [purse], [10]) for _ in range(5)))
    assert sorted(ticket.refused for ticket in tickets) == [-1, -1, -1, 0, 0]
    assert set(asked) == {("alice", "2026-11-01")}
    world.store.calendar = lambda: 1_796_500_000.0  # December
    for ticket in tickets:
        world.store.settle(ticket, [10])
    assert (await take(world.store, [purse], [30])).used == [100]
    world.store.calendar = lambda: 1_795_000_000.0
    assert world.store.used(purse) == 100  # what began in November was spent in November


def test_counters_that_tell_nothing_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MANY", 10)
    world = Moved()
    held, used = meter("gauge", 1), meter("rate", 10, seconds=86400)
    reserve(world.store, [held, used], [1, 7])
    for number in range(5000):
        reserve(world.store, [meter("rate", 5, f"u{number}", seconds=60)], [1])
        world.now += 6.1
        assert len(world.store._counters) <= 30  # twice the ten of the last minute, and some to begin with
    assert [world.store.used(held), world.store.used(used)] == [1, 7]
