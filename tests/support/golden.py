"""Translations written down: ``tests/golden/<dialect>/<what>.<case>.json``, an ``input`` and what is ``expected``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "golden"


def cases(dialect: str, what: str) -> dict[str, Any]:
    """Case → its document. Raises ``LookupError`` if there is none, so that a misspelt name is no passing test."""
    found = {path.name.split(".")[1]: json.loads(path.read_bytes()) for path in FOLDER.glob(f"{dialect}/{what}.*.json")}
    if not found:
        raise LookupError(f"no golden files {dialect}/{what}.*.json")
    return found
