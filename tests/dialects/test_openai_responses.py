"""What a Responses stream's events say."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.dialects.openai_chat import ERROR, PASS
from gateway.dialects.openai_responses import ResponsesStream
from gateway.exchange import Usage

USAGE = {"input_tokens": 5, "output_tokens": 6, "output_tokens_details": {"reasoning_tokens": 2}}


def event(kind: str, **fields: Any) -> tuple[str, bytes]:
    return kind, orjson.dumps({"type": kind, **fields})


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete", "response.cancelled"])
def test_a_terminal_event_ends_the_stream_and_tells_usage(kind: str) -> None:
    stream = ResponsesStream()
    assert stream.event(*event("response.created", response={"usage": None})) == PASS
    assert stream.event(*event("response.output_text.delta", delta="x")) == PASS
    before = stream.done
    assert stream.event(*event(kind, response={"usage": USAGE})) == PASS
    assert (before, stream.done) == (False, True)
    assert stream.usage == Usage(5, 6, reasoning_tokens=2)


def test_r30_a_failed_response_is_a_terminal_error() -> None:
    stream = ResponsesStream()
    assert (
        stream.event(*event("response.failed", response={"usage": USAGE, "error": {"code": "server_error"}})) == ERROR
    )
    assert stream.done and not stream.finished
    assert stream.usage == Usage(5, 6, reasoning_tokens=2)


def test_r30_an_error_event_is_no_ending() -> None:
    stream = ResponsesStream()
    assert stream.event(*event("error", code="server_error", message="m")) == ERROR
    assert not stream.done


def test_a_done_marker_alone_is_no_ending() -> None:
    stream = ResponsesStream()
    assert stream.event(None, b"[DONE]") == PASS
    assert not stream.done


@pytest.mark.parametrize("data", [b"{", b"[]", b"null", b"3"])
def test_what_is_no_event_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ResponsesStream().event(None, data)
