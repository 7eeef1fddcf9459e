"""OpenAI Responses: every event is named, no ``[DONE]``; the last one carries the whole response with its usage."""

from __future__ import annotations

import orjson

from gateway.dialects.openai_chat import ERROR, PASS, read_usage
from gateway.exchange import Usage

_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})


class ResponsesStream:
    """Reads the events of a Responses stream: usage, in-band errors, the terminal event."""

    __slots__ = ("done", "finished", "usage")
    until_eof = False

    def __init__(self) -> None:
        self.done = False
        self.finished = False
        self.usage: Usage | None = None

    def event(self, name: str | None, data: bytes) -> int:
        """Verdict on one event. Raises ``ValueError`` if it is not JSON."""
        if data == b"[DONE]":  # some compatible servers send it all the same
            return PASS
        body = orjson.loads(data)
        if not isinstance(body, dict):
            raise ValueError("not an object")
        kind = body.get("type")
        if kind in _TERMINAL:
            self.done = True
            self.usage = read_usage(body.get("response")) or self.usage
            self.finished = kind != "response.failed"
        return ERROR if kind in ("error", "response.failed") else PASS
