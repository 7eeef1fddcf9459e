"""One answer in the words of every provider: whole, and as a stream. Written by hand; nothing of the gateway's."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

import attrs

from gateway.testing import Script, stream, whole
from gateway.testing.wire import json_bytes

Json = Any
USAGES: dict[str, Json] = {
    "openai_compat": {
        "prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140,
        "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 15},
    },
    "anthropic": {
        "input_tokens": 50, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 20, "output_tokens": 40,
        "output_tokens_details": {"thinking_tokens": 15},
    },
    "gemini": {
        "promptTokenCount": 100, "cachedContentTokenCount": 30, "candidatesTokenCount": 25, "thoughtsTokenCount": 15,
        "totalTokenCount": 140,
    },
    "cohere": {
        "billed_units": {"input_tokens": 100, "output_tokens": 40}, "cached_tokens": 30,
        "tokens": {"input_tokens": 170, "output_tokens": 44},
    },
    "bedrock": {
        "inputTokens": 50, "cacheReadInputTokens": 30, "cacheWriteInputTokens": 20, "outputTokens": 40,
        "totalTokens": 140,
    },
    "ollama": {"prompt_eval_count": 100, "eval_count": 40},
}  # fmt: skip
"""Plugin → the same 100 tokens in (30 from a cache, 20 written to one) and 40 out (15 thoughts), as its provider counts
them. Gemini has no word for writing, Cohere none for writing and thoughts, Bedrock none for thoughts, Ollama none for
any of the three."""
_REASONS = {
    "openai_compat": {"stop": "stop", "length": "length", "tool_calls": "tool_calls"},
    "anthropic": {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"},
    "gemini": {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP"},
    "cohere": {"stop": "COMPLETE", "length": "MAX_TOKENS", "tool_calls": "TOOL_CALL"},
    "bedrock": {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"},
    "ollama": {"stop": "stop", "length": "length", "tool_calls": "stop"},
}
_MEDIA = {"bedrock": "application/vnd.amazon.eventstream", "ollama": "application/x-ndjson"}
# Ollama's two routes: one provider, two forms of an answer.
_PROVIDER = {"ollama_generate": "ollama"}


@attrs.frozen
class Said:
    """An answer: pieces of text, then calls, then why it ended."""

    texts: tuple[str, ...] = ("Hel", "lo", ", wörld 👋")
    calls: tuple[tuple[str, str], ...] = ()
    """Name, and arguments as JSON."""
    finish: str = "stop"


TEXT = Said()
CUT = Said(finish="length")
CALLS = Said(
    calls=(("look_up", '{"q": "a \\"b\\"", "deep": {"n": [1, 2.5, null]}}'), ("now", "{}")), finish="tool_calls"
)
ONLY_CALLS = Said((), CALLS.calls, "tool_calls")
SAID = {"text": TEXT, "cut": CUT, "calls": CALLS, "only calls": ONLY_CALLS}


def script(plugin: str, said: Said, streamed: bool) -> Script:
    """The provider answers so; ``ollama_generate``: Ollama, on its other route."""
    if streamed:
        return stream(pieces(plugin, said), headers=head(plugin))
    return whole(200, json_bytes(_WHOLE[plugin](said, *_end(plugin, said))))


def head(plugin: str) -> dict[str, str]:
    """The headers of a stream."""
    kind = _MEDIA.get(_PROVIDER.get(plugin, plugin), "text/event-stream")
    return {"Content-Type": kind, "Transfer-Encoding": "chunked"}


def pieces(plugin: str, said: Said) -> list[bytes]:
    """The stream, an event a piece."""
    return list(_STREAMS[plugin](said, *_end(plugin, said)))


def _end(plugin: str, said: Said) -> tuple[str, Json]:
    provider = _PROVIDER.get(plugin, plugin)
    return _REASONS[provider][said.finish], USAGES[provider]


def _event(data: Json, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def _chat_calls(said: Said) -> list[Json]:
    return [
        {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for index, (name, arguments) in enumerate(said.calls)
    ]


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


_CHAT = {"id": "chatcmpl-1", "created": 1700000000, "model": "upstream-model"}


def _chat_whole(said: Said, reason: str, usage: Json) -> Json:
    message: Json = {"role": "assistant", "content": "".join(said.texts) or None, "refusal": None}
    message |= {"tool_calls": _chat_calls(said)} if said.calls else {}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    return {**_CHAT, "object": "chat.completion", "choices": [choice], "usage": usage}


def _chat_stream(said: Said, reason: str, usage: Json) -> Sequence[bytes]:
    deltas: list[Json] = [{"role": "assistant", "content": ""}, *({"content": text} for text in said.texts)]
    for index, call in enumerate(_chat_calls(said)):
        first, second = _halves(call["function"]["arguments"])
        named = {**call, "index": index, "function": {"name": call["function"]["name"], "arguments": ""}}
        deltas.append({"tool_calls": [named]})
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": part}}]} for part in (first, second)]
    chunk = {**_CHAT, "object": "chat.completion.chunk"}
    made = [_event({**chunk, "choices": [{"index": 0, "delta": each, "finish_reason": None}]}) for each in deltas]
    made.append(_event({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
    return [*made, _event({**chunk, "choices": [], "usage": usage}), b"data: [DONE]\n\n"]


def _anthropic_whole(said: Said, reason: str, usage: Json) -> Json:
    content: list[Json] = [{"type": "text", "text": "".join(said.texts)}] if said.texts else []
    for index, (name, arguments) in enumerate(said.calls):
        content.append({"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": json.loads(arguments)})
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "upstream-model", "content": content,
            "stop_reason": reason, "stop_sequence": None, "usage": usage}  # fmt: skip


def _anthropic_stream(said: Said, reason: str, usage: Json) -> Sequence[bytes]:
    opening = {**_anthropic_whole(Said(()), "", {**usage, "output_tokens": 1}), "stop_reason": None}
    parts: list[Json] = [{"type": "message_start", "message": opening}, {"type": "ping"}]
    blocks: list[tuple[Json, list[Json]]] = []
    if said.texts:
        texts = [{"type": "text_delta", "text": text} for text in said.texts]
        blocks.append(({"type": "text", "text": ""}, texts))
    for index, (name, arguments) in enumerate(said.calls):
        given = [{"type": "input_json_delta", "partial_json": part} for part in ("", *_halves(arguments))]
        blocks.append(({"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": {}}, given))
    for index, (block, deltas) in enumerate(blocks):
        parts.append({"type": "content_block_start", "index": index, "content_block": block})
        parts += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        parts.append({"type": "content_block_stop", "index": index})
    last = {"stop_reason": reason, "stop_sequence": None}
    parts += [{"type": "message_delta", "delta": last, "usage": usage}, {"type": "message_stop"}]
    return [_event(part, part["type"]) for part in parts]


def _gemini_piece(parts: list[Json], reason: str | None, usage: Json) -> Json:
    candidate = {"content": {"role": "model", "parts": parts}, "index": 0}
    candidate |= {"finishReason": reason} if reason else {}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "upstream-model", "responseId": "r1"}


def _gemini_calls(said: Said) -> list[Json]:
    return [{"functionCall": {"name": name, "args": json.loads(arguments)}} for name, arguments in said.calls]


def _gemini_whole(said: Said, reason: str, usage: Json) -> Json:
    text = [{"text": "".join(said.texts)}] if said.texts else []
    return _gemini_piece([*text, *_gemini_calls(said)], reason, usage)


def _gemini_stream(said: Said, reason: str, usage: Json) -> Sequence[bytes]:
    early = {"promptTokenCount": 100, "totalTokenCount": 100}
    pieces_ = [
        _gemini_piece([part], None, early) for part in (*({"text": t} for t in said.texts), *_gemini_calls(said))
    ]
    pieces_.append(_gemini_piece([{"text": ""}], reason, usage))
    return [b"data: " + json.dumps(piece).encode() + b"\r\n\r\n" for piece in pieces_]


def _cohere_whole(said: Said, reason: str, usage: Json) -> Json:
    message: Json = {"role": "assistant"}
    message |= {"content": [{"type": "text", "text": "".join(said.texts)}]} if said.texts else {}
    message |= {"tool_calls": _chat_calls(said)} if said.calls else {}
    return {"id": "c1", "finish_reason": reason, "message": message, "usage": usage}


def _cohere_stream(said: Said, reason: str, usage: Json) -> Sequence[bytes]:
    parts: list[Json] = [{"type": "message-start", "id": "c1", "delta": {"message": {"role": "assistant"}}}]
    if said.texts:
        opened = {"message": {"content": {"type": "text", "text": ""}}}
        parts.append({"type": "content-start", "index": 0, "delta": opened})
        texts = [{"message": {"content": {"text": text}}} for text in said.texts]
        parts += [{"type": "content-delta", "index": 0, "delta": delta} for delta in texts]
        parts.append({"type": "content-end", "index": 0})
    for index, call in enumerate(_chat_calls(said)):
        named = {**call, "function": {"name": call["function"]["name"], "arguments": ""}}
        parts.append({"type": "tool-call-start", "index": index, "delta": {"message": {"tool_calls": named}}})
        for half in _halves(call["function"]["arguments"]):
            given = {"message": {"tool_calls": {"function": {"arguments": half}}}}
            parts.append({"type": "tool-call-delta", "index": index, "delta": given})
        parts.append({"type": "tool-call-end", "index": index})
    parts.append({"type": "message-end", "delta": {"finish_reason": reason, "usage": usage}})
    return [_event(part, part["type"]) for part in parts]


def _bedrock_whole(said: Said, reason: str, usage: Json) -> Json:
    content: list[Json] = [{"text": "".join(said.texts)}] if said.texts else []
    for index, (name, arguments) in enumerate(said.calls):
        content.append({"toolUse": {"toolUseId": f"tooluse_{index}", "name": name, "input": json.loads(arguments)}})
    message = {"role": "assistant", "content": content}
    return {"output": {"message": message}, "stopReason": reason, "usage": usage, "metrics": {"latencyMs": 1}}


def _bedrock_stream(said: Said, reason: str, usage: Json) -> Sequence[bytes]:
    made = [_message("messageStart", {"role": "assistant"})]
    at = 0
    if said.texts:
        made += [_message("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": t}}) for t in said.texts]
        made.append(_message("contentBlockStop", {"contentBlockIndex": 0}))
        at = 1
    for index, (name, arguments) in enumerate(said.calls, at):
        use = {"toolUse": {"toolUseId": f"tooluse_{index - at}", "name": name}}
        made.append(_message("contentBlockStart", {"contentBlockIndex": index, "start": use}))
        for half in _halves(arguments):
            delta = {"toolUse": {"input": half}}
            made.append(_message("contentBlockDelta", {"contentBlockIndex": index, "delta": delta}))
        made.append(_message("contentBlockStop", {"contentBlockIndex": index}))
    made.append(_message("messageStop", {"stopReason": reason}))
    return [*made, _message("metadata", {"usage": usage, "metrics": {"latencyMs": 1}})]


def _message(name: str, content: Json) -> bytes:
    """One message of Amazon's event stream encoding."""
    fields = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    head = b"".join(
        bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for key, value in fields.items()
    )
    payload = json.dumps(content).encode()
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    whole_ = prelude + struct.pack(">I", crc32(prelude)) + head + payload
    return whole_ + struct.pack(">I", crc32(whole_))


