"""A link to Redis, open, with short times; and what it logged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.secret import Secret, StoreUrl
from gateway.settings import State
from gateway.state import redis_link
from gateway.state.redis_link import Link
from gateway.units import Duration


def state(url: str, **more: Any) -> State:
    return State(redis=StoreUrl(Secret(url)), **more)


@contextlib.asynccontextmanager
async def linked(url: str, patience: float = 2.0, **more: Any) -> AsyncIterator[Link]:
    """A busy machine may keep Redis from answering for much longer than the 40 ms of the default."""
    link = Link(state(url, redis_timeout=Duration(patience), **more))
    await link.open()
    try:
        yield link
    finally:
        await link.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks for a lost Redis ten times as often as the gateway does."""
    monkeypatch.setattr(redis_link, "RETRY", (0.05, 0.1))
    monkeypatch.setattr(redis_link, "CHECK", 0.2)


async def until(condition: Callable[[], object], within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  # a test's wait
            await asyncio.sleep(0.005)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and the first four words of each line of ours."""
    return [
        (record.levelname, " ".join(record.getMessage().split()[:4]).rstrip(":"))
        for record in caplog.records if record.name == "hookgate"
    ]  # fmt: skip


DOWN, BACK = ("WARNING", "Redis is not reachable"), ("INFO", "Redis is back after")
