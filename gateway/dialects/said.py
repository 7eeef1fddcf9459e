"""What a model says in an answer: the text of a stream's event or of a whole answer, in any dialect of our clients.

For estimates only: it goes by the names of the fields, and reads none but those it knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from gateway.dialects.sse import parse_events, parse_lines

# Where a model's words stand, in one dialect or another; an object there is a tool's arguments.
_WORDS = frozenset({
    "text", "content", "reasoning_content", "reasoning", "refusal", "thinking", "arguments", "name", "partial_json",
    "response", "delta", "args", "input",
})  # fmt: skip
# What such fields stand in.
_AROUND = frozenset({
    "choices", "delta", "message", "tool_calls", "function", "content", "content_block", "candidates", "parts",
    "functionCall", "output", "summary", "thinking",
})  # fmt: skip
_ARGUMENTS = frozenset({"arguments", "args", "input"})
_NOT_TEXT = (b"", b"[DONE]")


def said(answer: Any) -> str:
    """The words of an event or of a whole answer, reasoning and calls of tools among them; ``""`` where there are none.

    Events of Responses that repeat at the end of a part what its deltas said say nothing.
    """
    kind = answer.get("type") if isinstance(answer, dict) else None
    if isinstance(kind, str) and (kind.endswith(".done") or "audio.delta" in kind):
        return ""
    return "".join(_words(answer))


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _words(each)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, str):
                if name in _WORDS:
                    yield inner
            elif name in _AROUND:
                yield from _words(inner)
            elif name in _ARGUMENTS and inner and isinstance(inner, dict):
                yield orjson.dumps(inner).decode()


def said_in(block: bytes) -> list[str]:
    """The words of each event in ``block`` that has any: server-sent events, lines of JSON, or pieces of an array."""
    found = []
    for data in _events(block):
        try:
            words = said(orjson.loads(data))
        except ValueError:
            continue  # an event that is cut off
        if words:
            found.append(words)
    return found


def _events(block: bytes) -> Iterator[bytes]:
    if block.lstrip()[:1] not in (b"{", b"[", b","):
        return (data for _, _, data in parse_events(block) if data not in _NOT_TEXT)
    return (data.strip(b",") for _, _, data in parse_lines(block.strip(b"[], \t\r\n")) if data)
