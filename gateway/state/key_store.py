"""Keys and teams in the database: made, changed and removed, while gateways run.

Each change takes the next number of ``hookgate_key_changes``, by which every gateway notices it (``state.keyring``).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from pathlib import Path
from time import time
from typing import Any, Generic, TypeVar

import attrs

from gateway import virtual_key
from gateway.settings import Config
from gateway.state.database import Database, DatabaseError, Transaction, connect
from gateway.state.key_rows import Invalid, KeyRow, Row, TeamRow
from gateway.state.migrations import demand, migrate
from gateway.structure import did_you_mean

AnyRow = TypeVar("AnyRow", bound=Row)

CHANGE = "SELECT change FROM hookgate_key_changes"


class Missing(Exception):
    """There is none of this name."""


class Taken(Exception):
    """It cannot be made, or removed, because of something else that is there."""


class _Table(Generic[AnyRow]):
    """What keys and teams have in common. All of it raises ``DatabaseError`` where that fails."""

    kind: type[AnyRow]

    def __init__(self, database: Database, inline: Collection[str], clock: Callable[[], float]) -> None:
        self._database = database
        self._inline = inline
        self._clock = clock
        names, table = [field.name for field in attrs.fields(self.kind)], self.kind.TABLE
        self._select = f"SELECT {', '.join(names)} FROM {table}"
        self._write = (
            f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})"
            f" ON CONFLICT (name) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in names[1:])}"
        )

    async def get(self, name: str) -> AnyRow:
        """Raises ``Missing``."""
        return await self._get(self._database, name)

    async def list(self, after: str = "", limit: int = 1000) -> list[AnyRow]:
        """By name, those behind ``after``."""
        sql = f"{self._select} WHERE name > :after ORDER BY name LIMIT {limit:d}"
        return [self.kind(*found) for found in await self._database.fetch(sql, {"after": after})]

    async def update(self, name: str, changes: Mapping[str, Any]) -> AnyRow:
        """Put ``changes`` into its table, ``None`` for what shall not stand there any more. Raises ``Missing``,
        ``Invalid``."""
        async with self._changing() as (transaction, change):
            before = await self._get(transaction, name)
            after = before.written(_said({**before.table(), **changes}))
            await self._check(transaction, before, after)
            return await self._put(transaction, after, change)

    async def delete(self, name: str) -> None:
        """Raises ``Missing``, ``Taken``."""
        async with self._changing() as (transaction, _):
            await self._demand_unused(transaction, name)
            if not await transaction.execute(f"DELETE FROM {self.kind.TABLE} WHERE name = :name", {"name": name}):
                raise self._missing(name)

    async def create(self, name: str, table: Mapping[str, Any]) -> tuple[str | None, AnyRow]:
        """The key itself, which is kept nowhere, if it is one; and the row. ``table`` is as ``Row.table`` has it.

        Raises ``Taken``, ``Invalid``.
        """
        raise NotImplementedError

    async def _create(self, row: AnyRow, table: Mapping[str, Any]) -> AnyRow:
        """Raises ``Taken``, ``Invalid``."""
        async with self._changing() as (transaction, change):
            if row.name in self._inline:
                raise Taken(f"gateway.toml has a {row.KIND} '{row.name}', which would count instead.")
            if await transaction.fetch(f"{self._select} WHERE name = :name", {"name": row.name}):
                raise Taken(f"There is a {row.KIND} '{row.name}' already.")
            after = row.written(_said(table))
            await self._check(transaction, row, after)
            return await self._put(transaction, after, change)

    @contextlib.asynccontextmanager
    async def _changing(self) -> AsyncIterator[tuple[Transaction, int]]:
        """A transaction and its number."""
        async with self._database.transaction() as transaction:
            # The number's row is locked until the end, so that whoever ends later has a higher one.
            await transaction.execute("UPDATE hookgate_key_changes SET change = change + 1")
            found = await transaction.fetch(CHANGE)
            if len(found) != 1:
                raise DatabaseError(f"{self._database.name}: hookgate_key_changes must have one row")
            yield transaction, int(found[0][0])

    async def _get(self, database: Database | Transaction, name: str) -> AnyRow:
        found = await database.fetch(f"{self._select} WHERE name = :name", {"name": name})
        if not found:
            raise self._missing(name)
        return self.kind(*found[0])

    def _missing(self, name: str) -> Missing:
        return Missing(f"There is no {self.kind.KIND} '{name}' in the database.")

    async def _put(self, transaction: Transaction, row: AnyRow, change: int) -> AnyRow:
        row = attrs.evolve(row, updated=int(self._clock()), change=change)
        await transaction.execute(self._write, attrs.asdict(row))
        return row

    async def _check(self, transaction: Transaction, before: AnyRow, after: AnyRow) -> None:
        """Raises ``Invalid`` for what does not fit to the rest."""

    async def _demand_unused(self, transaction: Transaction, name: str) -> None:
        """Raises ``Taken``."""


class Keys(_Table[KeyRow]):
    kind = KeyRow

    def __init__(self, database: Database, config: Config, clock: Callable[[], float]) -> None:
        super().__init__(database, config.keys, clock)
        self._teams = config.teams

    async def create(self, name: str, table: Mapping[str, Any]) -> tuple[str, KeyRow]:
        key = virtual_key.make()
        now = int(self._clock())
        row = KeyRow(name, "{}", now, now, 0, virtual_key.digest_of(key).hex())
        return key, await self._create(row, table)

    async def rotate(self, name: str, grace: float = 0.0) -> tuple[str, KeyRow]:
        """A new key in the place of the one before, which stays good for ``grace`` seconds more.

        One that was replaced earlier, and had such a time itself, ends now. Raises ``Missing``.
        """
        key = virtual_key.make()
        async with self._changing() as (transaction, change):
            row = await self._get(transaction, name)
            before = (row.sha256, int(self._clock() + grace)) if grace else (None, None)
            row = attrs.evolve(
                row, sha256=virtual_key.digest_of(key).hex(), previous=before[0], previous_until=before[1]
            )  # fmt: skip
            return key, await self._put(transaction, row, change)

    async def block(self, name: str, blocked: bool = True) -> KeyRow:
        """Also what makes no sense otherwise. Raises ``Missing``."""
        async with self._changing() as (transaction, change):
            row = attrs.evolve(await self._get(transaction, name), blocked=blocked)
            return await self._put(transaction, row, change)

    async def _check(self, transaction: Transaction, before: KeyRow, after: KeyRow) -> None:
        team = after.team
        if team is None or team == before.team or team in self._teams:
            return
        if not await transaction.fetch(f"SELECT 1 FROM {TeamRow.TABLE} WHERE name = :name", {"name": team}):
            raise Invalid(f"team: there is no team '{team}'.{did_you_mean(team, self._teams)}")


class Teams(_Table[TeamRow]):
    kind = TeamRow

    def __init__(self, database: Database, config: Config, clock: Callable[[], float]) -> None:
        super().__init__(database, config.teams, clock)
        self._members = [(name, key.team) for name, key in config.keys.items()]

    async def create(self, name: str, table: Mapping[str, Any]) -> tuple[None, TeamRow]:
        now = int(self._clock())
        return None, await self._create(TeamRow(name, "{}", now, now, 0), table)

    async def _demand_unused(self, transaction: Transaction, name: str) -> None:
        """Else its members would not count together any more."""
        if name in self._inline:
            return
        sql = f"SELECT name FROM {KeyRow.TABLE} WHERE team = :name ORDER BY name LIMIT 4"
        members = [found[0] for found in await transaction.fetch(sql, {"name": name})]
        members += [key for key, team in self._members if team == name]
        if members:
            more = ", …" if len(members) > 3 else ""
            raise Taken(f"Team '{name}' has members: {', '.join(members[:3])}{more}")


class KeyStore:
    def __init__(self, database: Database, config: Config, clock: Callable[[], float] = time) -> None:
        self.keys = Keys(database, config, clock)
        self.teams = Teams(database, config, clock)


@contextlib.asynccontextmanager
async def opened(config: Config, folder: Path, *, create: bool = True) -> AsyncIterator[KeyStore]:
    """The store that ``config`` names. With ``create`` off it must be there, and its tables be of this release.

    Raises ``DatabaseError``.
    """
    database = connect(config.state.ledger, folder, create=create)
    try:
        await database.open()
        await (migrate if create else demand)(database)
        yield KeyStore(database, config)
    finally:
        await database.close()


def _said(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in table.items() if value is not None}
