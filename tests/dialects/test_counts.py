"""What an upstream says it used is taken for what it is."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.counts import count, tier


@pytest.mark.parametrize(
    ("value", "tokens"),
    [(0, 0), (7, 7), (1 << 70, 1 << 70), (-1, None), (True, None), (1.0, None), ("7", None), (None, None)],
)
def test_a_count_is_a_whole_number(value: Any, tokens: int | None) -> None:
    assert count(value) == tokens


@pytest.mark.parametrize(
    ("value", "name"), [("flex", "flex"), ("", None), ("x" * 33, None), (None, None), (["flex"], None), (1, None)]
)
def test_a_tier_is_a_short_word(value: Any, name: str | None) -> None:
    assert tier(value) == name
