"""Ollama's own wire format, the way back: answers of ``/api/chat`` and ``/api/generate`` → OpenAI's.

``thinking`` becomes ``reasoning_content``, the name most clients read (DeepSeek's, llama.cpp's). Ollama leaves counts
of zero out, and older servers the count of a prompt found in their cache: the client is told 0 there, our own ``Usage``
says ``None``. Requests are in ``ollama``; what our own clients of Ollama's API are told, in ``ollama_encoder``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from time import time
from typing import Any, ClassVar

import orjson

from gateway.dialects.sse import LineSplitter
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage

_FINISH = {"length": "length"}  # every other ``done_reason`` (stop, load, unload, none in old servers) is a plain stop
_MESSAGE = {"role", "content", "thinking", "tool_calls"}
_CODES = {401: "invalid_api_key", 403: "forbidden", 404: "not_found", 429: "rate_limit_exceeded"}
# In a text the quotes are escaped; the reply's own counts are the last.
_COUNT = re.compile(rb'"(prompt_eval_count|eval_count)"[ \t\r\n]*:[ \t\r\n]*([0-9]{1,18})')
_LONGEST_MESSAGE = 1000  # characters of an upstream's error text that are passed on


def parse(raw: bytes) -> dict[str, Any]:
    """A whole answer or one line of a stream.

    Raises ``StreamError`` if it is an error, ``UpstreamProtocolError`` if it is not an object.
    """
    try:
        part = orjson.loads(raw)
    except ValueError as error:
        raise UpstreamProtocolError("The provider's answer is not valid JSON.") from error
    if not isinstance(part, dict):
        raise malformed()
    if "error" in part:
        status = error_status(part)
        raise StreamError(status, *_told(status, _error_text(part)))
    return part


def chat_completion(part: Mapping[str, Any], answer_id: str) -> dict[str, Any]:
    """A whole answer of ``/api/chat`` as a chat completion; ``answer_id`` (hex digits) names it and its tool calls."""
    fields = _message_fields(part, answer_id, 0)
    calls = fields.pop("tool_calls", [])
    content = fields.pop("content", "")
    message = {"role": "assistant", "content": content if content or not calls else None, "refusal": None, **fields}
    if calls:
        # Whole calls have no index.
        message["tool_calls"] = [{name: value for name, value in call.items() if name != "index"} for call in calls]
    choice = {"index": 0, "message": message, "logprobs": _logprobs(part), "finish_reason": _finish(part, bool(calls))}
    return _whole(part, f"chatcmpl-{answer_id}", "chat.completion", choice)


def text_completion(part: Mapping[str, Any], answer_id: str) -> dict[str, Any]:
    """A whole answer of ``/api/generate`` as a legacy completion."""
    choice = {**_text_fields(part), "index": 0, "logprobs": None, "finish_reason": _finish(part, False)}
    return _whole(part, f"cmpl-{answer_id}", "text_completion", {"text": "", **choice})


def _whole(part: Mapping[str, Any], name: str, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    if not part.get("done", True):
        raise UpstreamProtocolError("The provider's answer is not complete.")
    whole = {**_head(part, name, kind), "choices": [choice]}
    if (used := usage(part)) is not None:
        whole["usage"] = _usage_body(used)
    return whole


class Stream:
    """One streamed answer: NDJSON in, chunks out. ``ChatStream`` and ``TextStream`` fill in the shape."""

    KIND: ClassVar[str]
    PREFIX: ClassVar[str]
    __slots__ = ("_answer_id", "_calls", "_head", "_splitter", "done", "usage")

    def __init__(self, answer_id: str) -> None:
        self._answer_id = answer_id
        self._head: dict[str, Any] = {}
        self._calls = 0
        self._splitter = LineSplitter()
        self.done = False
        """Ollama's own last line came; what follows it is ignored."""
        self.usage: Usage | None = None

    def feed(self, block: bytes) -> list[dict[str, Any]]:
        """The chunks of the lines that ``block``, cut anywhere, completes; behind the last line, the usage.

        Raises ``StreamError`` for an error line, ``UpstreamProtocolError`` for a malformed one and one beyond 16 MiB.
        """
        try:
            lines = self._splitter.feed(block)
        except ValueError as error:
            raise UpstreamProtocolError("The provider sent a line that is too long.") from error
        return [chunk for line in lines for chunk in self._chunks(line)]

    def end(self) -> list[dict[str, Any]]:
        """The chunks of a last line without its line feed. Raises ``UpstreamProtocolError`` if ``done`` never came."""
        chunks = list(self._chunks(self._splitter.rest))
        if not self.done:
            raise UpstreamProtocolError("The provider's stream ended before it was complete.")
        return chunks

    def _chunks(self, raw: bytes) -> Iterator[dict[str, Any]]:
        if self.done or not raw or raw.isspace():
            return
        part = parse(raw)
        last = bool(part.get("done"))
        choice = self._choice(part, last)
        if not self._head:
            self._head = _head(part, f"{self.PREFIX}-{self._answer_id}", self.KIND)
            yield from self._opening()
        if choice:
            yield self._chunk({"index": 0, **choice, "finish_reason": None})
        if last:
            self.done = True
            self.usage = usage(part)
            yield self._chunk({"index": 0, **self._end(), "finish_reason": _finish(part, self._calls > 0)})
            if self.usage is not None:
                yield {**self._head, "choices": [], "usage": _usage_body(self.usage)}

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self._head, "choices": [choice]}

    def _opening(self) -> Iterator[dict[str, Any]]:
        yield from ()

    def _choice(self, part: Mapping[str, Any], last: bool) -> dict[str, Any]:
        """The content of a line; nothing for a line without any."""
        raise NotImplementedError

    def _end(self) -> dict[str, Any]:
        raise NotImplementedError


