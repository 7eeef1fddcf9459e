"""What an answer says, read without the gateway's code: text, calls, why it ended, what it used. One reader a dialect.

The oracle of the tests that hold an answer of one dialect against its translation into another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.support.answers import Counts, Told

Json = Any


def read(dialect: str, body: bytes, kind: str) -> Told:
    """An answer with this content type."""
    if "eventstream" in kind:
        return _READERS[dialect](_bedrock_events(body))
    if kind.startswith(("text/event-stream", "application/x-ndjson")):
        return _READERS[dialect](events(body))
    whole = json.loads(body)
    if isinstance(whole, list):  # Gemini's stream without alt=sse
        return _gemini(whole)
    return _WHOLE[dialect](whole)


def events(body: bytes) -> list[Json]:
    """The data of a stream's events, or its lines."""
    if body.startswith(b"{"):  # Ollama's
        return [json.loads(line) for line in body.splitlines()]
    return [
        json.loads("".join(data))
        for block in body.decode().replace("\r\n", "\n").split("\n\n")
        if (data := [line[5:] for line in block.split("\n") if line.startswith("data:")]) and data != [" [DONE]"]
    ]


def _bedrock_events(body: bytes) -> list[Json]:
    buffer = pytest.importorskip("botocore.eventstream").EventStreamBuffer()
    buffer.add_data(body)
    made = []
    for message in buffer:
        headers = message.headers
        name = headers.get(":event-type") or "error"
        made.append({name: json.loads(message.payload)})
    return made


def _made(calls: Iterable[Any]) -> list[tuple[str, Json]]:
    return [(name, json.loads(text or "{}")) for name, text in calls]


# OpenAI's chat


def _chat_counts(body: Json) -> Counts | None:
    usage = body.get("usage") or (body.get("x_groq") or {}).get("usage")
    if not usage:
        return None
    inside = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    outside = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    return Counts(
        usage.get("prompt_tokens", usage.get("input_tokens")),
        usage.get("completion_tokens", usage.get("output_tokens")),
        inside.get("cached_tokens"),
        inside.get("cache_write_tokens"),
        outside.get("reasoning_tokens"),
    )


def _chat_text(content: Json) -> str:
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] == "text")
    return content or ""


def _chat_whole(body: Json) -> Told:
    choice = body["choices"][0]
    message = choice["message"]
    calls = [(each["function"]["name"], each["function"]["arguments"]) for each in message.get("tool_calls") or ()]
    return Told(_chat_text(message.get("content")), _made(calls), choice["finish_reason"], _chat_counts(body))


def _chat_stream(chunks: list[Json]) -> Told:
    told, calls = Told(), dict[Any, list[str]]()
    last: Any = None
    for chunk in chunks:
        told.error = told.error or bool(chunk.get("error"))
        told.counts = _chat_counts(chunk) or told.counts
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            told.text += _chat_text(delta.get("content"))
            told.reason = choice.get("finish_reason") or told.reason
            for part in delta.get("tool_calls") or ():
                last = (part.get("index"), part["id"]) if part.get("id") else last
                if part.get("id") and not any(key[1] == part["id"] for key in calls):
                    calls[last] = ["", ""]
                key = next((each for each in reversed(calls) if each[0] == part.get("index")), last)
                call = calls.setdefault(key, ["", ""])
                call[0] = call[0] or part["function"].get("name") or ""
                call[1] += part["function"].get("arguments") or ""
    told.calls = _made(calls.values())
    return told


# OpenAI's Responses


def _responses_whole(body: Json) -> Told:
    told = Told(counts=_chat_counts(body), error=body["status"] == "failed")
    told.reason = (body.get("incomplete_details") or {}).get("reason") or body["status"]
    for item in body["output"]:
        if item["type"] == "message":
            told.text += "".join(part.get("text") or "" for part in item["content"])
        elif item["type"] == "function_call":
            told.calls += _made([(item["name"], item["arguments"])])
    return told


