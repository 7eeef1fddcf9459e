"""Rows of the ledger, made by hand."""

from __future__ import annotations

import itertools
from typing import Any

from gateway.state.rows import Row

_numbers = itertools.count()


def make_row(**more: Any) -> Row:
    """A row of alice's of the red team, with an id of its own unless ``more`` has one."""
    number = next(_numbers)
    facts: dict[str, Any] = {
        "id": f"own-{number}", "request_id": f"req-{number}", "started": 1_700_000_000_000, "principal": "alice",
        "team": "red", "surface": "chat", "model": "gpt-4o", "target": "openai/gpt-4o", "stream": False, "status": 200,
        "outcome": "ok", "error": None, "cache": "miss", "input_tokens": 10, "output_tokens": 20, "cached_tokens": 4,
        "cache_write_tokens": None, "reasoning_tokens": 5, "provenance": "reported", "cost_nano": 1_000,
        "duration_ms": 20.5, "ttfb_ms": 10.25, "overhead_ms": 0.5, "tried": 1,
    }  # fmt: skip
    return Row(**facts | more)
