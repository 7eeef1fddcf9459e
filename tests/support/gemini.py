"""What the tests of the dialect ``gemini`` share: recorded interactions, and streams put together as clients do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from importlib import import_module
from itertools import pairwise
from typing import Any

from gateway.dialects.gemini_array import ArraySplitter
from gateway.dialects.gemini_reply import usage_of
from gateway.dialects.gemini_stream import Decoder
from gateway.dialects.sse import parse_events
from gateway.exchange import Usage
from tests.support.recordings import Interaction, Recordings


def recorded(data: Recordings, streamed: bool) -> Iterator[Interaction]:
    """Successful answers of ``generateContent``, or of ``streamGenerateContent`` in both framings."""
    for name in [*data.names("gemini"), *data.names("vertex")]:
        for interaction in data.interactions(name):
            word = "streamGenerateContent" if streamed else ":generateContent"
            if interaction.status == 200 and word in interaction.path:
                yield interaction


def check(body: Any) -> None:
    """Google's own types take the answer; nothing is checked where its SDK is not installed."""
    try:
        types = import_module("google.genai.types")
    except ImportError:
        return
    types.GenerateContentResponse.model_validate(body)


def pieces(body: bytes) -> list[dict[str, Any]]:
    """The pieces of a stream in either framing."""
    if body.lstrip()[:1] == b"[":
        return [json.loads(element) for element in ArraySplitter().feed(body)]
    return [json.loads(data) for _, _, data in parse_events(body) if data]


def sse(parts: Iterable[Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(part).encode() + b"\r\n\r\n" for part in parts)


def decoded(blocks: Iterable[bytes]) -> list[dict[str, Any]]:
    decoder = Decoder()
    return [chunk for block in blocks for chunk in decoder.feed(block)] + decoder.end()


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


def joined(chunks: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Choices by index, put together as a client of OpenAI's would."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            new: dict[str, Any] = {"content": "", "reasoning_content": "", "details": [], "calls": [], "finish": None}
            made = choices.setdefault(choice["index"], new)
            delta = choice["delta"]
            made["content"] += delta.get("content") or delta.get("refusal") or ""
            made["reasoning_content"] += delta.get("reasoning_content") or ""
            made["details"] += delta.get("reasoning_details") or []
            for call in delta.get("tool_calls") or ():
                if "id" in call:
                    made["calls"].append(json.loads(json.dumps(call)))
                else:
                    made["calls"][-1]["function"]["arguments"] += call["function"]["arguments"]
            made["finish"] = choice["finish_reason"] or made["finish"]
    return choices


def plain(said: dict[str, Any]) -> dict[str, Any]:
    """``told``, of its usage only what comes back from a chat."""
    used: Usage | None = said["usage"]
    if used is None:
        return said
    counts = (used.input_tokens, used.output_tokens, used.cached_tokens, None, used.reasoning_tokens)
    return {**said, "usage": Usage(*counts, used.provenance)}


def told(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What a Gemini stream says in the end, however it was cut into pieces."""
    whole: dict[str, Any] = {"text": "", "thoughts": "", "calls": [], "signatures": [], "finish": {}, "usage": None}
    for part in parts:
        whole["usage"] = usage_of(part) or whole["usage"]
        for position, candidate in enumerate(part.get("candidates") or ()):
            for each in candidate.get("content", {}).get("parts") or ():
                whole["thoughts" if each.get("thought") else "text"] += each.get("text") or ""
                if "name" in (call := each.get("functionCall", {})):
                    whole["calls"].append((call["name"], call.get("args") or {}))
                if "thoughtSignature" in each:
                    whole["signatures"].append(each["thoughtSignature"])
            if reason := candidate.get("finishReason"):
                whole["finish"][candidate.get("index", position)] = reason
    return whole
