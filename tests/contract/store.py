"""What every store of limits must do. A store's test is a subclass with a fixture ``world``."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from inspect import isawaitable
from itertools import count
from typing import Protocol

from gateway.limits import Unit
from gateway.state.meters import Kind, Meter, Store, Ticket

_ids = count()
WINDOW = 2.0


class World(Protocol):
    store: Store

    async def wait(self, seconds: float) -> None: ...

    async def used(self, meter: Meter) -> int: ...


def meter(kind: Kind = "rate", limit: int = 10, name: str = "", seconds: float = WINDOW, per: str = "total") -> Meter:
    units: dict[Kind, Unit] = {"rate": "requests", "gauge": "concurrency", "purse": "usd"}
    return Meter(name or f"m{next(_ids)}", kind, limit, units[kind], "key", "alice", per, seconds)


async def take(store: Store, meters: Sequence[Meter], amounts: Sequence[int]) -> Ticket:
    ticket = Ticket(meters, amounts)
    waiting = store.reserve(ticket)
    if waiting is not None and isawaitable(waiting):
        await waiting
    return ticket


class StoreContract:
    async def test_no_more_than_the_limit_is_granted_at_once(self, world: World) -> None:
        rate = meter("rate", 10)
        tickets = await asyncio.gather(*(take(world.store, [rate], [1]) for _ in range(30)))
        granted = [ticket for ticket in tickets if ticket.refused < 0]
        assert sorted(ticket.used[0] for ticket in granted) == list(range(1, 11))
        assert {ticket.refused for ticket in tickets} == {-1, 0}
        assert all(0 < ticket.wait <= WINDOW * 61 / 60 for ticket in tickets if ticket.refused == 0)

    async def test_what_was_used_is_forgotten_after_the_window(self, world: World) -> None:
        rate = meter("rate", 3)
        for _ in range(3):
            await take(world.store, [rate], [1])
        refused = await take(world.store, [rate], [1])
        assert refused.refused == 0
        await world.wait(refused.wait + 0.01)
        assert [(await take(world.store, [rate], [1])).refused for _ in range(3)] == [-1, -1, -1]

    async def test_a_refused_ticket_takes_nothing_of_any_meter(self, world: World) -> None:
        wide, narrow, gauge, purse = meter("rate", 100), meter("rate", 1), meter("gauge", 5), meter("purse", 50)
        first = await take(world.store, [wide, gauge, purse, narrow], [1, 1, 10, 1])
        assert first.used == [1, 1, 10, 1]
        for _ in range(5):
            refused = await take(world.store, [wide, gauge, purse, narrow], [1, 1, 10, 1])
            assert (refused.refused, refused.used) == (3, [1, 1, 10, 1])
        assert [await world.used(each) for each in (wide, gauge, purse, narrow)] == [1, 1, 10, 1]

    async def test_settling_puts_what_was_used_in_the_place_of_what_was_reserved(self, world: World) -> None:
        tokens, gauge, purse = meter("rate", 1000), meter("gauge", 5), meter("purse", 100)
        less = await take(world.store, [tokens, gauge, purse], [500, 1, 60])
        world.store.settle(less, [100, 0, 25])
        assert [await world.used(each) for each in (tokens, gauge, purse)] == [100, 0, 25]
        more = await take(world.store, [tokens, gauge, purse], [100, 1, 75])
        assert more.refused == -1
        world.store.settle(more, [700, 0, 75])
        assert [await world.used(each) for each in (tokens, gauge, purse)] == [800, 0, 100]
        assert (await take(world.store, [tokens, gauge, purse], [1, 1, 1])).refused == 2

    async def test_a_ticket_is_settled_once(self, world: World) -> None:
        gauge, purse = meter("gauge", 2), meter("purse", 100)
        ticket = await take(world.store, [gauge, purse], [1, 50])
        other = await take(world.store, [gauge, purse], [1, 50])
        for _ in range(3):
            world.store.settle(ticket, [0, 10])
        assert [await world.used(gauge), await world.used(purse)] == [1, 60]
        world.store.settle(other, [0, 0])
        assert [await world.used(gauge), await world.used(purse)] == [0, 10]

    async def test_a_refused_ticket_has_nothing_to_settle(self, world: World) -> None:
        gauge = meter("gauge", 1)
        held = await take(world.store, [gauge], [1])
        refused = await take(world.store, [gauge], [1])
        world.store.settle(refused, [0])
        assert await world.used(gauge) == 1
        world.store.settle(held, [0])
        assert await world.used(gauge) == 0

    async def test_counters_are_told_apart_and_shared_by_name(self, world: World) -> None:
        name = f"shared{next(_ids)}"
        one, same, other = meter("gauge", 1, name), meter("gauge", 1, name), meter("gauge", 1, name + ":")
        assert (await take(world.store, [one], [1])).refused == -1
        assert (await take(world.store, [same], [1])).refused == 0
        assert (await take(world.store, [other], [1])).refused == -1

    async def test_another_limit_finds_what_is_used(self, world: World) -> None:
        name = f"changed{next(_ids)}"
        for _ in range(4):
            await take(world.store, [meter("rate", 4, name)], [1])
        assert (await take(world.store, [meter("rate", 3, name)], [1])).refused == 0
        assert (await take(world.store, [meter("rate", 5, name)], [1])).used == [5]

    async def test_what_is_not_taken_is_not_refused(self, world: World) -> None:
        rate, purse = meter("rate", 5), meter("purse", 10)
        full = await take(world.store, [rate, purse], [5, 10])
        world.store.settle(full, [9, 12])
        assert (await take(world.store, [rate, purse], [0, 0])).used == [9, 12]

    async def test_money_is_never_granted_beyond_its_limit(self, world: World) -> None:
        """Reserved and spent together stay within the budget at each instant, whatever becomes of the calls."""
        purse, gauge, chance = meter("purse", 1_000_000_000), meter("gauge", 1000), random.Random(5)
        spent = 0

        async def call() -> None:
            nonlocal spent
            ticket = await take(world.store, [gauge, purse], [1, 50_000_000])
            if ticket.refused >= 0:
                return
            assert ticket.used[1] <= purse.limit
            await asyncio.sleep(chance.random() / 50)
            cost = 0 if chance.random() < 0.3 else 50_000_000
            spent += cost
            world.store.settle(ticket, [0, cost])
            assert await world.used(purse) <= purse.limit

        for _ in range(20):
            await asyncio.gather(*(call() for _ in range(200)))
            if spent == 1_000_000_000:
                break
        assert spent == 1_000_000_000
        assert [await world.used(purse), await world.used(gauge)] == [spent, 0]

    async def test_large_amounts_are_exact(self, world: World) -> None:
        purse = meter("purse", 9_000_000_000_000_000)  # nine million dollars; Lua's numbers are exact up to there
        ticket = await take(world.store, [purse], [8_999_999_999_999_999])
        assert (await take(world.store, [purse], [2])).refused == 0
        world.store.settle(ticket, [8_999_999_999_999_998])
        assert (await take(world.store, [purse], [2])).used == [9_000_000_000_000_000]
