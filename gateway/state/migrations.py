"""The tables in the ledger's database, and how an older release's become today's."""

from __future__ import annotations

from gateway.state.database import Database, DatabaseError, Transaction

_LEDGER = """CREATE TABLE hookgate_ledger (
    id TEXT NOT NULL PRIMARY KEY,
    request_id TEXT NOT NULL,
    started BIGINT NOT NULL,
    principal TEXT,
    team TEXT,
    surface TEXT NOT NULL,
    model TEXT,
    target TEXT,
    stream BOOLEAN NOT NULL,
    status BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    error TEXT,
    cache TEXT,
    input_tokens BIGINT,
    output_tokens BIGINT,
    cached_tokens BIGINT,
    cache_write_tokens BIGINT,
    reasoning_tokens BIGINT,
    provenance TEXT,
    cost_nano BIGINT,
    duration_ms DOUBLE PRECISION NOT NULL,
    ttfb_ms DOUBLE PRECISION,
    overhead_ms DOUBLE PRECISION NOT NULL,
    tried BIGINT NOT NULL
)"""

_KEYS = """CREATE TABLE hookgate_keys (
    name TEXT NOT NULL PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    previous TEXT,
    previous_until BIGINT,
    team TEXT,
    allowance TEXT NOT NULL,
    blocked BOOLEAN NOT NULL,
    expires BIGINT,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    change BIGINT NOT NULL
)"""
_TEAMS = """CREATE TABLE hookgate_teams (
    name TEXT NOT NULL PRIMARY KEY,
    allowance TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    change BIGINT NOT NULL
)"""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    # 1. The last column of two indices is what budgets add up: the table itself is not looked at.
    (
        _LEDGER,
        "CREATE INDEX hookgate_ledger_by_start ON hookgate_ledger (started)",
        "CREATE INDEX hookgate_ledger_by_principal ON hookgate_ledger (principal, started, cost_nano)",
        "CREATE INDEX hookgate_ledger_by_team ON hookgate_ledger (team, started, cost_nano)",
    ),
    # 2. The last table has one row: how many changes there were to the other two.
    (
        _KEYS,
        _TEAMS,
        "CREATE INDEX hookgate_keys_by_change ON hookgate_keys (change, name)",
        "CREATE INDEX hookgate_teams_by_change ON hookgate_teams (change, name)",
        "CREATE TABLE hookgate_key_changes (change BIGINT NOT NULL)",
        "INSERT INTO hookgate_key_changes (change) VALUES (0)",
    ),
)
"""Statements by version. What has been released is never changed, only added to."""

# With the gateway's name in it: a schema_version of its own is what other programs have in a shared database, too.
_TABLE = "hookgate_schema_version"


async def version(database: Database) -> int:
    """The last migration the database has seen, 0 for none. Raises ``DatabaseError`` when this release does not know
    it."""
    found = await _version(database) if await database.has_table(_TABLE) else 0
    if found > len(MIGRATIONS):
        raise DatabaseError(
            f"{database.name} has tables of version {found}; this release of Hookgate knows those up to "
            f"{len(MIGRATIONS)}. Install a newer one."
        )
    return found


async def migrate(database: Database) -> None:
    """Bring the tables up to date, while others may be about to do the same. Where they are, nothing is written."""
    if await version(database) == len(MIGRATIONS):
        return
    async with database.transaction() as transaction:
        await transaction.lock()
        await transaction.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE} (version BIGINT NOT NULL)")
        for statements in MIGRATIONS[await _version(transaction) :]:
            for statement in statements:
                await transaction.execute(statement)
        await transaction.execute(f"DELETE FROM {_TABLE}")
        await transaction.execute(f"INSERT INTO {_TABLE} (version) VALUES (:version)", {"version": len(MIGRATIONS)})


async def demand(database: Database) -> None:
    """Look whether the tables are up to date, and change nothing. Raises ``DatabaseError`` where they are not."""
    if await version(database) < len(MIGRATIONS):
        raise DatabaseError(f"{database.name}: no gateway of this release has written there yet")


async def _version(database: Database | Transaction) -> int:
    rows = await database.fetch(f"SELECT version FROM {_TABLE}")
    return int(rows[0][0]) if rows else 0
