"""Durations and sizes as people write them in ``gateway.toml``."""

from __future__ import annotations

import re
from math import isfinite
from typing import NewType

Duration = NewType("Duration", float)
"""Seconds. In TOML a plain number of seconds, or a string: ``"250ms"``, ``"5s"``, ``"2m"``, ``"1h"``, ``"1d"``."""

Size = NewType("Size", int)
"""Bytes. In TOML a plain number of bytes, or a string: ``"10MB"`` (powers of 1000), ``"64MiB"`` (powers of 1024)."""

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]+)")


def parse_duration(value: object) -> Duration:
    """Seconds, not negative. Raises ``ValueError``."""
    if isinstance(value, str):
        number, factor = _quantity(value, _SECONDS, 'a duration such as "250ms", "5s", "2m", "1h" or "1d"')
        return Duration(number * factor)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15 and isfinite(value):
        return Duration(float(value))
    raise ValueError('expected seconds or a duration such as "5s".')


def parse_size(value: object) -> Size:
    """Bytes, not negative. Raises ``ValueError``."""
    if isinstance(value, str):
        number, factor = _quantity(value, _BYTES, 'a size such as "10MB" or "64MiB"')
        return Size(int(number * factor))
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Size(value)
    raise ValueError('expected bytes or a size such as "64MiB".')


def _quantity(text: str, units: dict[str, float] | dict[str, int], wanted: str) -> tuple[float, float]:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or (unit := match[2].lower()) not in units:
        raise ValueError(f"expected {wanted}.")
    return float(match[1]), units[unit]