def _responses_stream(parts: list[Json]) -> Told:
    told = Told()
    for number, event in enumerate(parts):
        if event["type"] == "error":
            told.error = True
            continue
        assert event["sequence_number"] == number
        if event["type"] == "response.output_text.delta":
            told.text += event["delta"]
        if event["type"] in ("response.completed", "response.incomplete", "response.failed"):
            whole = _responses_whole(event["response"])
            assert whole.text == told.text, "the deltas are the answer"
            told = whole
    return told


# Anthropic's Messages


def _anthropic_counts(usage: Json) -> Counts | None:
    if not usage:
        return None
    read, written = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
    fresh = usage.get("input_tokens")
    thought = (usage.get("output_tokens_details") or {}).get("thinking_tokens")
    whole = None if fresh is None else fresh + (read or 0) + (written or 0)
    return Counts(whole, usage.get("output_tokens"), read, written, thought)


def _anthropic_whole(body: Json) -> Told:
    told = Told(reason=body["stop_reason"], counts=_anthropic_counts(body.get("usage")))
    for block in body["content"]:
        if block["type"] == "text":
            told.text += block["text"]
        if block["type"] == "tool_use":
            told.calls.append((block["name"], block["input"]))
    return told


def _anthropic_stream(parts: list[Json]) -> Told:
    told, usage, blocks = Told(), dict[str, Any](), list[Any]()
    for event in parts:
        kind = event["type"]
        told.error = told.error or kind == "error"
        given = event.get("usage") or (event.get("message") or {}).get("usage") or {}
        usage |= {name: value for name, value in given.items() if value is not None}
        if kind == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append({**event["content_block"], "json": ""})
            told.text += event["content_block"].get("text") or ""
        elif kind == "content_block_delta":
            blocks[event["index"]]["json"] += event["delta"].get("partial_json") or ""
            told.text += event["delta"].get("text") or ""
        elif kind == "message_delta":
            told.reason = event["delta"]["stop_reason"]
    told.calls = _made([(each["name"], each["json"]) for each in blocks if each["type"] == "tool_use"])
    told.counts = _anthropic_counts(usage)
    return told


# Gemini


def _gemini_counts(usage: Json) -> Counts | None:
    if not usage:
        return None
    thought = usage.get("thoughtsTokenCount")
    made = usage.get("candidatesTokenCount")
    asked = usage.get("promptTokenCount")
    if usage.get("toolUsePromptTokenCount"):
        asked += usage["toolUsePromptTokenCount"]
    output = None if made is None and thought is None else (made or 0) + (thought or 0)
    return Counts(asked, output, usage.get("cachedContentTokenCount"), None, thought)


def _gemini(pieces: list[Json]) -> Told:
    told = Told()
    for piece in pieces:
        told.error = told.error or "error" in piece
        told.counts = _gemini_counts(piece.get("usageMetadata")) or told.counts
        for candidate in piece.get("candidates") or ():
            told.reason = candidate.get("finishReason") or told.reason
            for part in (candidate.get("content") or {}).get("parts") or ():
                if "functionCall" in part:
                    told.calls.append((part["functionCall"]["name"], part["functionCall"].get("args") or {}))
                elif not part.get("thought"):
                    told.text += part.get("text") or ""
    return told


# Cohere


def _cohere_counts(usage: Json) -> Counts | None:
    billed = (usage or {}).get("billed_units")
    if not billed:
        return None
    cached = usage.get("cached_tokens")
    within = cached if cached is not None and cached <= billed["input_tokens"] else None
    return Counts(int(billed["input_tokens"]), int(billed["output_tokens"]), within)


def _cohere_whole(body: Json) -> Told:
    message = body["message"]
    text = (message.get("tool_plan") or "") + "".join(part.get("text") or "" for part in message.get("content") or ())
    calls = [(each["function"]["name"], each["function"]["arguments"]) for each in message.get("tool_calls") or ()]
    return Told(text, _made(calls), body["finish_reason"], _cohere_counts(body.get("usage")))


