"""The scanner in windows of every size: it must accept what orjson accepts, and find what ``json`` finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import jsonscan
from gateway.errors import InvalidRequest
from gateway.jsonscan import MAX_DEPTH, MAX_FIELDS, MAX_KEYS, MAX_NUMBER, Scan, outside_strings

SHORTEST_CHUNK = 12  # a pair of escaped surrogates

texts = st.text(max_size=20) | st.sampled_from(
    ["model", "stream", 'a"b', "\\", "\\\\", "[{", "}]", ",:", "\n", "\u2028", "\U0001f600"]
)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)
objects = st.dictionaries(texts, values, max_size=6)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """A JSON object in one of the ways programs write it."""
    written = json.dumps(
        draw(objects),
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 0, 3])),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n", "\t:")])),
    )
    return written.encode(errors="surrogatepass")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A JSON object with a few bytes put in, left out or exchanged."""
    document = bytearray(draw(documents()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(document)))
        document[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from(
                [b"", b",", b":", b"[", b"]", b"{", b"}", b'"', b"\\", b"0", b"-", b"e", b"t", b"\x00", b" ", b"\x80"]
            )
        )
    return bytes(document)


@contextmanager
def windows(size: int) -> Iterator[None]:
    with (
        mock.patch.object(jsonscan, "_WINDOW", size),
        mock.patch.object(jsonscan, "_CHUNK", max(size, SHORTEST_CHUNK)),
    ):
        yield


def scan(raw: bytes) -> Scan:
    found = Scan(raw)
    while found.step():
        pass
    return found


def accepts(raw: bytes) -> bool:
    try:
        scan(raw)
    except InvalidRequest:
        return False
    return True


def is_object(raw: bytes) -> bool:
    try:
        return isinstance(orjson.loads(raw), dict)
    except orjson.JSONDecodeError:
        return False


sizes = st.sampled_from([1, 2, 3, 5, 8, 13, 21, 55, 144, 1 << 15])


@given(documents(), sizes)
@example(b'{"a":[1,2,{"b":[]},"c"],"d":"' + b"x" * 50 + b'"}', 8)
@example(b'{"a":"\\ud83d\\ude00\\ud83d\\ude00","b":"\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80"}', 1)
@example(b'{"a":[[[[[[[[[[[[1,2],3],4],5]]]]]]]]],"b":2}', 5)
def test_fields_are_found_where_they_are(raw: bytes, size: int) -> None:
    with windows(size):
        found = scan(raw)
    pairs: list[tuple[str, Any]] = json.loads(raw, object_pairs_hook=list)
    assert [(name, json.loads(raw[start:end], object_pairs_hook=list)) for name, start, end in found.fields] == pairs
    assert found.keys == outside_strings(raw).count(b":")


@given(damaged() | st.binary(max_size=20).map(lambda noise: b'{"a":' + noise + b"}"), sizes)
@example(b'{"a":[1,]}', 3)
@example(b'{"a":[1,,2]}', 1)
@example(b'{"a":[1,2,],"b":1}', 1 << 15)
@example(b'{"a":{"b":1,}}', 5)
@example(b'{"a":[1}}', 5)
@example(b'{"a":[1,2}]', 8)
@example(b'{"a":{"b",1}}', 8)
@example(b'{"a":[],]}', 8)
@example(b'{"a":[1],"b":[2]],"c":3}', 8)
@example(b'{"a":1e999,"b":[1e999,1]}', 8)
@example(b'{"a":"\\ud83d"}', 5)
@example(b'{"a":"' + b"\x80" * 40 + b'"}', 8)
def test_r37_accepts_exactly_what_orjson_accepts(raw: bytes, size: int) -> None:
    with windows(size):
        assert accepts(raw) == is_object(raw)


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 15])
@pytest.mark.parametrize("pair", [(b"[", b"]"), (b'{"a":', b"}"), (b"[1, 2,", b"]"), (b'{"b":"[{","a":', b"}")])
def test_r37_depth(size: int, pair: tuple[bytes, bytes]) -> None:
    opening, closing = pair

    def nested(levels: int) -> bytes:
        return b'{"x":' + opening * (levels - 1) + b"1" + closing * (levels - 1) + b"}"

    with windows(size):
        assert accepts(nested(MAX_DEPTH))
        with pytest.raises(InvalidRequest, match="nested deeper"):
            scan(nested(MAX_DEPTH + 1))
        with pytest.raises(InvalidRequest, match="nested deeper"):
            scan(b'{"x":' + opening * 100_000)


