"""Lists of vectors inside an answer → OpenAI's list of embeddings, in steps and with every number as it is spelt."""

from __future__ import annotations

import re
import struct
from base64 import b64encode
from collections.abc import Generator
from typing import Any

import orjson

_VECTOR = re.compile(rb"[ \t\r\n,]*\[")


def embeddings(
    raw: bytes, opening: re.Pattern[bytes], base64: bool
) -> Generator[None, None, tuple[list[dict[str, Any]], bytes]]:
    """The vectors behind ``opening``, which ends with their list's bracket, and the answer without them.

    A generator that pauses after each vector and returns its result at the end: a thousand vectors, which LangChain
    asks for at once, are 11 MB, and other exchanges must have their turn meanwhile. ``base64`` is little-endian
    float32, what most SDKs ask for. Raises ``ValueError`` where there are no vectors of numbers.
    """
    start = opening.search(raw)
    if start is None:
        raise ValueError("no list of vectors")
    data: list[dict[str, Any]] = []
    position = start.end()
    while vector := _VECTOR.match(raw, position):
        position = raw.find(b"]", vector.end()) + 1
        shown = _shown(raw[vector.end() - 1 : position], base64)
        data.append({"object": "embedding", "index": len(data), "embedding": shown})
        yield
    return data, raw[: start.end()] + raw[position:]


def _shown(vector: bytes, base64: bool) -> Any:
    try:
        numbers = orjson.loads(vector)
        return b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode() if base64 else orjson.Fragment(vector)
    except (struct.error, OverflowError) as error:
        raise ValueError("not a vector of numbers") from error
