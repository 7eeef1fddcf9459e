"""What ``gateway keys`` and ``gateway teams`` do, and what ``gateway check`` and ``gateway explain`` ask about keys."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from time import time
from typing import Any

from gateway import key_options
from gateway.config import Config, Document
from gateway.errors import ConfigError
from gateway.key_entries import entry, moment, wanted
from gateway.state.database import DatabaseError
from gateway.state.key_rows import KeyRow, TeamRow
from gateway.state.key_store import KeyStore
from gateway.state.keyring import Keyring, has_its_team

_COLUMNS = ("name", "state", "team", "expires", "models", "problem")
_HERE = "the database"
_UNSAID = {"models": "*", "problem": ""}


class Acts:
    """A method per command. They raise ``Invalid``, ``Missing``, ``Taken`` and ``DatabaseError``."""

    def __init__(self, chosen: argparse.Namespace, config: Config, store: KeyStore) -> None:
        self._chosen = chosen
        self._config = config
        self._folder: Path = chosen.config.parent
        self._keys = store.keys
        self._part = store.keys if chosen.kind == "keys" else store.teams

    async def create(self) -> None:
        key, row = await self._part.create(self._chosen.name, wanted(key_options.table(self._chosen), time()))
        self._tell(row, "made", key)

    async def update(self) -> None:
        changes = wanted(key_options.table(self._chosen), time())
        self._tell(await self._part.update(self._chosen.name, changes), "changed")

    async def delete(self) -> None:
        row = await self._part.get(self._chosen.name)
        await self._part.delete(row.name)
        self._tell(row, "removed")

    async def rotate(self) -> None:
        key, row = await self._keys.rotate(self._chosen.name, self._chosen.grace)
        self._tell(row, "changed", key)

    async def block(self) -> None:
        self._tell(await self._keys.block(self._chosen.name), "blocked")

    async def unblock(self) -> None:
        self._tell(await self._keys.block(self._chosen.name, False), "unblocked")

    async def expire(self) -> None:
        ends = moment(self._chosen.when, time())
        self._tell(await self._keys.update(self._chosen.name, {"expires": ends}), "changed")

    async def show(self) -> None:
        row = await self._part.get(self._chosen.name)
        async with _read(self._config, self._folder) as keyring:
            print(json.dumps(entry(row, keyring.problem(row), time()), indent=2))

    async def list(self) -> None:
        async with _read(self._config, self._folder) as keyring:
            entries = _inline(self._chosen.kind, self._config, keyring)
            items = keyring.keys.items if self._chosen.kind == "keys" else keyring.teams.items
            entries += [entry(item.row, keyring.problem(item.row), time()) for item in items.values()]
        entries.sort(key=lambda each: str(each["name"]))
        print(json.dumps(entries, indent=2) if self._chosen.json else _text(entries))

    def _tell(self, row: KeyRow | TeamRow, what: str, key: str | None = None) -> None:
        if key is not None:
            print(f"Key (shown once):\n  {key}\n")
        print(f"{row.KIND} '{row.name}' {what}; running gateways know it within 5 seconds.")


def _inline(kind: str, config: Config, keyring: Keyring) -> list[dict[str, Any]]:
    found = []
    for name, table in (config.keys if kind == "keys" else config.teams).items():
        team = getattr(table, "team", None)
        shown = {"name": name, "state": "gateway.toml", "models": list(getattr(table, "models", ())), "team": team}
        found.append(shown | ({"problem": problem} if (problem := keyring.team_problem(team)) else {}))
    return found


@contextlib.asynccontextmanager
async def _read(config: Config, folder: Path) -> AsyncIterator[Keyring]:
    """All keys and teams, once. Raises ``DatabaseError``."""
    keyring = Keyring(config, folder, create=False)
    try:
        await keyring.read()
        yield keyring
    except TimeoutError:
        raise DatabaseError("[state] ledger: the database does not answer in time") from None
    finally:
        await keyring.close()


async def warn(config: Config, document: Document) -> None:
    """For ``gateway check``: warnings about keys of the database that are not accepted."""
    if not config.state.keys or document.problems:
        return
    try:
        async with _read(config, document.path.parent) as keyring:
            for name, problem in keyring.refused.items():
                place = ("keys", name) if name in config.keys else ("state", "keys")
                document.warn(place, f"key '{name}' is not accepted: {problem}")
    except DatabaseError as error:
        if not isinstance(error.__cause__, FileNotFoundError):  # which the first gateway will make
            document.warn(("state", "ledger"), f"state.ledger: {error}")


async def add_stored(config: Config, document: Document, name: str | None) -> None:
    """For ``gateway explain``: put a key of the database, and its team, into the configuration as if they stood there.

    Raises ``ConfigError`` for one that is not accepted.
    """
    inline = None if name is None else config.keys.get(name)
    if not config.state.keys or name is None or (inline is not None and has_its_team(inline, config)):
        return
    try:
        async with _read(config, document.path.parent) as keyring:
            item = None if inline is not None else keyring.keys.items.get(name)
            if item is not None:
                _demand_open(item.row, keyring.problem(item.row))
                document.set(("keys", name), item.row.table(), _HERE)
                inline = config.keys[name] = item.row.key()
            if inline is None or inline.team is None or has_its_team(inline, config):
                return
            if problem := keyring.team_problem(inline.team):
                raise ConfigError([f"401: key '{name}' is not accepted: {problem}"])
            team = keyring.teams.items[inline.team].row
    except DatabaseError as error:
        raise ConfigError([str(error)]) from error
    document.set(("teams", team.name), team.table(), _HERE)
    config.teams[team.name] = team.read()


def _demand_open(row: KeyRow, problem: str) -> None:
    state = entry(row, problem, time())["state"]
    if state != "ok":
        raise ConfigError([f"401: key '{row.name}' is {state}. {problem}".rstrip()])


def _text(entries: list[dict[str, Any]]) -> str:
    shown = [[_cell(each.get(name, _UNSAID.get(name))) for name in _COLUMNS] for each in entries]
    rows = [list(_COLUMNS), *shown]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: Any) -> str:
    return "-" if value is None else ",".join(map(str, value)) if isinstance(value, list) else str(value)
