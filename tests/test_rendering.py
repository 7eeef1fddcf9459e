"""Our errors in every dialect: one shape each, which is no success."""

from __future__ import annotations

import orjson
import pytest

from gateway import errors
from gateway.dialects.registry import CLIENTS
from gateway.rendering import render_body, render_event

KINDS = (errors.InvalidRequest, errors.RateLimited, errors.UpstreamTimeout, errors.Overloaded)
# What says in each dialect that an answer is complete.
MARKERS = (b"[DONE]", b"response.completed", b"message_stop", b"finishReason", b'"done":true')


@pytest.mark.parametrize("dialect", ["openai_chat", "openai_responses"])
def test_r62_every_error_has_one_shape(dialect: str) -> None:
    for kind in KINDS:
        body = orjson.loads(render_body(kind("m"), dialect, "rid"))["error"]
        assert set(body) == {"message", "type", "param", "code"}
        assert "rid" in body["message"]


@pytest.mark.parametrize("dialect", CLIENTS)
def test_r62_every_dialect_tells_what_happened_and_to_whom(dialect: str) -> None:
    for kind in KINDS:
        body = render_body(kind("it broke"), dialect, "rid")
        assert orjson.loads(body)["error"]
        assert b"it broke" in body and b"rid" in body


@pytest.mark.parametrize("dialect", CLIENTS)
def test_r28_the_error_event_is_no_success_marker(dialect: str) -> None:
    event = render_event(errors.StreamInterrupted("it broke"), dialect, "rid")
    assert b"it broke" in event and event.endswith(b"\n")
    assert not [marker for marker in MARKERS if marker in event]


def test_r28_openai_python_raises_by_the_error_inside() -> None:
    event = render_event(errors.StreamInterrupted("broke"), "openai_chat", "rid")
    assert event.startswith(b"data: {") and event.endswith(b"}\n\n")
    event = render_event(errors.StreamInterrupted("broke"), "openai_responses", "rid")
    assert event.startswith(b"event: error\n")
    assert orjson.loads(event.split(b"data: ")[1])["error"]["code"] == "stream_interrupted"
