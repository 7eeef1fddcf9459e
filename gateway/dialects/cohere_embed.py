"""Answers of Cohere's ``/v2/embed`` and ``/v2/rerank`` → OpenAI's list of embeddings, and the rerank answer clients of
Jina, TEI and Cohere know. Requests are in ``cohere``."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import Any

import orjson

from gateway.dialects import vectors
from gateway.dialects.cohere import documents
from gateway.dialects.cohere_reply import count
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage

_VECTORS = re.compile(rb'"float"[ \t\r\n]*:[ \t\r\n]*\[')


def embeddings(raw: bytes, model: str, base64: bool) -> Generator[None, None, tuple[bytes, Usage]]:
    """An answer of ``/v2/embed`` as OpenAI's list, written as JSON, and its usage.

    A generator that pauses after each vector (``vectors.embeddings``). Raises ``UpstreamProtocolError``.
    """
    try:
        data, rest = yield from vectors.embeddings(raw, _VECTORS, base64)
        answer = orjson.loads(rest)
        if answer["embeddings"]["float"] != []:
            raise ValueError("vectors are left over")
        billed = (answer.get("meta") or {}).get("billed_units") or {}
        given = [count(billed.get(name)) for name in ("input_tokens", "image_tokens")]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _no_answer() from error
    known = [tokens for tokens in given if tokens is not None]
    tokens = sum(known) if known else None
    told = {"prompt_tokens": tokens or 0, "total_tokens": tokens or 0}
    whole = orjson.dumps({"object": "list", "data": data, "model": model, "usage": told})
    return whole, Usage(tokens, provenance="partial" if tokens is None else "reported")


def reply_to_rerank(body: Any, request: Mapping[str, Any], model: str) -> dict[str, Any]:
    """An answer of ``/v2/rerank``; the documents are put in where ``request``, the client's, asks for them.

    Raises ``UpstreamProtocolError``.
    """
    results = body.get("results") if isinstance(body, dict) else None
    if not isinstance(results, list):
        raise _no_answer()
    if request.get("return_documents"):
        texts = documents(request)
        try:
            results = [{**result, "document": {"text": texts[result["index"]]}} for result in results]
        except (IndexError, KeyError, TypeError) as error:
            raise _no_answer() from error
    return {**body, "object": "list", "model": model, "results": results}


def _no_answer() -> UpstreamProtocolError:
    return UpstreamProtocolError("The provider's answer is not what Cohere answers.")
