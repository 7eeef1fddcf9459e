"""OpenAI Chat Completions and the surfaces that share its shapes; our canonical form. openai-openapi 2.3.0."""

from __future__ import annotations

import re
from typing import Any

import orjson

from gateway.dialects.counts import count, tier
from gateway.exchange import Usage

# An object with objects in it, but no deeper; no counts are.
_usage_object = re.compile(rb'"usage"\s*:\s*(\{[^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+\})')
_SHORT = 1 << 13  # bytes that are parsed as fast as they are searched

PASS, DROP, ERROR = range(3)
"""What to do with a stream event: forward it, take it out, or forward it and end the stream as failed."""


def read_usage(body: Any) -> Usage | None:
    """Usage of a whole reply, a stream's chunk or a Responses object; ``None`` where there is none to read.

    Both spellings are taken: ``prompt_tokens``/``completion_tokens`` and ``input_tokens``/``output_tokens``, and of
    transcriptions ``input_token_details``. Groq keeps a stream's usage in ``x_groq``.
    """
    if not isinstance(body, dict):
        return None
    usage = body.get("usage")
    if not isinstance(usage, dict):
        groq = body.get("x_groq")
        usage = groq.get("usage") if isinstance(groq, dict) else None
        if not isinstance(usage, dict):
            return None
    read = Usage(
        input_tokens=count(usage.get("prompt_tokens", usage.get("input_tokens"))),
        output_tokens=count(usage.get("completion_tokens", usage.get("output_tokens"))),
        service_tier=tier(body.get("service_tier")),
    )
    inside = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or usage.get("input_token_details")
    if isinstance(inside, dict):
        read.cached_tokens = count(inside.get("cached_tokens"))
        read.cache_write_tokens = count(inside.get("cache_write_tokens"))
        read.audio_input_tokens = count(inside.get("audio_tokens"))
        read.image_input_tokens = count(inside.get("image_tokens"))
    outside = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    if isinstance(outside, dict):
        read.reasoning_tokens = count(outside.get("reasoning_tokens"))
        read.audio_output_tokens = count(outside.get("audio_tokens"))
        read.image_output_tokens = count(outside.get("image_tokens"))
    if read.reasoning_tokens and read.output_tokens is not None:
        # xAI counts reasoning beside the completion, and only the total tells.
        if usage.get("total_tokens") == read.total_tokens + read.reasoning_tokens:
            read.output_tokens += read.reasoning_tokens
    return read


def usage_of(body: bytes) -> Usage | None:
    """Usage of a whole reply of OpenAI's; a long one is not built for it: an embedding's is a megabyte of numbers.

    ``"usage"`` inside a text is written with escaped quotes, so what is found is a field; the last one is the reply's.
    The tier stands near the end, but so may a client's own words that the reply repeats: all of it is read then.
    """
    if len(body) <= _SHORT or body.find(b'"service_tier"', -_SHORT) >= 0:
        return _usage_in(body)
    at = body.rfind(b'"usage"')
    found = _usage_object.match(body, at) if at >= 0 else None
    return _usage_in(b'{"usage":%b}' % found[1] if found else body)


def _usage_in(body: bytes) -> Usage | None:
    try:
        return read_usage(orjson.loads(body))
    except ValueError:
        return None


class ChatStream:
    """Reads the events of a chat or legacy completions stream: usage, in-band errors, the ``[DONE]`` marker."""

    __slots__ = ("_strip", "done", "finished", "started", "usage")
    until_eof = False
    """Only the end of the HTTP message tells that all of it came."""

    def __init__(self, strip_usage: bool = False) -> None:
        self._strip = strip_usage
        self.done = False
        """The terminal marker came."""
        self.finished = False
        """A ``finish_reason`` came: what providers that omit ``[DONE]`` end with."""
        self.started = False
        """The first event that says something came: more than a role."""
        self.usage: Usage | None = None

    def event(self, name: str | None, data: bytes) -> int:
        """Verdict on one event. Raises ``ValueError`` if it is not JSON."""
        if data == b"[DONE]":
            self.done = True
            return PASS
        chunk = orjson.loads(data)
        if not isinstance(chunk, dict):
            raise ValueError("not an object")
        if name == "error" or chunk.get("error"):
            return ERROR
        choices = chunk.get("choices")
        if not self.started:
            self.started = choices is None or (type(choices) is list and any(map(_says_something, choices)))
        if choices and not self.finished and type(choices) is list:
            for choice in choices:
                if type(choice) is dict and choice.get("finish_reason"):
                    self.finished = True
        if chunk.get("usage") or "x_groq" in chunk:
            self.usage = read_usage(chunk) or self.usage
            if self._strip and not choices and chunk.get("usage"):
                return DROP
        return PASS

    def refusal(self, data: bytes) -> tuple[int, bytes]:
        """Status and body of a whole answer that tells the error of an event."""
        return told_as_whole(data)


def _says_something(choice: Any) -> bool:
    if type(choice) is not dict or choice.get("finish_reason") or choice.get("text"):
        return True
    return adds(choice)


def adds(choice: Any) -> bool:
    """Whether a choice of a chunk adds to the answer: its delta holds more than a role."""
    delta = choice.get("delta") if type(choice) is dict else None
    return type(delta) is dict and any(value and name != "role" for name, value in delta.items())


_STATUSES = {
    "rate_limit": 429, "insufficient_quota": 429, "overloaded": 529, "invalid_request": 400, "unavailable": 503,
    "not_found": 404, "context_length_exceeded": 400, "server_is_overloaded": 503,
}  # fmt: skip


def told_as_whole(data: bytes) -> tuple[int, bytes]:
    """Status and body of a whole answer for the error object of a stream.

    The status is the error's own ``code`` or ``status`` where that is one (OpenRouter), else what its type or code
    says, else 502.
    """
    try:
        told = orjson.loads(data)
    except ValueError:
        told = None
    error = told.get("error") if isinstance(told, dict) else None
    if not isinstance(error, dict):
        error = {"message": error if isinstance(error, str) else "The provider reported an error.", "type": None}
    return _status_of(error), orjson.dumps({"error": {"param": None, "code": None, "type": None, **error}})


def _status_of(error: dict[str, Any]) -> int:
    for name in ("code", "status", "status_code"):
        value = error.get(name)
        if isinstance(value, int) and 400 <= value < 600:
            return value
    words = f"{error.get('type')} {error.get('code')}".lower()
    return next((status for word, status in _STATUSES.items() if word in words), 502)


class PlainStream:
    """A stream of a surface without a terminal marker of its own (audio, images): it ends when HTTP says so."""

    __slots__ = ("done", "finished", "started", "usage")
    until_eof = True

    def __init__(self) -> None:
        self.done = True
        self.finished = True
        self.started = False
        self.usage: Usage | None = None

    def refusal(self, data: bytes) -> tuple[int, bytes]:
        return told_as_whole(data)

    def event(self, name: str | None, data: bytes) -> int:
        if name == "error":
            return ERROR
        self.started = True
        if b'"usage"' in data:
            try:
                self.usage = read_usage(orjson.loads(data)) or self.usage
            except ValueError:
                return PASS
        return PASS
