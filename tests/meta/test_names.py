"""Every requirement that holds today has a test named after it."""

from __future__ import annotations

import re

import pytest

from tests.support.programs import ROOT

REQUIREMENTS = (
    *range(1, 10), *range(11, 18), *range(19, 22), 24, 25, *range(26, 30), 32, 33, 35, *range(36, 43), *range(44, 49),
    *range(49, 55), 56, 57, 58, *range(60, 63),
)  # fmt: skip


NAMED = re.compile(r"^ *(?:async )?def test_r(\d\d)_\w+\(", re.MULTILINE)


def covered() -> set[int]:
    files = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    return {int(number) for text in files for number in NAMED.findall(text)}


@pytest.mark.parametrize("number", REQUIREMENTS, ids="R{:02}".format)
def test_a_requirement_has_its_test(number: int) -> None:
    assert number in covered()
