"""What the ledger's rows add up to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import attrs

from gateway.limits import NANO
from gateway.state.database import Database
from gateway.state.rows import shown

_DAY = 86_400_000  # milliseconds
BY = {"key": "principal", "model": "model", "day": f"started / {_DAY}", "team": "team", "target": "target"}
"""What rows can be grouped by, and how the database says it. Days are UTC's."""
# Answers from the cache used no tokens, whatever they told their clients.
_ANSWERED = "cache IN ('hit', 'coalesced')"
_SUMS = (
    "COUNT(*)",
    "SUM(CASE WHEN outcome IN ('ok', 'client_gone') THEN 0 ELSE 1 END)",
    f"SUM(CASE WHEN {_ANSWERED} THEN 1 ELSE 0 END)",
    *(
        f"SUM(CASE WHEN {_ANSWERED} THEN 0 ELSE COALESCE({kind}_tokens, 0) END)"
        for kind in ("input", "output", "cached", "reasoning")
    ),
    f"SUM(CASE WHEN {_ANSWERED} OR COALESCE(provenance, 'reported') = 'reported' THEN 0 ELSE 1 END)",
    "SUM(COALESCE(cost_nano, 0))",
    "SUM(CASE WHEN cost_nano IS NULL THEN 1 ELSE 0 END)",
)


@attrs.frozen
class Line:
    """The rows of one group together."""

    group: tuple[str | None, ...]
    """What they have in common, in the order that was asked for; ``None`` where there is no such thing."""
    requests: int
    failed: int
    """Refused or failed, here or at the provider. A client that left is none of these."""
    from_cache: int
    """Answered by the cache or by a call under way; their tokens are not in the following."""
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    """Part of the input."""
    reasoning_tokens: int
    """Part of the output."""
    estimated: int
    """Requests whose tokens the provider did not report, or not all of them."""
    cost_nano: int
    """Nano-dollars, as far as known."""
    unknown_cost: int
    """Requests whose cost nobody knows."""

    @property
    def usd(self) -> Decimal:
        return Decimal(self.cost_nano) / NANO


async def usage(
    database: Database,
    by: Sequence[str],
    *,
    since: float | None = None,
    until: float | None = None,
    key: str | None = None,
    team: str | None = None,
) -> list[Line]:
    """A line per group, the days in order, what cost most first. Times are unix times; ``until`` is not included.

    ``by`` are names of ``BY``. Raises ``DatabaseError``.
    """
    conditions: list[str] = []
    values: dict[str, Any] = {}
    for name, condition, value in (
        ("since", "started >= :since", None if since is None else round(since * 1000)),
        ("until", "started < :until", None if until is None else round(until * 1000)),
        ("key", "principal = :key", key and shown(key)),
        ("team", "team = :team", team and shown(team)),
    ):
        if value is not None:
            conditions.append(condition)
            values[name] = value
    groups = [BY[name] for name in by]
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    sums = ", ".join(f"CAST({each} AS BIGINT)" for each in _SUMS)
    sql = f"SELECT {', '.join(groups)}, {sums} FROM hookgate_ledger{where} GROUP BY {', '.join(groups)}"
    lines = [_line(by, row) for row in await database.fetch(sql, values)]
    return sorted(lines, key=lambda line: (_day(by, line), -line.cost_nano, -line.requests, str(line.group)))


def total(names: int, lines: Sequence[Line]) -> Line:
    """All lines as one, whose group of so many names is called total."""
    sums = [sum(column) for column in zip(*(attrs.astuple(line)[1:] for line in lines), strict=True)]
    return Line(("total", *[""] * (names - 1)), *(sums or [0] * len(_SUMS)))


def _line(by: Sequence[str], row: tuple[Any, ...]) -> Line:
    group = tuple(_date(value) if name == "day" else value for name, value in zip(by, row, strict=False))
    return Line(group, *row[len(by) :])


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * _DAY // 1000, UTC).date().isoformat()


def _day(by: Sequence[str], line: Line) -> str:
    return str(line.group[list(by).index("day")]) if "day" in by else ""
