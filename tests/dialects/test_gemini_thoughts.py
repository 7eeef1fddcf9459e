"""Signatures: Gemini's in the canonical form, others' in Gemini's."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import gemini_thoughts as thoughts

details = st.lists(
    st.dictionaries(st.sampled_from(["text", "signature", "data"]), st.text(st.characters(codec="utf-8"))), max_size=3
)


@given(details)
def test_what_is_wrapped_survives_sdks_that_change_the_alphabet(items: list[dict[str, Any]]) -> None:
    signature = thoughts.wrap(items)
    again = base64.urlsafe_b64encode(base64.b64decode(signature)).decode()
    for form in (signature, again, again.rstrip("=")):
        assert thoughts.unwrap(form) == items


@given(st.none() | st.integers() | st.text() | st.binary().map(lambda raw: thoughts.wrap([])[:12] + raw.hex()))
def test_anything_else_is_no_work_of_ours(signature: Any) -> None:
    assert thoughts.unwrap(signature) is None


@pytest.mark.parametrize("plain", [b"hookgate1:{}", b"hookgate1:[1]", b"hookgate1:", b"hookgate1x[]"])
def test_a_forged_mark_is_no_list(plain: bytes) -> None:
    assert thoughts.unwrap(base64.b64encode(plain).decode()) is None


def test_fragments_of_one_item_become_one() -> None:
    foreign = thoughts.Foreign()
    for fragment in ({"text": "a"}, {"text": "b"}, {"signature": "s"}):
        foreign.add([{"type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1", **fragment}])
    foreign.add([{"type": "reasoning.encrypted", "data": "d", "index": 1}, {"type": "x", "format": thoughts.FORMAT}])
    whole = {"type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1", "text": "ab", "signature": "s"}
    assert thoughts.unwrap(foreign.take()) == [whole, {"type": "reasoning.encrypted", "data": "d", "index": 1}]
    assert foreign.take() is None


@pytest.mark.parametrize("call", [{}, {"extra_content": 1}, {"extra_content": {"google": {"thought_signature": ""}}}])
def test_calls_without_a_signature(call: Any) -> None:
    assert thoughts.signature_of(call) is None
    assert thoughts.signature_of({"extra_content": thoughts.extra_content("s")}) == "s"


def test_details() -> None:
    assert thoughts.detail_of({"text": "a"}, 0) is None
    detail = thoughts.detail_of({"text": "a", "thought": True, "thoughtSignature": "s"}, 2)
    assert detail is not None and thoughts.is_ours(detail)
    assert (detail["text"], detail["signature"], detail["index"]) == ("a", "s", 2)
