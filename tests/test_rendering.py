"""Our errors in the dialects of those who called."""

from __future__ import annotations

import orjson
import pytest

from gateway import errors, rendering


@pytest.mark.parametrize("dialect", ["openai_chat", "openai_responses"])
def test_r62_every_error_has_one_shape(dialect: str) -> None:
    for kind in (errors.InvalidRequest, errors.RateLimited, errors.UpstreamTimeout, errors.Overloaded):
        body = orjson.loads(rendering.render_body(kind("m"), dialect, "rid"))["error"]
        assert set(body) == {"message", "type", "param", "code"}
        assert "rid" in body["message"]


def test_r28_the_error_event_is_no_success_marker() -> None:
    event = rendering.render_event(errors.StreamInterrupted("broke"), "openai_chat", "rid")
    assert event.startswith(b"data: {") and event.endswith(b"}\n\n") and b"[DONE]" not in event
    event = rendering.render_event(errors.StreamInterrupted("broke"), "openai_responses", "rid")
    assert event.startswith(b"event: error\n") and b"completed" not in event
    assert orjson.loads(event.split(b"data: ")[1])["error"]["code"] == "stream_interrupted", (
        "openai-python raises by it"
    )
