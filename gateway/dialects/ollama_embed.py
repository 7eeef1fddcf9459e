"""Answers of Ollama's ``/api/embed`` → OpenAI's list of embeddings, in steps; the request is in ``ollama``."""

from __future__ import annotations

import re
import struct
from base64 import b64encode
from collections.abc import Generator
from typing import Any

import orjson

from gateway.dialects.ollama_reply import count, malformed, parse
from gateway.exchange import Usage

_VECTORS = re.compile(rb'"embeddings"[ \t\r\n]*:[ \t\r\n]*\[')
_VECTOR = re.compile(rb"[ \t\r\n,]*\[")


def embeddings(raw: bytes, base64: bool) -> Generator[None, None, tuple[bytes, Usage]]:
    """An answer of ``/api/embed`` as OpenAI's list, written as JSON, and its usage.

    A generator that pauses after each vector and returns its result at the end: a thousand vectors, which LangChain
    asks for at once, are 11 MB, and other exchanges must have their turn meanwhile. ``base64`` is little-endian
    float32, what most SDKs ask for; numbers pass as they are spelt. Raises ``UpstreamProtocolError``.
    """
    start = _VECTORS.search(raw)
    if start is None:
        parse(raw)
        raise malformed()
    data: list[dict[str, Any]] = []
    position = start.end()
    while vector := _VECTOR.match(raw, position):
        position = raw.find(b"]", vector.end()) + 1
        data.append(_embedding(raw[vector.end() - 1 : position], len(data), base64))
        yield
    part = parse(raw[: start.end()] + raw[position:])  # the answer without its vectors
    if part.get("embeddings") != []:
        raise malformed()
    tokens = count(part.get("prompt_eval_count"))
    told = {"prompt_tokens": tokens or 0, "total_tokens": tokens or 0}
    whole = orjson.dumps({"object": "list", "data": data, "model": part.get("model"), "usage": told})
    return whole, Usage(tokens, provenance="partial" if tokens is None else "reported")


def _embedding(vector: bytes, index: int, base64: bool) -> dict[str, Any]:
    try:
        numbers = orjson.loads(vector)
        shown: Any = orjson.Fragment(vector)
        if base64:
            shown = b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
    except (ValueError, struct.error, OverflowError) as error:
        raise malformed() from error
    return {"object": "embedding", "index": index, "embedding": shown}
