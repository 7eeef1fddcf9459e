"""Vectors out of an answer, with numbers as they are spelt or packed."""

from __future__ import annotations

import re
import struct
from base64 import b64decode
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import vectors

OPENING = re.compile(rb'"v" ?: ?\[')


def run(raw: bytes, base64: bool = False) -> tuple[list[Any], bytes, int]:
    steps = vectors.embeddings(raw, OPENING, base64)
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            data, rest = end.value
            return orjson.loads(orjson.dumps(data)), rest, count
        count += 1


floats = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=5)


@given(st.lists(floats, max_size=5), st.sampled_from([b"", b" ", b"\n\t"]))
def test_vectors_of_any_spelling(expected: list[list[float]], space: bytes) -> None:
    listed = b",".join([space + orjson.dumps(vector) for vector in expected])
    raw = b'{"a":1,"v" :[' + listed + space + b'],"b":[2]}'
    data, rest, steps = run(raw)
    assert [item["embedding"] for item in data] == expected
    assert [item["index"] for item in data] == list(range(len(expected))) and steps == len(expected)
    assert orjson.loads(rest) == {"a": 1, "v": [], "b": [2]}
    packed = [b64decode(item["embedding"]) for item in run(raw, base64=True)[0]]
    assert packed == [struct.pack(f"<{len(vector)}f", *vector) for vector in expected]


def test_numbers_are_not_spelt_anew() -> None:
    steps = vectors.embeddings(b'{"v":[[0.10,1e-3]]}', OPENING, False)
    next(steps)
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert b"[0.10,1e-3]" in orjson.dumps(end.value.value[0])


@pytest.mark.parametrize("raw", [b"{}", b"", b'{"v":[["x"]]}', b'{"v":[[1e300]]}', b'{"v":[[1'])
def test_what_holds_no_vectors_of_numbers(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        run(raw, base64=True)


def asked(answer: Any, base64: bool) -> tuple[Any, int]:
    """The list as it would be sent, and the number of pauses."""
    steps, count = vectors.as_asked(answer, base64), 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return orjson.loads(orjson.dumps(end.value)), count
        count += 1


@given(st.lists(floats, max_size=5), st.booleans())
def test_there_and_back_again_is_the_same(expected: list[list[float]], as_text: bool) -> None:
    listed = {
        "data": [{"index": index, "embedding": each} for index, each in enumerate(expected)],
        "note": '"embedding":[',
    }
    packed, steps = asked(orjson.dumps(listed) if as_text else listed, True)
    assert steps >= len(expected)
    assert all(isinstance(each["embedding"], str) for each in packed["data"])
    assert asked(orjson.dumps(packed) if as_text else packed, False)[0] == listed
    assert asked(orjson.dumps(listed), False)[0] == listed
    if expected:
        assert vectors.fits(orjson.dumps(packed), True) and vectors.fits(orjson.dumps(listed), False)
        assert not vectors.fits(orjson.dumps(packed), False) and not vectors.fits(orjson.dumps(listed), True)


def test_numbers_pass_as_they_are_spelt() -> None:
    steps = vectors.as_asked(b'{"data": [{"embedding": [1.50, 2E0]}]}', False)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            assert b"[1.50, 2E0]" in orjson.dumps(end.value)
            return
