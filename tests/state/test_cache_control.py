"""What clients ask of the cache."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.state.cache_control import Wish, parse_cache_control


@pytest.mark.parametrize(
    ("value", "wish"),
    [
        ("no-store", Wish(store=False, read=False)),
        ("no-cache", Wish(read=False)),
        ("No-Cache , NO-STORE", Wish(store=False, read=False)),
        ("max-age=60", Wish(max_age=60, asked=True)),
        ('max-age="60"', Wish(max_age=60, asked=True)),
        ("max-age=0", Wish(max_age=0)),
        ("max-age=60, max-age=10", Wish(max_age=60, asked=True)),
        ("max-age=-1", Wish(max_age=0)),
        ("max-age=1.5", Wish(max_age=0)),
        ("max-age", Wish(max_age=0)),
        ("max-age=²", Wish(max_age=0)),
        ("max-age=" + "9" * 5000, Wish(max_age=float("inf"), asked=True)),
        ("only-if-cached", Wish(only_cached=True, asked=True)),
        ("no-transform, max-stale=5, x", Wish()),
        ("", Wish()),
        (",,=,", Wish()),
    ],
)
def test_cache_control_is_read(value: str, wish: Wish) -> None:
    assert parse_cache_control(value) == wish


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=60))
def test_any_cache_control_is_read(value: str) -> None:
    assert parse_cache_control(value).max_age >= 0
