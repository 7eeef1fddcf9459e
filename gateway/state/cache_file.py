"""The response cache's second tier: a SQLite file that outlives the process.

Nothing here can fail an exchange or hold it up: reads have a time limit, writes wait in a bounded queue, and a file
that is corrupt, locked, unwritable or gone means misses, one warning, and another try later.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import aiosqlite
from aiohttp_client_cache.backends.sqlite import SQLiteCache

from gateway.state.cache import Codec, Entry

if TYPE_CHECKING:
    from gateway.runtime import Runtime

log = logging.getLogger("hookgate")

READ_LIMIT = 0.05
"""Seconds a look-up may take; then it is a miss."""
RETRY = 30.0
"""Seconds a file that failed is left alone."""
QUEUE = 16 << 20
"""Bytes of entries waiting to be written; further ones stay in memory only."""
_BATCH = 4 << 20  # bytes written in one transaction
_BUSY = 0.5  # seconds to wait for another process's lock
_STOP = 2.0  # seconds opening, or the last writes of a stopping gateway, may take
_SLOW_READS = 3  # time-outs in a row that are the file's fault: one may be a busy event loop's
# RuntimeError: no thread to be had. ValueError: aiosqlite's connection is closed.
_FAILURES = (sqlite3.Error, OSError, RuntimeError, ValueError)

_SCHEMA = (
    "PRAGMA journal_mode = WAL",  # look-ups do not wait for writes
    "PRAGMA synchronous = NORMAL",  # with WAL a power cut costs the last entries, never the file
    "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires REAL NOT NULL)",
    "CREATE INDEX IF NOT EXISTS entries_by_expiry ON entries (expires)",
)
_USED = """SELECT (pages.page_count - free.freelist_count) * size.page_size
    FROM pragma_page_count() AS pages, pragma_freelist_count() AS free, pragma_page_size() AS size"""


class Rows(SQLiteCache):
    """One connection to the file, with the column that expiry and eviction need."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "entries", connection=aiosqlite.connect(path, timeout=_BUSY), serializer=Codec)

    async def _init_db(self) -> None:
        for statement in _SCHEMA:
            await self._connection.execute(statement)
        self._initialized = True

    async def open(self) -> None:
        async with self.get_connection(commit=True):
            pass

    async def read(self, key: str) -> Entry | None:  # type: ignore[override]  # our entries, not its responses
        """Raises ``ValueError`` for a damaged row."""
        rows = await self._fetch("SELECT value FROM entries WHERE key = ?", key)
        return Codec.loads(rows[0][0]) if rows else None

    async def write_many(self, entries: dict[str, Entry], now: float) -> None:
        """Add ``entries`` and remove what has expired, in one transaction."""
        rows = [(key, Codec.dumps(entry), entry.expires) for key, entry in entries.items()]
        async with self.get_connection(commit=True) as db:
            await db.executemany("INSERT OR REPLACE INTO entries (key, value, expires) VALUES (?, ?, ?)", rows)
            await db.execute("DELETE FROM entries WHERE expires <= ?", (now,))

    async def trim(self, limit: int) -> None:
        """Remove the entries that expire first until the file's pages in use fit in ``limit`` bytes."""
        while (excess := (await self._fetch(_USED))[0][0] - limit) > 0:
            oldest = await self._fetch("SELECT key, LENGTH(value) FROM entries ORDER BY expires LIMIT 256")
            if not oldest:
                return
            doomed = set()
            for key, size in oldest:
                doomed.add(key)
                excess -= size
                if excess <= 0:
                    break
            await self.bulk_delete(doomed)

    def stop(self) -> asyncio.Future[Any] | None:
        """Have the connection closed and its thread ended, by that thread, behind what it still has to do.

        The library's ``close`` waits for a thread that hangs even when it is cancelled.
        """
        connection: aiosqlite.Connection | None = self._connection
        self._connection = None  # type: ignore[assignment]  # as the library does
        if connection is None or connection._connection is None:
            return None  # never opened: its thread has not begun, or has ended with the failure
        return connection.stop()

    async def _fetch(self, statement: str, *values: Any) -> list[Any]:
        return list(await self._connection.execute_fetchall(statement, values))


