"""The usage ledger: a row per exchange, in a database, written behind the exchange and never in its way.

``add`` puts a row into a bounded queue; a task writes what waits, many rows at once. While the database does not take
them the rows stay and are offered again. Only rows that find the queue full, or that a gateway which ends cannot
write in time, are lost, and both are told. A process that is killed loses what it has not written yet: at most what
came within ``interval``, as long as the database keeps up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from math import ceil
from time import monotonic, time
from typing import Any, Literal

import attrs

from gateway.state.database import Database, DatabaseError, RowRefused
from gateway.state.migrations import migrate
from gateway.state.rows import INSERT, Row, shown, values

log = logging.getLogger("hookgate")

BATCH = 500
"""Rows written at once; as many do not wait for ``interval``."""
BACKOFF = (0.25, 4.0)
"""Seconds until a failed write is tried again: at first, doubled each time, and at most."""
STOP = 5.0
"""Seconds a stopping gateway tries to write what waits."""
FORGET = 3600.0
"""Seconds between two looks for rows that are too old."""
_FORGOTTEN = 2 * BATCH  # rows removed at once: more than are written meanwhile
_FORGET = f"""DELETE FROM hookgate_ledger WHERE id IN
    (SELECT id FROM hookgate_ledger WHERE started < :before ORDER BY started LIMIT {_FORGOTTEN})"""
Scope = Literal["key", "team", "all"]
_COLUMNS: dict[Scope, str] = {"key": "principal", "team": "team", "all": ""}


@attrs.define
class Counts:
    """What the metrics tell. Outlives a ledger, so that nothing falls when another takes its place."""

    written: int = 0
    dropped: int = 0
    """Rows that are lost."""
    failed_at: float = 0.0
    """Unix time of the last failure to write; 0.0 while there was none."""


class Ledger:
    """Of one process. Several may share a database."""

    def __init__(self, database: Database, counts: Counts) -> None:
        self.database = database
        self.counts = counts
        self.wrote: list[Callable[[Sequence[str]], None]] = []
        """Called with the ids of rows that need not be kept elsewhere any more: written, or refused for good."""
        self.capacity = 100_000
        """Rows that may wait."""
        self.interval = 0.5
        """Seconds between two writes, unless a batch is there sooner."""
        self.keep = 0.0
        """Seconds after which a row is removed; 0 keeps all."""
        self._rows: deque[Row] = deque()
        self._hurry = asyncio.Event()
        self._closing = asyncio.Event()
        self._writing = asyncio.Lock()
        self._users = 0
        self._task: asyncio.Task[None] | None = None
        self._failing = False
        self._full = False
        self._forget_at = 0.0

    @property
    def waiting(self) -> int:
        """Rows that are not in the database yet."""
        return len(self._rows)

    async def open(self) -> None:
        """Connect and prepare the database; once, however many generations use it. Raises ``DatabaseError``."""
        if not self._users:
            await self._connect()
            self._closing.clear()
            self._task = asyncio.get_running_loop().create_task(self._run(), name="ledger")
        self._users += 1

    async def close(self) -> None:
        """To be called for each ``open`` that has succeeded. The last one writes what waits, for up to ``STOP`` s."""
        self._users -= 1
        if self._users or self._task is None:
            return
        self._closing.set()
        self._hurry.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP):
                await self._task
        if self._rows:
            self.counts.dropped += len(self._rows)
            log.error("ledger %s: %d rows could not be written and are lost", self.database.name, len(self._rows))
        await self.database.close()

    def add(self, row: Row) -> None:
        """Have ``row`` written soon. Neither waits nor fails."""
        rows = self._rows
        if len(rows) >= self.capacity:
            self.counts.dropped += 1
            if not self._full:
                self._full = True
                log.error("ledger %s: %d rows wait, further ones are lost", self.database.name, len(rows))
            return
        rows.append(row)
        if len(rows) == BATCH:
            self._hurry.set()

    async def spent(self, scope: Scope, name: str, since: float, models: Sequence[str] = ("*",)) -> int:
        """Nano-dollars that the exchanges of a key or team, or all of them, have cost, as far as known: of those that
        began at ``since`` (unix time) or later and were for one of ``models`` (globs), also where their rows still wait
        here. Raises ``DatabaseError``.
        """
        column, after = _COLUMNS[scope], ceil(since * 1000)
        of = f" AND {column} = :name" if column else ""
        # Of all models an index alone has the answer.
        model, group = ("NULL", "") if "*" in models else ("model", " GROUP BY model")
        sql = (
            f"SELECT {model}, CAST(COALESCE(SUM(cost_nano), 0) AS BIGINT) FROM hookgate_ledger"
            f" WHERE started >= :after{of}{group}"
        )
        values = {"name": shown(name), "after": after} if column else {"after": after}
        async with self._writing:  # so that no row is in both places, or in none
            found = await self.database.fetch(sql, values)
        waiting = [
            (row.model, row.cost_nano or 0)
            for row in self._rows
            if row.started >= after and (not column or getattr(row, column) == name)
        ]
        return sum(int(cost) for model, cost in (*found, *waiting) if _is_one(model, models))

    async def _connect(self) -> None:
        try:
            await self.database.open()
            await migrate(self.database)
        except BaseException:
            await self.database.close()
            raise

    async def _run(self) -> None:
        pause = self.interval
        while self._rows or not self._closing.is_set():
            await _wait(self._closing if self._failing else self._hurry, pause)
            self._hurry.clear()
            try:
                await self._flush()
            except Exception as error:  # noqa: BLE001 - told; whatever it is, the rows stay and are offered again
                pause = min(2 * pause, BACKOFF[1]) if self._failing else BACKOFF[0]
                self._failed(error)
                if self._closing.is_set():
                    await asyncio.sleep(BACKOFF[0])
            else:
                pause = self.interval
                await self._forget()

    async def _flush(self) -> None:
        """Write what waits, as long as it is a batch; all of it before the end."""
        least = 1
        while len(self._rows) >= least:
            await self._write()
            least = 1 if self._closing.is_set() else BATCH

    async def _write(self) -> None:
        """Write the rows that have waited longest. On failure they stay where they are."""
        batch = list(islice(self._rows, BATCH))
        async with self._writing:
            if self._failing:
                # The file may have been replaced, a server upgraded together with its tables.
                await self.database.close()
                await self._connect()
            refused = await self._insert([values(row) for row in batch])
            for _ in batch:
                self._rows.popleft()
        self.counts.written += len(batch) - refused
        self.counts.dropped += refused
        self._succeeded()
        self._tell([row.id for row in batch])

    def _tell(self, ids: list[str]) -> None:
        for hear in self.wrote:
            try:
                hear(ids)
            except Exception:
                log.exception("ledger: whom it tells of its rows has failed")

    async def _insert(self, rows: list[dict[str, Any]]) -> int:
        """How many of them the database will never take: those must not hold up the others."""
        try:
            await self.database.executemany(INSERT, rows)
        except RowRefused as error:
            if len(rows) > 1:
                return sum([await self._insert([row]) for row in rows])
            log.error("ledger: the row of exchange %s is lost: %s", rows[0]["request_id"], error)
            return 1
        return 0

    def _failed(self, error: Exception) -> None:
        self.counts.failed_at = time()
        if not self._failing:
            self._failing = True
            trace = None if isinstance(error, DatabaseError) else error
            log.warning("ledger cannot be written, its rows wait in memory: %s", error, exc_info=trace)

    def _succeeded(self) -> None:
        if self._failing or self._full:
            self._failing = self._full = False
            log.info("ledger %s is written again; %d rows are lost", self.database.name, self.counts.dropped)

    async def _forget(self) -> None:
        """Remove what is too old, a part at a time."""
        if not self.keep or monotonic() < self._forget_at:
            return
        self._forget_at = monotonic() + FORGET
        try:
            async with self.database.transaction() as transaction:
                gone = await transaction.execute(_FORGET, {"before": int((time() - self.keep) * 1000)})
        except DatabaseError as error:
            log.warning("ledger: old rows cannot be removed: %s", error)
        else:
            if gone == _FORGOTTEN:
                self._forget_at = 0.0


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _is_one(model: str | None, globs: Sequence[str]) -> bool:
    return any(glob == "*" or (model is not None and fnmatchcase(model, glob)) for glob in globs)
