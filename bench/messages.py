"""The bytes both sides agree on: requests the load sends, answers the mock upstream gives. No I/O."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

MODEL = "gpt-4o"
CHAT_PATH = "/v1/chat/completions"
MESSAGES_PATH = "/v1/messages"
KEY = "hg-bench-0123456789abcdef0123456789abcdef"
"""The virtual key the load presents; of this benchmark only."""
SMALL = 64 * 1024
"""Bytes of a request body the mock upstream looks into; a larger body is answered with its size."""

_WORDS = "The gateway keeps a pool of connections open to each upstream and relays what it reads as it comes. "
_USAGE = {"prompt_tokens": 412, "completion_tokens": 200, "total_tokens": 612}


def chat_request(
    *, stream: bool = False, include_usage: bool = False, temperature: float | None = None, image_bytes: int = 0
) -> bytes:
    """Body of a chat request: about 2 KB, or a prompt with a base64 image when ``image_bytes`` is not 0."""
    body: dict[str, Any] = {"model": MODEL}
    if temperature is not None:
        body["temperature"] = temperature
    if stream:
        body["stream"] = True
    if include_usage:
        body["stream_options"] = {"include_usage": True}
    prompt: Any = _WORDS * 16
    if image_bytes:
        url = "data:image/png;base64," + "iVBORw0K" * (image_bytes // 8)
        prompt = [{"type": "text", "text": _WORDS}, {"type": "image_url", "image_url": {"url": url}}]
    body["messages"] = [{"role": "system", "content": _WORDS * 3}, {"role": "user", "content": prompt}]
    return json.dumps(body, separators=(",", ":")).encode()


def messages_request(*, stream: bool = False) -> bytes:
    """The question of ``chat_request`` as a client of Anthropic's Messages asks it."""
    body: dict[str, Any] = {"model": MODEL, "max_tokens": 4096, "system": _WORDS * 3}
    if stream:
        body["stream"] = True
    body["messages"] = [{"role": "user", "content": _WORDS * 16}]
    return json.dumps(body, separators=(",", ":")).encode()


def http_request(body: bytes, host: str, path: str = CHAT_PATH) -> bytes:
    """The whole HTTP/1.1 request that carries ``body``."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n"
        "Accept: application/json\r\nUser-Agent: bench\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@cache
def chat_reply(text: str = _WORDS * 6) -> bytes:
    """A complete chat answer, indented as OpenAI sends it; about 1 KB by default."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return json.dumps({**_base("chat.completion"), "choices": [choice], "usage": _USAGE}, indent=2).encode()


def messages_reply() -> bytes:
    """What a client of Messages must be given for ``chat_reply``, byte for byte."""
    content = [{"type": "text", "text": _WORDS * 6}]
    return _compact({**_message_head(), "content": content, **_message_stop("end_turn"), "usage": _message_usage()})


def messages_stream(count: int) -> bytes:
    """The same for ``stream_events`` with usage."""
    empty = {"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0}
    opening = {**_message_head(), "content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**opening, "usage": empty}},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]
    for number in range(count):
        delta = {"type": "text_delta", "text": f" token{number:04}"}
        events.append({"type": "content_block_delta", "index": 0, "delta": delta})
    events += [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": _message_stop("end_turn"), "usage": _message_usage()},
        {"type": "message_stop"},
    ]
    return b"".join([b"event: %b\ndata: %b\n\n" % (each["type"].encode(), _compact(each)) for each in events])


def size_reply(size: int) -> bytes:
    """The answer to a large body: it says how many bytes arrived."""
    return chat_reply(f"{size} bytes")


def model_list() -> bytes:
    """An OpenAI model list that names ``MODEL`` among twenty."""
    names = [MODEL, *(f"model-{number}" for number in range(19))]
    data = [{"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "bench"} for name in names]
    return json.dumps({"object": "list", "data": data}).encode()


@cache
def stream_events(count: int, usage: bool) -> tuple[bytes, ...]:
    """``count`` content events of about 250 bytes, the finish, the usage event where asked for, ``[DONE]``.

    As vLLM does and OpenAI does not, the other events carry no ``"usage": null``, so that a stream whose usage
    event was taken out again equals one where nobody asked for it.
    """
    base = {**_base("chat.completion.chunk"), "system_fingerprint": "fp_bench"}
    events = [_event({**base, "choices": [_delta({"content": f" token{number:04}"})]}) for number in range(count)]
    events.append(_event({**base, "choices": [_delta({}, finish="stop")]}))
    if usage:
        events.append(_event({**base, "choices": [], "usage": _USAGE}))
    return (*events, b"data: [DONE]\n\n")


def stream_body(count: int, usage: bool) -> bytes:
    """What a client that asked for usage (or did not) must receive, byte for byte."""
    return b"".join(stream_events(count, usage))


def _message_head() -> dict[str, Any]:
    base = _base("")
    return {"id": f"msg_{base['id']}", "type": "message", "role": "assistant", "model": base["model"]}


def _message_stop(reason: str) -> dict[str, Any]:
    return {"stop_reason": reason, "stop_sequence": None, "stop_details": None}


def _message_usage() -> dict[str, Any]:
    counts = {"input_tokens": _USAGE["prompt_tokens"], "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {**counts, "output_tokens": _USAGE["completion_tokens"]}


def _compact(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def _base(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-bench0123456789", "object": kind, "created": 1_700_000_000, "model": f"{MODEL}-2024-08-06"}


def _delta(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"