def _ollama_line(fields: Json, reason: str | None, usage: Json) -> Json:
    made = {"model": "upstream-model", "created_at": "2023-11-14T22:13:20.123456789Z", **fields}
    if reason is None:
        return {**made, "done": False}
    times = {"total_duration": 9, "load_duration": 1, "prompt_eval_duration": 3, "eval_duration": 5}
    return {**made, "done": True, "done_reason": reason, **times, **usage}


def _ollama_message(text: str, calls: Sequence[tuple[str, str]] = ()) -> Json:
    made = [{"function": {"name": name, "arguments": json.loads(arguments)}} for name, arguments in calls]
    return {"message": {"role": "assistant", "content": text} | ({"tool_calls": made} if made else {})}


def _ollama_whole(said: Said, reason: str, usage: Json) -> Json:
    return _ollama_line(_ollama_message("".join(said.texts), said.calls), reason, usage)


def _ollama_stream(said: Said, reason: str, usage: Json) -> Sequence[bytes]:
    told = [*map(_ollama_message, said.texts), *(_ollama_message("", [call]) for call in said.calls)]
    return _lines([*(_ollama_line(each, None, usage) for each in told), _ollama_whole(Said(()), reason, usage)])


def _generate_whole(said: Said, reason: str, usage: Json) -> Json:
    return _ollama_line({"response": "".join(said.texts)}, reason, usage)


def _generate_stream(said: Said, reason: str, usage: Json) -> Sequence[bytes]:
    told = [_ollama_line({"response": text}, None, usage) for text in said.texts]
    return _lines([*told, _generate_whole(Said(()), reason, usage)])


def _lines(parts: Sequence[Json]) -> Sequence[bytes]:
    return [json.dumps(part, ensure_ascii=False).encode() + b"\n" for part in parts]


_WHOLE: dict[str, Callable[[Said, str, Json], Json]] = {
    "openai_compat": _chat_whole,
    "anthropic": _anthropic_whole,
    "gemini": _gemini_whole,
    "cohere": _cohere_whole,
    "bedrock": _bedrock_whole,
    "ollama": _ollama_whole,
    "ollama_generate": _generate_whole,
}
_STREAMS: dict[str, Callable[[Said, str, Json], Sequence[bytes]]] = {
    "openai_compat": _chat_stream,
    "anthropic": _anthropic_stream,
    "gemini": _gemini_stream,
    "cohere": _cohere_stream,
    "bedrock": _bedrock_stream,
    "ollama": _ollama_stream,
    "ollama_generate": _generate_stream,
}
