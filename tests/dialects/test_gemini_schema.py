"""JSON Schema ⇄ Gemini's subset of OpenAPI."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.dropped import Dropped
from gateway.dialects.gemini_schema import camel, from_openapi, to_openapi


def written(schema: Any) -> tuple[dict[str, Any], list[str]]:
    dropped = Dropped()
    return to_openapi(schema, dropped, "s."), dropped.names


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": ["string", "null"], "format": "date-time"},
         {"type": "STRING", "nullable": True, "format": "date-time"}),
        ({"type": ["string", "integer"]}, {"anyOf": [{"type": "STRING"}, {"type": "INTEGER"}]}),
        ({"const": "a"}, {"type": "STRING", "enum": ["a"]}),
        ({"enum": ["a", None]}, {"type": "STRING", "enum": ["a"], "nullable": True}),
        ({"oneOf": [{"type": "string"}, {"type": "number"}]}, {"anyOf": [{"type": "STRING"}, {"type": "NUMBER"}]}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}], "description": "d"},
         {"type": "STRING", "nullable": True, "description": "d"}),
        ({"allOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b"]}]},
         {"type": "OBJECT", "properties": {"a": {}, "b": {}}, "required": ["a", "b"]}),
        ({"type": "array"}, {"type": "ARRAY", "items": {}}),
        ({"$defs": {"A": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/A", "description": "d"}}},
         {"type": "OBJECT", "properties": {"a": {"type": "STRING", "description": "d"}}}),
        ({"type": "object", "additionalProperties": False, "$schema": "x"}, {"type": "OBJECT"}),
    ],
)  # fmt: skip
def test_what_the_subset_can_say(schema: Any, expected: Any) -> None:
    assert written(schema) == (expected, [])


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        ({"additionalProperties": True}, ["s.additionalProperties"]),
        ({"patternProperties": {}, "type": "object"}, ["s.patternProperties"]),
        ({"type": "string", "format": "uri"}, ["s.format"]),
        ({"enum": [1, 2]}, ["s.enum"]),
        ({"$ref": "other.json"}, ["s.ref"]),
        ({"properties": {"a": False}}, ["s.false"]),
    ],
)
def test_what_it_cannot_say_is_told(schema: Any, names: list[str]) -> None:
    assert written(schema)[1] == names


def test_a_schema_that_contains_itself_ends() -> None:
    schema = {"$defs": {"N": {"properties": {"next": {"$ref": "#/$defs/N"}}}}, "$ref": "#/$defs/N"}
    made, names = written(schema)
    assert made == {"type": "OBJECT", "properties": {"next": {"type": "OBJECT"}}} and names == ["s.ref"]


def test_nesting_has_an_end() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(500):
        schema = {"type": "array", "items": schema}
    assert "s.depth" in written(schema)[1]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "STRING", "nullable": True, "enum": ["a"]}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"any_of": [{"type": "STRING"}], "nullable": True}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ({"type": "ARRAY", "max_items": "5", "minItems": 1, "items": {"type": "TYPE_UNSPECIFIED"}},
         {"type": "array", "maxItems": 5, "minItems": 1, "items": {}}),
        ({"example": 1, "propertyOrdering": ["a"], "properties": {"max_items": {"type": "INTEGER"}}},
         {"examples": [1], "properties": {"max_items": {"type": "integer"}}}),
        ({"ref": "#/$defs/A", "defs": {"A": {"type": "STRING"}}},
         {"$ref": "#/$defs/A", "$defs": {"A": {"type": "string"}}}),
        ("x", "x"),
    ],
)  # fmt: skip
def test_the_subset_as_json_schema(schema: Any, expected: Any) -> None:
    assert from_openapi(schema) == expected


def test_names() -> None:
    names = ["max_output_tokens", "maxOutputTokens", "_x", "a__b", "a"]
    assert [camel(name) for name in names] == ["maxOutputTokens", "maxOutputTokens", "_x", "aB", "a"]


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["string", "object", "#/$defs/a", "null"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "$ref", "$defs", "a", "properties", "items", "anyOf", "allOf", "enum", "const"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def keywords(schema: Any) -> set[str]:
    """Those of a schema of the subset and of all in it; names of properties and values are none."""
    found = set(schema)
    for inner in [
        *schema.get("properties", {}).values(),
        *schema.get("anyOf", []),
        *([schema["items"]] if "items" in schema else []),
    ]:
        found |= keywords(inner)
    return found


@given(st.dictionaries(st.sampled_from(["type", "$ref", "$defs", "properties", "items", "allOf", "enum"]), json_values))
def test_any_schema_is_written_with_words_of_the_subset(schema: Any) -> None:
    made, _ = written(schema)
    assert not keywords(made) & {"$ref", "const", "allOf", "$defs"}
    json.dumps(from_openapi(made))
