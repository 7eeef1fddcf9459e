"""Durations and sizes."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.units import parse_duration, parse_size


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("250ms", 0.25),
        ("5s", 5),
        ("2m", 120),
        ("1h", 3600),
        ("1d", 86400),
        ("1.5 s", 1.5),
        (7, 7),
        (0.5, 0.5),
        ("0s", 0),
    ],
)
def test_durations(value: object, seconds: float) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    ("value", "count"),
    [("10MB", 10_000_000), ("64MiB", 67_108_864), ("1.5KiB", 1536), ("3 gb", 3_000_000_000), ("7b", 7), (12, 12)],
)
def test_sizes(value: object, count: int) -> None:
    assert parse_size(value) == count


@pytest.mark.parametrize("value", ["", "5", "s", "-1s", "5 parsecs", "1h30m", "٣s", -1, -0.1, True, None, [], date.max])
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_duration(value)


@pytest.mark.parametrize("value", ["", "5", "MB", "-1MB", "5M", "5 Mbit", -1, 1.5, True, None, {}])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_size(value)


@given(st.one_of(st.text(), st.from_regex(r"[0-9]{1,400}(\.[0-9]+)?[a-zA-Z]{0,3}"), st.integers(), st.floats()))
def test_a_quantity_or_a_value_error(value: object) -> None:
    for parse in (parse_duration, parse_size):
        try:
            assert 0 <= parse(value) < float("inf")
        except ValueError as error:
            assert "expected" in str(error)
