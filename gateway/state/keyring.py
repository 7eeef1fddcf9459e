"""The keys and teams of the database as this process knows them.

They are read every ``POLL`` seconds, and no request waits for that. So a key that is blocked, changed or removed is so
in every process within ``POLL`` seconds and the time of a query, without any message that could be lost. While the
database is away, what was read last stays in use, and keys go on to expire.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from math import inf
from pathlib import Path
from time import monotonic, time
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from gateway.errors import Overloaded
from gateway.secret import Secret
from gateway.settings import Config, Key, Team
from gateway.state.database import DEFAULT, DatabaseError, Found, connect
from gateway.state.key_mirror import FIRST, Mirror
from gateway.state.key_rows import Holder, KeyRow, TeamRow
from gateway.state.key_store import CHANGE
from gateway.state.migrations import demand, migrate

log = logging.getLogger("hookgate")

POLL = 2.0
"""Seconds between two looks for changes."""
PATIENCE = 5.0
"""Seconds one answer of the database may take, and a start waits for the first keys."""
ALL = 300.0
"""Seconds after which all is read again, over a new connection: the file may be another one, rows changed by hand."""
_CONNECT = 15.0
_INSTEAD = "gateway.toml has one of this name, which counts instead."
_TOLD = 5  # keys that are named in a line of the log


class Keyring:
    """Shared by all plugins of a process, and kept over reloads."""

    def __init__(self, config: Config, folder: Path, *, create: bool = True) -> None:
        """With ``create`` off nothing is made: no file, no table.

        Raises ``DatabaseError`` for a ``[state] ledger`` that can never be used.
        """
        self.holders: Mapping[bytes, Holder] = {}
        """Whom the keys stand for, by the keys' digests. Another one after each change."""
        self.known = False
        """They have been read, if not just now."""
        self.refused: dict[str, str] = {}
        """Names of keys that are not accepted, and why; those that are blocked or have expired are not among them."""
        self.on_teams: list[Callable[[], object]] = []
        """Called when teams have changed. Take yours out in ``on_shutdown``."""
        self.keys = Mirror(KeyRow, KeyRow.read)
        self.teams = Mirror(TeamRow, TeamRow.read)
        self.folder = folder
        self._url = config.state.ledger
        self._create = create
        self._database = connect(self._url, folder, create=create)
        self._config = config
        self._waiting = _waiting(config)
        self._seen = FIRST
        self._all_at = 0.0
        self._read_at = 0.0
        self._failed_at = 0.0
        self._told = ""
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._reading = asyncio.Lock()

    def serves(self, config: Config, folder: Path) -> bool:
        """It is what ``config`` asks for."""
        return config.state.keys and (_revealed(self._url), self.folder) == (_revealed(config.state.ledger), folder)

    def configure(self, config: Config) -> None:
        """Take over which keys and teams ``gateway.toml`` has: they win over those of the database."""
        self._config = config
        self._waiting = _waiting(config)
        if self.known:
            self._sort_out()

    async def open(self) -> None:
        """Read, and go on reading until ``close``. A database that cannot be reached is a warning."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="keys")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._tried.wait()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._database.close()

    async def refresh(self) -> None:
        """Look for changes now. Where that fails, the next look tells."""
        with contextlib.suppress(DatabaseError, TimeoutError):
            await self.read()

    def team(self, name: str) -> Team:
        """Raises ``LookupError`` where there is none, ``Overloaded`` where nobody can tell what it may use."""
        if not self.known:
            raise Overloaded("The gateway cannot look up teams at the moment.", retry_after=POLL)
        team = self.teams.items[name].value
        if team is None:
            raise Overloaded("The gateway cannot tell what this key's team may use.")
        return team

    async def _run(self) -> None:
        while True:
            try:
                await self.read()
            except Exception as error:  # noqa: BLE001 - told; whatever it is, the next look may find it mended
                self._fail(error)
            else:
                self._succeed()
            self._tried.set()
            await asyncio.sleep(POLL)

    async def read(self) -> None:
        """Take over what has changed in the database. Raises ``DatabaseError``, ``TimeoutError``."""
        async with self._reading:
            await self._read()

    async def _read(self) -> None:
        if monotonic() >= self._all_at:
            await self._reopen()
        change = max((row[0] for row in await self._fetch(CHANGE)), default=0)
        if change == self._seen:
            return
        if change < self._seen:  # an older state of it was restored
            self._seen = FIRST
        # In this order: a key's team was there before it, and is there as long as it.
        keys = await self.keys.follow(self._fetch, self._seen)
        teams = await self.teams.follow(self._fetch, self._seen)
        self._seen = change
        if self.known and keys == self.keys.items and teams == self.teams.items:
            return
        self.known, told = True, () if teams == self.teams.items else tuple(self.on_teams)
        self.keys.items, self.teams.items = keys, teams
        self._sort_out()
        for callback in told:
            callback()

    async def _reopen(self) -> None:
        await self._database.close()
        # A file that is gone may be back soon; an empty one in its place would be a database without keys.
        self._database = connect(self._url, self.folder, create=self._create and not self.known)
        async with asyncio.timeout(_CONNECT):
            await self._database.open()
            await (migrate if self._create else demand)(self._database)
        self._seen = FIRST
        self._all_at = monotonic() + ALL

    async def _fetch(self, sql: str, values: Mapping[str, Any] = {}) -> Found:
        async with asyncio.timeout(PATIENCE):
            return await self._database.fetch(sql, values)

    def _sort_out(self) -> None:
        """Which keys are accepted: all or none of a change."""
        holders: dict[bytes, Holder] = {}
        refused: dict[str, str] = {}
        inline = self._config.keys
        teams: dict[str | None, str] = {None: ""}
        for name, item in self.keys.items.items():
            row = item.row
            if row.team not in teams:
                teams[row.team] = self.team_problem(row.team)
            # As problem() has it, for many.
            if problem := _INSTEAD if name in inline else item.problem or teams[row.team]:
                refused[name] = problem
            elif not row.blocked and item.value is not None:
                for holder in item.value:
                    holders[holder[0]] = holder
        for name, holder in self._waiting.items():
            if problem := self.team_problem(holder[1].team):
                refused[name] = problem
            else:
                holders[holder[0]] = holder
        self.holders, self.refused = holders, refused
        if self._task is not None:
            self._tell()

    def problem(self, row: KeyRow | TeamRow) -> str:
        """Why a key or team of the database does not count; empty if it does."""
        if isinstance(row, TeamRow):
            return _INSTEAD if row.name in self._config.teams else self.teams.item(row).problem
        if row.name in self._config.keys:
            return _INSTEAD
        return self.keys.item(row).problem or self.team_problem(row.team)

    def team_problem(self, name: str | None) -> str:
        """Why nobody can tell what a key of this team may use; empty if one can."""
        if name is None or name in self._config.teams:
            return ""
        team = self.teams.items.get(name)
        return f"team: there is no team {name!r}." if team is None else team.problem and f"team: {team.problem}"

    def _tell(self) -> None:
        named = [f"{name!r}: {problem}" for name, problem in sorted(self.refused.items(), key=str)]
        told = " ".join(named[:_TOLD]) + (f" And {len(named) - _TOLD} more." if len(named) > _TOLD else "")
        if told != self._told:
            self._told = told
            log.warning("keys that are not accepted: %s", told or "none any more")

    def _fail(self, error: Exception) -> None:
        self._all_at = 0.0
        if not self._failed_at:
            self._failed_at = monotonic()
            so = "those read last stay in use" if self.known else "until it can, they are answered with 503"
            said = str(error) or f"{self._database.name}: no answer in time"
            log.warning("the keys in the database cannot be read, %s: %s", so, said)

    def _succeed(self) -> None:
        self._read_at = time()
        if self._failed_at:
            log.info("the keys in the database are read again after %.1f s", monotonic() - self._failed_at)
            self._failed_at = 0.0

    def collect(self) -> Iterator[Metric]:
        """For ``prometheus_client``, from a thread."""
        yield GaugeMetricFamily("hookgate_keys", "Keys of the database that are accepted.", len(self.holders))
        yield GaugeMetricFamily("hookgate_keys_refused", "Keys that are not accepted; see the log.", len(self.refused))
        yield GaugeMetricFamily(
            "hookgate_keys_read_timestamp_seconds", "When the database last told whether they changed.", self._read_at
        )


def has_its_team(key: Key, config: Config) -> bool:
    """Whether ``gateway.toml`` says all about a key. Else its team is in the database, and so is what it may use."""
    return key.team is None or key.team in config.teams


def _waiting(config: Config) -> dict[str, Holder]:
    """The keys of ``gateway.toml`` whose team is in the database."""
    return {
        name: (bytes.fromhex(key.sha256), key.principal(name), inf)
        for name, key in config.keys.items()
        if key.sha256 and not has_its_team(key, config)
    }


def _revealed(url: Secret | None) -> str:
    return DEFAULT if url is None else url.reveal()


class Teams(Mapping[str, Team]):
    """Those of ``gateway.toml`` and those of the database."""

    def __init__(self, inline: Mapping[str, Team], keyring: Keyring) -> None:
        self._inline = inline
        self._keyring = keyring

    def __getitem__(self, name: str) -> Team:
        """Raises ``Overloaded`` where nobody can tell what it may use."""
        return self._inline[name] if name in self._inline else self._keyring.team(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._inline.keys() | self._keyring.teams.items.keys())

    def __len__(self) -> int:
        return len(list(iter(self)))
