"""``gateway usage``: what the ledger says was used, by whom, and what it cost."""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gateway.errors import ConfigError
from gateway.units import parse_duration

if TYPE_CHECKING:
    from gateway.state.database import Database
    from gateway.state.report import Line

_BY = ("key", "model", "day", "team", "target")
_SUMS = (
    "requests", "failed", "from_cache", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens",
    "estimated",
)  # fmt: skip
_COST = ("cost_usd", "unknown_cost")
_RELEVANT = re.compile(r": (state|plugins)\b")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--by", type=_groups, default=("key",), metavar="LIST", help=f"some of {','.join(_BY)}; default: key"
    )
    parser.add_argument("--since", type=_moment, metavar="T", help="2026-11-01, 2026-11-01T12:00Z, or 7d: so long ago")
    parser.add_argument("--until", type=_moment, metavar="T", help="likewise; not included")
    parser.add_argument("--key", metavar="NAME", help="of this key only")
    parser.add_argument("--team", metavar="NAME", help="of this team only")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table", help="default: %(default)s")


def _groups(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in _BY]:
        raise argparse.ArgumentTypeError(f"expected some of {','.join(_BY)}, not '{unknown[0]}'")
    return names


def _moment(text: str) -> float:
    """Unix time; dates are UTC's."""
    try:
        return time.time() - parse_duration(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a date such as 2026-11-01 or a time such as 7d, not '{text}'"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def run(chosen: argparse.Namespace) -> int:
    """Exit status. The gateway may run meanwhile. Raises ``ConfigError`` for what says where the ledger is."""
    from gateway import config
    from gateway.state.database import DatabaseError, connect

    settings, document = config.load(chosen.config, os.environ)
    problems = [each for each in document.problems if _RELEVANT.search(each) or not document.table()]
    if problems:
        raise ConfigError(problems)  # of providers and keys there may be more, which are no matter of a report
    if "ledger" not in settings.plugins.chain and settings.state.ledger is None:
        raise ConfigError([f"{document.where(('plugins', 'chain'))}: 'ledger' is not in the chain, so there is none."])
    try:
        database = connect(settings.state.ledger, chosen.config.parent, create=False)
        lines = asyncio.run(_read(database, chosen))
    except DatabaseError as error:
        print(error, file=sys.stderr)
        return 1
    _print(chosen.format, chosen.by, lines)
    return 0


async def _read(database: Database, chosen: argparse.Namespace) -> list[Line]:
    from gateway.state.migrations import demand
    from gateway.state.report import usage

    try:
        await database.open()
        await demand(database)
        return await usage(
            database, chosen.by, since=chosen.since, until=chosen.until, key=chosen.key, team=chosen.team
        )
    finally:
        await database.close()


def _print(form: str, by: Sequence[str], lines: list[Line]) -> None:
    from gateway.state.report import total

    rows = [_row(by, line) for line in lines]
    if form == "json":
        print(json.dumps(rows, indent=2))
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([[*by, *_SUMS, *_COST], *(row.values() for row in rows)])
    else:
        print(_table([*rows, _row(by, total(len(by), lines))], len(by)))


def _row(by: Sequence[str], line: Line) -> dict[str, Any]:
    """The line with the names of its columns; money as text, exactly."""
    return {
        **dict(zip(by, line.group, strict=True)),
        **{name: getattr(line, name) for name in _SUMS},
        **dict(zip(_COST, (format(line.usd, "f"), line.unknown_cost), strict=True)),
    }


def _table(rows: list[dict[str, Any]], names: int) -> str:
    """Names to the left, numbers to the right; the last row is the total."""
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place < names else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join([*lines[:-1], "-" * len(lines[0]), lines[-1]])


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)
