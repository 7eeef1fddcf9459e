"""The response object of the Responses API and its usage, both ways; what an error in it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ECHO: dict[str, Any] = {
    "background": False, "instructions": None, "max_output_tokens": None, "max_tool_calls": None, "metadata": {},
    "parallel_tool_calls": True, "previous_response_id": None, "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None}, "safety_identifier": None, "service_tier": "default",
    "temperature": None, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_logprobs": 0,
    "top_p": None, "truncation": "disabled", "user": None,
}  # fmt: skip
"""Fields of a request that its response repeats, with their defaults."""
REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Chat's finish reason of an answer that is incomplete here → the reason given here."""
_STATUSES = {
    "rate_limit": 429, "insufficient_quota": 429, "server_is_overloaded": 503, "slow_down": 503, "server_error": 500,
    "overloaded": 503, "unavailable": 503, "context_length_exceeded": 400, "invalid": 400, "image": 400, "policy": 400,
    "not_found": 404,
}  # fmt: skip


def response_body(
    request: Mapping[str, Any], head: Mapping[str, Any], status: str, finish: str | None, output: list[dict[str, Any]],
    usage: Mapping[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """A response to ``request``; ``usage`` and ``finish`` are chat's."""
    reason = REASONS.get(finish or "") if status == "incomplete" else None
    error = {"code": "server_error", "message": "The provider ended its answer with an error."}
    return {
        **{name: default if (said := request.get(name)) is None else said for name, default in _ECHO.items()},
        **head,
        "status": status,
        "store": False,
        "error": error if status == "failed" else None,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        "usage": usage_from_chat(usage),
    }


def status_of(finish: str | None) -> str:
    """Status of a response whose chat answer finished for this reason."""
    if finish == "error":
        return "failed"
    return "incomplete" if finish in REASONS else "completed"


def finish_of(response: Mapping[str, Any], called: bool) -> str:
    """Chat's finish reason; ``called``: there are calls of the client's tools."""
    if response.get("status") == "incomplete":
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        return "content_filter" if reason == "content_filter" else "length"
    return "tool_calls" if called else "stop"


def usage_from_chat(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Usage under the names of Responses; both details are required there."""
    if not isinstance(usage, Mapping):
        return None
    read, written = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    inside = usage.get("prompt_tokens_details") or {}
    outside = usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": read,
        "input_tokens_details": {
            "cached_tokens": inside.get("cached_tokens") or 0,
            "cache_write_tokens": inside.get("cache_write_tokens") or 0,
        },
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": outside.get("reasoning_tokens") or 0},
        "total_tokens": usage.get("total_tokens") or read + written,
    }


def usage_to_chat(response: Mapping[str, Any]) -> dict[str, Any] | None:
    """Usage of a response under chat's names."""
    usage = response.get("usage")
    if not isinstance(usage, dict):
        return None
    read, written = usage.get("input_tokens") or 0, usage.get("output_tokens") or 0
    told = {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": usage.get("total_tokens") or read + written,
    }
    for ours, theirs in (("prompt", "input"), ("completion", "output")):
        if isinstance(details := usage.get(f"{theirs}_tokens_details"), dict):
            told[f"{ours}_tokens_details"] = details
    return told


def error_of(event: Mapping[str, Any]) -> tuple[int, str, str]:
    """Status, code and message of an ``error`` event, whose fields stand at its top or in ``error``, of a failed
    response or an event with one, or of a whole error body."""
    response = event.get("response")
    error = event.get("error") or (response.get("error") if isinstance(response, dict) else None) or event
    if not isinstance(error, dict):
        error = {"message": error}
    code = str(error.get("code") or error.get("type") or "upstream_error")
    words = f"{code} {error.get('type')}".lower()
    status = next((status for word, status in _STATUSES.items() if word in words), 502)
    message = error.get("message")
    return status, code, message if isinstance(message, str) and message else "The provider reported an error."
