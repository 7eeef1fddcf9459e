"""JSON Schema ⇄ the subset of OpenAPI 3.0 in Gemini's ``parameters`` and ``responseSchema``.

The subset knows no ``$ref``, ``oneOf``, ``allOf``, ``const`` or ``additionalProperties``, no lists of types, enums of
strings only and few formats; Gemini answers 400 to what it does not know. ``parametersJsonSchema`` and
``responseJsonSchema`` take JSON Schema itself: this is for models that do not have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects.dropped import Dropped

_KEPT = frozenset({
    "title", "description", "nullable", "default", "required", "maxItems", "minItems", "minProperties",
    "maxProperties", "minimum", "maximum", "minLength", "maxLength", "pattern", "example", "propertyOrdering",
})  # fmt: skip
_FORMATS = frozenset({"enum", "date-time", "int32", "int64", "float", "double"})
_TRANSLATED = frozenset({
    "$ref", "$defs", "definitions", "$schema", "$id", "$comment", "type", "format", "enum", "const", "items",
    "properties", "anyOf", "oneOf", "allOf",
})  # fmt: skip
_HARMLESS = {"additionalProperties": False}  # what Gemini does anyway
_DEEPEST = 64
_TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})


def to_openapi(schema: Mapping[str, Any], dropped: Dropped, where: str) -> dict[str, Any]:
    """``schema`` in the subset; keywords it has no word for are added to ``dropped`` below ``where``.

    References are written out in place; one that leads into itself becomes an object of any shape.
    """
    definitions: dict[str, Any] = {}
    for name in ("$defs", "definitions"):
        found = schema.get(name)
        if isinstance(found, dict):
            definitions.update({f"#/{name}/{key}": value for key, value in found.items()})
    return _Writer(definitions, dropped, where).write(schema, ())


class _Writer:
    __slots__ = ("_definitions", "_dropped", "_where")

    def __init__(self, definitions: Mapping[str, Any], dropped: Dropped, where: str) -> None:
        self._definitions = definitions
        self._dropped = dropped
        self._where = where

    def write(self, schema: Any, inside: tuple[str, ...]) -> dict[str, Any]:
        """``inside``: the references being written out around this place, and one mark for each level."""
        if not isinstance(schema, dict):  # true and false are schemas too
            if schema is not True:
                self._dropped.add(f"{self._where}false")
            return {}
        if len(inside) > _DEEPEST:
            self._dropped.add(f"{self._where}depth")
            return {"type": "OBJECT"}
        inside = (*inside, "")
        reference = schema.get("$ref")
        if isinstance(reference, str):
            return self._reference(reference, schema, inside)
        made = {name: value for name, value in schema.items() if name in _KEPT}
        self._type(made, schema)
        self._values(made, schema)
        self._inner(made, schema, inside)
        for name, value in schema.items():
            if name not in _KEPT and name not in _TRANSLATED and _HARMLESS.get(name, _HARMLESS) != value:
                self._dropped.add(self._where + name)
        return made

    def _reference(self, reference: str, schema: Mapping[str, Any], inside: tuple[str, ...]) -> dict[str, Any]:
        target = self._definitions.get(reference)
        if target is None or reference in inside:
            self._dropped.add(f"{self._where}ref")
            made: dict[str, Any] = {"type": "OBJECT"}
        else:
            made = self.write(target, (*inside, reference))
        return made | {name: schema[name] for name in ("description", "title", "default") if name in schema}

    def _type(self, made: dict[str, Any], schema: Mapping[str, Any]) -> None:
        kinds = schema.get("type")
        known = [kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if isinstance(kind, str)]
        proper = [kind for kind in known if kind != "null"]
        if len(proper) < len(known):
            made["nullable"] = True
        if len(proper) == 1:
            made["type"] = proper[0].upper()
        elif proper:
            made["anyOf"] = [{"type": kind.upper()} for kind in proper]
        elif known:
            made["type"] = "NULL"
        form = schema.get("format")
        if form in _FORMATS:
            made["format"] = form
        elif form is not None:
            self._dropped.add(f"{self._where}format")

    def _values(self, made: dict[str, Any], schema: Mapping[str, Any]) -> None:
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if not isinstance(values, list):
            return
        strings = [value for value in values if isinstance(value, str)]
        if None in values:
            made["nullable"] = True
        if strings and len(strings) == len([value for value in values if value is not None]):
            made["enum"] = strings
            made.setdefault("type", "STRING")
        else:
            self._dropped.add(f"{self._where}enum")
            if all(type(value) is int for value in values):
                made.setdefault("type", "INTEGER")

    def _inner(self, made: dict[str, Any], schema: Mapping[str, Any], inside: tuple[str, ...]) -> None:
        properties = schema.get("properties")
        if isinstance(properties, dict) and properties:
            made["properties"] = {name: self.write(inner, inside) for name, inner in properties.items()}
            made.setdefault("type", "OBJECT")
        if isinstance(items := schema.get("items"), dict):
            made["items"] = self.write(items, inside)
        elif made.get("type") == "ARRAY":
            made["items"] = {}  # an array without it is answered 400
        for part in schema["allOf"] if isinstance(schema.get("allOf"), list) else ():
            _merge(made, self.write(part, inside))
        for word in ("anyOf", "oneOf"):
            choices = schema.get(word)
            if isinstance(choices, list) and choices:
                self._choices(made, choices, inside)

    def _choices(self, made: dict[str, Any], choices: list[Any], inside: tuple[str, ...]) -> None:
        written = [self.write(choice, inside) for choice in choices]
        proper = [choice for choice in written if choice.get("type") != "NULL"]
        if len(proper) < len(written):
            made["nullable"] = True
        if len(proper) == 1:
            _merge(made, proper[0])
        elif proper:
            made["anyOf"] = proper


def _merge(made: dict[str, Any], other: Mapping[str, Any]) -> None:
    for name, value in other.items():
        if name == "properties":
            made["properties"] = {**made.get("properties", {}), **value}
        elif name == "required" and isinstance(value, list) and isinstance(made.get(name), list):
            made["required"] = [*made["required"], *(each for each in value if each not in made["required"])]
        else:
            made.setdefault(name, value)


def from_openapi(schema: Any, depth: int = 0) -> Any:
    """A schema of the subset, in camelCase or snake_case, as JSON Schema. Unknown keywords stay what they are."""
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return schema
    made: dict[str, Any] = {}
    for key, value in schema.items():
        _keyword(made, camel(key), value, depth + 1)
    if schema.get("nullable") is True:
        _nullable(made)
    return made


def _keyword(made: dict[str, Any], name: str, value: Any, depth: int) -> None:
    if name == "type" and isinstance(value, str):
        if value.lower() in _TYPES:  # not TYPE_UNSPECIFIED
            made["type"] = value.lower()
    elif name in ("properties", "defs", "$defs") and isinstance(value, dict):
        made["$defs" if name == "defs" else name] = {k: from_openapi(inner, depth) for k, inner in value.items()}
    elif name == "anyOf" and isinstance(value, list):
        made[name] = [from_openapi(inner, depth) for inner in value]
    elif name in ("items", "additionalProperties"):
        made[name] = from_openapi(value, depth)
    elif name == "ref":
        made["$ref"] = value
    elif name == "example":
        made["examples"] = [value]
    elif name not in ("nullable", "propertyOrdering"):  # the order of the properties says the latter already
        made[name] = _number(value) if name.startswith(("min", "max")) else value


def _number(value: Any) -> Any:
    """64-bit integers are strings in JSON that protocol buffers write."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20 else value


def _nullable(made: dict[str, Any]) -> None:
    if isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
        if isinstance(made.get("enum"), list):
            made["enum"] = [*made["enum"], None]
    elif "anyOf" in made:
        made["anyOf"] = [*made["anyOf"], {"type": "null"}]


def camel(name: str) -> str:
    """``snake_case`` → ``camelCase``; protocol buffers take both in JSON."""
    head, *words = name.split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in words) if head and words else name
