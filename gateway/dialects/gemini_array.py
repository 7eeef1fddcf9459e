"""A JSON array as it arrives and as it is written, one element at a time: Gemini's stream without ``alt=sse``."""

from __future__ import annotations

import re

from gateway.dialects.sse import LIMIT

_OUTSIDE = re.compile(rb'["{}\[\]]|[^\s,"{}\[\]]')
_INSIDE = re.compile(rb'["\\]')


class ArraySplitter:
    """Cuts a stream into the elements of its array, which are objects. Time is linear in the size of one."""

    __slots__ = ("_depth", "_escaped", "_inside", "_limit", "_parts", "_size", "done")

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._parts: list[bytes] = []  # an element not yet complete
        self._size = 0
        self._depth = 0
        self._inside = False  # a string
        self._escaped = False  # the chunk ended behind a backslash
        self.done = False
        """The closing bracket came."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The elements that ``chunk``, cut anywhere, completes, as they are spelt.

        Raises ``ValueError`` for what is no array of objects and for an element beyond the limit.
        """
        elements: list[bytes] = []
        start = 0
        position = 1 if self._escaped and chunk else 0
        self._escaped = self._escaped and not chunk
        while (match := (_INSIDE if self._inside else _OUTSIDE).search(chunk, position)) is not None:
            position = match.end()
            mark = match[0]
            if mark == b'"':
                self._check(self._depth > 1)
                self._inside = not self._inside
            elif mark == b"\\":
                position += 1
                self._escaped = position > len(chunk)
            elif mark in (b"{", b"["):
                self._opens(mark)
                if mark == b"{" and self._depth == 2:
                    start = match.start()
            elif mark in (b"}", b"]"):
                self._closes(mark)
                if self._depth == 1:
                    elements.append(b"".join([*self._parts, chunk[start:position]]))
                    self._parts, self._size = [], 0
            else:
                self._check(self._depth > 1)  # a number, true, false or null
        if self._depth > 1:
            self._keep(chunk[start:])
        return elements

    def _opens(self, mark: bytes) -> None:
        self._check(not self.done and (self._depth > 1 or mark == (b"{" if self._depth else b"[")))
        self._depth += 1

    def _closes(self, mark: bytes) -> None:
        self._check(self._depth > (0 if mark == b"]" else 1))
        self._depth -= 1
        self.done = self._depth == 0

    def _keep(self, begun: bytes) -> None:
        self._size += len(begun)
        if self._size > self._limit:
            raise ValueError(f"an element is longer than {self._limit} bytes")
        self._parts.append(begun)

    def _check(self, right: bool) -> None:
        if not right:
            raise ValueError("not a JSON array of objects")


class ArrayWriter:
    """Frames elements as Gemini does. Without ``end`` the array stays open, and no reader takes it for complete."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun = False

    def element(self, data: bytes) -> bytes:
        """One element, JSON, with what separates it from the one before."""
        head = b",\r\n" if self._begun else b"["
        self._begun = True
        return head + data

    def end(self) -> bytes:
        """The closing bracket; an array without elements is one, too."""
        return b"]" if self._begun else b"[]"
