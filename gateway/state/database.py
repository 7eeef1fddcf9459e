"""A database, SQLite's or PostgreSQL's, spoken to in plain SQL that both understand.

Parameters are written ``:name``. Types are ``BIGINT``, ``DOUBLE PRECISION``, ``BOOLEAN`` and ``TEXT``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from gateway.secret import Secret

DEFAULT = "sqlite:///gateway.db"
"""Where the ledger is when ``[state] ledger`` does not say."""

Values = Mapping[str, Any]
NONE: Values = {}
Found = list[tuple[Any, ...]]


class DatabaseError(Exception):
    """The database cannot be used, now or at all. The message names it, and has no secret and no value in it."""


class RowRefused(DatabaseError):
    """It does not take these values, and never will."""


class Transaction(Protocol):
    """Takes effect as a whole when its ``async with`` ends, or not at all.

    What fails in it is a ``DatabaseError`` outside of the ``async with`` only.
    """

    async def execute(self, sql: str, values: Values = NONE) -> int:
        """How many rows it has changed."""

    async def executemany(self, sql: str, rows: Sequence[Values]) -> None: ...

    async def fetch(self, sql: str, values: Values = NONE) -> Found: ...

    async def lock(self) -> None:
        """Wait until nobody else, in whatever process, is in a transaction that asked for this; then be alone."""


class Database(Protocol):
    """All of it raises ``DatabaseError`` where it fails."""

    name: str
    """For people: where it is, without user and password."""

    async def open(self) -> None:
        """Connect; a SQLite file is made where there is none. Also after ``close``."""

    async def close(self) -> None:
        """Within a few seconds, whatever hangs; raises nothing."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """For writing."""

    async def executemany(self, sql: str, rows: Sequence[Values]) -> None:
        """All rows, or none."""

    async def fetch(self, sql: str, values: Values = NONE) -> Found:
        """What is committed now; waits for no transaction."""

    async def has_table(self, name: str) -> bool: ...


def connect(url: Secret | None, folder: Path, *, create: bool = True) -> Database:
    """The database that ``[state] ledger`` names, not opened yet; a SQLite file's name is relative to ``folder``.

    With ``create`` off a SQLite file must be there. Raises ``DatabaseError``, which does not quote ``url``.
    """
    text = DEFAULT if url is None else url.reveal()
    scheme, _, rest = text.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1 and "?" not in rest:
        from gateway.state.sqlite import Sqlite

        return Sqlite(folder / rest[1:], create=create)
    if scheme in ("postgresql", "postgres"):
        try:
            from gateway.state.postgres import Postgres
        except ImportError as error:
            raise DatabaseError("[state] ledger: PostgreSQL needs pip install 'hookgate[postgres]'") from error
        return Postgres(url or Secret(text))
    raise DatabaseError("[state] ledger: expected sqlite:///FILE or postgresql://HOST/DATABASE")
