from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from gateway.state import processes
from tests.contract.store import meter, take
from tests.support.redis import Redis, redis
from tests.support.shared import joined

__all__ = ["redis"]


async def test_processes_know_how_many_they_are(redis: Redis) -> None:
    async with AsyncExitStack() as stack:
        several = [await joined(stack, redis) for _ in range(3)]
        for _ in range(2):
            for each in several:
                await each.processes.beat()
        assert [each.processes.alive for each in several] == [3, 3, 3]


async def test_what_a_dead_process_held_is_given_back(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    async with AsyncExitStack() as stack:
        await given_back(stack, redis, monkeypatch)


async def given_back(stack: AsyncExitStack, server: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "DEAD_AFTER", 0.2)
    one, other = await joined(stack, server), await joined(stack, server)
    gauge, purse = meter("gauge", 3), meter("purse", 100)
    await one.processes.beat()
    held = [await take(one.store, [gauge, purse], [1, 20]) for _ in range(3)]
    one.store.settle(held.pop(), [0, 5])
    assert [await other.used(gauge), await other.used(purse)] == [2, 45]
    deaths: list[str] = []

    async def died(name: str) -> None:
        deaths.append(name)

    other.processes.on_death.append(died)
    await asyncio.sleep(0.3)
    await other.processes.beat()
    assert one.processes.name in deaths
    # Its calls hold no place any more; their money may have been spent.
    assert [await other.used(gauge), await other.used(purse)] == [0, 45]
    for ticket in held:  # it was only asleep: nothing is given back twice
        one.store.settle(ticket, [0, 0])
    assert [await other.used(gauge), await other.used(purse)] == [0, 45]
