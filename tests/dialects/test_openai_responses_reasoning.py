"""Opaque reasoning survives a Responses client byte for byte."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.openai_responses_reasoning import (
    FORMAT,
    details_of_item,
    items_of_details,
    merge,
    pack,
    text_of_details,
    text_of_item,
    unpack,
)

DETAILS = st.lists(st.dictionaries(st.sampled_from(["type", "data", "signature"]), st.text(), max_size=3), max_size=3)


@given(DETAILS)
def test_what_is_packed_comes_back(details: list[dict[str, Any]]) -> None:
    opaque = [*details, {"type": "reasoning.encrypted", "data": "x"}]
    assert unpack(pack(opaque)) == opaque


def test_plain_text_needs_no_packing() -> None:
    assert pack([{"type": "reasoning.text", "text": "x"}]) is None
    assert pack([{"type": "reasoning.text", "text": "x", "signature": "s"}]) is not None


@pytest.mark.parametrize(
    "encrypted", [None, 5, "", "gAAAx", "gateway1.", "gateway1.!", "gateway1.e30=", "gateway1.WzVd"]
)
def test_what_others_made_is_not_unpacked(encrypted: Any) -> None:
    assert unpack(encrypted) is None


def test_pieces_of_a_text_grow_together() -> None:
    known: list[dict[str, Any]] = []
    merge(known, [{"type": "reasoning.text", "text": "a", "index": 0}])
    merge(known, [{"type": "reasoning.text", "text": "b", "index": 0, "signature": None}])
    merge(known, [{"type": "reasoning.text", "index": 0, "signature": "s"}])
    merge(known, [{"type": "reasoning.encrypted", "data": "x", "index": 1}, {"type": "reasoning.text", "text": "c"}])
    merge(known, [{"type": "reasoning.encrypted", "data": "y", "index": 1}])
    assert known[0] == {"type": "reasoning.text", "text": "ab", "index": 0, "signature": "s"}
    assert [detail.get("data") or detail.get("text") for detail in known[1:]] == ["x", "c", "y"]
    assert text_of_details(known) == "abc"


def test_an_item_is_its_details_and_back() -> None:
    item = {
        "type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA",
        "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}],
    }  # fmt: skip
    details = details_of_item(item, 4, output_index=2)
    assert [detail["index"] for detail in details] == [4, 5, 6]
    assert items_of_details(details) == ([(2, item)], False)
    assert text_of_item(item) == "a\n\nb"


def test_text_alone_needs_no_details() -> None:
    item = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "x"}]}
    assert details_of_item(item) == [] and text_of_item(item) == "x"
    assert text_of_item({"summary": "?", "content": [5]}) == ""


def test_what_cannot_go_back_is_told() -> None:
    named_only = [{"type": "reasoning.summary", "summary": "x", "format": FORMAT, "id": "r"}]
    assert items_of_details(named_only) == ([], True)
    assert items_of_details([{"type": "reasoning.text", "format": "anthropic-claude-v1"}, 5]) == ([], True)
    assert items_of_details(None) == ([], False)
