"""An error told inside a stream keeps what the provider said of it."""

from __future__ import annotations

from gateway.dialects.stream_error import StreamError


def test_status_code_and_message_are_kept() -> None:
    error = StreamError(529, "overloaded_error", "Too much at once.")
    assert (error.status, error.code, error.message) == (529, "overloaded_error", "Too much at once.")
    assert str(error) == "Too much at once."
