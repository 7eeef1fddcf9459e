"""Which line of a TOML text each key stands on. tomli keeps no positions, so this walks the text a second time."""

from __future__ import annotations

import re

import tomli

KeyPath = tuple[str | int, ...]
"""Keys and list indexes from the root of the document to a value."""

_BLANK = re.compile(r"[ \t]*")
_SPACE = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*'""")
# Up to two quotes may stand directly before the closing three (TOML 1.0, "String").
_STRING = re.compile(
    r'''"""(?:[^\\]|\\.)*?""""{0,2}|\'\'\'.*?\'\'\''{0,2}|"(?:[^"\\]|\\.)*"|'[^']*\'''',
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")


def locate(text: str) -> dict[KeyPath, int]:
    """Line numbers, from 1, of every key and list element in ``text``, which tomli must have accepted.

    A table that is opened by a header of its own has that header's line, else the line that mentions it first.
    Raises ``RecursionError`` where lists or inline tables nest hundreds of levels deep.
    """
    return _Walk(text.replace("\r\n", "\n")).document()


class _Walk:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted = 0
        self._line = 1
        self._lines: dict[KeyPath, int] = {}
        self._elements: dict[KeyPath, int] = {}
        """Arrays of tables → how many ``[[headers]]`` they have had so far."""

    def document(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._next():
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _next(self) -> bool:
        """Move past white space and comments; whether anything follows."""
        self._take(_SPACE)
        return self._at < len(self._text)

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError("not the TOML that tomli accepted")
        self._at = match.end()
        return match[0]

    def _current_line(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _key(self) -> list[str]:
        parts: list[str] = []
        while not parts or self._text[self._at] == ".":
            self._at += bool(parts)
            self._take(_BLANK)
            part = self._take(_KEY)
            parts.append(tomli.loads(f"key = {part}")["key"] if part[0] in "\"'" else part)
            self._take(_BLANK)
        return parts

    def _header(self) -> KeyPath:
        line = self._current_line()
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        self._at += brackets
        path: KeyPath = ()
        *parents, last = self._key()
        for part in parents:
            path = self._into((*path, part), line)
        path = (*path, last)
        if brackets == 2:
            self._lines.setdefault(path, line)
            self._elements[path] = self._elements.get(path, 0) + 1
            path = (*path, self._elements[path] - 1)
        self._lines[path] = line
        self._at += brackets
        return path

    def _into(self, path: KeyPath, line: int) -> KeyPath:
        """The table ``path`` means inside a header: of an array of tables, the latest element."""
        self._lines.setdefault(path, line)
        return (*path, self._elements[path] - 1) if path in self._elements else path

    def _pair(self, path: KeyPath) -> None:
        line = self._current_line()
        for part in self._key():
            path = (*path, part)
            self._lines.setdefault(path, line)
        self._at += 1  # the equals sign
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        self._take(_BLANK)
        first = self._text[self._at]
        if first == "[":
            self._list(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._take(_STRING if first in "\"'" else _SCALAR)

    def _list(self, path: KeyPath) -> None:
        index = 0
        while not self._closed("]"):
            self._lines[*path, index] = self._current_line()
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        while not self._closed("}"):
            self._pair(path)

    def _closed(self, bracket: str) -> bool:
        """Step over the opening bracket or a comma; whether the closing bracket comes next, which is then taken."""
        self._next()
        if self._text[self._at] in "[{,":
            self._at += 1
            self._next()
        if self._text[self._at] != bracket:
            return False
        self._at += 1
        return True
