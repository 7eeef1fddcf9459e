"""Tables as the text of a ``gateway.toml``; tomli reads and does not write."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_WIDTH = 120
_LONG = ("prices", "models")
"""Tables below it are long, and get headers, too."""


def write(document: Mapping[str, Any]) -> str:
    """``document`` in TOML 1.0. Tables up to two levels deep get headers of their own, those below are inline.

    Values are strings, booleans, numbers, lists and tables; strings hold no surrogates.
    """
    return "\n".join(_table(document, ())).strip("\n") + "\n"


def key(name: str) -> str:
    """A bare key where that is possible, else a quoted one."""
    return name if _BARE.fullmatch(name) else text(name)


def text(value: str) -> str:
    """A basic string. TOML escapes as JSON does, and DEL besides."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    inner = {
        name: value for name, value in table.items() if isinstance(value, Mapping) and (len(path) < 2 or path == _LONG)
    }
    plain = {name: value for name, value in table.items() if name not in inner}
    if path and (plain or not inner):
        yield f"[{'.'.join(map(key, path))}]"
    for name, value in plain.items():
        yield f"{key(name)} = {_value(value, len(key(name)) + 3)}"
    if plain or not inner:
        yield ""
    for name, value in inner.items():
        yield from _table(value, (*path, name))


def _value(value: Any, column: int = 0) -> str:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{key(name)} = {_value(inner)}" for name, inner in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list):
        elements = [_value(element) for element in value]
        line = f"[{', '.join(elements)}]"
        if not column or column + len(line) <= _WIDTH:
            return line
        return "[\n" + "".join(f"    {element},\n" for element in elements) + "]"
    return repr(value)
