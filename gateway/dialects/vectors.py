"""Lists of vectors inside an answer → OpenAI's list of embeddings, in steps and with every number as it is spelt."""

from __future__ import annotations

import re
import struct
from base64 import b64decode, b64encode
from collections.abc import Generator, Mapping
from typing import Any

import orjson

_VECTOR = re.compile(rb"[ \t\r\n,]*\[")
# A text cannot hold this: inside one the quotes are escaped.
_EMBEDDING = re.compile(rb'"embedding"[ \t\r\n]*:[ \t\r\n]*(?=(["\[]))')


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


def fits(raw: bytes, base64: bool) -> bool:
    """Whether OpenAI's list, as JSON, has its vectors in the form that is asked for."""
    first = _EMBEDDING.search(raw)
    return first is not None and (first[1] == b'"') is base64


def as_asked(answer: bytes | Mapping[str, Any], base64: bool) -> Generator[None, None, dict[str, Any]]:
    """OpenAI's list of embeddings, as JSON or an object, with its vectors in the form that is asked for and in order.

    Base64 becomes numbers or stays, and likewise numbers, which pass as they are spelt (``orjson.Fragment`` where the
    list came as JSON). A generator as ``embeddings``. Raises ``ValueError`` for what is no such list.
    """
    told, spelt = (yield from _taken_out(answer)) if isinstance(answer, bytes) else (answer, None)
    data = told.get("data") if isinstance(told, Mapping) else None
    if not isinstance(data, list):
        raise ValueError("no list of embeddings")
    made: list[dict[str, Any]] = []
    for each in data:
        if not isinstance(each, dict):
            raise ValueError("no embedding")
        vector = each.get("embedding")
        if spelt is not None:
            if type(vector) is not int or not 0 <= vector < len(spelt):
                raise ValueError("an embedding without a vector")
            vector = spelt[vector]
        made.append({**each, "embedding": _formed(vector, base64)})
        yield
    return {**told, "data": sorted(made, key=_place)}


def _taken_out(raw: bytes) -> Generator[None, None, tuple[Any, list[Any]]]:
    """The answer with the number of a vector in each one's place, and the vectors: JSON, or text in base64."""
    pieces: list[bytes] = []
    spelt: list[Any] = []
    position = 0
    while opening := _EMBEDDING.search(raw, position):
        start = opening.end()
        text = opening[1] == b'"'
        pieces += [raw[position:start], b"%d" % len(spelt)]
        position = raw.find(b'"' if text else b"]", start + 1) + 1
        if not position:
            raise ValueError("a vector without an end")
        spelt.append(raw[start + 1 : position - 1].decode() if text else raw[start:position])
        yield
    return orjson.loads(b"".join([*pieces, raw[position:]])), spelt


def _formed(vector: Any, base64: bool) -> Any:
    if isinstance(vector, bytes):
        return _shown(vector, base64)
    if isinstance(vector, str):
        if base64:
            return vector
        plain = b64decode(vector, validate=True)
        try:
            return list(struct.unpack(f"<{len(plain) // 4}f", plain))
        except struct.error as error:
            raise ValueError("not a vector of numbers") from error
    if not isinstance(vector, list):
        raise ValueError("not a vector")
    return _packed(vector) if base64 else vector


def _place(each: Mapping[str, Any]) -> int:
    index = each.get("index")
    return index if type(index) is int else 0


def _shown(vector: bytes, base64: bool) -> Any:
    numbers = orjson.loads(vector)
    return _packed(numbers) if base64 else orjson.Fragment(vector)


def _packed(numbers: list[float]) -> str:
    try:
        return b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
    except (struct.error, OverflowError) as error:
        raise ValueError("not a vector of numbers") from error
