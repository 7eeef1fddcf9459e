"""When a model is cheaper: windows of hours and days."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.pricing.off_peak import is_off_peak

DEEPSEEK = {
    "windows": [
        {"hours_utc": ["00:00-01:00", "04:00-06:00", "10:00-00:00"], "weekdays": [1, 2, 3, 4, 5]},
        {"hours_utc": "00:00-00:00", "weekdays": [6, 7]},
    ]
}


@pytest.mark.parametrize(
    ("day", "clock", "open_"),
    [
        # 25 November 2026 is a Wednesday.
        (25, "00:59", True), (25, "01:00", False), (25, "05:59", True), (25, "06:00", False), (25, "09:59", False),
        (25, "10:00", True), (25, "23:59", True), (28, "02:00", True), (29, "12:00", True), (30, "02:00", False),
    ],
)  # fmt: skip
def test_deepseek_s_windows(day: int, clock: str, open_: bool) -> None:
    hour, minute = map(int, clock.split(":"))
    assert is_off_peak(DEEPSEEK, datetime(2026, 11, day, hour, minute, tzinfo=UTC)) is open_


def test_hours_may_go_over_midnight_and_need_no_days() -> None:
    night = {"windows": [{"hours_utc": "22:00-06:00"}]}
    assert is_off_peak(night, datetime(2026, 11, 25, 23, tzinfo=UTC))
    assert is_off_peak(night, datetime(2026, 11, 25, 5, 59, tzinfo=UTC))
    assert not is_off_peak(night, datetime(2026, 11, 25, 6, tzinfo=UTC))


def test_days_are_those_of_the_named_place() -> None:
    saturday = {"weekday_timezone": "Asia/Shanghai", "windows": [{"hours_utc": "00:00-00:00", "weekdays": [6]}]}
    assert is_off_peak(saturday, datetime(2026, 11, 27, 16, tzinfo=UTC))  # midnight there
    assert not is_off_peak(saturday, datetime(2026, 11, 27, 15, 59, tzinfo=UTC))


@pytest.mark.parametrize(
    "told",
    [
        {}, {"windows": None}, {"windows": [1]}, {"windows": [{}]}, {"windows": [{"hours_utc": "always"}]},
        {"windows": [{"hours_utc": "00:00-00:00"}], "weekday_timezone": "Nowhere/At_All"},
        {"windows": [{"hours_utc": "00:00-00:00"}], "weekday_timezone": 8},
    ],
)  # fmt: skip
def test_what_is_not_understood_is_never_cheap(told: dict[str, Any]) -> None:
    assert not is_off_peak(told, datetime(2026, 11, 25, 12, tzinfo=UTC))
