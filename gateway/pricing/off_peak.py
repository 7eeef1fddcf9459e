"""Hours at which a model of LiteLLM's price list is cheaper (DeepSeek's)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo


def is_off_peak(told: Mapping[str, Any], now: datetime) -> bool:
    """Whether ``off_peak_pricing`` holds: in one of its ``windows``, hours in UTC on days of the week (Monday is 1) of
    ``weekday_timezone``. What cannot be understood does not: the dearer price counts."""
    try:
        day = now.astimezone(_zone(told.get("weekday_timezone"))).isoweekday()
        clock = now.astimezone(UTC).strftime("%H:%M")
        return any(_is_open(window, day, clock) for window in told["windows"])
    except (KeyError, TypeError, ValueError, AttributeError, OSError):
        return False


def _zone(name: str | None) -> Any:
    return UTC if name is None else ZoneInfo(name)


def _is_open(window: Mapping[str, Any], day: int, clock: str) -> bool:
    if day not in window.get("weekdays", range(1, 8)):
        return False
    hours = window["hours_utc"]
    return any(_within(each, clock) for each in ([hours] if isinstance(hours, str) else hours))


def _within(hours: str, clock: str) -> bool:
    """``10:00-00:00`` runs to the end of the day, ``00:00-00:00`` is all of it, ``22:00-06:00`` goes over midnight."""
    start, end = hours.split("-")
    return start <= clock < end if start < end else clock >= start or clock < end
