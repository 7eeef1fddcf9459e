"""Embeddings: OpenAI's requests and lists ⇄ Gemini's ``embedContent`` and ``batchEmbedContents``."""

from __future__ import annotations

import re
import struct
from base64 import b64decode, b64encode
from collections.abc import Generator, Mapping
from typing import Any

import orjson

from gateway.dialects.dropped import Dropped
from gateway.dialects.gemini_candidate import malformed
from gateway.dialects.gemini_client import renamed
from gateway.dialects.gemini_error import stream_error
from gateway.dialects.gemini_history import content_text
from gateway.errors import InvalidRequest
from gateway.exchange import Usage

_VECTOR = re.compile(rb'"values"[ \t\r\n]*:[ \t\r\n]*\[')


def embed_from_openai(embeddings: Mapping[str, Any], model: str) -> tuple[dict[str, Any], list[str]]:
    """An Embeddings request → ``batchEmbedContents``, and what it cannot carry.

    ``encoding_format`` is not the provider's affair. Raises ``InvalidRequest``, also for token ids.
    """
    texts = embeddings.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest("input: this provider takes a string or a list of strings; it takes no token ids.")
    if embeddings.get("encoding_format") not in (None, "float", "base64"):
        raise InvalidRequest('encoding_format: must be "float" or "base64".')
    common: dict[str, Any] = {"model": f"models/{model}"}
    if (size := embeddings.get("dimensions")) is not None:
        common["outputDimensionality"] = size
    dropped = Dropped()
    dropped.others(embeddings, ("model", "input", "encoding_format", "dimensions"))
    return {"requests": [{**common, "content": {"parts": [{"text": text}]}} for text in texts]}, dropped.names


def embed_to_openai(raw: bytes, model: str, base64: bool) -> Generator[None, None, tuple[bytes, Usage | None]]:
    """An answer of either method as OpenAI's list, written as JSON, and its usage, where it says any.

    A generator that pauses after each vector and returns its result at the end, because a thousand vectors keep a
    processor busy for long. ``base64`` is little-endian float32; numbers pass as they are spelt. Raises
    ``UpstreamProtocolError``, and ``StreamError`` for an error.
    """
    data: list[dict[str, Any]] = []
    others: list[bytes] = []
    position = 0
    while start := _VECTOR.search(raw, position):
        others += [raw[position : start.end()], b"]"]
        position = raw.find(b"]", start.end()) + 1
        if not position:
            raise malformed()
        vector = raw[start.end() - 1 : position]
        data.append({"object": "embedding", "index": len(data), "embedding": _shown(vector, base64)})
        yield
    tokens = _tokens(b"".join([*others, raw[position:]]))
    told = {"prompt_tokens": tokens or 0, "total_tokens": tokens or 0}
    whole = orjson.dumps({"object": "list", "data": data, "model": model, "usage": told})
    return whole, None if tokens is None else Usage(tokens)


def embed_to_canonical(body: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A body of ``embedContent`` or ``batchEmbedContents`` → an Embeddings request, and what it cannot carry.

    Raises ``InvalidRequest``, also where the texts of a batch are to have vectors of different sizes.
    """
    body = renamed(body)
    batch = "requests" in body
    each = body["requests"] if batch else [body]
    if not isinstance(each, list) or not each or not all(isinstance(one, dict) for one in each):
        raise InvalidRequest("requests: must be a list of objects.")
    dropped = Dropped()
    texts, sizes = [], set()
    for index, one in enumerate(each):
        where = f"requests[{index}].content" if batch else "content"
        if one.get("content") is None:
            raise InvalidRequest(f"{where}: must be an object.")
        texts.append(content_text(one["content"], where))
        config = one.get("embedContentConfig") if isinstance(one.get("embedContentConfig"), dict) else {}
        sizes.add(one.get("outputDimensionality", (config or {}).get("outputDimensionality")))
        dropped.others(one, ("model", "content", "outputDimensionality", "embedContentConfig"))
        dropped.others(config or {}, ("outputDimensionality",), "embedContentConfig.")
    if len(sizes) > 1:
        raise InvalidRequest("requests: outputDimensionality must be the same for all.")
    request: dict[str, Any] = {"input": texts if batch else texts[0], "encoding_format": "float"}
    if (size := sizes.pop()) is not None:
        request["dimensions"] = size
    return request, dropped.names


def embed_from_canonical(answer: Mapping[str, Any], batch: bool) -> dict[str, Any]:
    """OpenAI's list of embeddings as the answer of ``batchEmbedContents``, or of ``embedContent``.

    Raises ``UpstreamProtocolError``.
    """
    data = answer.get("data")
    if not isinstance(data, list) or not data or not all(isinstance(each, dict) for each in data):
        raise malformed()
    vectors = [{"values": _numbers(each.get("embedding"))} for each in sorted(data, key=_place)]
    made: dict[str, Any] = {"embeddings": vectors} if batch else {"embedding": vectors[0]}
    usage = answer.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    if type(tokens) is int and tokens > 0:
        made["usageMetadata"] = {"promptTokenCount": tokens}
    return made


def _place(each: Mapping[str, Any]) -> int:
    index = each.get("index")
    return index if type(index) is int else 0


def _numbers(vector: Any) -> Any:
    if isinstance(vector, str):  # some providers know only base64
        try:
            plain = b64decode(vector)
            return list(struct.unpack(f"<{len(plain) // 4}f", plain))
        except (ValueError, struct.error) as error:
            raise malformed() from error
    if not isinstance(vector, list | orjson.Fragment):
        raise malformed()
    return vector


def _shown(vector: bytes, base64: bool) -> Any:
    try:
        numbers = orjson.loads(vector)
        if not base64:
            return orjson.Fragment(vector)
        return b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
    except (ValueError, struct.error, OverflowError) as error:
        raise malformed() from error


def _tokens(rest: bytes) -> int | None:
    """Checks the answer without its vectors; the tokens it used, where it says so (models from 2026 on)."""
    try:
        body = orjson.loads(rest)
    except ValueError as error:
        raise malformed() from error
    if isinstance(body, dict) and body.get("error"):
        raise stream_error(body)
    if not isinstance(body, dict) or not ("embeddings" in body or "embedding" in body):
        raise malformed()
    used = body.get("usageMetadata")
    tokens = used.get("promptTokenCount") if isinstance(used, dict) else None
    return tokens if type(tokens) is int and tokens >= 0 else None
