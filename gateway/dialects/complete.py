"""Is an answer whole? Only what is may stand for the answers to later requests.

The relay has already seen the stream's terminal marker; a model can still have been cut off, and an error can hide in
a 200. PROTOCOLS: error inside a chunk (OpenRouter, Groq), ``finish_reason`` null or ``error`` (Mistral).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from gateway.dialects.sse import parse_events

# Reasons that say part of the answer was withheld or never made.
_UNFINISHED = frozenset({"", "error", "content_filter"})
_PARSED = 1 << 16  # bytes of a whole answer that cost next to nothing to parse
# Surface → the list that holds its results.
_RESULTS = {"embeddings": "data", "moderations": "results", "rerank": "results"}


def is_whole_json(body: bytes) -> bool:
    """Whether ``body`` is JSON to its end. Of a large one only the end is looked at."""
    if len(body) > _PARSED:
        return body[-64:].rstrip().endswith((b"}", b"]"))
    try:
        orjson.loads(body)
    except ValueError:
        return _is_whole_python_json(body)
    return True


def _is_whole_python_json(body: bytes) -> bool:
    """With ``NaN`` and the like, which some servers send as a log probability and Python's clients take."""
    try:
        json.loads(body)
    except ValueError:
        return False
    except RecursionError:  # deep, not short
        return True
    return True


def is_complete(surface: str, body: bytes, streamed: bool) -> bool:
    """Whether ``body``, the bytes of a 200 answer of ``surface``, is a complete success. Unknown surfaces never are."""
    try:
        if surface in ("chat", "completions"):
            return _all_finished(_events(body) if streamed else [orjson.loads(body)])
        if surface in _RESULTS and not streamed:
            answer = orjson.loads(body)
            return _is_success(answer) and bool(answer.get(_RESULTS[surface]))
    except ValueError:
        return False
    return False


def _events(body: bytes) -> Iterator[Any]:
    for _, _, data in parse_events(body):
        if data and data != b"[DONE]":
            yield orjson.loads(data)


def _is_success(answer: Any) -> bool:
    return isinstance(answer, dict) and not answer.get("error")


def _all_finished(chunks: Iterable[Any]) -> bool:
    """Every choice that began has ended, by itself or at the length the client asked for."""
    reasons: dict[str, Any] = {}
    for chunk in chunks:
        choices = (chunk.get("choices") or []) if _is_success(chunk) else None
        if not isinstance(choices, list):
            return False
        for choice in choices:
            if not isinstance(choice, dict):
                return False
            index = str(choice.get("index", 0))
            reasons[index] = choice.get("finish_reason") or reasons.get(index)
    return bool(reasons) and all(isinstance(reason, str) and reason not in _UNFINISHED for reason in reasons.values())
