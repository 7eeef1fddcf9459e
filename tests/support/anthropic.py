"""Anthropic's events written and read, and answers put together as a client would."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from gateway.dialects.anthropic_encoder import Encoder
from gateway.dialects.anthropic_messages_stream import Decoder
from gateway.dialects.sse import parse_events


def sse(events: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)


def parsed(stream: bytes) -> list[dict[str, Any]]:
    """The events; each must carry its type as its name, without which the newer SDKs drop it."""
    events = [(name, json.loads(data)) for _, name, data in parse_events(stream)]
    assert all(name == event["type"] for name, event in events)
    return [event for _, event in events]


def decoded(blocks: Iterable[bytes]) -> list[dict[str, Any]]:
    """The chunks of a stream, without the time of day in them."""
    decoder = Decoder()
    chunks = [chunk for block in blocks for chunk in decoder.feed(block)] + decoder.end()
    return [{name: value for name, value in chunk.items() if name != "created"} for chunk in chunks]


def encoded(chunks: Iterable[dict[str, Any]], request: dict[str, Any] | None = None) -> bytes:
    encoder = Encoder(request or {})
    return b"".join([encoder.feed(chunk) for chunk in chunks]) + encoder.end()


def chunk(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
        **more,
    }


def message_of(stream: bytes) -> dict[str, Any]:
    """The message that a stream amounts to; checks that blocks come one after another, each closed."""
    message: dict[str, Any] = {}
    opened = None
    for event in parsed(stream):
        kind = event["type"]
        if kind == "message_start":
            message = event["message"]
        elif kind == "content_block_start":
            assert opened is None
            opened = event["index"]
            assert opened == len(message["content"])
            message["content"].append(dict(event["content_block"]))
        elif kind == "content_block_delta":
            assert event["index"] == opened
            _apply(message["content"][-1], event["delta"])
        elif kind == "content_block_stop":
            assert event["index"] == opened
            opened = None
        elif kind == "message_delta":
            message |= event["delta"]
            message["usage"] |= event["usage"]
    assert opened is None
    for block in message["content"]:
        if "partial" in block:
            block["input"] = json.loads(block.pop("partial") or "{}")
    return message


def _apply(block: dict[str, Any], delta: dict[str, Any]) -> None:
    fields = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
    if delta["type"] == "input_json_delta":
        block["partial"] = block.get("partial", "") + delta["partial_json"]
    else:
        name = fields[delta["type"]]
        block[name] += delta[name]
