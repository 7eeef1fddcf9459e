"""The tables: made once, never older than the program, never newer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from gateway.state import migrations
from gateway.state.database import Database, DatabaseError
from gateway.state.migrations import MIGRATIONS, migrate, version
from gateway.state.rows import Row
from tests.contract.database import opened


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path}/gateway.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    async with opened(url) as database:
        yield database


async def test_an_empty_database_gets_the_tables_and_keeps_them(database: Database) -> None:
    assert await version(database) == 0
    await migrate(database)
    assert await version(database) == len(MIGRATIONS)
    await migrate(database)
    assert await database.fetch("SELECT version FROM hookgate_schema_version") == [(len(MIGRATIONS),)]


async def test_the_ledger_has_a_column_for_all_that_a_row_has(database: Database) -> None:
    await migrate(database)
    names = ", ".join(field.name for field in attrs.fields(Row))
    assert await database.fetch(f"SELECT {names} FROM hookgate_ledger") == []


async def test_only_what_is_missing_is_done(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrate(database)
    later = ("CREATE TABLE later (id TEXT)", "INSERT INTO later (id) VALUES ('once')")
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, later))
    await migrate(database)
    await migrate(database)
    assert await database.fetch("SELECT id FROM later") == [("once",)]
    assert await version(database) == len(MIGRATIONS) + 1


async def test_a_step_that_fails_leaves_the_version_before(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrate(database)
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE half (id TEXT)", "NO SQL")))
    with pytest.raises(DatabaseError):
        await migrate(database)
    assert await version(database) == len(MIGRATIONS)
    assert not await database.has_table("half")


async def test_a_newer_database_is_refused(database: Database) -> None:
    await migrate(database)
    await database.executemany("UPDATE hookgate_schema_version SET version = :version", [{"version": 99}])
    with pytest.raises(DatabaseError, match=r"version 99; this release of Hookgate knows those up to \d"):
        await migrate(database)
