"""What an upstream says it used, taken for what it is and nothing else."""

from __future__ import annotations

from typing import Any

_LONGEST = 32  # characters; no tier's name is half as long


def count(value: Any) -> int | None:
    """A number of tokens; ``None`` for what is none."""
    return value if type(value) is int and value >= 0 else None


def tier(value: Any) -> str | None:
    """A service tier's name; ``None`` for what is none."""
    return value if type(value) is str and 0 < len(value) <= _LONGEST else None