class FileTier:
    """Entries in a SQLite file, bounded by bytes."""

    def __init__(self, path: str, limit: int, clock: Callable[[], float]) -> None:
        self._path = os.path.abspath(os.path.expanduser(path))
        self._limit = limit
        self._clock = clock
        self._reader: Rows | None = None  # a connection of its own: a look-up must not queue behind a write
        self._writer: Rows | None = None
        self._inode = (0, 0)
        self._stale: list[Rows] = []
        self._queue: dict[str, Entry] = {}
        self._queued = 0
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._retry_at = 0.0
        self._slow_reads = 0
        self._failing = False
        self._damage_told = False

    async def start(self, runtime: Runtime) -> None:
        await self.open()
        runtime.spawn(self.run(), "cache file")

    async def open(self) -> None:
        """Open or create the file; on failure say so once and stay away for ``RETRY`` seconds."""
        opened: list[Rows] = []
        try:
            async with asyncio.timeout(_STOP):
                self._inode = await asyncio.to_thread(_create_private, self._path)
                for _ in range(2):
                    opened.append(Rows(self._path))
                    await opened[-1].open()
        except _FAILURES as error:
            self._stale += opened
            self._fail(error)
        else:
            self._writer, self._reader = opened
            self._slow_reads = 0

    async def read(self, key: str) -> Entry | None:
        """The entry, fresh or not; ``None`` also when the file does not answer in time."""
        reader = self._reader
        if reader is None:
            return None
        try:
            async with asyncio.timeout(READ_LIMIT):
                entry = await reader.read(key)
        except TimeoutError:
            self._slow_reads += 1
            if self._slow_reads >= _SLOW_READS and reader is self._reader:
                self._fail(TimeoutError(f"look-ups take longer than {READ_LIMIT * 1000:.0f} ms"))
            return None
        except _FAILURES as error:
            if reader is not self._reader:
                pass  # closed meanwhile, for a reason already told
            elif isinstance(error, ValueError):
                self._tell_damage(error)
            else:
                self._fail(error)
            return None
        self._slow_reads = 0
        return entry

    def offer(self, key: str, entry: Entry) -> None:
        """Have ``entry`` written soon, or not at all if the file fails or too much waits."""
        if self._writer is None and self._clock() < self._retry_at:
            return
        if (older := self._queue.pop(key, None)) is not None:
            self._queued -= older.size
        if self._queued + entry.size <= QUEUE:
            self._queue[key] = entry
            self._queued += entry.size
            self._wake.set()

    async def run(self) -> None:
        """Write what was offered, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            async with self._writing:
                await asyncio.gather(*self._stop_stale())
                if self._writer is None and self._queue and self._clock() >= self._retry_at:
                    await self.open()
                await self._write_queue()

    async def close(self) -> None:
        """Write what still waits and close the file; takes ``_STOP`` seconds at most."""
        try:
            async with asyncio.timeout(_STOP), self._writing:
                await self._write_queue()
                self._detach(float("inf"))
                await asyncio.gather(*self._stop_stale())
        except TimeoutError:
            log.warning("cache file %s: stopped before everything was written", self._path)
            self._detach(float("inf"))
            self._stop_stale()

    async def _write_queue(self) -> None:
        while self._queue:
            batch = self._take()
            if (writer := self._writer) is None:
                continue
            try:
                if await asyncio.to_thread(_identity, self._path) != self._inode:
                    raise FileNotFoundError("another file has taken its place")
                await writer.write_many(batch, self._clock())
                await writer.trim(self._limit)
            except _FAILURES as error:
                self._fail(error)
            else:
                self._recovered()

    def _take(self) -> dict[str, Entry]:
        batch: dict[str, Entry] = {}
        size = 0
        while self._queue and size < _BATCH:
            key = next(iter(self._queue))
            batch[key] = self._queue.pop(key)
            size += batch[key].size
        self._queued -= size
        return batch

    def _fail(self, error: Exception) -> None:
        self._detach(self._clock() + RETRY)
        if not self._failing:
            self._failing = True
            log.warning(
                "cache file %s cannot be used, caching in memory only: %s", self._path, str(error) or repr(error)
            )

    def _detach(self, retry_at: float) -> None:
        self._stale += [rows for rows in (self._reader, self._writer) if rows is not None]
        self._reader = self._writer = None
        self._retry_at = retry_at
        self._wake.set()  # the connections are closed by run()

    def _recovered(self) -> None:
        if self._failing:
            self._failing = False
            log.info("cache file %s is in use again", self._path)

    def _tell_damage(self, error: Exception) -> None:
        """One bad row is a miss, and its next answer replaces it: no reason to leave the file alone."""
        if not self._damage_told:
            self._damage_told = True
            log.warning("cache file %s: %s", self._path, error)

    def _stop_stale(self) -> list[asyncio.Future[Any]]:
        ending = [rows.stop() for rows in self._stale]
        self._stale.clear()
        return [future for future in ending if future is not None]


def _create_private(path: str) -> tuple[int, int]:
    """Make the file if there is none: answers are nobody else's to read. SQLite gives its other files the same mode."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.close(handle)
    return _identity(path)


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
