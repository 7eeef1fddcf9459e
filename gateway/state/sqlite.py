"""SQLite as a ``Database``: one file, which any number of processes of this machine may share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from random import uniform
from time import monotonic
from typing import Any
from urllib.parse import quote

import aiosqlite

from gateway.state.database import NONE, DatabaseError, Found, RowRefused, Values

BUSY = 5.0
"""Seconds to wait while another process writes."""
_STOP = 5.0  # seconds the connections' threads have to end in: the last one moves all that was written into the file
# UnicodeError: lone surrogates. OverflowError: more than 64 bits.
_REFUSALS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, OverflowError, UnicodeError)
# RuntimeError: no thread to be had. ValueError: aiosqlite's connection is closed.
_FAILURES = (sqlite3.Error, OSError, RuntimeError, ValueError)


class _Transaction:
    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def execute(self, sql: str, values: Values = NONE) -> int:
        return (await self._connection.execute(sql, values)).rowcount

    async def executemany(self, sql: str, rows: Sequence[Values]) -> None:
        for statement, values in _joined(sql, rows):
            await self._connection.execute(statement, values)

    async def fetch(self, sql: str, values: Values = NONE) -> Found:
        return [tuple(row) for row in await self._connection.execute_fetchall(sql, values)]

    async def lock(self) -> None:
        """Held already, by ``BEGIN IMMEDIATE``."""


class Sqlite:
    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.name = f"sqlite:///{path}"
        self._path = os.path.abspath(path)
        self._create = create
        self._inode = (0, 0)
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None  # of its own: a look-up must not queue behind a write
        self._writing = asyncio.Lock()

    async def open(self) -> None:
        with self._failures():
            self._inode = await asyncio.to_thread(_create_private if self._create else _identity, self._path)
            try:
                self._writer = await self._connect()
                await _write_ahead(self._writer)
                self._reader = await self._connect()
                for connection in (self._writer, self._reader):
                    await connection.execute(f"PRAGMA busy_timeout = {BUSY * 1000:.0f}")
            except BaseException:
                await self.close()
                raise

    def _connect(self) -> aiosqlite.Connection:
        # isolation_level: transactions are begun here, not by the module. rw: the file was made above, for us alone.
        place = f"file:{quote(self._path)}?mode=rw"
        return aiosqlite.connect(place, uri=True, timeout=0, isolation_level=None)

    async def close(self) -> None:
        """The library's ``close`` waits for a thread that hangs even when it is cancelled; its threads end by
        themselves, behind what they still have to do."""
        ending = [connection.stop() for connection in (self._writer, self._reader) if connection is not None]
        self._writer = self._reader = None
        waited = asyncio.gather(*(future for future in ending if future is not None))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP):
                await waited

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[_Transaction]:
        async with self._writing:
            with self._failures():
                connection = self._opened(self._writer)
                if await asyncio.to_thread(_identity, self._path) != self._inode:
                    raise FileNotFoundError("another file has taken its place")
                try:
                    await connection.execute("BEGIN IMMEDIATE")
                    yield _Transaction(connection)
                    await connection.execute("COMMIT")
                except BaseException:
                    # Also where BEGIN was cancelled: its thread does it all the same. No transaction is no harm.
                    with contextlib.suppress(*_FAILURES):
                        await connection.execute("ROLLBACK")
                    raise

    async def executemany(self, sql: str, rows: Sequence[Values]) -> None:
        async with self.transaction() as transaction:
            await transaction.executemany(sql, rows)

    async def fetch(self, sql: str, values: Values = NONE) -> Found:
        with self._failures():
            return await _Transaction(self._opened(self._reader)).fetch(sql, values)

    async def has_table(self, name: str) -> bool:
        return bool(
            await self.fetch("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name", {"name": name})
        )

    @staticmethod
    def _opened(connection: aiosqlite.Connection | None) -> aiosqlite.Connection:
        if connection is None:
            raise ValueError("it is not open")
        return connection

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except _REFUSALS as error:
            raise RowRefused(f"{self.name}: {type(error).__name__}") from error
        except _FAILURES as error:
            raise DatabaseError(f"{self.name}: {getattr(error, 'strerror', None) or error}") from error


async def _write_ahead(connection: aiosqlite.Connection) -> None:
    """Let reports read while the gateway writes. The mode stays with the file.

    ``connection`` must not wait for locks: two that change the mode at once would wait for each other.
    """
    began = monotonic()
    while True:
        try:
            await connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or monotonic() - began > BUSY:
                raise
        await asyncio.sleep(uniform(0.01, 0.05))


def _create_private(path: str) -> tuple[int, int]:
    """Make the file if there is none: who asked for what is nobody else's to read.

    One that is there is not opened: closing it would give up the locks that SQLite has on it in this process.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return _identity(path)


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


_INSERT = re.compile(r"(INSERT .* VALUES )\((:\w+(?:, :\w+)*)\)(.*)", re.DOTALL)
_VARIABLES = 30_000  # of one statement; SQLite's limit is 32,766


def _joined(sql: str, rows: Sequence[Values]) -> Iterator[tuple[str, Any]]:
    """An ``INSERT`` of many rows in few statements. Row by row each would let go of the interpreter's lock and wait for
    the event loop to give it back."""
    match = _INSERT.fullmatch(sql)
    if match is None:
        yield from ((sql, row) for row in rows)
        return
    names = [name.removeprefix(":") for name in match[2].split(", ")]
    one = f"({', '.join('?' * len(names))})"
    at_once = max(1, _VARIABLES // len(names))
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        yield f"{match[1]}{', '.join([one] * len(some))}{match[3]}", [row[name] for row in some for name in names]
