"""Anthropic's usage, both ways.

Anthropic counts input in three parts that exclude one another; ``Usage`` and OpenAI count all of it as input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects.counts import count, tier
from gateway.exchange import Usage

_Counts = tuple[int | None, ...]


def usage_of(body: Mapping[str, Any]) -> Usage | None:
    """Usage of a whole message, or of ``message_start`` and ``message_delta`` put together; ``None`` if it has none."""
    usage = body.get("usage")
    return normalise(usage) if isinstance(usage, dict) and usage else None


def normalise(usage: Mapping[str, Any]) -> Usage:
    """Anthropic's counts in OpenAI's counting. What a compaction used is not in the totals, so it is added."""
    counts = _counts(usage)
    for more in usage.get("iterations") or ():
        if isinstance(more, dict) and more.get("type") == "compaction":
            counts = tuple(map(_sum, counts, _counts(more)))
    fresh, output, read, written, kept = counts
    details, tools = usage.get("output_tokens_details"), usage.get("server_tool_use")
    return Usage(
        input_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        output_tokens=output,
        cached_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=count(details.get("thinking_tokens")) if isinstance(details, dict) else None,
        provenance="partial" if fresh is None or output is None else "reported",
        cache_write_1h_tokens=kept,
        web_searches=count(tools.get("web_search_requests")) if isinstance(tools, dict) else None,
        # Fast mode has prices of its own, whatever the tier.
        service_tier="fast" if usage.get("speed") == "fast" else tier(usage.get("service_tier")),
    )


def usage_to_chat(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Anthropic's usage as OpenAI's."""
    used = normalise(usage)
    told: dict[str, Any] = {
        "prompt_tokens": used.input_tokens or 0,
        "completion_tokens": used.output_tokens or 0,
        "total_tokens": used.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": used.cached_tokens or 0,
            "cache_write_tokens": used.cache_write_tokens or 0,
        },
    }
    if used.reasoning_tokens is not None:
        told["completion_tokens_details"] = {"reasoning_tokens": used.reasoning_tokens}
    return told


def usage_from_chat(usage: Any) -> dict[str, Any]:
    """OpenAI's usage as Anthropic's; zeros where there is none, for clients demand numbers."""
    counts: dict[str, Any] = usage if isinstance(usage, dict) else {}
    inside = counts.get("prompt_tokens_details") or {}
    outside = counts.get("completion_tokens_details") or {}
    read, written = count(inside.get("cached_tokens")) or 0, count(inside.get("cache_write_tokens")) or 0
    told: dict[str, Any] = {
        "input_tokens": max((count(counts.get("prompt_tokens")) or 0) - read - written, 0),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": count(counts.get("completion_tokens")) or 0,
    }
    if (thought := count(outside.get("reasoning_tokens"))) is not None:
        told["output_tokens_details"] = {"thinking_tokens": thought}
    return told


def _counts(usage: Mapping[str, Any]) -> _Counts:
    """Fresh input, output, read from a cache, written to one, and of that what is kept for an hour."""
    created = usage.get("cache_creation")
    return (
        count(usage.get("input_tokens")),
        count(usage.get("output_tokens")),
        count(usage.get("cache_read_input_tokens")),
        count(usage.get("cache_creation_input_tokens")),
        count(created.get("ephemeral_1h_input_tokens")) if isinstance(created, dict) else None,
    )


def _sum(one: int | None, more: int | None) -> int | None:
    return one if more is None else (one or 0) + more