def _cohere_stream(parts: list[Json]) -> Told:
    told, calls = Told(), dict[int, list[str]]()
    for event in parts:
        delta = event.get("delta") or {}
        message = delta.get("message") or {}
        if event["type"] in ("content-start", "content-delta"):
            told.text += message["content"].get("text") or ""
        elif event["type"] == "tool-plan-delta":
            told.text += message["tool_plan"]
        elif event["type"] in ("tool-call-start", "tool-call-delta"):
            function = message["tool_calls"]["function"]
            call = calls.setdefault(event["index"], [function.get("name", ""), ""])
            call[1] += function.get("arguments") or ""
        elif event["type"] == "message-end":
            told.reason, told.counts = delta["finish_reason"], _cohere_counts(delta.get("usage"))
    told.calls = _made(calls.values())
    return told


# Bedrock


def _bedrock_counts(usage: Json) -> Counts | None:
    if not usage:
        return None
    read, written = usage.get("cacheReadInputTokens"), usage.get("cacheWriteInputTokens")
    return Counts(usage["inputTokens"] + (read or 0) + (written or 0), usage["outputTokens"], read, written)


def _bedrock_whole(body: Json) -> Told:
    blocks = body["output"]["message"]["content"]
    text = "".join(block.get("text") or "" for block in blocks)
    calls = [(block["toolUse"]["name"], block["toolUse"]["input"]) for block in blocks if "toolUse" in block]
    return Told(text, calls, body["stopReason"], _bedrock_counts(body.get("usage")))


def _bedrock_stream(parts: list[Json]) -> Told:
    told, calls = Told(), dict[int, list[str]]()
    for event in parts:
        ((name, content),) = event.items()
        if name == "contentBlockStart" and "toolUse" in content["start"]:
            calls[content["contentBlockIndex"]] = [content["start"]["toolUse"]["name"], ""]
        elif name == "contentBlockDelta":
            told.text += content["delta"].get("text") or ""
            if "toolUse" in content["delta"]:
                calls[content["contentBlockIndex"]][1] += content["delta"]["toolUse"]["input"]
        elif name == "messageStop":
            told.reason = content["stopReason"]
        elif name == "metadata":
            told.counts = _bedrock_counts(content.get("usage"))
        elif name == "error":
            told.error = True
    told.calls = _made(calls.values())
    return told


# Ollama, both routes


def _ollama(lines: list[Json]) -> Told:
    told = Told()
    for line in lines:
        told.error = told.error or "error" in line
        message = line.get("message") or {}
        told.text += message.get("content") or line.get("response") or ""
        for call in message.get("tool_calls") or ():
            told.calls.append((call["function"]["name"], call["function"]["arguments"]))
        if line.get("done"):
            assert line is lines[-1]
            counts = line.get("prompt_eval_count"), line.get("eval_count")
            told.reason, told.counts = line["done_reason"], None if counts == (None, None) else Counts(*counts)
    return told


_READERS: dict[str, Callable[[list[Json]], Told]] = {
    "openai_chat": _chat_stream,
    "openai_responses": _responses_stream,
    "anthropic_messages": _anthropic_stream,
    "gemini": _gemini,
    "cohere": _cohere_stream,
    "bedrock": _bedrock_stream,
    "ollama": _ollama,
    "ollama_generate": _ollama,
}
_WHOLE: dict[str, Callable[[Json], Told]] = {
    "openai_chat": _chat_whole,
    "openai_responses": _responses_whole,
    "anthropic_messages": _anthropic_whole,
    "gemini": lambda body: _gemini([body]),
    "cohere": _cohere_whole,
    "bedrock": _bedrock_whole,
    "ollama": lambda body: _ollama([body]),
    "ollama_generate": lambda body: _ollama([body]),
}
