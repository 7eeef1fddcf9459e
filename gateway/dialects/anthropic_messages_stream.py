"""Anthropic's streams: ``Decoder`` makes canonical chunks of them, ``Reader`` watches those that pass through.

``message_start``, blocks one after another (start, deltas, stop), ``message_delta`` with the counts so far,
``message_stop``; ``ping`` anywhere. The way back is in ``anthropic_encoder``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import time
from typing import Any, ClassVar

import orjson

from gateway.dialects.anthropic_messages_reply import (
    arguments_of,
    error_code,
    error_of,
    error_status,
    finish,
    malformed,
    refusal_text,
)
from gateway.dialects.anthropic_reasoning import FORMAT, detail_of
from gateway.dialects.anthropic_usage import normalise, usage_to_chat
from gateway.dialects.openai_chat import ERROR, PASS
from gateway.dialects.sse import EventSplitter, parse_events
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage

Chunks = list[dict[str, Any]]


class Decoder:
    """One stream as canonical chunks: role, content, reasoning, tool calls, finish, and at the end usage."""

    __slots__ = ("_block", "_calls", "_counts", "_details", "_head", "_said", "_splitter", "_texts", "done", "usage")

    def __init__(self) -> None:
        self._splitter = EventSplitter()
        self._head: dict[str, Any] = {}
        self._block: dict[str, Any] = {}
        self._said = False
        """The open block has had a delta."""
        self._texts = False
        self._calls = 0
        self._details = 0
        self._counts: dict[str, Any] = {}
        self.done = False
        """``message_stop`` came; what follows it is ignored."""
        self.usage: Usage | None = None

    def feed(self, block: bytes) -> Chunks:
        """The chunks of the events that ``block``, cut anywhere, completes.

        Raises ``StreamError`` for an error event, ``UpstreamProtocolError`` for a malformed or too long one.
        """
        try:
            whole = self._splitter.feed(block)
        except ValueError as error:
            raise UpstreamProtocolError("The provider sent an event that is too large.") from error
        return self._read(whole) if whole else []

    def end(self) -> Chunks:
        """The chunks of a last event without its empty line. Raises ``UpstreamProtocolError`` if not ``done``."""
        chunks = [] if self.done else self._read(self._splitter.rest)
        if not self.done:
            raise UpstreamProtocolError("The provider's stream ended before it was complete.")
        return chunks

    def _read(self, block: bytes) -> Chunks:
        chunks: Chunks = []
        for _, _, data in parse_events(block):
            if data and not self.done:
                chunks += self.event(data)
        return chunks

    def event(self, data: bytes) -> Chunks:
        """The chunks of one event, its JSON; other carriers of the same events (Bedrock) call it themselves."""
        body = _parse(data)
        handler = self._HANDLERS.get(str(body.get("type")))
        return handler(self, body) if handler else []  # ping, and what may come to be: to be ignored, says Anthropic

    def _start(self, body: Mapping[str, Any]) -> Chunks:
        if self._head:
            return []  # some servers begin twice
        message = _object(body, "message")
        self._head = {"id": message.get("id"), "object": "chat.completion.chunk", "created": int(time()),
                      "model": message.get("model")}  # fmt: skip
        self._count(message)
        return [self._chunk({"role": "assistant", "content": "", "refusal": None})]

    def _open(self, body: Mapping[str, Any]) -> Chunks:
        self._block = block = _object(body, "content_block")
        self._said = False
        kind = block.get("type")
        if kind == "tool_use":
            call = {"index": self._calls, "id": block.get("id"), "type": "function",
                    "function": {"name": block.get("name"), "arguments": ""}}  # fmt: skip
            return [self._chunk({"tool_calls": [call]})]
        if kind == "text" and block.get("text"):
            return self._text(block)
        if kind == "thinking" and block.get("thinking"):
            return self._thought(block)
        if kind == "redacted_thinking" and (detail := detail_of(block, self._place)):
            return [self._chunk({"reasoning_details": [detail]})]
        return []

    def _delta(self, body: Mapping[str, Any]) -> Chunks:
        delta = _object(body, "delta")
        kind, block = delta.get("type"), self._block.get("type")
        if kind == "text_delta":
            return self._text(delta)
        if kind == "thinking_delta":
            return self._thought(delta)
        if kind == "signature_delta":
            return self._signature(delta)
        if kind == "input_json_delta" and block == "tool_use":  # the arguments of a server's own tool are not ours
            return self._arguments(delta.get("partial_json"))
        return []

    def _text(self, part: Mapping[str, Any]) -> Chunks:
        self._texts = True
        return [self._chunk({"content": part.get("text")})]

    def _thought(self, part: Mapping[str, Any]) -> Chunks:
        text = part.get("thinking")
        detail = {"type": "reasoning.text", "text": text, "format": FORMAT, "index": self._place}
        return [self._chunk({"reasoning_content": text, "reasoning_details": [detail]})]

    def _signature(self, delta: Mapping[str, Any]) -> Chunks:
        signature = delta.get("signature")
        detail = {"type": "reasoning.text", "signature": signature, "format": FORMAT, "index": self._place}
        return [self._chunk({"reasoning_details": [detail]})]

    def _arguments(self, fragment: Any) -> Chunks:
        if not fragment:
            return []
        self._said = True
        return [self._chunk({"tool_calls": [{"index": self._calls, "function": {"arguments": fragment}}]})]

    def _close(self, body: Mapping[str, Any]) -> Chunks:
        block, self._block = self._block, {}
        kind = block.get("type")
        if kind == "tool_use":
            chunks = [] if self._said else self._arguments(arguments_of(block))
            self._calls += 1
            return chunks
        if kind in ("thinking", "redacted_thinking"):
            self._details += 1
        return []

    def _end(self, body: Mapping[str, Any]) -> Chunks:
        self._count(body)
        delta = _object(body, "delta")
        last = {"refusal": refusal_text(delta.get("stop_details"))} if delta.get("stop_reason") == "refusal" else {}
        return [self._chunk(last, finish(delta))]

    def _stop(self, body: Mapping[str, Any]) -> Chunks:
        self.done = True
        return [{**self._head, "choices": [], "usage": usage_to_chat(self._counts)}] if self._counts else []

    def _error(self, body: Mapping[str, Any]) -> Chunks:
        raise _stream_error(body)

    def _count(self, part: Mapping[str, Any]) -> None:
        self.usage = _counted(self._counts, part) or self.usage

    @property
    def _place(self) -> int:
        """Where a block of reasoning stands among the blocks a canonical message keeps (its text is one)."""
        return self._texts + self._calls + self._details

    def _chunk(self, delta: dict[str, Any], end: Mapping[str, Any] | None = None) -> dict[str, Any]:
        if not self._head:
            raise malformed()
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        if end:
            choice |= end
        return {**self._head, "choices": [choice]}

    _HANDLERS: ClassVar[dict[str, Callable[[Decoder, Mapping[str, Any]], Chunks]]] = {
        "message_start": _start, "content_block_start": _open, "content_block_delta": _delta,
        "content_block_stop": _close, "message_delta": _end, "message_stop": _stop, "error": _error,
    }  # fmt: skip


class Reader:
    """Watches a stream on its way through: usage, in-band errors, ``message_stop``. Changes nothing."""

    __slots__ = ("_counts", "done", "finished", "started", "usage")
    until_eof = False

    def __init__(self) -> None:
        self._counts: dict[str, Any] = {}
        self.done = False
        """``message_stop`` came."""
        self.finished = False
        """A ``stop_reason`` came."""
        self.started = False
        """Something of the answer came: not a ping, nor the opening of the message or of an empty block."""
        self.usage: Usage | None = None

    def event(self, name: str | None, data: bytes) -> int:
        """Verdict on one event. Raises ``ValueError`` if it is not JSON."""
        body = orjson.loads(data)
        if not isinstance(body, dict):
            raise ValueError("not an object")
        kind = body.get("type", name)
        if kind == "content_block_delta":
            self.started = True
        elif kind == "content_block_start":
            block = body.get("content_block")
            if isinstance(block, dict) and block.get("type") not in ("text", "thinking"):
                self.started = True
        elif kind == "message_start":
            self._count(body.get("message"))
        elif kind == "message_delta":
            self.started = self.finished = True
            self._count(body)
        elif kind == "message_stop":
            self.done = True
        elif kind == "error" or name == "error":
            return ERROR
        return PASS

    def refusal(self, data: bytes) -> tuple[int, bytes]:
        """Status and body of a whole answer that tells an event that ``event`` called an error: they look alike."""
        return _stream_error(orjson.loads(data)).status, data

    def _count(self, part: Any) -> None:
        if isinstance(part, dict):
            self.usage = _counted(self._counts, part) or self.usage


def _counted(counts: dict[str, Any], part: Mapping[str, Any]) -> Usage | None:
    """Usage so far: each report replaces what it names. Before ``message_delta`` the output is a provisional number."""
    usage = part.get("usage")
    if not isinstance(usage, dict) or not usage:
        return None
    counts.update({name: value for name, value in usage.items() if value is not None})
    used = normalise(counts)
    if "delta" not in part:
        used.provenance = "partial"
    return used


def _stream_error(body: Any) -> StreamError:
    kind, message = error_of(body)
    message = message or "The provider reported an error inside its stream."
    return StreamError(error_status(kind), error_code(kind or "upstream_error", message), message)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(data)
    except ValueError as error:
        raise UpstreamProtocolError("The provider sent a malformed event.") from error
    if not isinstance(body, dict):
        raise malformed()
    return body


def _object(parent: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    if not isinstance(value, dict):
        raise malformed()
    return value
