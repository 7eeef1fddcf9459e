"""Pass-through paths: what a client may append to a provider's base URL."""

from __future__ import annotations

from urllib.parse import unquote

from gateway.errors import InvalidRequest


def safe_tail(tail: str) -> str:
    """``/tail`` if it stays below any base path it is appended to, however often it is decoded.

    Raises ``InvalidRequest`` otherwise.
    """
    decoded = tail
    for _ in range(3):
        decoded = unquote(decoded)
    segments = decoded.replace("\\", "/").split("/")
    if any(part in (".", "..") for part in segments) or "" in segments[:-1]:
        raise InvalidRequest("The path is not valid.")
    if any(char in "?#\\" or ord(char) < 32 or ord(char) == 127 for char in decoded):
        raise InvalidRequest("The path is not valid.")
    return f"/{tail}"
