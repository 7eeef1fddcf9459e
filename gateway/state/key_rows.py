"""Rows of the keys and teams in the database, and what they mean."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import inf
from typing import Any, ClassVar, Self, TypeVar

import attrs
from attrs.validators import and_, ge, le, optional
from cattrs.errors import CattrsError

from gateway.document import dotted
from gateway.exchange import Principal
from gateway.settings import Key, Team
from gateway.structure import make_converter, mistakes

T = TypeVar("T")
Holder = tuple[bytes, Principal, float]
"""The digest of a key, whom it stands for, and the unix time at which that ends."""

_NAME = re.compile(r"\w(?:[\w .@+-]{0,126}[\w.@+-])?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIME: Any = optional(and_(ge(0), le(253_402_300_799)))  # what has a date of four digits
_converter = make_converter()


class Invalid(Exception):
    """What a key or team should be, or what its row holds, makes no sense. Says why, without a value in it."""


@attrs.frozen(kw_only=True)
class StoredKey(Key):
    """A ``[keys.NAME]`` that can be changed at run time."""

    blocked: bool = False
    """It opens nothing until this is taken back."""
    expires: int | None = attrs.field(default=None, validator=_TIME)
    """Unix time from which on it opens nothing."""


@attrs.frozen
class Row:
    """What keys and teams have in common, column by column. Times are unix times."""

    TABLE: ClassVar[str]
    KIND: ClassVar[str]

    name: str
    allowance: str
    """JSON: the table of ``gateway.toml``, without what has a column of its own."""
    created: int
    updated: int
    change: int
    """What ``hookgate_key_changes`` was when it was last written."""

    def table(self) -> dict[str, Any]:
        """As it would stand in ``gateway.toml``. Raises ``Invalid`` for what could not."""
        try:
            found = json.loads(self.allowance)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Invalid("allowance: expected a JSON object.")
        return found

    def written(self, table: Mapping[str, Any]) -> Self:
        """The row of such a table. Raises ``Invalid``."""
        raise NotImplementedError


@attrs.frozen
class TeamRow(Row):
    TABLE = "hookgate_teams"
    KIND = "team"

    def read(self) -> Team:
        """Raises ``Invalid``."""
        return self._team(self.table())

    def written(self, table: Mapping[str, Any]) -> Self:
        self._team(table)
        return attrs.evolve(self, allowance=json.dumps(table))

    def _team(self, table: Mapping[str, Any]) -> Team:
        return structured(Team, self.name, table)


@attrs.frozen
class KeyRow(Row):
    TABLE = "hookgate_keys"
    KIND = "key"

    sha256: str = attrs.field(repr=False)
    previous: str | None = attrs.field(default=None, repr=False)
    """The digest of the key before, which is good until …"""
    previous_until: int | None = None
    team: str | None = None
    blocked: bool = attrs.field(default=False, converter=bool)  # SQLite says 0 and 1
    expires: int | None = None

    def table(self) -> dict[str, Any]:
        """With ``team``, ``blocked`` and ``expires``, and without ``sha256``."""
        own = {name: value for name in _OWN if (value := getattr(self, name)) is not None and value is not False}
        return super().table() | own

    def key(self) -> StoredKey:
        """Raises ``Invalid``."""
        return self._key(self.table())

    def read(self) -> list[Holder]:
        """Who has a key of this row, blocked or not. Raises ``Invalid``."""
        principal = self.key().principal(self.name)
        ends = inf if self.expires is None else self.expires
        found = [(self.sha256, ends)]
        if self.previous is not None:
            found.append((self.previous, min(ends, self.previous_until or 0)))
        if not all(_DIGEST.fullmatch(digest) for digest, _ in found):
            raise Invalid("sha256: expected the 64 hexadecimal digits of a SHA-256.")
        return [(bytes.fromhex(digest), principal, end) for digest, end in found]

    def written(self, table: Mapping[str, Any]) -> Self:
        key = self._key(table)
        rest = {name: value for name, value in table.items() if name not in _OWN}
        return attrs.evolve(
            self, team=key.team, blocked=key.blocked, expires=key.expires, allowance=json.dumps(rest)
        )  # fmt: skip

    def _key(self, table: Mapping[str, Any]) -> StoredKey:
        if "sha256" in table:
            raise Invalid("sha256: unknown key.")
        return structured(StoredKey, self.name, {**table, "sha256": self.sha256})


_OWN = ("team", "blocked", "expires")  # parts of the table that are columns


def structured(cls: type[T], name: str, table: Mapping[str, Any]) -> T:
    """As a table of ``gateway.toml`` with this name is. Raises ``Invalid`` with every mistake."""
    if not _NAME.fullmatch(name):
        # Names become part of paths, logs and reports, and "jwt:…" is the principal of a token.
        raise Invalid("name: expected letters, digits and _.@+- or spaces between them, at most 128.")
    try:
        return _converter.structure(table, cls)
    except (CattrsError, ValueError, TypeError) as error:
        told = " ".join(sorted({f"{dotted(path)}: {message}" for path, message in mistakes(error)}))
        raise Invalid("".join(char if char.isprintable() else "\ufffd" for char in told)) from None
