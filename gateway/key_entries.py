"""Keys and teams of the database as people and programs see them: without a digest, with dates."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gateway.state.key_rows import Invalid, KeyRow, TeamRow
from gateway.units import parse_duration


def entry(row: KeyRow | TeamRow, problem: str, now: float) -> dict[str, Any]:
    """Its table as in ``gateway.toml``, and how it is: ``state`` is ``ok``, ``blocked``, ``expired`` or ``refused``.

    ``problem``: why it is not accepted; empty if it is.
    """
    try:
        shown = {"name": row.name, "state": _state(row, problem, now)} | row.table()
    except Invalid:
        shown = {"name": row.name, "state": _state(row, problem, now)}
    if problem:
        shown["problem"] = problem
    shown |= {"created": date(row.created), "updated": date(row.updated)}
    if isinstance(row, KeyRow) and row.expires is not None:
        shown["expires"] = date(row.expires)
    if isinstance(row, KeyRow) and row.previous_until is not None and row.previous_until > now:
        shown["previous_until"] = date(row.previous_until)
    return shown


def _state(row: KeyRow | TeamRow, problem: str, now: float) -> str:
    if isinstance(row, KeyRow) and row.blocked:
        return "blocked"
    if isinstance(row, KeyRow) and row.expires is not None and row.expires <= now:
        return "expired"
    return "refused" if problem else "ok"


def date(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def wanted(given: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The table of a key or team from what somebody sent, dates understood. Raises ``Invalid``."""
    expires = given.get("expires")
    return {**given, "expires": moment(expires, now)} if isinstance(expires, str) else dict(given)


def moment(text: str, now: float) -> int:
    """Unix time of ``2026-12-31``, its beginning in UTC, of ``2026-12-31T12:00Z``, or of ``30d`` from ``now``.

    Raises ``Invalid``.
    """
    try:
        return int(now + parse_duration(text))
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise Invalid("expires: expected a date such as 2026-12-31, or a time from now such as 30d.") from None
