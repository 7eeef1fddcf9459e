"""Providers that speak OpenAI Chat, for clients that do not: the canonical form without what is canonical only.

Servers differ in small ways (``reasoning`` or ``reasoning_content``, usage in ``x_groq``, a missing ``[DONE]``): what
they send is brought to one form, what they are sent is only what OpenAI's own API knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dialects.capabilities import Capabilities
from gateway.dialects.dropped import Dropped
from gateway.dialects.openai_chat import read_usage, told_as_whole
from gateway.dialects.sse import EventSplitter, parse_events
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage

# What the canonical form has beside OpenAI's, by where it stands.
_MESSAGE = frozenset({"reasoning_content", "reasoning_details", "reasoning", "cache_control", "is_error", "prefix"})
_CALL = frozenset({"extra_content", "cache_control"})
_UNSAID = ("top_k", "min_p", "repetition_penalty")
_REQUEST = frozenset({*_UNSAID, "reasoning", "cache_control"})
_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "logit_bias")


def request_from_chat(
    chat: Mapping[str, Any], model: str, *, caps: Capabilities, usage: bool = True
) -> tuple[dict[str, Any], list[str]]:
    """A canonical request for a server that knows OpenAI's fields only; ``usage`` asks for that of streams.

    What is left out without being asked for by OpenAI's clients (reasoning of other providers, cache marks) is named,
    but for marks: caching there is automatic.
    """
    dropped = Dropped()
    request = {name: value for name, value in chat.items() if name not in _REQUEST and value is not None}
    request["model"] = model
    dropped.others({name: chat[name] for name in _UNSAID if name in chat}, ())
    request["messages"] = [_message(message, dropped) for message in chat.get("messages") or ()]
    if request.get("tools"):
        request["tools"] = [_without(tool, _CALL) for tool in request["tools"]]
    _think(request, chat.get("reasoning"), caps, dropped)
    if not caps.sampling:
        for name in _SAMPLING:
            if request.pop(name, None) is not None:
                dropped.add(name)
    _limit(request, caps)
    if request.get("stream") and usage:
        request["stream_options"] = {**(request.get("stream_options") or {}), "include_usage": True}
    elif not usage:
        request.pop("stream_options", None)
    return request, dropped.names


def _think(request: dict[str, Any], reasoning: Any, caps: Capabilities, dropped: Dropped) -> None:
    effort = request.pop("reasoning_effort", None)
    if effort is None and isinstance(reasoning, dict):
        effort = reasoning.get("effort")
        if effort is None and isinstance(budget := reasoning.get("max_tokens"), int):
            effort = "low" if budget <= 2048 else "medium" if budget <= 8192 else "high"
        if reasoning.get("enabled") is False:
            effort = "none"
    if effort is None:
        return
    if effort in caps.efforts or (effort == "none" and caps.efforts):
        request["reasoning_effort"] = effort
    elif caps.efforts:
        request["reasoning_effort"] = caps.efforts[-1] if effort in ("xhigh", "max") else caps.efforts[0]
    elif effort != "none":
        dropped.add("reasoning_effort")


def _limit(request: dict[str, Any], caps: Capabilities) -> None:
    """One of the two names of the most tokens of an answer, the one that the server knows."""
    wanted, other = ("max_completion_tokens", "max_tokens") if caps.max_completion_tokens else (
        "max_tokens", "max_completion_tokens",
    )  # fmt: skip
    if (value := request.pop(other, None)) is not None:
        request.setdefault(wanted, value)


def _message(message: Mapping[str, Any], dropped: Dropped) -> dict[str, Any]:
    kept = _without(message, _MESSAGE)
    for detail in message.get("reasoning_details") or ():
        if isinstance(detail, dict) and (detail.get("signature") or detail.get("data")):
            dropped.add("reasoning_details")
    if calls := kept.get("tool_calls"):
        kept["tool_calls"] = [_without(call, _CALL) for call in calls]
        if any(call.get("extra_content") for call in calls):
            dropped.add("messages.tool_calls.extra_content")
    if isinstance(content := kept.get("content"), list):
        parts = [_without(part, _CALL) if isinstance(part, dict) else part for part in content]
        if kept.get("role") == "tool":
            kept["content"] = _tool_text(parts, dropped)
        else:
            kept["content"] = parts
    return kept


def _tool_text(parts: list[Any], dropped: Dropped) -> str:
    """OpenAI's tool messages hold text only."""
    texts = []
    for part in parts:
        if isinstance(part, dict) and isinstance(text := part.get("text"), str):
            texts.append(text)
        else:
            dropped.add("tool_result_media")
    return "\n".join(texts)


def _without(table: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in table.items() if name not in names}


