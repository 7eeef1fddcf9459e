"""Answers of Ollama's ``/api/embed`` → OpenAI's list of embeddings, in steps; the request is in ``ollama``."""

from __future__ import annotations

import re
from collections.abc import Generator

import orjson

from gateway.dialects import vectors
from gateway.dialects.ollama_reply import count, malformed, parse
from gateway.exchange import Usage

_VECTORS = re.compile(rb'"embeddings"[ \t\r\n]*:[ \t\r\n]*\[')


def embeddings(raw: bytes, base64: bool) -> Generator[None, None, tuple[bytes, Usage]]:
    """An answer of ``/api/embed`` as OpenAI's list, written as JSON, and its usage.

    A generator that pauses after each vector (``vectors.embeddings``). Raises ``UpstreamProtocolError``.
    """
    if _VECTORS.search(raw) is None:
        parse(raw)
        raise malformed()
    try:
        data, rest = yield from vectors.embeddings(raw, _VECTORS, base64)
    except ValueError as error:
        raise malformed() from error
    part = parse(rest)
    if part.get("embeddings") != []:
        raise malformed()
    tokens = count(part.get("prompt_eval_count"))
    told = {"prompt_tokens": tokens or 0, "total_tokens": tokens or 0}
    whole = orjson.dumps({"object": "list", "data": data, "model": part.get("model"), "usage": told})
    return whole, Usage(tokens, provenance="partial" if tokens is None else "reported")
