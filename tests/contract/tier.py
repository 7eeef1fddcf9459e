"""What every tier behind the response cache's memory must do, wherever it keeps the entries.

A tier's test is a subclass with the fixtures ``opened``, ``damage`` and ``clock``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from gateway.state.cache import Entry, Tier

Opened = Callable[[], AbstractAsyncContextManager[Any]]
"""A tier as the plugin runs it; a second one is the next process's, or another machine's."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def entry(body: bytes = b"{}", expires: float = 5000.0) -> Entry:
    return Entry(1000.0, expires, {"content-type": "application/json"}, body, False)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def found(tier: Tier, key: str, what: Entry) -> None:
    """Wait until ``what`` is there for ``key``."""
    async with asyncio.timeout(5):
        while await tier.read(key) != what:  # noqa: ASYNC110  # a test's wait
            await asyncio.sleep(0.005)


class TierContract:
    async def test_an_entry_is_found_again_by_the_next_process(self, opened: Opened) -> None:
        async with opened() as tier:
            tier.offer("k", entry(b"answer"))
            await found(tier, "k", entry(b"answer"))
            assert await tier.read("other") is None
        async with opened() as tier:
            assert await tier.read("k") == entry(b"answer")

    async def test_what_one_process_keeps_another_finds(self, opened: Opened) -> None:
        async with opened() as one, opened() as two:
            one.offer("k", entry(b"answer"))
            await found(two, "k", entry(b"answer"))

    async def test_what_still_waits_is_written_when_the_gateway_stops(self, opened: Opened) -> None:
        async with opened() as tier:
            for number in range(50):
                tier.offer(str(number), entry(b"%d" % number))
        async with opened() as tier:
            assert [await tier.read(str(number)) for number in range(50)] == [entry(b"%d" % n) for n in range(50)]

    async def test_the_newer_of_two_answers_stays(self, opened: Opened) -> None:
        async with opened() as tier:
            tier.offer("k", entry(b"first"))
            await found(tier, "k", entry(b"first"))
            tier.offer("k", entry(b"second"))
            tier.offer("k", entry(b"third"))
        async with opened() as tier:
            assert await tier.read("k") == entry(b"third")

    async def test_an_entry_comes_back_whole(self, opened: Opened) -> None:
        large = Entry(
            1000.0, 5000.0, {"content-type": "text/event-stream"}, bytes(range(256)) * 4000, True,
            (3, 4, None, None, 0, "reported"), ("tools", "\u00e9"), "m", False,
        )  # fmt: skip
        async with opened() as tier:
            tier.offer("k", large)
        async with opened() as tier:
            assert await tier.read("k") == large

    async def test_a_damaged_entry_is_a_miss_until_it_is_replaced(
        self, opened: Opened, damage: Callable[[str], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        async with opened() as tier:
            tier.offer("bad", entry(b"answer"))
            tier.offer("good", entry(b"answer"))
            await found(tier, "bad", entry(b"answer"))
            await found(tier, "good", entry(b"answer"))
            damage("bad")
            assert [await tier.read("bad") for _ in range(3)] == [None] * 3
            assert await tier.read("good") == entry(b"answer")
            tier.offer("bad", entry(b"again"))
            await found(tier, "bad", entry(b"again"))
        assert len(warnings(caplog)) == 1
