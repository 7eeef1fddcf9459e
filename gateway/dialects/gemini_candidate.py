"""One candidate of a Gemini answer, read part by part into canonical deltas; whole answers are their sum."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import orjson

from gateway.dialects import gemini_thoughts as thoughts
from gateway.dialects.gemini_history import code_text
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError

_Delta = dict[str, Any]
_FILTERED = frozenset({
    "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "JAILBREAK", "ESCALATION",
    "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
})  # fmt: skip
# The model produced something unusable; a repeat may well succeed.
_FAILED = frozenset({
    "MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE", "NO_IMAGE", "IMAGE_OTHER",
})  # fmt: skip
_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,6})\]|\['((?:[^'\\]|\\.)*)'\]|\["((?:[^"\\]|\\.)*)"\]""")
_MOST_STEPS = 64


def malformed() -> UpstreamProtocolError:
    """The error for JSON that is not what the route answers."""
    return UpstreamProtocolError("The provider's answer is not what Gemini answers.")


class Candidate:
    """Its parts, its reason, its open tool call. Raises ``UpstreamProtocolError`` for what is no candidate."""

    __slots__ = ("_answer_id", "_calls", "_details", "_message", "_open", "_spoke", "finish_reason", "index")

    def __init__(self, index: int, answer_id: str) -> None:
        self.index = index
        self._answer_id = answer_id
        self._calls = 0
        self._details = 0
        self._open: _PartialCall | None = None
        self._spoke = False
        self._message = ""
        self.finish_reason: str | None = None
        """Gemini's own word, once it has come."""

    def read(self, candidate: Mapping[str, Any]) -> Iterator[_Delta]:
        """The deltas of one piece of it."""
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        if not isinstance(parts, list | None):
            raise malformed()
        for part in parts or ():
            if not isinstance(part, dict):
                raise malformed()
            yield from self._part(part)
        if notes := _annotations(candidate):
            yield {"annotations": notes}
        if isinstance(message := candidate.get("finishMessage"), str):
            self._message = message
        if isinstance(reason := candidate.get("finishReason"), str) and reason != "FINISH_REASON_UNSPECIFIED":
            self.finish_reason = reason
            yield from self._close()

    def finish(self) -> tuple[str, str | None]:
        """The canonical reason and the text of a refusal. Raises ``StreamError`` where nothing usable was produced."""
        reason = self.finish_reason or ""
        if reason in _FILTERED:
            return "content_filter", None if self._spoke else self._message or f"The answer was withheld: {reason}."
        if reason in _FAILED and not self._spoke:
            raise StreamError(502, reason.lower(), self._message or f"The model failed: {reason}.")
        return ("length" if reason == "MAX_TOKENS" else "tool_calls" if self._calls else "stop"), None

    def _part(self, part: Mapping[str, Any]) -> Iterator[_Delta]:
        call = part.get("functionCall")
        if isinstance(call, dict):
            yield from self._call(call, part.get("thoughtSignature"))
            return
        delta: _Delta = {}
        text = part.get("text")
        if text is not None and not isinstance(text, str):
            raise malformed()
        if text:
            delta["reasoning_content" if part.get("thought") is True else "content"] = text
        elif (code := code_text(part)) is not None:
            delta["content"] = code
        elif isinstance(inline := part.get("inlineData"), dict):
            delta.update(_media(inline))
        self._spoke = self._spoke or bool(delta)
        if detail := thoughts.detail_of(part, self._details):
            self._details += 1
            delta["reasoning_details"] = [detail]
        if delta:
            yield delta

    def _call(self, call: Mapping[str, Any], signature: Any) -> Iterator[_Delta]:
        self._spoke = True
        name = call.get("name")
        if name is not None:
            if not isinstance(name, str):
                raise malformed()
            yield from self._close()
            yield self._begin(name, call, signature)
            if not call.get("willContinue") and call.get("partialArgs") is None:
                yield self._arguments(call.get("args"))
                return
            self._open = _PartialCall(call.get("args"))
        if self._open is None:
            return  # an empty functionCall that ends nothing
        self._open.add(call.get("partialArgs"))
        if not call.get("willContinue"):
            yield from self._close()

    def _begin(self, name: str, call: Mapping[str, Any], signature: Any) -> _Delta:
        call_id = call.get("id")
        if not isinstance(call_id, str) or not call_id:
            call_id = f"call_{self._answer_id[:40]}_{self.index}_{self._calls}"
        made: _Delta = {"index": self._calls, "id": call_id, "type": "function",
                        "function": {"name": name, "arguments": ""}}  # fmt: skip
        if isinstance(signature, str) and signature:
            made["extra_content"] = thoughts.extra_content(signature)
        self._calls += 1
        return {"tool_calls": [made]}

    def _arguments(self, args: Any) -> _Delta:
        if not isinstance(args, dict | None):
            raise malformed()
        text = orjson.dumps(args or {}).decode()
        return {"tool_calls": [{"index": self._calls - 1, "function": {"arguments": text}}]}

    def _close(self) -> Iterator[_Delta]:
        if self._open is not None:
            yield self._arguments(self._open.value)
            self._open = None


