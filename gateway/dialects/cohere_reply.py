"""Cohere's API v2, the way back: answers and streams of ``/v2/chat`` → canonical ones. Requests are in ``cohere``.

Cohere bills less than it counts (its own preamble is free), so usage is what it bills. Citations keep Cohere's shape,
as ``citations`` of the message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from gateway.dialects.chat_shapes import Chunks, completion, string
from gateway.dialects.sse import EventSplitter, parse_events
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage

_REASONS = {"COMPLETE": "stop", "STOP_SEQUENCE": "stop", "MAX_TOKENS": "length", "TOOL_CALL": "tool_calls"}
_FAILURES = {"ERROR": 502, "TIMEOUT": 504}
_CODES = {404: "model_not_found", 429: "rate_limit_exceeded"}
_LONGEST_MESSAGE = 1000  # characters of an upstream's error text that are passed on
_Chunk = dict[str, Any]


def reply_to_chat(body: Mapping[str, Any], model: str = "") -> dict[str, Any]:
    """A whole answer as a chat completion; ``model``, which Cohere does not tell, is ours.

    Raises ``UpstreamProtocolError``, and ``StreamError`` for an answer that says it failed.
    """
    message = body.get("message")
    if not isinstance(message, dict):
        raise _no_answer()
    try:
        made = _message(message)
    except (KeyError, TypeError, AttributeError) as error:
        raise _no_answer() from error
    return completion(str(body.get("id") or ""), model, made, _finish(body), usage_of(body))


def usage_of(body: Mapping[str, Any]) -> Usage | None:
    """Usage of a whole answer or of what ends a stream: what is billed, else what is counted; ``None`` if neither."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return None
    for name in ("billed_units", "tokens"):
        told = usage.get(name)
        if not isinstance(told, dict):
            continue
        given, made = count(told.get("input_tokens")), count(told.get("output_tokens"))
        if given is None and made is None:
            continue
        cached = count(usage.get("cached_tokens"))
        if cached is not None and cached > (given or 0):
            cached = None  # of all that was counted; how much of what is billed, nobody says
        return Usage(given, made, cached, provenance="partial" if given is None or made is None else "reported")
    return None


