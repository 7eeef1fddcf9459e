"""The ledger: every row once, in whatever order things fail; nobody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.secret import Secret
from gateway.state import ledger as module
from gateway.state.database import DatabaseError, connect
from gateway.state.ledger import BATCH, Counts, Ledger
from tests.support.postgres import Postgres
from tests.support.rows import make_row


@contextlib.asynccontextmanager
async def opened(url: str, interval: float = 0.01) -> AsyncIterator[Ledger]:
    ledger = Ledger(connect(Secret(url), Path()), Counts())
    ledger.interval = interval
    await ledger.open()
    try:
        yield ledger
    finally:
        await ledger.close()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of either database."""
    return f"sqlite:///{tmp_path}/gateway.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/gateway.db"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF", (0.02, 0.1))


async def eventually(condition: Callable[[], Any], within: float = 20.0) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  # a test's wait
            await asyncio.sleep(0.005)


def more_are_written(ledger: Ledger, than: int) -> bool:
    return ledger.counts.written > than


async def ids(ledger: Ledger) -> list[str]:
    return [row[0] for row in await ledger.database.fetch("SELECT id FROM hookgate_ledger ORDER BY id")]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "hookgate"]


async def test_a_row_is_written_as_it_is(url: str) -> None:
    async with opened(url) as ledger:
        ledger.add(row := make_row(reasoning_tokens=0, ttfb_ms=None))
        await eventually(lambda: not ledger.waiting)
        (found,) = await ledger.database.fetch(
            "SELECT id, principal, input_tokens, cache_write_tokens, reasoning_tokens, cost_nano, ttfb_ms, duration_ms"
            " FROM hookgate_ledger"
        )
    assert found == (row.id, "alice", 10, None, 0, 1_000, None, 20.5)
    assert ledger.counts == Counts(written=1)


async def test_a_batch_does_not_wait_for_the_interval(file: str) -> None:
    async with opened(file, interval=60) as ledger:
        for _ in range(BATCH - 1):
            ledger.add(make_row())
        await asyncio.sleep(0.05)
        assert ledger.waiting == BATCH - 1
        ledger.add(make_row())
        await eventually(lambda: not ledger.waiting)


async def test_the_same_id_twice_is_one_row(url: str) -> None:
    async with opened(url) as ledger:
        for _ in range(2):
            ledger.add(make_row(id="a"))
            await eventually(lambda: not ledger.waiting)
        ledger.add(make_row(id="b"))
        ledger.add(make_row(id="b"))
        await eventually(lambda: not ledger.waiting)
        assert await ids(ledger) == ["a", "b"]
    assert ledger.counts.dropped == 0


async def test_what_waits_is_written_at_the_end(file: str, tmp_path: Path) -> None:
    async with opened(file, interval=60) as ledger:
        for _ in range(2 * BATCH + 1):
            ledger.add(make_row())
    with contextlib.closing(sqlite3.connect(tmp_path / "gateway.db")) as database:
        assert database.execute("SELECT COUNT(*) FROM hookgate_ledger").fetchone() == (2 * BATCH + 1,)


