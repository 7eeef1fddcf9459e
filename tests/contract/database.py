"""What every database behind ``gateway.state.database`` must do. A database's test is a subclass with its ``url``."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.secret import Secret
from gateway.state.database import Database, DatabaseError, RowRefused, connect
from gateway.state.migrations import MIGRATIONS
from tests.support.programs import ROOT

_TABLE = "CREATE TABLE things (id TEXT NOT NULL PRIMARY KEY, n BIGINT NOT NULL, d DOUBLE PRECISION, b BOOLEAN)"
_INSERT = "INSERT INTO things (id, n, d, b) VALUES (:id, :n, :d, :b) ON CONFLICT DO NOTHING"
_ALL = "SELECT id, n, d, b FROM things ORDER BY id"
_MIGRATES = """
import asyncio, sys
from pathlib import Path
from gateway.secret import Secret
from gateway.state.database import connect
from gateway.state.migrations import migrate

async def main():
    database = connect(Secret(sys.argv[1]), Path())
    sys.stdin.read(1)
    await database.open()
    await migrate(database)
    await database.close()

asyncio.run(main())
"""


def thing(name: str, n: int | None = 1, d: float | None = None, b: bool | None = None) -> dict[str, object]:
    return {"id": name, "n": n, "d": d, "b": b}


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = connect(Secret(url), Path())
    await database.open()
    try:
        yield database
    finally:
        await database.close()


class DatabaseContract:
    @pytest.fixture
    async def database(self, url: str) -> AsyncIterator[Database]:
        """With a table ``things``."""
        async with opened(url) as database:
            async with database.transaction() as transaction:
                await transaction.execute(_TABLE)
            yield database

    async def test_what_is_written_is_found(self, database: Database) -> None:
        rows = [thing("a", 1 << 62, 0.1, True), thing("ü\u2028😀", -1, None, None), thing("z", 0, 0.0, False)]
        await database.executemany(_INSERT, rows)
        found = await database.fetch(_ALL)
        assert sorted(found) == sorted(tuple(row.values()) for row in rows)
        assert await database.fetch("SELECT n FROM things WHERE id = :id AND n > :n", {"id": "a", "n": 5}) == [
            (1 << 62,)
        ]

    async def test_a_row_that_is_there_stays_as_it_is(self, database: Database) -> None:
        await database.executemany(_INSERT, [thing("a", 1)])
        await database.executemany(_INSERT, [thing("a", 2), thing("b", 3)])
        assert await database.fetch("SELECT id, n FROM things ORDER BY id") == [("a", 1), ("b", 3)]

    async def test_the_number_of_changed_rows_is_told(self, database: Database) -> None:
        await database.executemany(_INSERT, [thing(name) for name in "abc"])
        async with database.transaction() as transaction:
            assert await transaction.execute("DELETE FROM things WHERE id <> :id", {"id": "b"}) == 2

    async def test_a_transaction_that_fails_leaves_nothing(self, database: Database) -> None:
        with pytest.raises(ZeroDivisionError):
            async with database.transaction() as transaction:
                await transaction.executemany(_INSERT, [thing("a")])
                assert await transaction.fetch(_ALL)
                raise ZeroDivisionError
        assert await database.fetch(_ALL) == []
        await database.executemany(_INSERT, [thing("b")])
        assert [row[0] for row in await database.fetch(_ALL)] == ["b"]

    async def test_a_transaction_that_is_cancelled_leaves_nothing(self, database: Database) -> None:
        begun = asyncio.Event()

        async def write() -> None:
            async with database.transaction() as transaction:
                await transaction.executemany(_INSERT, [thing("a")])
                begun.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(write())
        await asyncio.wait_for(begun.wait(), 10)
        assert await database.fetch(_ALL) == [], "what is not committed is seen by nobody"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await database.executemany(_INSERT, [thing("b")])
        assert [row[0] for row in await database.fetch(_ALL)] == ["b"]

    @pytest.mark.parametrize(
        "bad", [{"n": None}, {"n": 1 << 64}, {"id": "canary\ud800"}], ids=["null", "large", "no text"]
    )
    async def test_values_it_will_never_take_are_told_apart(self, database: Database, bad: dict[str, object]) -> None:
        with pytest.raises(RowRefused) as refused:
            await database.executemany(_INSERT, [thing("a"), thing("canary") | bad])
        assert "canary" not in str(refused.value)
        assert await database.fetch(_ALL) == [], "all rows or none"

    async def test_a_failure_names_the_database(self, database: Database) -> None:
        with pytest.raises(DatabaseError, match=database.name) as failed:
            await database.fetch("SELECT nothing FROM nowhere")
        assert not isinstance(failed.value, RowRefused)

    async def test_one_at_a_time_holds_the_lock(self, database: Database, url: str) -> None:
        order: list[str] = []

        async def hold(who: Database, name: str) -> None:
            async with who.transaction() as transaction:
                await transaction.lock()
                order.append(f"{name} in")
                await asyncio.sleep(0.05)
                order.append(f"{name} out")

        async with opened(url) as other:
            await asyncio.gather(hold(database, "a"), hold(other, "b"))
        assert order in (["a in", "a out", "b in", "b out"], ["b in", "b out", "a in", "a out"])

    async def test_it_knows_its_tables(self, database: Database) -> None:
        assert await database.has_table("things")
        assert not await database.has_table("nothings")

    async def test_closed_it_says_so_and_can_be_opened_again(self, database: Database) -> None:
        await database.close()
        await database.close()
        with pytest.raises(DatabaseError, match="not open"):
            await database.fetch(_ALL)
        with pytest.raises(DatabaseError, match="not open"):
            await database.executemany(_INSERT, [thing("a")])
        await database.open()
        assert await database.fetch(_ALL) == []

    async def test_processes_that_start_at_once_make_its_tables_once(self, url: str) -> None:
        command = [sys.executable, "-W", "error", "-c", _MIGRATES, url]
        pipes: dict[str, Any] = {"stdin": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
        starting = [await asyncio.create_subprocess_exec(*command, cwd=ROOT, **pipes) for _ in range(2)]
        async with asyncio.timeout(60):
            said = await asyncio.gather(*(each.communicate(b"\n") for each in starting))
        assert [(each.returncode, errors) for each, (_, errors) in zip(starting, said, strict=True)] == [(0, b"")] * 2
        async with opened(url) as database:
            assert await database.fetch("SELECT version FROM hookgate_schema_version") == [(len(MIGRATIONS),)]
            assert await database.fetch("SELECT id FROM hookgate_ledger") == []