def count(value: Any) -> int | None:
    """A number of tokens, which Cohere may write as 4.0; ``None`` if it is none."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    return int(value) if good else None


def error_to_chat(status: int, body: bytes) -> tuple[str, str]:
    """Code and message of an error answer (``{"id": …, "message": …}``)."""
    try:
        said = orjson.loads(body)
    except ValueError:
        said = None
    message = said.get("message") if isinstance(said, dict) else None
    text = message[:_LONGEST_MESSAGE] if isinstance(message, str) else ""
    return _CODES.get(status, "provider_error"), text or f"The provider answered {status}."


def error_status(status: int) -> int:
    """What an error answer is judged as: 498 is a key that is not valid, 499 a request given up there."""
    return {498: 401, 499: 502}.get(status, status)


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    parts = message.get("content") or []
    text = "".join([part["text"] for part in parts if part["type"] == "text"])
    thoughts = "".join([part["thinking"] for part in parts if part["type"] == "thinking"])
    calls = message.get("tool_calls") or []
    text = string(message.get("tool_plan") or "") + text
    made: dict[str, Any] = {"content": text if text or not calls else None}
    if thoughts:
        made["reasoning_content"] = thoughts
    if calls:
        made["tool_calls"] = [_whole_call(call) for call in calls]
    if message.get("citations"):
        made["citations"] = message["citations"]
    return made


def _whole_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = {
        "name": string(call["function"]["name"]),
        "arguments": string(call["function"].get("arguments") or "{}"),
    }
    return {"id": string(call["id"]), "type": "function", "function": function}


class Decoder:
    """One streamed answer: bytes of server-sent events in, canonical chunks out."""

    __slots__ = ("_calls", "_chunks", "_empty", "_on", "_splitter", "done", "usage")

    def __init__(self, model: str = "") -> None:
        self._chunks = Chunks("", model)
        self._splitter = EventSplitter()
        self._calls: dict[Any, int] = {}  # Cohere's index → number of the tool call
        self._empty: set[Any] = set()  # tool calls without a piece of their arguments yet
        self.done = False
        """``message-end`` came."""
        self.usage: Usage | None = None
        self._on: dict[str, Callable[[dict[str, Any]], list[_Chunk]]] = {
            "message-start": self._start,
            "content-start": self._content,
            "content-delta": self._content,
            "tool-plan-delta": self._plan,
            "tool-call-start": self._call,
            "tool-call-delta": self._arguments,
            "tool-call-end": self._call_end,
            "citation-start": self._citation,
            "message-end": self._end,
        }

    def feed(self, block: bytes) -> list[_Chunk]:
        """The chunks that ``block``, cut anywhere, completes. Raises ``StreamError`` and ``UpstreamProtocolError``."""
        try:
            whole = self._splitter.feed(block)
        except ValueError as error:
            raise UpstreamProtocolError("The provider sent an event that is too large.") from error
        return list(self._read(whole)) if whole else []

    def end(self) -> list[_Chunk]:
        """The chunks of a last event without its empty line. Raises ``UpstreamProtocolError`` if ``message-end`` never
        came."""
        chunks = [] if self.done else list(self._read(self._splitter.rest))
        if not self.done:
            raise UpstreamProtocolError("The provider's stream ended before it was complete.")
        return chunks

    def _read(self, block: bytes) -> Iterator[_Chunk]:
        for _, name, data in parse_events(block):
            if not data or data == b"[DONE]" or self.done:
                continue
            try:
                content = orjson.loads(data)
                kind = content.get("type") or name
                if kind is None or kind == "error":
                    raise StreamError(502, *error_to_chat(502, data))
                read = self._on.get(kind)
                chunks = read(content) if read is not None else []
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise UpstreamProtocolError("The provider sent a malformed event.") from error
            yield from chunks

    def _start(self, content: dict[str, Any]) -> list[_Chunk]:
        self._chunks.named(str(content.get("id") or ""))
        return []

    def _content(self, content: dict[str, Any]) -> list[_Chunk]:
        part = content["delta"]["message"]["content"]
        delta = {"content": part.get("text"), "reasoning_content": part.get("thinking")}
        told = {name: string(text) for name, text in delta.items() if text}
        return self._chunks.delta(told) if told else []

    def _plan(self, content: dict[str, Any]) -> list[_Chunk]:
        plan = content["delta"]["message"]["tool_plan"]
        return self._chunks.delta({"content": string(plan)}) if plan else []

    def _call(self, content: dict[str, Any]) -> list[_Chunk]:
        call = content["delta"]["message"]["tool_calls"]
        index = self._calls[content["index"]] = len(self._calls)
        arguments = call["function"].get("arguments") or ""
        if not arguments:
            self._empty.add(content["index"])
        function = {"name": string(call["function"]["name"]), "arguments": string(arguments)}
        made = {"index": index, "id": string(call["id"]), "type": "function", "function": function}
        return self._chunks.delta({"tool_calls": [made]})

    def _arguments(self, content: dict[str, Any]) -> list[_Chunk]:
        piece = content["delta"]["message"]["tool_calls"]["function"]["arguments"]
        return self._more(content["index"], string(piece)) if piece else []

    def _call_end(self, content: dict[str, Any]) -> list[_Chunk]:
        return self._more(content["index"], "{}") if content["index"] in self._empty else []

    def _more(self, call: Any, arguments: str) -> list[_Chunk]:
        self._empty.discard(call)
        piece = {"index": self._calls[call], "function": {"arguments": arguments}}
        return self._chunks.delta({"tool_calls": [piece]})

    def _citation(self, content: dict[str, Any]) -> list[_Chunk]:
        return self._chunks.delta({"citations": [content["delta"]["message"]["citations"]]})

    def _end(self, content: dict[str, Any]) -> list[_Chunk]:
        delta = content["delta"]
        reasons = _finish(delta)
        self.done = True
        self.usage = usage_of(delta)
        chunks = self._chunks.finish(reasons)
        return chunks if self.usage is None else [*chunks, self._chunks.usage(self.usage)]


def _finish(told: Mapping[str, Any]) -> dict[str, str]:
    reason = told.get("finish_reason")
    if not isinstance(reason, str):
        raise _no_answer()
    if reason in _FAILURES:
        said = told.get("error")
        raise StreamError(_FAILURES[reason], reason.lower(), said if isinstance(said, str) else "The model failed.")
    return {"finish_reason": _REASONS.get(reason, "stop"), "native_finish_reason": reason}


def _no_answer() -> UpstreamProtocolError:
    return UpstreamProtocolError("The provider's answer is not what Cohere answers.")
