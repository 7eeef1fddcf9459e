"""A YAML file as plain values, each with its line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from gateway.errors import ConfigError
from gateway.toml_lines import KeyPath

_MOST = 100_000
"""Values of one file, those that aliases repeat included: a few lines of aliases to aliases can stand for billions."""
_DEEPEST = 50


@attrs.frozen
class Source:
    data: Any
    """Tables, lists, strings, numbers, booleans and ``None``; dates stay the strings they were written as."""
    lines: Mapping[KeyPath, int]
    """Line of each key and list element, from 1; of what an alias repeats, the line of the original."""

    def line(self, path: KeyPath) -> int:
        """Of ``path``, or of the nearest value around it; 0 for the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def read(path: Path, text: str) -> Source:
    """Raises ``ConfigError``: without PyYAML, and for what is no YAML, with the line and no piece of the content."""
    try:
        import yaml
    except ImportError:
        raise ConfigError(["reading this file needs PyYAML: pip install 'hookgate[import]'"]) from None
    # Its constructors know no tags but those of YAML itself, and no others are asked for below.
    loader: Any = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        walk = _Walk(loader)
        return Source(None if node is None else walk.value(node, ()), walk.lines)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        # Of the whole message, a part quotes the file, which may hold keys.
        raise ConfigError([f"{path}:{line}: {getattr(error, 'problem', None) or 'not YAML'}."]) from None
    except Unreadable as error:
        raise ConfigError([f"{path}:{error.line}: {error}"]) from None
    except RecursionError:
        raise ConfigError([f"{path}:1: nested too deep."]) from None
    finally:
        if loader is not None:
            loader.dispose()


class Unreadable(ValueError):
    def __init__(self, node: Any, message: str) -> None:
        super().__init__(message)
        self.line: int = node.start_mark.line + 1


class _Walk:
    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._left = _MOST
        self.lines: dict[KeyPath, int] = {}

    def value(self, node: Any, path: KeyPath) -> Any:
        self._left -= 1
        if self._left < 0 or len(path) > _DEEPEST:
            raise Unreadable(node, "too many values, or nested too deep.")
        self.lines.setdefault(path, node.start_mark.line + 1)
        if node.id == "mapping":
            return self._mapping(node, path)
        if node.id == "sequence":
            return [self.value(element, (*path, index)) for index, element in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: Any, path: KeyPath) -> dict[str, Any]:
        self._loader.flatten_mapping(node)  # the merges, "<<: *other"
        found: dict[str, Any] = {}
        for name, value in node.value:
            if name.id != "scalar":
                raise Unreadable(name, "expected a name.")
            key = _text(name)
            self.lines[*path, key] = name.start_mark.line + 1
            found[key] = self.value(value, (*path, key))
        return found

    def _scalar(self, node: Any) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind == "null":
            return None
        if kind not in ("bool", "int", "float"):
            return _text(node)
        try:
            value = self._loader.construct_object(node)
        except (ValueError, KeyError):  # thousands of digits, or a tag that does not fit
            raise Unreadable(node, "not a number or boolean.") from None
        return value


def _text(node: Any) -> str:
    value = str(node.value)
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise Unreadable(node, "not a text: half a surrogate pair.")
    return value
