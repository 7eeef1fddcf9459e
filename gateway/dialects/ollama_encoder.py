"""Canonical answers for clients that speak Ollama: those of ``/api/chat``, and in its form those of ``/api/generate``.

Ollama tells times in nanoseconds. A stream's are measured here, from its head on; of a whole answer they are not
known, and 0. Counts that the provider did not tell are left out, as Ollama leaves them out. The name of the model is
the one the client asked for, as Ollama has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from time import perf_counter_ns
from typing import Any

import orjson

from gateway.dialects.tool_arguments import parse_arguments
from gateway.errors import UpstreamProtocolError


def reply_from_chat(chat: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """A chat completion → a whole answer of ``/api/chat``. Raises ``UpstreamProtocolError`` for arguments of a tool
    call that are no JSON object."""
    return _whole(chat, request, _message)


def generate_from_chat(chat: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """A chat completion → a whole answer of ``/api/generate``."""
    return _whole(chat, request, _response)


def _whole(chat: Mapping[str, Any], request: Mapping[str, Any], form: Any) -> dict[str, Any]:
    choice: Mapping[str, Any] = next(iter(chat.get("choices") or ()), {})
    said = choice.get("message") or {}
    return {
        **_head(request.get("model") or chat.get("model")),
        **form(said.get("content") or said.get("refusal") or "", _thoughts(said), _calls(said.get("tool_calls") or ())),
        **_logprobs(choice.get("logprobs")),
        **_last(choice.get("finish_reason"), chat.get("usage"), 0, 0),
    }


def _head(model: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {"model": model, "created_at": f"{now:%Y-%m-%dT%H:%M:%S.%f}Z"}


def _message(content: str, thinking: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if thinking:
        message["thinking"] = thinking
    if calls:
        message["tool_calls"] = calls
    return {"message": message}


def _response(content: str, thinking: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
    return {"response": content, **({"thinking": thinking} if thinking else {})}


def _thoughts(said: Mapping[str, Any]) -> str:
    text = said.get("reasoning_content")
    return text if isinstance(text, str) else ""


def _calls(calls: Any) -> list[dict[str, Any]]:
    made = []
    for index, call in enumerate(calls):
        function = call.get("function") or {}
        try:
            arguments = parse_arguments(function.get("arguments"))
        except ValueError as error:
            raise UpstreamProtocolError("The arguments of a tool call are no JSON object.") from error
        shown = {"index": index, "name": function.get("name"), "arguments": arguments}
        made.append({"id": call.get("id"), "function": shown})
    return made


def _logprobs(logprobs: Any) -> dict[str, Any]:
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    return {"logprobs": tokens} if tokens else {}


def _last(reason: Any, usage: Any, prompt_time: int, answer_time: int) -> dict[str, Any]:
    usage = usage if isinstance(usage, dict) else {}
    asked, made = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return {
        "done": True,
        "done_reason": "length" if reason == "length" else "stop",
        "total_duration": prompt_time + answer_time,
        "load_duration": 0,
        **({} if asked is None else {"prompt_eval_count": asked}),
        "prompt_eval_duration": prompt_time,
        **({} if made is None else {"eval_count": made}),
        "eval_duration": answer_time,
    }


class Encoder:
    """Canonical chunks → the lines of ``/api/chat``."""

    _form = staticmethod(_message)
    __slots__ = ("_begun", "_calls", "_first", "_model", "_reason", "_usage")

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._model = request.get("model")
        self._calls: dict[int, dict[str, Any]] = {}  # tool calls that are still growing, by index
        self._reason: Any = None
        self._usage: Any = None
        self._begun = perf_counter_ns()
        self._first = 0

    def feed(self, chunk: Mapping[str, Any]) -> bytes:
        """A line for what ``chunk`` shows at once. Tool calls wait until they are whole: Ollama's arguments are
        objects. Raises ``UpstreamProtocolError`` where they never are."""
        self._usage = chunk.get("usage") or self._usage
        self._model = self._model or chunk.get("model")
        lines = [self._choice(choice) for choice in chunk.get("choices") or () if not choice.get("index")]
        return b"".join(lines)

    def end(self) -> bytes:
        """The last line. Only for a stream that is complete."""
        now = perf_counter_ns()
        first = self._first or now
        last = _last(self._reason, self._usage, first - self._begun, now - first)
        return self._waiting() + self._line({**self._form("", "", []), **last})

    def _choice(self, choice: Mapping[str, Any]) -> bytes:
        delta = choice.get("delta") or {}
        for piece in delta.get("tool_calls") or ():
            self._grow(piece)
        content = delta.get("content") or delta.get("refusal") or ""
        thinking = _thoughts(delta)
        logprobs = _logprobs(choice.get("logprobs"))
        line = b""
        if content or thinking or logprobs:
            self._first = self._first or perf_counter_ns()
            line = self._line({**self._form(content, thinking, []), **logprobs, "done": False})
        if reason := choice.get("finish_reason"):
            self._reason = reason
            line += self._waiting()
        return line

    def _grow(self, piece: Mapping[str, Any]) -> None:
        self._first = self._first or perf_counter_ns()
        call = self._calls.setdefault(piece.get("index") or 0, {"id": None, "function": {"name": "", "arguments": ""}})
        call["id"] = call["id"] or piece.get("id")
        told, function = piece.get("function") or {}, call["function"]
        function["name"] = function["name"] or told.get("name") or ""
        function["arguments"] += told.get("arguments") or ""

    def _waiting(self) -> bytes:
        """The tool calls, in one line."""
        calls, self._calls = _calls(self._calls.values()), {}
        return self._line({**self._form("", "", calls), "done": False}) if calls else b""

    def _line(self, body: Mapping[str, Any]) -> bytes:
        return orjson.dumps({**_head(self._model), **body}) + b"\n"


class GenerateEncoder(Encoder):
    """Canonical chunks → the lines of ``/api/generate``, which asks for no tools."""

    _form = staticmethod(_response)
    __slots__ = ()
