"""JSON arrays cut anywhere, and arrays written one element at a time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.gemini_array import ArraySplitter, ArrayWriter
from tests.support.gemini import cut

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
objects = st.lists(st.dictionaries(st.text('ab"\\{}[]', max_size=4), json_values, max_size=3), max_size=4)


@given(objects, st.lists(st.integers(0, 10_000), max_size=6), st.booleans(), st.none() | st.just(1))
def test_elements_come_out_whole_wherever_the_stream_is_cut(
    elements: list[Any], places: list[int], plain: bool, indent: int | None
) -> None:
    body = json.dumps(elements, ensure_ascii=plain, indent=indent).encode()
    splitter = ArraySplitter()
    found = [json.loads(element) for block in cut(body, places) for element in splitter.feed(block)]
    assert found == elements and splitter.done


def test_every_byte_alone() -> None:
    elements = [{"a": 'x"\\{[', "b": [{"c": []}]}, {}]
    splitter = ArraySplitter()
    found = [each for byte in json.dumps(elements).encode() for each in splitter.feed(bytes([byte]))]
    assert [json.loads(each) for each in found] == elements and splitter.done


def test_an_element_is_given_out_before_the_next_one_comes() -> None:
    splitter = ArraySplitter()
    assert splitter.feed(b'[{"a": 1}\n') == [b'{"a": 1}']
    assert splitter.feed(b',\r\n{"a"') == [] and not splitter.done
    assert splitter.feed(b": 2}]\n") == [b'{"a": 2}'] and splitter.done


@pytest.mark.parametrize("body", [b"{}", b"[1]", b'["a"]', b"[[]]", b"[}", b"[]]", b"[] {}", b"[]1", b"null", b"]"])
def test_what_is_no_array_of_objects_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="not a JSON array"):
        ArraySplitter().feed(body)


def test_an_element_beyond_the_limit_is_refused() -> None:
    splitter = ArraySplitter(limit=10)
    splitter.feed(b'[{"a":"bcd')
    with pytest.raises(ValueError, match="longer than 10 bytes"):
        splitter.feed(b"efghijk")


@given(objects)
def test_what_is_written_is_read_again(elements: list[Any]) -> None:
    writer = ArrayWriter()
    body = b"".join([writer.element(json.dumps(element).encode()) for element in elements]) + writer.end()
    assert json.loads(body) == elements
    assert [json.loads(each) for each in ArraySplitter().feed(body)] == elements


def test_without_its_end_an_array_is_not_complete() -> None:
    splitter = ArraySplitter()
    splitter.feed(ArrayWriter().element(b"{}"))
    assert not splitter.done
