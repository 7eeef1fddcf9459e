"""OpenAI Responses: every event is named, no ``[DONE]``; the last one carries the whole response with its usage."""

from __future__ import annotations

import orjson

from gateway.dialects.openai_chat import ERROR, PASS, read_usage, told_as_whole
from gateway.exchange import Usage

# A response that has begun but says nothing yet.
_OPENING = frozenset({
    "response.created", "response.queued", "response.in_progress", "response.output_item.added",
    "response.content_part.added", "keepalive", "ping",
})  # fmt: skip
_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})


class ResponsesStream:
    """Reads the events of a Responses stream: usage, in-band errors, the terminal event."""

    __slots__ = ("done", "finished", "started", "usage")
    until_eof = False

    def __init__(self) -> None:
        self.done = False
        self.started = False
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
        if kind in ("error", "response.failed"):
            return ERROR
        if not self.started and kind not in _OPENING:
            self.started = True
        return PASS

    def refusal(self, data: bytes) -> tuple[int, bytes]:
        """Status and body of a whole answer that tells the error of an event: of ``error``, whose fields may stand at
        its top, or of ``response.failed``."""
        body = orjson.loads(data)
        response = body.get("response")
        error = body.get("error") or (response.get("error") if isinstance(response, dict) else None)
        if not isinstance(error, dict):
            error = {"message": body.get("message"), "code": body.get("code"), "param": body.get("param")}
        error.setdefault("type", error.get("code"))
        return told_as_whole(orjson.dumps({"error": error}))
