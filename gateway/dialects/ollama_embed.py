"""Embeddings. Answers of ``/api/embed`` → OpenAI's list, in steps; its request is in ``ollama``.

And for clients that speak Ollama: requests of ``/api/embed`` and of the older ``/api/embeddings`` → OpenAI's, and
OpenAI's list → their answers.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import Any

import orjson

from gateway.dialects import vectors
from gateway.dialects.dropped import Dropped
from gateway.dialects.ollama_reply import count, malformed, parse
from gateway.errors import InvalidRequest
from gateway.exchange import Usage

Translated = tuple[dict[str, Any], list[str]]
"""The Embeddings request, and what it does not carry."""

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


def embed_to_canonical(body: Mapping[str, Any]) -> Translated:
    """A body of ``/api/embed`` → an Embeddings request. Raises ``InvalidRequest``."""
    texts = body.get("input")
    if not isinstance(texts, str) and not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        raise InvalidRequest("input: must be a string or a list of strings.")
    return _canonical(body, "input", texts)


def embeddings_to_canonical(body: Mapping[str, Any]) -> Translated:
    """A body of ``/api/embeddings`` → an Embeddings request. Raises ``InvalidRequest``."""
    text = body.get("prompt")
    if not isinstance(text, str):
        raise InvalidRequest("prompt: must be a string.")
    return _canonical(body, "prompt", text)


def _canonical(body: Mapping[str, Any], name: str, texts: Any) -> Translated:
    request = {"model": body.get("model"), "input": texts, "encoding_format": "float"}
    if body.get("dimensions"):
        request["dimensions"] = body["dimensions"]
    dropped = Dropped()
    asked = {name: value for name, value in body.items() if not (name == "truncate" and value is True)}
    dropped.others(asked, ("model", name, "dimensions"))
    return request, dropped.names


def embed_from_canonical(answer: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's list, its vectors numbers and in order, as the answer of ``/api/embed``.

    How long it took is not known here: the durations are 0. A count that the provider did not tell is left out.
    """
    usage = answer.get("usage")
    tokens = count(usage.get("prompt_tokens")) if isinstance(usage, dict) else None
    return {
        "model": answer.get("model"),
        "embeddings": [each["embedding"] for each in answer["data"]],
        "total_duration": 0,
        "load_duration": 0,
        **({} if tokens is None else {"prompt_eval_count": tokens}),
    }


def embeddings_from_canonical(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The same as the answer of ``/api/embeddings``. Raises ``UpstreamProtocolError`` for an empty list."""
    if not answer["data"]:
        raise malformed()
    return {"embedding": answer["data"][0]["embedding"]}
