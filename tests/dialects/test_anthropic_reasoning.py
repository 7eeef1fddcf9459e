"""Signed and opaque reasoning through Anthropic's blocks and back: every byte of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.anthropic_reasoning import FORMAT, block_of, call_block, client_block, detail_of, put_back

seals = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(seals, st.text(st.characters(exclude_categories=["Cs"]), max_size=10), st.booleans())
def test_what_anthropic_signed_goes_back_as_it_came(seal: str, text: str, redacted: bool) -> None:
    if redacted:
        block = {"type": "redacted_thinking", "data": "a" + seal}
    else:
        block = {"type": "thinking", "thinking": text, "signature": "a" + seal}
    detail = detail_of(block, 2)
    assert detail is not None
    assert (detail["format"], detail["index"]) == (FORMAT, 2)
    assert block_of(detail) == client_block(detail) == block


@pytest.mark.parametrize("form", ["openai-responses-v1", "google-gemini-v1", "amazon-bedrock-v1", None])
def test_another_vendor_s_travels_through_a_client_and_is_not_for_anthropic(form: str | None) -> None:
    details: list[dict[str, Any]] = [
        {"type": "reasoning.encrypted", "data": "ø=", "format": form, "id": "rs_1", "index": 0},
        {"type": "reasoning.text", "text": "Hm.", "signature": "s", "format": form, "index": 1},
    ]
    for detail in details:
        block = client_block(detail)
        assert block is not None
        assert detail_of(block, 7) == detail
        assert block_of(detail) is None


def test_unsigned_text_is_no_detail() -> None:
    assert detail_of({"type": "thinking", "thinking": "Hm.", "signature": ""}, 0) is None
    assert client_block({"type": "reasoning.text", "text": "Hm.", "format": FORMAT}) is None


def test_a_broken_mark_of_ours_is_nothing() -> None:
    for seal in ("hookgate1:", "hookgate1:!!!", "hookgate1:W10="):
        assert detail_of({"type": "redacted_thinking", "data": seal}, 0) is None


def test_what_belongs_to_a_tool_call_finds_its_way_back() -> None:
    extra = {"google": {"thought_signature": "c2ln"}}
    assert detail_of(call_block("call_1", extra), 0) == {"tool_call": "call_1", "extra_content": extra}


def test_each_goes_to_its_place_in_order() -> None:
    def detail(data: str, index: Any) -> dict[str, Any]:
        return {"type": "reasoning.encrypted", "data": data, "format": FORMAT, "index": index}

    blocks: list[dict[str, Any]] = [{"type": "text"}, {"type": "tool_use"}]
    foreign = {"type": "reasoning.encrypted", "data": "x", "format": "y"}
    assert put_back(blocks, [detail("a", 0), detail("b", 2), foreign, "junk", detail("c", 99)], block_of) == [
        foreign,
        "junk",
    ]
    assert [block.get("data", block["type"]) for block in blocks] == ["a", "text", "b", "tool_use", "c"]
    assert put_back(blocks, None, block_of) == []
