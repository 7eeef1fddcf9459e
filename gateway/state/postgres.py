"""PostgreSQL as a ``Database``. Needs the extra ``postgres``; imported only where it is configured."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.secret import Secret
from gateway.state.database import NONE, DatabaseError, Found, RowRefused, Values

CONNECT = 10.0
"""Seconds a connection may take to be made."""
STATEMENT = 30.0
"""Seconds a statement may take; then it is cancelled. Counted here, as poolers in between refuse such settings."""
POOL = 2
"""Connections kept; at most as many again are made when these are taken."""
_STOP = 2.0  # seconds the connections have to be closed in
_LOCK = 0x686F6F6B67617465  # "hookgate": whom PostgreSQL's advisory lock is between
_REFUSED = ("22", "23")  # SQLSTATE classes: data exception, integrity constraint violation
_FAILURES = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


@lru_cache(maxsize=256)
def _text(sql: str) -> TextClause:
    return text(sql)


class _Transaction:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def execute(self, sql: str, values: Values = NONE) -> int:
        return (await self._connection.execute(_text(sql), values)).rowcount

    async def executemany(self, sql: str, rows: Sequence[Values]) -> None:
        await self._connection.execute(_text(sql), rows)

    async def fetch(self, sql: str, values: Values = NONE) -> Found:
        return [tuple(row) for row in await self._connection.execute(_text(sql), values)]

    async def lock(self) -> None:
        await self.execute("SELECT pg_advisory_xact_lock(:key)", {"key": _LOCK})


class Postgres:
    def __init__(self, url: Secret) -> None:
        """Raises ``DatabaseError`` for what is no URL."""
        self.name = _name(url.reveal())
        self._url = url
        self._engine: AsyncEngine | None = None

    async def open(self) -> None:
        # Asked before use whether it is still there, so that a restart of the server costs no statement.
        self._engine = create_async_engine(
            "postgresql+asyncpg://", async_creator=self._connect, pool_size=POOL, max_overflow=POOL,
            pool_timeout=CONNECT, pool_pre_ping=True, hide_parameters=True,
        )  # fmt: skip
        try:
            await self.fetch("SELECT 1")
        except BaseException:
            await self.close()
            raise

    async def _connect(self, *_: Any, **__: Any) -> Any:
        """asyncpg reads the URL itself, with all that libpq's may have in it: sslmode, several hosts, a socket."""
        try:
            return await asyncpg.connect(
                self._url.reveal(), timeout=CONNECT, command_timeout=STATEMENT,
                server_settings={"application_name": "hookgate"},
            )  # fmt: skip
        except asyncpg.InterfaceError:
            raise
        except ValueError:
            # Of no particular kind: it quotes what it could not read, which may be the password.
            raise DatabaseError(f"{self.name}: its URL cannot be understood") from None

    async def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            with contextlib.suppress(*_FAILURES):
                async with asyncio.timeout(_STOP):
                    await engine.dispose()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[_Transaction]:
        with self._failures():
            async with self._opened().begin() as connection:
                yield _Transaction(connection)

    async def executemany(self, sql: str, rows: Sequence[Values]) -> None:
        async with self.transaction() as transaction:
            await transaction.executemany(sql, rows)

    async def fetch(self, sql: str, values: Values = NONE) -> Found:
        with self._failures():
            async with self._opened().connect() as connection:
                return await _Transaction(connection).fetch(sql, values)

    async def has_table(self, name: str) -> bool:
        return (await self.fetch("SELECT to_regclass(:name) IS NOT NULL", {"name": name}))[0][0] is True

    def _opened(self) -> AsyncEngine:
        if self._engine is None:
            raise DatabaseError(f"{self.name}: it is not open")
        return self._engine

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except _FAILURES as error:
            cause = _cause(error)
            state = getattr(cause, "sqlstate", None) or ""
            if state.startswith(_REFUSED):
                raise RowRefused(f"{self.name}: {type(cause).__name__}") from error  # the text may quote a value
            said = "it does not answer" if isinstance(cause, TimeoutError) else str(cause)
            raise DatabaseError(f"{self.name}: {said or repr(cause)}") from error


def _cause(error: BaseException) -> BaseException:
    """What the driver said first: undoing a transaction on a broken connection fails, too."""
    while isinstance(error.__context__, DBAPIError):
        error = error.__context__
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def _name(url: str) -> str:
    try:
        parts = urlsplit(url)
        if "@" not in parts.path and not parts.fragment:
            return f"postgresql://{parts.hostname or ''}{parts.path}"
    except ValueError:
        pass
    # Nothing of it is quoted: where the password ends cannot be told.
    raise DatabaseError("[state] ledger: no URL; in user and password, write /, #, [ and @ as %2F, %23, %5B and %40")