class ChatStream(Stream):
    """``/api/chat``. Tool calls come whole, numbered on over the lines."""

    KIND = "chat.completion.chunk"
    PREFIX = "chatcmpl"
    __slots__ = ()

    def _opening(self) -> Iterator[dict[str, Any]]:
        delta = {"role": "assistant", "content": "", "refusal": None}
        yield self._chunk({"index": 0, "delta": delta, "logprobs": None, "finish_reason": None})

    def _choice(self, part: Mapping[str, Any], last: bool) -> dict[str, Any]:
        if last and part.get("message") is None:
            return {}
        delta = _message_fields(part, self._answer_id, self._calls)
        self._calls += len(delta.get("tool_calls", ()))
        logprobs = _logprobs(part)
        return {"delta": delta, "logprobs": logprobs} if delta or logprobs else {}

    def _end(self) -> dict[str, Any]:
        return {"delta": {}, "logprobs": None}


class TextStream(Stream):
    """``/api/generate``."""

    KIND = "text_completion"
    PREFIX = "cmpl"
    __slots__ = ()

    def _choice(self, part: Mapping[str, Any], last: bool) -> dict[str, Any]:
        fields = _text_fields(part)
        return {"text": "", **fields, "logprobs": None} if fields else {}

    def _end(self) -> dict[str, Any]:
        return {"text": "", "logprobs": None}


def models(tags: Any) -> list[dict[str, Any]]:
    """An answer of ``/api/tags`` as OpenAI's model objects; what is tagged ``latest`` is known without the tag too."""
    if not isinstance(tags, dict) or not isinstance(tags.get("models", ""), list | None):
        raise malformed()
    result: list[dict[str, Any]] = []
    for item in tags["models"] or []:
        name = item.get("model") or item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str):
            raise malformed()
        owner = name.split("/")[-2] if "/" in name else "library"  # as Ollama's own /v1/models has it
        for known in dict.fromkeys((name, name.removesuffix(":latest"))):
            created = _seconds(item.get("modified_at"))
            result.append({"id": known, "object": "model", "created": created, "owned_by": owner})
    return result


def usage(part: Mapping[str, Any]) -> Usage | None:
    """Usage of a whole answer or a stream's last line; ``None`` if it says nothing."""
    prompt, answer = count(part.get("prompt_eval_count")), count(part.get("eval_count"))
    if prompt is None and answer is None:
        return None
    return Usage(prompt, answer, provenance="partial" if prompt is None or answer is None else "reported")


