"""The response object: echo, usage, reasons and errors."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import Response

from gateway.dialects.openai_responses_body import (
    error_of,
    finish_of,
    response_body,
    status_of,
    usage_from_chat,
    usage_to_chat,
)


def test_a_response_repeats_its_request() -> None:
    request = {"temperature": 0.5, "instructions": "i", "store": True, "input": "not this", "metadata": {"a": "b"}}
    head = {"id": "r", "object": "response", "created_at": 1, "model": "m"}
    body = response_body(request, head, "completed", "stop", [], None)
    Response.model_validate(body)
    assert (body["temperature"], body["instructions"], body["metadata"]) == (0.5, "i", {"a": "b"})
    assert body["store"] is False and "input" not in body
    assert body["tool_choice"] == "auto" and body["error"] is None


@pytest.mark.parametrize(
    ("finish", "status", "back"),
    [("stop", "completed", "stop"), ("tool_calls", "completed", "stop"), ("length", "incomplete", "length"),
     ("content_filter", "incomplete", "content_filter"), (None, "completed", "stop"), ("error", "failed", "stop")],
)  # fmt: skip
def test_reasons_both_ways(finish: str | None, status: str, back: str) -> None:
    assert status_of(finish) == status
    body = response_body({}, {}, status, finish, [], None)
    assert finish_of(body, False) == back
    assert (body["error"] is None) == (status != "failed")


def test_usage_both_ways() -> None:
    usage = {
        "prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }  # fmt: skip
    assert usage_to_chat({"usage": usage_from_chat(usage)}) == usage
    assert usage_from_chat({}) == {
        "input_tokens": 0, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 0, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 0,
    }  # fmt: skip
    assert usage_from_chat(None) is None and usage_to_chat({"usage": None}) is None


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"code": "invalid_prompt", "message": "m"}, (400, "invalid_prompt", "m")),
        ({"error": {"type": "insufficient_quota", "code": None, "message": "m"}}, (429, "insufficient_quota", "m")),
        ({"response": {"error": {"code": "server_error"}}}, (500, "server_error", "The provider reported an error.")),
        ({"error": "m"}, (502, "upstream_error", "m")),
        ({}, (502, "upstream_error", "The provider reported an error.")),
    ],
)
def test_errors_in_every_place(event: Any, expected: tuple[int, str, str]) -> None:
    assert error_of(event) == expected