class _PartialCall:
    """Arguments that arrive as values at JSON paths; a string may come in pieces."""

    __slots__ = ("_growing", "value")

    def __init__(self, args: Any) -> None:
        self.value: dict[str, Any] = dict(args) if isinstance(args, dict) else {}
        self._growing: str | None = None  # the path whose string goes on

    def add(self, partial: Any) -> None:
        if not isinstance(partial, list | None):
            raise malformed()
        for each in partial or ():
            path = each.get("jsonPath") if isinstance(each, dict) else None
            if not isinstance(path, str):
                raise malformed()
            self._set(path, each)

    def _set(self, path: str, each: Mapping[str, Any]) -> None:
        holder: Any = self.value
        steps = _steps(path)
        last = steps[-1]
        for step, following in pairwise(steps):
            holder = _enter(holder, step, [] if isinstance(following, int) else {})
        value = _value(each)
        if isinstance(value, str) and self._growing == path:
            value = _enter(holder, last, "") + value
        _put(holder, last, value)
        self._growing = path if each.get("willContinue") else None


def _steps(path: str) -> list[str | int]:
    steps: list[str | int] = []
    position = 1
    while path.startswith("$") and position < len(path) and len(steps) < _MOST_STEPS:
        match = _STEP.match(path, position)
        if match is None:
            break
        key, number, single, double = match.groups()
        quoted = single if single is not None else double
        if quoted is not None:
            key = re.sub(r"\\(.)", r"\1", quoted)
        steps.append(int(number) if number is not None else key)
        position = match.end()
    if not steps or position < len(path):
        raise malformed()
    return steps


def _enter(holder: Any, step: str | int, empty: Any) -> Any:
    if isinstance(holder, dict) and isinstance(step, str):
        return holder.setdefault(step, empty)
    if isinstance(holder, list) and isinstance(step, int) and step <= len(holder):
        if step == len(holder):
            holder.append(empty)
        return holder[step]
    raise malformed()


def _put(holder: Any, step: str | int, value: Any) -> None:
    _enter(holder, step, value)
    holder[step] = value


def _value(each: Mapping[str, Any]) -> Any:
    for name in ("stringValue", "numberValue", "boolValue"):
        if name in each:
            value = each[name]
            # All numbers are doubles there: 3.0 stands for 3, which is what a reader of integers needs.
            return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
    return None


def _media(inline: Mapping[str, Any]) -> _Delta:
    kind, data = inline.get("mimeType"), inline.get("data")
    if not isinstance(kind, str) or not isinstance(data, str):
        raise malformed()
    if kind.startswith("audio/"):
        return {"audio": {"id": "audio_0", "data": data, "transcript": "", "expires_at": 0}}
    return {"images": [{"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}]}


def _annotations(candidate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pages an answer rests on. Places in the text are left at 0: Gemini counts bytes of a text told in pieces."""
    grounding = candidate.get("groundingMetadata")
    found = grounding.get("groundingChunks") if isinstance(grounding, dict) else None
    pages = [each.get("web") for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    return [
        {"type": "url_citation", "url_citation": {
            "url": page["uri"], "title": str(page.get("title") or ""), "start_index": 0, "end_index": 0,
        }}
        for page in pages
        if isinstance(page, dict) and isinstance(page.get("uri"), str)
    ]  # fmt: skip
