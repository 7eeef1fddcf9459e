"""Rows as the databases take them."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.state.rows import LONGEST, Row, from_json, shown, to_json, values
from tests.support.rows import make_row

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=300)


def test_what_is_known_stays_as_it_is_and_what_is_not_is_null() -> None:
    row = make_row(reasoning_tokens=0, team=None, cost_nano=None)
    assert values(row) == attrs.asdict(row)


@given(ANY_TEXT)
def test_a_text_of_a_client_is_one_that_any_database_takes(text: str) -> None:
    stored = values(make_row(model=text))["model"]
    assert stored.isprintable() and len(stored) <= LONGEST
    stored.encode()
    assert stored == shown(text)
    if text.isprintable() and len(text) <= LONGEST:
        assert stored == text


def test_numbers_that_no_column_holds_are_not_known() -> None:
    row: Row = make_row(input_tokens=1 << 63, output_tokens=1.5, cached_tokens=True, cache_write_tokens=(1 << 63) - 1)
    found = values(row)
    assert [found[name] for name in ("input_tokens", "output_tokens", "cached_tokens")] == [None] * 3
    assert found["cache_write_tokens"] == (1 << 63) - 1


@pytest.mark.parametrize("model", ["gpt-4o", "lone \ud800", "nul \0", None])
def test_a_row_survives_as_json(model: str | None) -> None:
    row = make_row(model=model, output_tokens=10**30 if model is None else 7)
    again = from_json(to_json(row))
    assert values(again) == values(row)


@pytest.mark.parametrize("text", [b"[1, 2]", b"{", b"7"])
def test_what_is_no_row_is_refused(text: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        from_json(text)
