"""Figures → a table for people and JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

import attrs

from bench.scenarios import Bar

BASELINE = "textbook"
FORMS = {"ratio": "{} x", "difference": "+ {}", "value": "{}"}
"""How what is held against a bar is written: so many times the baseline, so much more than it, itself."""


@attrs.define
class Row:
    """One figure of one server, with everything measured beside it; one value per round."""

    scenario: str
    server: str
    unit: str
    """Of the figure: ``µs/request``, ``s``, ``MB``, …"""
    values: list[float] = attrs.field(factory=list)
    rates: list[float] = attrs.field(factory=list)
    """Units of work a second."""
    p50: list[float] = attrs.field(factory=list)
    """Milliseconds from a request to the first byte of its answer."""
    p99: list[float] = attrs.field(factory=list)
    busy: list[float] = attrs.field(factory=list)
    """Share of the core the server used: near 1, the server and not the load was the limit."""
    errors: int = 0
    note: str = ""
    """What makes the figure worthless, where something does."""
    bar: Bar | None = None
    compared: dict[str, list[float]] = attrs.field(factory=dict)
    """Other server → this figure ÷ its figure of the same round (or minus it)."""

    def compare(self, rows: Iterable[Row]) -> None:
        """Hold this figure against the other servers' of the same scenario, round by round."""
        difference = self.bar is not None and self.bar.kind == "difference"
        for other in rows:
            if other is not self and other.scenario == self.scenario and self.values and other.values:
                pairs = zip(self.values, other.values, strict=False)
                self.compared[other.server] = [a - b if difference else a / b for a, b in pairs]

    def held(self) -> list[float]:
        """What is held against the bar, per round; empty where what it is compared with did not run."""
        if self.bar is None:
            return []
        return self.values if self.bar.kind == "value" else self.compared.get(self.bar.against, [])

    def passed(self) -> bool | None:
        """Whether the bar holds; None where there is no bar or nothing to hold against it."""
        if self.errors or self.note:
            return False
        if self.bar is None or not (held := self.held()):
            return None
        return median(held) <= self.bar.limit


def table(rows: Sequence[Row]) -> str:
    """Plain text, one line a row; worthless figures are explained beneath."""
    against = sorted({name for row in rows for name in row.compared if name not in (row.server, BASELINE)})
    # Only another gateway is worth a column: what everything costs next to the raw server can be seen.
    extra = [name for name in against if name == "against"]
    header = ["scenario", "server", "figure", "spread", "rate/s", "p50 ms", "p99 ms", "core", "to baseline"]
    header += [f"to {name}" for name in extra] + ["bar", "goal", ""]
    lines = [header]
    for index, row in enumerate(rows):
        first = index == 0 or rows[index - 1].scenario != row.scenario
        lines.append(_cells(row, row.scenario if first else "", extra))
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    notes = [f"{row.scenario}, {row.server}: {row.note}" for row in rows if row.note]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:], *notes])


def _cells(row: Row, scenario: str, extra: list[str]) -> list[str]:
    figure = [f"{_number(median(row.values))} {row.unit}", _spread(row.values)] if row.values else ["none", ""]
    load = [_middle(row.rates, ",.0f"), _middle(row.p50, ".2f"), _middle(row.p99, ".2f"), _middle(row.busy, ".0%")]
    # What a row has its bar against stands in the place of the textbook proxy's figure.
    compared = [_comparison(row, name) for name in (row.bar.against if row.bar else BASELINE, *extra)]
    bar = ["", ""]
    if row.bar:
        bar = [f"≤ {_held(row.bar.kind, value)}" for value in (row.bar.limit, row.bar.goal)]
    verdict = {True: "pass", False: "FAIL", None: ""}[row.passed()]
    return [scenario, row.server, *figure, *load, *compared, *bar, verdict]


def _comparison(row: Row, other: str) -> str:
    values = row.compared.get(other)
    if not values:
        return ""
    kind = "difference" if row.bar is not None and row.bar.kind == "difference" else "ratio"
    spread = _spread(values)
    return _held(kind, median(values)) + (f" ({spread})" if spread else "")


def _held(kind: str, value: float) -> str:
    return FORMS[kind].format(_number(value))


def _spread(values: list[float]) -> str:
    return f"{_number(min(values))} … {_number(max(values))}" if len(values) > 1 else ""


def _middle(values: list[float], form: str) -> str:
    return format(median(values), form) if values else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def as_json(rows: Sequence[Row], machine: dict[str, Any]) -> dict[str, Any]:
    """Everything measured: medians, every round, verdicts."""
    return {
        "machine": machine,
        "rows": [
            attrs.asdict(row)
            | {"median": median(row.values) if row.values else None, "passed": row.passed()}
            | {"compared_median": {name: median(values) for name, values in row.compared.items()}}
            for row in rows
        ],
    }
