"""What ``gateway keys`` and ``gateway teams`` take on the command line, and the table of ``gateway.toml`` it means."""

from __future__ import annotations

import argparse
import re
from typing import Any

from gateway.units import parse_duration

_COUNT = re.compile(r"([a-z_]+)=([0-9][0-9_]*)(?:/([a-z]+))?")
_MONEY = re.compile(r"([0-9]+(?:\.[0-9]+)?)/([a-z]+)")
_WHEN = "2026-12-31 (its beginning, UTC), 2026-12-31T12:00Z, or 30d: so long from now"
_OF_BOTH = ("requests_per_minute", "tokens_per_minute", "max_concurrency", "budget", "limits")
_OF_KEYS = ("models", "team", "expires", "on_disconnect")


def add(parser: argparse.ArgumentParser, kind: str, act: str) -> None:
    """``kind``: ``keys`` or ``teams``."""
    if act == "list":
        parser.add_argument("--json", action="store_true", help="for machines")
        return
    parser.add_argument("name", metavar="NAME")
    if act in ("create", "update"):
        _add_limits(parser)
        if kind == "keys":
            _add_own(parser)
    if act == "update":
        names = _OF_BOTH + (_OF_KEYS if kind == "keys" else ())
        text = f"as if it had never been said; may be repeated: {', '.join(names)}"
        parser.add_argument("--unset", action="append", choices=names, default=[], metavar="FIELD", help=text)
    if act == "rotate":
        parser.add_argument("--grace", type=_duration, default=0.0, metavar="TIME", help="the old key stays good: 1h")
    if act == "expire":
        parser.add_argument("when", nargs="?", default="0s", metavar="WHEN", help=f"{_WHEN}; default: now")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--requests-per-minute", type=int, metavar="N", help="0 is no limit")
    parser.add_argument("--tokens-per-minute", type=int, metavar="N", help="input and output together; 0 is no limit")
    parser.add_argument("--max-concurrency", type=int, metavar="N", help="calls at once; 0 is no limit")
    parser.add_argument("--budget", type=_budget, metavar="USD/PER", help="20/month; or day, week, total")
    text = "'tokens=1000000/day'; or requests, input_tokens, output_tokens; or hour, minute; may be repeated"
    parser.add_argument("--limit", type=_limit, action="append", dest="limits", metavar="UNIT=N/PER", help=text)


def _add_own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", type=_globs, metavar="LIST", help="those it may call: 'gpt-*,llama3'; default: all")
    parser.add_argument("--team", metavar="TEAM", help="whose limits count besides")
    parser.add_argument("--expires", metavar="WHEN", help=_WHEN)
    parser.add_argument(
        "--on-disconnect", choices=("cancel", "drain"), help="what becomes of a call whose client leaves"
    )


def table(chosen: argparse.Namespace) -> dict[str, Any]:
    """What was given; ``None`` for what shall not be there any more."""
    given = {name: getattr(chosen, name, None) for name in _OF_BOTH + _OF_KEYS}
    unset = dict.fromkeys(getattr(chosen, "unset", ()))
    return {name: value for name, value in given.items() if value is not None} | unset


def _globs(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _budget(text: str) -> dict[str, Any]:
    if (match := _MONEY.fullmatch(text)) is None:
        raise argparse.ArgumentTypeError("expected dollars and a time, such as 20/month")
    return {"usd": float(match[1]), "per": match[2]}


def _limit(text: str) -> dict[str, Any]:
    if (match := _COUNT.fullmatch(text)) is None:
        raise argparse.ArgumentTypeError("expected a unit, an amount and a time, such as tokens=1000000/day")
    return {match[1]: int(match[2])} | ({"per": match[3]} if match[3] else {})