async def test_what_was_written_is_told_once(file: str, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    def fails(written: Any) -> None:
        raise ZeroDivisionError

    async with opened(file) as ledger:
        ledger.wrote += [fails, heard.extend]
        for name in "abc":
            ledger.add(make_row(id=name))
            await eventually(lambda: not ledger.waiting)
    assert heard == ["a", "b", "c"]
    assert "ledger: whom it tells of its rows has failed" in told(caplog)


async def test_a_row_the_database_never_takes_holds_up_no_other(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(url, interval=0.2) as ledger:
        for row in (make_row(id="a"), make_row(id="b", request_id="bad", started=None), make_row(id="c")):
            ledger.add(row)
        await eventually(lambda: not ledger.waiting)
        assert await ids(ledger) == ["a", "c"]
    assert ledger.counts == Counts(written=2, dropped=1)
    assert [line.partition(":")[2][:33] for line in told(caplog)] == [" the row of exchange bad is lost:"]


async def test_a_full_queue_is_told_once_and_counted(file: str, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(file, interval=0.2) as ledger:
        ledger.capacity = 3
        for _ in range(5):
            ledger.add(make_row())
        assert (ledger.waiting, ledger.counts.dropped) == (3, 2)
        assert told(caplog) == [f"ledger {ledger.database.name}: 3 rows wait, further ones are lost"]
        await eventually(lambda: not ledger.waiting)
    assert ledger.counts.written == 3


async def test_a_locked_file_loses_nothing_and_is_told_once_each_way(
    file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "hookgate")
    monkeypatch.setattr("gateway.state.sqlite.BUSY", 0.01)
    async with opened(file) as ledger:
        with contextlib.closing(sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            before = time.time()
            ledger.add(make_row(id="a"))
            await eventually(lambda: ledger.counts.failed_at)
            assert before <= ledger.counts.failed_at <= time.time()
            ledger.add(make_row(id="b"))
            await asyncio.sleep(0.3)
            assert ledger.waiting == 2
        await eventually(lambda: not ledger.waiting)
        assert await ids(ledger) == ["a", "b"]
    first, second = told(caplog)
    assert first.startswith("ledger cannot be written, its rows wait in memory: sqlite:///") and "locked" in first
    assert second == f"ledger {ledger.database.name} is written again; 0 rows are lost"


async def test_a_file_that_was_moved_away_is_made_anew(file: str, tmp_path: Path) -> None:
    async with opened(file) as ledger:
        ledger.add(make_row(id="a"))
        await eventually(lambda: not ledger.waiting)
        os.rename(tmp_path / "gateway.db", tmp_path / "moved.db")
        ledger.add(make_row(id="b"))
        await eventually(lambda: not ledger.waiting)
        assert await ids(ledger) == ["b"]


async def test_a_mistake_of_ours_does_not_end_the_writing(
    file: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(file) as ledger:
        with monkeypatch.context() as broken:
            broken.setattr(module, "values", lambda row: 1 / 0)
            ledger.add(make_row(id="a"))
            await eventually(lambda: ledger.counts.failed_at)
        await eventually(lambda: not ledger.waiting)
        assert await ids(ledger) == ["a"]
    assert caplog.records[0].exc_info is not None


async def test_rows_that_cannot_be_written_in_time_are_told_at_the_end(
    file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP", 0.3)
    monkeypatch.setattr("gateway.state.sqlite.BUSY", 0.01)
    with contextlib.closing(sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)) as other:
        async with opened(file) as ledger:
            other.execute("BEGIN IMMEDIATE")
            ledger.add(make_row())
            began = time.monotonic()
        assert time.monotonic() - began < 5
    assert ledger.counts.dropped == 1
    assert told(caplog)[-1] == f"ledger {ledger.database.name}: 1 rows could not be written and are lost"


async def test_several_generations_share_one_and_the_last_closes_it(file: str) -> None:
    async with opened(file) as ledger:
        await ledger.open()
        await ledger.close()
        ledger.add(make_row(id="a"))
        await eventually(lambda: not ledger.waiting)
        assert await ids(ledger) == ["a"]
    with pytest.raises(DatabaseError, match="not open"):
        await ids(ledger)
    await ledger.open()
    ledger.add(make_row(id="b"))
    await eventually(lambda: not ledger.waiting)
    assert await ids(ledger) == ["a", "b"]
    await ledger.close()


async def test_what_cannot_be_opened_is_told_and_can_be_opened_later(tmp_path: Path) -> None:
    ledger = Ledger(connect(Secret(f"sqlite:///{tmp_path}/later/gateway.db"), Path()), Counts())
    with pytest.raises(DatabaseError, match="later"):
        await ledger.open()
    os.mkdir(tmp_path / "later")
    await ledger.open()
    await ledger.close()


async def test_what_was_spent_on_some_models_or_by_all_is_added_up(url: str) -> None:
    async with opened(url) as ledger:
        rows = [("alice", "gpt-4o", 1), ("alice", "gpt-4o-mini", 10), ("bob", "llama3", 100), (None, None, 1000)]
        for principal, model, cost in rows:
            ledger.add(make_row(principal=principal, model=model, cost_nano=cost))

        async def spent() -> list[int]:
            return [
                await ledger.spent("all", "", 0), await ledger.spent("all", "", 0, ["gpt-*", "llama3"]),
                await ledger.spent("key", "alice", 0, ["gpt-4o"]), await ledger.spent("key", "alice", 0, ["llama3"]),
            ]  # fmt: skip

        waiting = await spent()
        await eventually(lambda: not ledger.waiting)
        assert waiting == await spent() == [1111, 111, 1, 0]


async def test_what_a_key_and_a_team_have_spent_is_added_up(url: str) -> None:
    async with opened(url, interval=60) as ledger:
        rows = [
            make_row(started=1_000_000, cost_nano=1),
            make_row(started=999_999, cost_nano=10),
            make_row(started=2_000_000, cost_nano=None),
            make_row(started=2_000_000, cost_nano=100, principal="bob"),
            make_row(started=2_000_000, cost_nano=9_000_000_000_000_000_000, principal="carol", team=None),
            make_row(started=2_000_000, cost_nano=1_000, principal=None, team=None),
        ]

        async def spent() -> list[int]:
            return [
                await ledger.spent("key", "alice", 1000.0), await ledger.spent("key", "alice", 0),
                await ledger.spent("key", "carol", 0), await ledger.spent("key", "nobody", 0),
                await ledger.spent("team", "red", 1000.0), await ledger.spent("team", "alice", 0),
            ]  # fmt: skip

        for row in rows:
            ledger.add(row)
        waiting = await spent()
        assert ledger.waiting == len(rows)
        ledger._hurry.set()
        await eventually(lambda: not ledger.waiting)
        assert waiting == await spent() == [1, 11, 9_000_000_000_000_000_000, 0, 101, 0]


async def test_a_name_that_is_stored_otherwise_is_found(url: str) -> None:
    name = "jwt:" + "x\0" * 300
    async with opened(url) as ledger:
        ledger.add(make_row(principal=name, cost_nano=7))
        await eventually(lambda: not ledger.waiting)
        assert await ledger.spent("key", name, 0) == 7


async def test_no_row_is_counted_twice_or_not_at_all_while_it_is_being_written(url: str) -> None:
    async with opened(url, interval=0.001) as ledger:
        for count in range(1, 201):
            ledger.add(make_row(cost_nano=1))
            assert await ledger.spent("key", "alice", 0) == count


async def test_spending_cannot_be_told_while_the_database_is_away(file: str) -> None:
    async with opened(file) as ledger:
        await ledger.database.close()
        with pytest.raises(DatabaseError):
            await ledger.spent("key", "alice", 0)


async def test_old_rows_are_removed_where_that_is_wanted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FORGET", module._FORGET.replace(f"LIMIT {module._FORGOTTEN}", "LIMIT 2"))
    monkeypatch.setattr(module, "_FORGOTTEN", 2)
    now = int(time.time() * 1000)
    async with opened(url) as ledger:
        for days in range(10):
            ledger.add(make_row(id=f"{days} days", started=now - days * 86_400_000 - 60_000))
        await eventually(lambda: not ledger.waiting)
        await asyncio.sleep(0.05)
        assert len(await ids(ledger)) == 10
        ledger.keep = 7 * 86400.0
        async with asyncio.timeout(20):
            while len(found := await ids(ledger)) > 7:  # noqa: ASYNC110  # a test's wait
                await asyncio.sleep(0.01)
    assert found == [f"{days} days" for days in range(7)]


async def test_a_server_killed_and_started_again_loses_and_doubles_nothing(
    postgres: Postgres, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hookgate")
    async with opened(postgres_url, interval=0.001) as ledger:
        count, running = 0, True

        async def write() -> None:
            nonlocal count
            while running:
                ledger.add(make_row(id=f"{count:08}", cost_nano=1))
                count += 1
                await asyncio.sleep(0.0005)

        writing = asyncio.create_task(write())
        for _ in range(3):
            await eventually(partial(more_are_written, ledger, ledger.counts.written + 20))
            await asyncio.to_thread(postgres.kill)
            await eventually(lambda: ledger._failing)
            await asyncio.to_thread(postgres.start)
            await eventually(lambda: not ledger._failing)
        running = False
        await writing
        await eventually(lambda: not ledger.waiting)
        assert await ids(ledger) == [f"{number:08}" for number in range(count)]
        assert await ledger.spent("key", "alice", 0) == count
    assert ledger.counts.dropped == 0
    assert [line.split(" ")[-5:] == ["again;", "0", "rows", "are", "lost"] for line in told(caplog)] == [
        False,
        True,
    ] * 3
