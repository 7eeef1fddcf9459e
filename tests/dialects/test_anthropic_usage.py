"""Anthropic's usage: three exclusive parts of the input as one, and what prices need beside the totals."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.anthropic_usage import usage_from_chat, usage_of, usage_to_chat
from gateway.exchange import Usage

COUNTS = {"input_tokens": 1, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 4, "output_tokens": 8}


def test_usage_counts_all_input_and_a_compaction_s_too() -> None:
    assert usage_of({"usage": COUNTS}) == Usage(7, 8, 4, 2)
    compaction = {"type": "compaction", "input_tokens": 100, "output_tokens": 50}
    iterations = [compaction, {"type": "message", **COUNTS}]
    assert usage_of({"usage": {**COUNTS, "iterations": iterations}}) == Usage(107, 58, 4, 2)
    assert usage_of({}) is None
    assert usage_of({"usage": {"output_tokens": 3}}) == Usage(None, 3, provenance="partial")
    assert usage_from_chat(usage_to_chat(COUNTS)) == COUNTS
    assert usage_from_chat(None)["output_tokens"] == 0


def test_what_is_kept_for_an_hour_is_part_of_what_was_written() -> None:
    created = {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 1}
    compaction = {
        "type": "compaction", "cache_creation_input_tokens": 10, "cache_creation": {"ephemeral_1h_input_tokens": 10},
    }  # fmt: skip
    used = usage_of({"usage": {**COUNTS, "cache_creation": created, "iterations": [compaction]}})
    assert used is not None
    assert (used.cache_write_tokens, used.cache_write_1h_tokens) == (12, 11)


@pytest.mark.parametrize(
    ("told", "tier"),
    [
        ({}, None), ({"service_tier": "standard"}, "standard"), ({"service_tier": "batch"}, "batch"),
        ({"service_tier": "priority", "speed": "standard"}, "priority"),
        ({"service_tier": "standard", "speed": "fast"}, "fast"), ({"service_tier": 3}, None),
    ],
)  # fmt: skip
def test_the_tier_is_the_provider_s_word_and_fast_mode_one_of_its_own(told: dict[str, Any], tier: str | None) -> None:
    used = usage_of({"usage": COUNTS | told})
    assert used is not None and used.service_tier == tier


def test_searches_of_the_provider_are_counted() -> None:
    told: dict[str, Any] = COUNTS | {"server_tool_use": {"web_search_requests": 3}}
    assert usage_of({"usage": told}) == Usage(7, 8, 4, 2, web_searches=3)
    assert usage_of({"usage": told | {"server_tool_use": None}}) == Usage(7, 8, 4, 2)
