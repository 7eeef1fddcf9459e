"""The providers file of an earlier router, in the YAML such files were written in; anything else is an error.

A list ``providers:`` of ``- name: …`` with ``type:`` (``openai`` or ``ollama``), ``base_url:`` and, if there is a key,
``api_key_env:``, the name of the environment variable that holds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.structure import did_you_mean

FIELDS = ("name", "type", "base_url", "api_key_env")
_TYPES = {"openai": "openai_compat", "ollama": "ollama"}
_LINE = re.compile(r"(?P<indent> *)(?P<dash>- +)?(?P<key>[A-Za-z_]+):(?: +(?P<value>.*))?")
# What would start a quoted string, list, alias, tag, block or other construct in YAML.
_PLAIN = re.compile(r"(?!.*: )[^\s\"'\[\]{}&*!|>%@`,#?-][^\"]*")


def parse(text: str) -> dict[str, tuple[int, dict[str, str]]]:
    """Provider name → line and its table as it would stand in ``gateway.toml``. Raises ``YamlError``."""
    found: dict[str, tuple[int, dict[str, str]]] = {}
    for line, entry in _entries(text):
        for field in FIELDS[:3]:
            if not entry.get(field):
                raise YamlError(line, f"this provider has no {field}.")
        if entry["type"] not in _TYPES:
            raise YamlError(line, f"type must be openai or ollama.{did_you_mean(entry['type'], _TYPES)}")
        if entry["name"] in found:
            raise YamlError(line, f"a second provider is called '{entry['name']}'.")
        table = {"type": _TYPES[entry["type"]], "base_url": entry["base_url"]}
        if entry.get("api_key_env"):
            table["api_key"] = f"env:{entry['api_key_env']}"
        found[entry["name"]] = line, table
    return found


class YamlError(ValueError):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def _entries(text: str) -> list[tuple[int, dict[str, str]]]:
    """Line and fields of each list element."""
    entries: list[tuple[int, dict[str, str]]] = []
    indent = 0
    for index, (number, match) in enumerate(_lines(text)):
        column, value = match.start("key"), match["value"] or ""
        if index == 0:
            if match["key"] != "providers" or column or value:
                raise YamlError(number, 'expected "providers:" and below it a list.')
            continue
        if match["dash"]:
            indent = indent or column
            entries.append((number, {}))
        if not entries or column != indent:
            raise YamlError(number, "the indentation does not fit the lines above.")
        _add(number, entries[-1][1], match["key"], value)
    return entries


def _lines(text: str) -> Iterator[tuple[int, re.Match[str]]]:
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*", "", raw).rstrip()
        if not line or line == "---":
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise YamlError(number, 'expected "- name: value" or "name: value"; other YAML is not read.')
        yield number, match


def _add(number: int, entry: dict[str, str], key: str, value: str) -> None:
    if key not in FIELDS:
        raise YamlError(number, f"unknown key '{key}'.{did_you_mean(key, FIELDS)}")
    if key in entry:
        raise YamlError(number, f"'{key}' is given twice.")
    entry[key] = _scalar(number, value)


def _scalar(number: int, value: str) -> str:
    for quote in "\"'":
        if len(value) > 1 and value[0] == value[-1] == quote and not {quote, "\\"} & set(value[1:-1]):
            return value[1:-1]
    if value in ("null", "~"):
        return ""
    if value and not _PLAIN.fullmatch(value):
        raise YamlError(number, "expected a plain or quoted value; other YAML is not read.")
    return value