def reply_to_chat(body: Any) -> dict[str, Any]:
    """A whole answer in the canonical form. Raises ``UpstreamProtocolError``, or ``StreamError`` for an error in it."""
    if isinstance(body, dict) and body.get("error"):
        status, told = told_as_whole(orjson.dumps(body))
        raise StreamError(status, *error_to_chat(status, told))
    if not isinstance(body, dict) or not isinstance(body.get("choices"), list):
        raise UpstreamProtocolError("The provider's answer is no chat completion.")
    for choice in body["choices"]:
        if isinstance(choice, dict) and isinstance(message := choice.get("message"), dict):
            _one_reasoning(message)
    return body


def usage_of(body: Mapping[str, Any]) -> Usage | None:
    """What a whole answer used."""
    return read_usage(body)


def _one_reasoning(part: dict[str, Any]) -> None:
    """``reasoning`` (Groq, OpenRouter, vLLM) is what others call ``reasoning_content``."""
    if isinstance(text := part.pop("reasoning", None), str):
        part.setdefault("reasoning_content", text)
    content = part.get("content")
    if isinstance(content, list):  # Mistral's thinking models answer in parts
        texts = [item.get("text") or "" for item in content if isinstance(item, dict) and item.get("type") == "text"]
        thoughts = [_thought(item) for item in content if isinstance(item, dict) and item.get("type") == "thinking"]
        part["content"] = "".join(texts)
        if any(thoughts):
            part["reasoning_content"] = "".join(thoughts)


def _thought(item: Mapping[str, Any]) -> str:
    inner = item.get("thinking")
    if isinstance(inner, str):
        return inner
    return (
        "".join(each.get("text") or "" for each in inner if isinstance(each, dict)) if isinstance(inner, list) else ""
    )


def error_to_chat(status: int, body: bytes) -> tuple[str, str]:
    """Code and message of a whole error."""
    try:
        error = orjson.loads(body)["error"]
    except (ValueError, TypeError, KeyError, IndexError):
        return "upstream_error", f"The provider answered {status}."
    if isinstance(error, str):
        return "upstream_error", error
    if not isinstance(error, dict):
        return "upstream_error", f"The provider answered {status}."
    code = error.get("code") or error.get("type")
    return str(code or "upstream_error"), str(error.get("message") or f"The provider answered {status}.")


class Decoder:
    """A chat stream as canonical chunks."""

    __slots__ = ("_finished", "_needs_marker", "_splitter", "done", "usage")

    def __init__(self, needs_marker: bool = True) -> None:
        self._needs_marker = needs_marker
        self._splitter = EventSplitter()
        self._finished = False
        self.done = False
        self.usage: Usage | None = None

    def feed(self, block: bytes) -> list[dict[str, Any]]:
        """The chunks that ``block``, cut anywhere, completes.

        Raises ``StreamError`` for an error inside the stream, ``UpstreamProtocolError`` for what is no chat stream.
        """
        try:
            whole = self._splitter.feed(block)
        except ValueError as error:
            raise UpstreamProtocolError("The provider sent an event that is too large.") from error
        return self._chunks(whole) if whole else []

    def end(self) -> list[dict[str, Any]]:
        """What is left. Raises ``UpstreamProtocolError`` if the stream ended before it was complete."""
        rest = [] if self.done else self._chunks(self._splitter.rest)
        if not (self.done or (self._finished and not self._needs_marker)):
            raise UpstreamProtocolError("The provider's stream ended before it was complete.")
        return rest

    def _chunks(self, block: bytes) -> list[dict[str, Any]]:
        chunks = []
        for _, name, data in parse_events(block):
            if not data or self.done:
                continue
            if data == b"[DONE]":
                self.done = True
                continue
            chunk = self._chunk(name, data)
            if chunk.get("choices") or chunk.get("usage"):  # Azure's first one judges the prompt and has no id
                chunks.append(chunk)
        return chunks

    def _chunk(self, name: str | None, data: bytes) -> dict[str, Any]:
        try:
            chunk = orjson.loads(data)
        except ValueError as error:
            raise UpstreamProtocolError("The provider sent a malformed event.") from error
        if not isinstance(chunk, dict):
            raise UpstreamProtocolError("The provider sent a malformed event.")
        if name == "error" or chunk.get("error"):
            status, body = told_as_whole(data)
            raise StreamError(status, *error_to_chat(status, body))
        if chunk.get("usage") or "x_groq" in chunk:
            self.usage = read_usage(chunk) or self.usage
            if not chunk.get("usage") and isinstance(groq := chunk.get("x_groq"), dict) and groq.get("usage"):
                chunk["usage"] = groq["usage"]
        for choice in chunk.get("choices") or ():
            if choice.get("finish_reason"):
                self._finished = True
            if isinstance(delta := choice.get("delta"), dict):
                _one_reasoning(delta)
        return chunk