def usage_in(raw: bytes) -> Usage | None:
    """Usage of a whole answer, read without building the answer: the counts stand behind a megabyte of numbers."""
    found = {name: int(tokens) for name, tokens in _COUNT.findall(raw)}
    return usage({name.decode(): tokens for name, tokens in found.items()})


def error_to_chat(status: int, raw: bytes) -> tuple[str, str]:
    """Code and message of an error answer (``{"error": "…"}``)."""
    try:
        message = _error_text(orjson.loads(raw))
    except ValueError:
        message = raw.decode(errors="replace").strip()[:_LONGEST_MESSAGE]
    return _told(status, message)


def error_status(line: Mapping[str, Any]) -> int:
    """The status that newer servers put into an error line, else 502."""
    status = line.get("status")
    return status if type(status) is int and 400 <= status < 600 else 502


def _told(status: int, message: str) -> tuple[str, str]:
    missing = status == 404 and "model" in message
    code = "model_not_found" if missing else "server_error" if status >= 500 else _CODES.get(status, "invalid_request")
    return code, message or f"The provider answered {status}."


def _error_text(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else body
    if isinstance(error, dict):
        error = error.get("message")
    return error[:_LONGEST_MESSAGE] if isinstance(error, str) else ""


def malformed() -> UpstreamProtocolError:
    """The error for JSON that is not what the route answers."""
    return UpstreamProtocolError("The provider's answer is not what Ollama answers.")


def _head(part: Mapping[str, Any], name: str, kind: str) -> dict[str, Any]:
    return {"id": name, "object": kind, "created": _seconds(part.get("created_at")), "model": part.get("model")}


def _message_fields(part: Mapping[str, Any], answer_id: str, first_call: int) -> dict[str, Any]:
    """The filled fields of ``message`` under OpenAI's names; fields we do not know keep their own."""
    message = part.get("message")
    if not isinstance(message, dict):
        raise malformed()
    fields = {name: value for name, value in message.items() if name not in _MESSAGE and value}
    for ours, theirs in (("content", "content"), ("reasoning_content", "thinking")):
        if text := _text(message.get(theirs)):
            fields[ours] = text
    if calls := message.get("tool_calls"):
        if not isinstance(calls, list):
            raise malformed()
        fields["tool_calls"] = [_tool_call(call, answer_id, first_call + index) for index, call in enumerate(calls)]
    return fields


def _text_fields(part: Mapping[str, Any]) -> dict[str, Any]:
    fields = {"text": _text(part.get("response")), "reasoning_content": _text(part.get("thinking"))}
    return {name: text for name, text in fields.items() if text}


def _text(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise malformed()
    return value or ""


def _tool_call(call: Any, answer_id: str, index: int) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise malformed()
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = orjson.dumps({} if arguments is None else arguments).decode()
    call_id = call.get("id") or f"call_{answer_id[:16]}_{index}"
    return {"index": index, "id": call_id, "type": "function",
            "function": {"name": function["name"], "arguments": arguments}}  # fmt: skip


def _logprobs(part: Mapping[str, Any]) -> dict[str, Any] | None:
    entries = part.get("logprobs")
    if not isinstance(entries, list):
        return None
    content = [{**_logprob(entry), "top_logprobs": [_logprob(e) for e in entry.get("top_logprobs") or ()]}
               for entry in entries if isinstance(entry, dict)]  # fmt: skip
    return {"content": content, "refusal": None}


def _logprob(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": entry.get("token"), "logprob": entry.get("logprob"), "bytes": entry.get("bytes")}


def _finish(part: Mapping[str, Any], called: bool) -> str:
    return "tool_calls" if called else _FINISH.get(str(part.get("done_reason")), "stop")


def _usage_body(used: Usage) -> dict[str, int]:
    prompt, answer = used.input_tokens or 0, used.output_tokens or 0
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def count(value: Any) -> int | None:
    """A number of tokens; ``None`` if it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _seconds(moment: Any) -> int:
    """Unix time of an RFC 3339 moment with up to nine decimals; now, where there is none (or Go's year 1)."""
    try:
        seconds = int(datetime.fromisoformat(moment).timestamp())
    except (TypeError, ValueError, OverflowError):
        seconds = -1
    return seconds if seconds >= 0 else int(time())