@pytest.mark.parametrize("leaf", [b"[]", b"{}", b'{"a":[]}', b"[{}]"])
def test_r37_empty_leaves_count_as_levels(leaf: bytes) -> None:
    levels = leaf.count(b"[") + leaf.count(b"{")
    for depth, expected in ((MAX_DEPTH - levels, True), (MAX_DEPTH - levels + 1, False)):
        raw = b'{"x":' + b"[" * (depth - 1) + b"1," + leaf + b",2" + b"]" * (depth - 1) + b"}"
        with windows(300):
            assert accepts(raw) is expected


@pytest.mark.parametrize("size", [64, 1 << 15])
def test_r37_numbers_of_any_length_up_to_the_limit(size: int) -> None:
    for template in (b'{"a":%b}', b'{"a":[%b,1]}', b'{"a":[[%b]]}', b'{"a":[{"b":%b,"c":1}]}'):
        with windows(size):
            assert accepts(template % (b"0." + b"1" * (MAX_NUMBER - 2)))
            with pytest.raises(InvalidRequest):
                scan(template % (b"0." + b"1" * (MAX_NUMBER - 1)))
            with pytest.raises(InvalidRequest):
                scan(template % (b"1e" + b"0" * MAX_NUMBER + b"1"))


@pytest.mark.parametrize("size", [64, 1 << 15])
def test_digits_in_strings_and_many_short_numbers_are_no_long_number(size: int) -> None:
    with windows(size):
        assert accepts(b'{"a":"' + b"7" * 20_000 + b'","b":["' + b"7" * 20_000 + b'",1]}')
        assert accepts(b'{"a":[' + b"123456789012345," * 2_000 + b"1]}")


def test_r37_names_are_counted_outside_strings_only() -> None:
    assert accepts(b'{"a":["' + b':\\":' * MAX_KEYS + b'"]}')
    assert accepts(b'{"a":[' + b'{"":1},' * (MAX_KEYS - 1) + b"1]}")
    with pytest.raises(InvalidRequest, match="names"):
        scan(b'{"a":[' + b'{"":1},' * MAX_KEYS + b"1]}")


def test_r37_fields_of_the_top_level() -> None:
    fields = b",".join(b'"%d":0' % number for number in range(MAX_FIELDS))
    assert len(scan(b"{%b}" % fields).fields) == MAX_FIELDS
    with pytest.raises(InvalidRequest, match="fields"):
        scan(b'{%b,"one more":0}' % fields)


def test_equal_names_are_all_given() -> None:
    raw = b'{"a":1,"\\u0061":[2],"a":"3"}'
    assert [(name, raw[start:end]) for name, start, end in scan(raw).fields] == [
        ("a", b"1"),
        ("a", b"[2]"),
        ("a", b'"3"'),
    ]


def test_a_step_is_bounded() -> None:
    """Steps of a 3 MB body move by at most a window or a chunk, so none holds the loop for long."""
    raw = b'{"a":[' + b"12345," * 200_000 + b'1],"b":"' + b"x" * 2_000_000 + b'"}' + b" " * 200_000
    found = Scan(raw)
    longest, before = 0, 0
    while found.step():
        longest, before = max(longest, found._position - before), found._position
    assert longest <= 1 << 16
