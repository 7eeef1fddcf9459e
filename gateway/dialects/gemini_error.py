"""Errors in Google's shape (``google.rpc.Status``), both ways."""

from __future__ import annotations

import re
from typing import Any

import orjson

from gateway.dialects.stream_error import StreamError

_LONGEST_MESSAGE = 1000  # characters of an upstream's error text that are passed on
_TYPE = "type.googleapis.com/google.rpc."
# HTTP status → google.rpc.Code; google-genai retries 408, 429, 500, 502, 503 and 504 by the HTTP status.
_NAMES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 402: "RESOURCE_EXHAUSTED", 403: "PERMISSION_DENIED",
    404: "NOT_FOUND", 408: "DEADLINE_EXCEEDED", 409: "ABORTED", 429: "RESOURCE_EXHAUSTED", 499: "CANCELLED",
    500: "INTERNAL", 501: "UNIMPLEMENTED", 502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
    529: "UNAVAILABLE",
}  # fmt: skip
_CODES = {
    "INVALID_ARGUMENT": "invalid_request", "FAILED_PRECONDITION": "invalid_request", "OUT_OF_RANGE": "invalid_request",
    "UNAUTHENTICATED": "invalid_api_key", "PERMISSION_DENIED": "forbidden", "NOT_FOUND": "model_not_found",
    "RESOURCE_EXHAUSTED": "rate_limit_exceeded", "UNAVAILABLE": "overloaded", "DEADLINE_EXCEEDED": "timeout",
    "INTERNAL": "server_error", "UNKNOWN": "server_error",
}  # fmt: skip
_STATUSES = {
    "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400, "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403, "NOT_FOUND": 404, "ABORTED": 409, "ALREADY_EXISTS": 409, "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499, "UNIMPLEMENTED": 501, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}  # fmt: skip
_TOO_LONG = re.compile(r"token count .*exceeds the maximum", re.I | re.S)
_SECONDS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")


def error_to_chat(status: int, body: bytes) -> tuple[str, str]:
    """Code and message of an error answer; without ``alt=sse`` a stream's comes as a list of one."""
    error = _error(_parsed(body))
    if not error:
        text = body.decode(errors="replace").strip()[:_LONGEST_MESSAGE]
        return _CODES.get(_name(status), "server_error"), text or f"The provider answered {status}."
    return _code(status, error), _message(error) or f"The provider answered {status}."


def retry_after(body: bytes) -> float | None:
    """Seconds to wait, out of ``google.rpc.RetryInfo``: Gemini sends no ``Retry-After``."""
    for detail in _details(_error(_parsed(body))):
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and (match := _SECONDS.fullmatch(delay)):
            return float(match[1])
    return None


def stream_error(body: Any) -> StreamError:
    """The error inside a stream or an answer that claims success. ``body`` holds an ``error``."""
    error = _error(body)
    code = error.get("code")
    if type(code) is not int or not 400 <= code <= 599:
        code = _STATUSES.get(str(error.get("status")), 502)
    return StreamError(code, _code(code, error), _message(error) or "The provider reported an error.")


def error_body(status: int, code: str, message: str, request_id: str, retry_after: float | None = None) -> bytes:
    """An error for our client. ``retry_after``, in seconds, becomes ``RetryInfo``."""
    details: list[dict[str, Any]] = [
        {"@type": f"{_TYPE}ErrorInfo", "reason": code.upper(), "domain": "gateway"},
        {"@type": f"{_TYPE}RequestInfo", "requestId": request_id},
    ]
    if retry_after is not None:
        details.append({"@type": f"{_TYPE}RetryInfo", "retryDelay": f"{retry_after:g}s"})
    error = {"code": status, "message": message, "status": _name(status), "details": details}
    return orjson.dumps({"error": error})  # google-genai looks for {"error": at the very beginning


def error_event(status: int, code: str, message: str, request_id: str) -> bytes:
    """The same as the last event of a stream with ``alt=sse``; for a list, see ``gemini_array.ArrayWriter``."""
    return b"data: " + error_body(status, code, message, request_id) + b"\r\n\r\n"


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError:
        return None


def _error(body: Any) -> dict[str, Any]:
    if isinstance(body, list) and body:
        body = body[0]
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _details(error: dict[str, Any]) -> list[dict[str, Any]]:
    details = error.get("details")
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []


def _code(status: int, error: dict[str, Any]) -> str:
    if any(detail.get("reason") == "API_KEY_INVALID" for detail in _details(error)):
        return "invalid_api_key"
    if status == 400 and _TOO_LONG.search(_message(error)):
        return "context_length_exceeded"
    name = error.get("status")
    return _CODES.get(name if isinstance(name, str) else _name(status)) or str(name).lower()[:64]


def _message(error: dict[str, Any]) -> str:
    message = error.get("message")
    return message[:_LONGEST_MESSAGE] if isinstance(message, str) else ""


def _name(status: int) -> str:
    return _NAMES.get(status) or ("INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
