"""What a translation reports as left behind."""

from __future__ import annotations

import pytest

from gateway.dialects.dropped import Dropped, table
from gateway.errors import InvalidRequest


def test_a_field_nobody_carries_is_named_once() -> None:
    dropped = Dropped()
    dropped.others({"user": "u", "model": "m"}, {"model"})
    dropped.others({"user": "u"}, (), "")
    dropped.others({"user": "u"}, (), "messages.")
    assert dropped.names == ["user", "messages.user"]


@pytest.mark.parametrize(
    "field",
    [{"n": 1}, {"store": False}, {"user": None}, {"metadata": {}}, {"tools": []}, {"modalities": ["text"]}],
)
def test_a_field_that_asks_for_nothing_is_not_named(field: dict[str, object]) -> None:
    dropped = Dropped()
    dropped.others(field, ())
    assert dropped.names == []


def test_r08_names_that_could_harm_a_header_are_replaced() -> None:
    dropped = Dropped()
    dropped.others({"a\r\nset-cookie: x": 1, "é": 1, "x" * 65: 1, "a, b": 1, "": 1}, ())
    assert dropped.names == ["unknown"]


def test_many_names_stay_a_short_list() -> None:
    dropped = Dropped()
    dropped.others({f"f{index}": 1 for index in range(10_000)}, ())
    assert dropped.names == [*(f"f{index}" for index in range(32)), "more"]


def test_a_table_is_an_object_or_absent() -> None:
    assert table({"a": {"b": 1}}, "a") == {"b": 1}
    assert table({}, "a") == table({"a": None}, "a") == {}
    with pytest.raises(InvalidRequest, match=r"^tools\[0\]\.a: must be an object\.$"):
        table({"a": [1]}, "a", "tools[0]")
