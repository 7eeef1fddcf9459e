"""SQLite as a database: the contract, and the file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.state import sqlite
from gateway.state.database import DatabaseError
from gateway.state.sqlite import Sqlite
from tests.contract.database import DatabaseContract


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """The interpreter waits for aiosqlite's threads: one that is left keeps a stopped gateway alive."""
    yield
    for thread in threading.enumerate():
        if "_connection_worker" in thread.name:
            thread.join(10)
            assert not thread.is_alive()


class TestContract(DatabaseContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/a b%#ü.db"


async def test_the_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    database = Sqlite(tmp_path / "gateway.db")
    await database.open()
    async with database.transaction() as transaction:
        await transaction.execute("CREATE TABLE t (id TEXT)")
    modes = {name: stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in os.listdir(tmp_path)}
    await database.close()
    assert modes == dict.fromkeys(("gateway.db", "gateway.db-wal", "gateway.db-shm"), 0o600)


async def test_it_is_made_only_where_that_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=r"gateway\.db: No such file"):
        await Sqlite(tmp_path / "gateway.db", create=False).open()
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("place", ["nowhere/gateway.db", "."], ids=["no folder", "a folder"])
async def test_what_cannot_be_opened_is_told_with_its_place(tmp_path: Path, place: str) -> None:
    with pytest.raises(DatabaseError, match=str(tmp_path)):
        await Sqlite(tmp_path / place).open()


async def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").write_bytes(b"no database at all, " * 100)
    with pytest.raises(DatabaseError, match="not a database"):
        await Sqlite(tmp_path / "gateway.db").open()


async def test_a_file_that_was_replaced_is_not_written_to(tmp_path: Path) -> None:
    database = Sqlite(tmp_path / "gateway.db")
    await database.open()
    os.rename(tmp_path / "gateway.db", tmp_path / "moved.db")
    with pytest.raises(DatabaseError, match="No such file"):
        await database.executemany("CREATE TABLE t (id TEXT)", [{}])
    (tmp_path / "gateway.db").touch()
    with pytest.raises(DatabaseError, match="another file has taken its place"):
        await database.executemany("CREATE TABLE t (id TEXT)", [{}])
    await database.close()


async def test_a_writer_elsewhere_is_waited_for_and_holds_up_no_look_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY", 0.3)
    database = Sqlite(tmp_path / "gateway.db")
    await database.open()
    await database.executemany("CREATE TABLE t (id TEXT)", [{}])
    other = sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(database.executemany("INSERT INTO t VALUES (:id)", [{"id": "a"}]))
    await asyncio.sleep(0.05)
    assert await asyncio.wait_for(database.fetch("SELECT id FROM t"), 0.2) == []
    other.execute("COMMIT")
    await writing
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseError, match="locked"):
        await database.executemany("INSERT INTO t VALUES (:id)", [{"id": "b"}])
    other.close()
    await database.executemany("INSERT INTO t VALUES (:id)", [{"id": "c"}])
    assert await database.fetch("SELECT id FROM t") == [("a",), ("c",)]
    await database.close()


async def test_rows_are_inserted_in_few_statements_and_as_one_by_one(tmp_path: Path) -> None:
    database = Sqlite(tmp_path / "gateway.db")
    await database.open()
    await database.executemany("CREATE TABLE t (id TEXT PRIMARY KEY, n BIGINT)", [{}])
    sql = "INSERT INTO t (n, id) VALUES (:n, :id) ON CONFLICT (id) DO UPDATE SET n = excluded.n WHERE t.n < 5"
    rows = [{"id": str(number % 20_000), "n": number // 20_000 * 10} for number in range(50_000)]
    assert sum(1 for _ in sqlite._joined(sql, rows)) == 4
    await database.executemany(sql, rows)
    assert await database.fetch("SELECT COUNT(*), MIN(n), MAX(n) FROM t") == [(20_000, 10, 10)]
    await database.close()


async def test_closing_does_not_wait_for_a_thread_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_STOP", 0.1)
    database = Sqlite(tmp_path / "gateway.db")
    await database.open()
    assert database._reader is not None
    hanging = asyncio.create_task(database._reader._execute(time.sleep, 0.6))  # type: ignore[no-untyped-call]
    await asyncio.sleep(0.05)
    began = time.monotonic()
    await database.close()
    assert time.monotonic() - began < 0.5
    await hanging
