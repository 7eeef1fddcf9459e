from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.state.meters import period


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> float:
    return datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("per", "now", "id", "start", "end"),
    [
        ("day", at(2026, 11, 25, 23, 59), "2026-11-25", at(2026, 11, 25), at(2026, 11, 26)),
        ("week", at(2026, 11, 29, 12), "2026-11-23", at(2026, 11, 23), at(2026, 11, 30)),
        ("month", at(2026, 12, 31, 23), "2026-12-01", at(2026, 12, 1), at(2027, 1, 1)),
        ("month", at(2028, 2, 29), "2028-02-01", at(2028, 2, 1), at(2028, 3, 1)),
    ],
)
def test_periods_are_those_of_the_calendar(per: str, now: float, id: str, start: float, end: float) -> None:
    found = period(per, now)
    assert (found.id, found.start, found.end) == (id, start, end)


def test_a_total_never_ends() -> None:
    assert (period("total", 5.0).start, period("total", 5.0).end) == (0.0, None)
