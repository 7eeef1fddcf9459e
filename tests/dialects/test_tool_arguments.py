"""Arguments of tool calls, as a string of JSON and as an object."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.tool_arguments import dump_arguments, is_whole, parse_arguments

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.dictionaries(st.text(max_size=5), values, max_size=4))
def test_an_object_survives_both_ways(arguments: dict[str, Any]) -> None:
    written = dump_arguments(arguments)
    assert parse_arguments(written) == arguments
    assert list(parse_arguments(written)) == list(arguments), "the order of keys is the model's"
    assert is_whole(written)
    assert not is_whole(written[:-1])


@pytest.mark.parametrize("nothing", ["", "  ", None, "{}", {}])
def test_no_arguments_are_an_empty_object(nothing: Any) -> None:
    assert parse_arguments(nothing) == {}


@pytest.mark.parametrize("text", ["[]", "1", '"x"', "{", '{"a": NaN}', "nonsense", "[" * 100_000])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_arguments(text)


def test_too_deep_is_refused_and_not_a_crash() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(ValueError, match="deep"):
        dump_arguments(deep)
    while deep:  # taken apart step by step: its own end would be as deep
        deep = deep["a"]
