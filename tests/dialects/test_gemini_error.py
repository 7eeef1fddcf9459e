"""google.rpc.Status, both ways."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects import gemini_error
from tests.support.recordings import Recordings


def status(code: int, name: str, message: str = "m", **more: Any) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "status": name, **more}}).encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (status(404, "NOT_FOUND"), ("model_not_found", "m")),
        (status(429, "RESOURCE_EXHAUSTED"), ("rate_limit_exceeded", "m")),
        (b"[" + status(503, "UNAVAILABLE") + b"]", ("overloaded", "m")),
        (status(400, "INVALID_ARGUMENT", details=[{"reason": "API_KEY_INVALID"}]), ("invalid_api_key", "m")),
        (status(400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)."),
         ("context_length_exceeded", "The input token count (9) exceeds the maximum number of tokens allowed (8).")),
        (status(409, "ABORTED"), ("aborted", "m")),
        (b"oops", ("server_error", "oops")),
        (b"", ("server_error", "The provider answered 500.")),
        (b'{"error": {}}', ("server_error", '{"error": {}}')),
    ],
)  # fmt: skip
def test_errors_of_providers(body: bytes, expected: tuple[str, str]) -> None:
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, TypeError, KeyError):
        code = 500
    assert gemini_error.error_to_chat(code, body) == expected


@pytest.mark.parametrize(
    ("delay", "seconds"), [("34.4s", 34.4), ("5s", 5.0), ("soon", None), (5, None), ("-1s", None), (None, None)]
)
def test_when_to_come_back(delay: Any, seconds: float | None) -> None:
    details = [{"@type": "x"}, {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
    assert gemini_error.retry_after(status(429, "RESOURCE_EXHAUSTED", details=details)) == seconds


def test_an_error_inside_a_stream() -> None:
    error = gemini_error.stream_error({"error": {"message": "busy", "status": "UNAVAILABLE"}})
    assert (error.status, error.code, error.message) == (503, "overloaded", "busy")
    error = gemini_error.stream_error({"error": "what"})
    assert (error.status, error.message) == (502, "what")


@pytest.mark.parametrize(
    ("code", "name"),
    [(400, "INVALID_ARGUMENT"), (401, "UNAUTHENTICATED"), (402, "RESOURCE_EXHAUSTED"), (413, "INVALID_ARGUMENT"),
     (429, "RESOURCE_EXHAUSTED"), (504, "DEADLINE_EXCEEDED"), (529, "UNAVAILABLE"), (598, "INTERNAL")],
)  # fmt: skip
def test_errors_for_our_clients(code: int, name: str) -> None:
    body = gemini_error.error_body(code, "some_code", "m", "id1", retry_after=1.5)
    assert body.startswith(b'{"error":'), "google-genai looks for it there"
    error = json.loads(body)["error"]
    assert (error["code"], error["status"], error["message"]) == (code, name, "m")
    assert gemini_error.retry_after(body) == 1.5
    assert {"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": "id1"} in error["details"]


def test_google_s_sdk_raises_it() -> None:
    errors = pytest.importorskip("google.genai.errors")
    event = gemini_error.error_event(429, "rate_limit_exceeded", "Slow down.", "id1")
    assert event.endswith(b"\r\n\r\n")
    told = json.loads(event.removeprefix(b"data: "))
    with pytest.raises(errors.ClientError, match=r"Slow down\."):
        errors.APIError.raise_error(429, told, None)


def test_recorded(test_data: Recordings) -> None:
    (missing,) = test_data.interactions("gemini-404")
    code, message = gemini_error.error_to_chat(missing.status, missing.response)
    assert code == "model_not_found" and message.startswith("models/gemini-3.6-flahs is not found")
    quota = (test_data.folder.parent / "vercel-ai-fixtures" / "google-429-retry-info.json").read_bytes()
    assert gemini_error.retry_after(quota) == 34.4
