"""Programs and data a machine may lack: the test is skipped with the reason, or fails where they must be there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
REQUIRED = os.environ.get("GATEWAY_REQUIRE_PROGRAMS") == "1"
"""Set where a skip would hide a regression (continuous integration)."""


def missing(reason: str) -> NoReturn:
    """Skips the test; fails it where nothing may be missing."""
    if REQUIRED:
        pytest.fail(f"{reason}, and GATEWAY_REQUIRE_PROGRAMS=1", pytrace=False)
    pytest.skip(reason)


def needs_program(name: str) -> str:
    """The path of a program; skips the test when it is not installed."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    return path or missing(f"{name} is not installed")


def recorded_data() -> Path:
    """The folder of recorded provider traffic; skips the test when it is not there."""
    folder = Path(os.environ.get("GATEWAY_TEST_DATA") or ROOT / "../shared/data").resolve()
    if not folder.is_dir():
        # Not a program: a fresh clone never has it, in continuous integration either.
        pytest.skip(f"no recorded traffic in {folder} (GATEWAY_TEST_DATA)")
    return folder
