"""Tokens that expire: when they are fetched, who waits, what a failure leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from gateway.bearer import EARLY, PAUSE, Token, TokenRefused
from gateway.errors import UpstreamError


class Giver:
    """Gives out ``t1``, ``t2``, …, when it is let; ``now`` is the clock."""

    def __init__(self, lifetime: float = 3600.0) -> None:
        self.now = 1000.0
        self.lifetime = lifetime
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()
        self.refuses = False
        self.tasks: list[asyncio.Task[Any]] = []
        self.token = Token("p", self.fetch, self.spawn, lambda: self.now)

    async def fetch(self) -> tuple[str, float]:
        self.asked += 1
        number = self.asked
        await self.open.wait()
        if self.refuses:
            raise TokenRefused("No.")
        return f"t{number}", self.lifetime

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        self.tasks.append(asyncio.get_running_loop().create_task(coro, name=name))
        return self.tasks[-1]

    async def get(self) -> str:
        if not self.token.fresh():
            await self.token.ready()
        return self.token.secret.reveal()

    async def settle(self) -> None:
        await asyncio.gather(*self.tasks)


async def test_it_is_fetched_when_first_needed_and_kept() -> None:
    giver = Giver()
    assert giver.token.secret.reveal() == ""
    assert [await giver.get(), await giver.get()] == ["t1", "t1"]
    giver.now += 3600 - EARLY - 1
    assert (await giver.get(), giver.asked) == ("t1", 1)


async def test_all_who_wait_get_the_same() -> None:
    giver = Giver()
    giver.open.clear()
    waiting = [asyncio.ensure_future(giver.get()) for _ in range(5)]
    await asyncio.sleep(0)
    giver.open.set()
    assert await asyncio.gather(*waiting) == ["t1"] * 5 and giver.asked == 1


async def test_one_who_leaves_does_not_take_the_fetch_along() -> None:
    giver = Giver()
    giver.open.clear()
    leaving, staying = [asyncio.ensure_future(giver.get()) for _ in range(2)]
    await asyncio.sleep(0)
    leaving.cancel()
    giver.open.set()
    assert await staying == "t1" and giver.asked == 1 and leaving.cancelled()


async def test_shortly_before_its_end_the_old_one_serves_while_the_new_one_comes() -> None:
    giver = Giver()
    await giver.get()
    giver.now += 3600 - EARLY + 1
    giver.open.clear()
    assert [await giver.get(), await giver.get()] == ["t1", "t1"]
    giver.open.set()
    await giver.settle()
    assert await giver.get() == "t2" and giver.asked == 2


async def test_after_its_end_it_is_not_used_any_more() -> None:
    giver = Giver(lifetime=20.0)
    await giver.get()
    giver.now += 18.5
    assert await giver.get() == "t2"


async def test_a_failure_is_told_once_and_tried_anew_by_the_next() -> None:
    giver = Giver()
    giver.refuses = True
    for tries in (1, 2):
        with pytest.raises(UpstreamError) as caught:
            await giver.get()
        assert (caught.value.http_status, caught.value.sent, giver.asked) == (502, False, tries)
    giver.refuses = False
    assert await giver.get() == "t3"


async def test_a_failed_renewal_is_not_repeated_at_once_while_the_old_one_is_good() -> None:
    giver = Giver()
    await giver.get()
    giver.now += 3600 - EARLY + 1
    giver.refuses = True
    for _ in range(3):
        assert await giver.get() == "t1"
        await giver.settle()
    assert giver.asked == 2
    giver.now += PAUSE + 1
    giver.refuses = False
    await giver.get()
    await giver.settle()
    assert await giver.get() == "t3"


async def test_one_that_the_provider_refuses_is_replaced_unless_it_is_new() -> None:
    giver = Giver()
    await giver.get()
    giver.token.refused()
    assert giver.token.fresh()
    giver.now += PAUSE + 1
    giver.token.refused()
    assert await giver.get() == "t2"
