from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from gateway.secret import Secret
from gateway.state import processes
from gateway.state.database import connect
from gateway.state.journal import Journal
from gateway.state.ledger import Counts, Ledger
from gateway.state.rows import LOST, to_json
from tests.support.linked import until
from tests.support.redis import Redis, redis
from tests.support.rows import make_row
from tests.support.shared import joined

__all__ = ["redis"]


class Writer:
    """A process' link, ledger and journal."""

    def __init__(self, ledger: Ledger, journal: Journal) -> None:
        self.ledger = ledger
        self.journal = journal
        self.processes = journal._link.processes

    async def rows(self) -> dict[str, tuple[str, int | None]]:
        found = await self.ledger.database.fetch("SELECT id, outcome, output_tokens FROM hookgate_ledger")
        return {id: (outcome, tokens) for id, outcome, tokens in found}


@asynccontextmanager
async def writer(redis: Redis, folder: Path, interval: float = 0.01) -> AsyncIterator[Writer]:
    async with AsyncExitStack() as stack:
        gateway = await joined(stack, redis)
        ledger = Ledger(connect(Secret(f"sqlite:///{folder}/gateway.db"), Path()), Counts())
        ledger.interval = interval
        await ledger.open()
        stack.push_async_callback(ledger.close)
        yield Writer(ledger, Journal(gateway.link, ledger))


def kept(redis: Redis) -> int:
    return sum(int(redis.ask("HLEN", key)) for key in redis.ask("KEYS", "hookgate:journal:*"))


async def test_what_the_ledger_has_is_kept_no_longer(redis: Redis, tmp_path: Path) -> None:
    async with writer(redis, tmp_path) as one:
        for number in range(20):
            one.journal.note(make_row(id=str(number), outcome=LOST, output_tokens=None))
        await until(lambda: kept(redis) == 20)
        for number in range(20):
            row = make_row(id=str(number))
            one.journal.note(row)
            one.ledger.add(row)
        await until(lambda: kept(redis) == 0)
        assert await one.rows() == {str(number): ("ok", 20) for number in range(20)}


async def test_rows_of_a_dead_gateway_are_written_by_another(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "DEAD_AFTER", 0.2)
    async with writer(redis, tmp_path, interval=60) as dead, writer(redis, tmp_path) as living:
        await dead.processes.beat()
        ended, written, running = make_row(id="ended"), make_row(id="written"), make_row(id="running", outcome=LOST)
        for row in (ended, written, running):
            dead.journal.note(row)
        living.ledger.add(written)  # by the dead one, which died before it could tell
        await until(lambda: not living.ledger.waiting and kept(redis) == 3)
        await asyncio.sleep(0.3)
        await living.processes.beat()
        await until(lambda: not living.ledger.waiting and kept(redis) == 0)
        assert await living.rows() == {"ended": ("ok", 20), "written": ("ok", 20), "running": ("lost", 20)}


async def test_what_was_thought_lost_gives_way_to_what_became_of_it(redis: Redis, tmp_path: Path) -> None:
    async with writer(redis, tmp_path) as one:
        for outcome in (LOST, "client_gone", "ok", LOST):  # a gateway that slept; nothing else is overwritten
            one.ledger.add(make_row(id="a", outcome=outcome))
            await until(lambda: not one.ledger.waiting)
        assert await one.rows() == {"a": ("client_gone", 20)}


async def test_rows_are_asked_for_again_when_the_answer_was_lost(redis: Redis, tmp_path: Path) -> None:
    async with writer(redis, tmp_path) as one:
        redis.ask("HSET", "hookgate:journal:dead", "a", to_json(make_row(id="a")))
        await one.journal._adopt.call(["hookgate:journal:dead", one.journal._key])  # carried out, and never heard of
        await one.journal.adopt("dead")
        await until(lambda: kept(redis) == 0)
        assert await one.rows() == {"a": ("ok", 20)}


async def test_rows_of_another_version_are_told_of(
    redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with writer(redis, tmp_path) as one:
        redis.ask("HSET", "hookgate:journal:other", "x", "[1,2]", "y", "no JSON")
        with caplog.at_level(logging.ERROR, logger="hookgate"):
            await one.journal.adopt("other")
    assert [record.getMessage() for record in caplog.records] == [
        "ledger: exchange x of a dead gateway is lost",
        "ledger: exchange y of a dead gateway is lost",
    ]


async def test_a_journal_that_is_closed_hears_nothing(redis: Redis, tmp_path: Path) -> None:
    async with writer(redis, tmp_path) as one:
        one.journal.close()
        assert not one.ledger.wrote and not one.processes.on_death
