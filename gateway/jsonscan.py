"""Finds the top-level fields of a JSON object without building it, one bounded step at a time.

Why not ``orjson.loads``: it holds the GIL for the whole body (44 MB of token ids: 270 ms), keeps only the last of two
equal names and tells no offsets. There is no C tokeniser among our dependencies; regular expressions with possessive
repeats (Python 3.11) take whole runs of members inside one C call.

What is accepted is exactly RFC 8259, with the limits of this module. The expressions take the ordinary cases fast;
whatever they decline goes token by token, and orjson judges each odd token, so that both ways of reading agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import orjson

from gateway.errors import InvalidRequest

MAX_DEPTH = 100
"""Brackets open at once; the top-level object counts."""
MAX_KEYS = 100_000
"""Names in all objects of a body together."""
MAX_FIELDS = 1_000
"""Names in the top-level object; no API has a tenth of it."""
MAX_NUMBER = 4_300
"""Characters of one number; what Python's ``int`` takes (``sys.int_info.default_max_str_digits``)."""

Field = tuple[str, int, int]
"""Decoded name, offset of the value's first byte, offset behind its last."""

_WINDOW = 1 << 14  # bytes one expression may look at: at 10 ns a byte it holds the GIL for 0.2 ms
_CHUNK = 1 << 18  # bytes of a long string checked at once: 0.1 ms, most of it memchr and memcpy
_LONGEST_NAME = 1_024  # a name of more raw bytes is none we look for, even with every letter escaped
_LATER_BYTES = frozenset(bytes([byte]) for byte in range(0x80, 0xC0))  # of a UTF-8 character, after its first
_LEVELS = 3  # nesting one expression covers; each level doubles its size

_QUOTE, _COLON, _COMMA, _OPEN_OBJECT, _CLOSE_ARRAY, _CLOSE_OBJECT = b'":,{]}'
_CLOSERS = {_OPEN_OBJECT: _CLOSE_OBJECT, ord("["): _CLOSE_ARRAY}

_SPACE = rb"[ \t\n\r]*+"
_ESCAPE = (
    rb'\\(?:["\\/bfnrt]'
    rb"|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}"
    rb"|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"  # surrogates come in pairs
)
_CHARACTERS = rb'[^"\\\x00-\x1f]*+(?:' + _ESCAPE + rb'[^"\\\x00-\x1f]*+)*+'
_STRING = b'"' + _CHARACTERS + b'"'
# Short enough never to overflow a double, which orjson refuses; longer ones are judged by orjson.
_NUMBER = rb"-?+(?:0|[1-9][0-9]{0,17}+)(?:\.[0-9]{1,300}+)?+(?:[eE][-+]?+[0-9]{1,2}+)?+"
_SCALAR = _STRING + b"|" + _NUMBER + rb"|true|false|null"

_space = re.compile(_SPACE)
_string = re.compile(_STRING)
_characters = re.compile(_CHARACTERS)
_word = re.compile(rb"[-+.0-9A-Za-z]++")
# A quote that no backslash escapes, then a colon. Names that end in a backslash are not counted; nobody gains by that,
# since the number of values is bounded where a body is built (``Payload.json``).
_key_end = re.compile(rb'"(?<!\\")[ \t\n\r]*+:')


def _items(value: bytes) -> bytes:
    """Elements of an array, each with the comma or the closing bracket behind it."""
    return b"(?:" + _SPACE + value + _SPACE + rb"(?:,|(?=\])))*+"


def _members(value: bytes) -> bytes:
    return b"(?:" + _SPACE + _STRING + _SPACE + b":" + _SPACE + value + _SPACE + rb"(?:,|(?=\})))*+"


def count_keys(json: bytes) -> int:
    """Names in valid JSON; see ``_key_end``."""
    return len(_key_end.findall(json))


@cache
def _patterns() -> tuple[re.Pattern[bytes], re.Pattern[bytes], re.Pattern[bytes]]:
    """For a run of elements, a run of members, one top-level member; compiled (15 ms) when first needed."""
    value = b"(?:" + _SCALAR + b")"
    for _ in range(_LEVELS):
        array = rb"\[" + _items(value) + b"(?<!,)" + _SPACE + rb"\]"
        object_ = rb"\{" + _members(value) + b"(?<!,)" + _SPACE + rb"\}"
        value = b"(?:" + _SCALAR + b"|" + array + b"|" + object_ + b")"
    member = b"(" + _STRING + b")" + _SPACE + b":" + _SPACE + b"(" + value + b")" + _SPACE + rb"(?=[,}])"
    return re.compile(_items(value)), re.compile(_members(value)), re.compile(member)


class Scan:
    """One pass over a body: call ``step`` until it says ``False``, then ``fields`` is complete.

    A step holds the GIL for less than a millisecond. Raises ``InvalidRequest``.
    """

    __slots__ = (
        "_closers", "_in_string", "_name", "_next", "_position", "_start", "_value",
        "fields", "keys", "raw", "values",
    )  # fmt: skip

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.fields: list[Field] = []
        """Top-level fields in their order, equal names included."""
        self.keys = 0
        self.values = 0
        """At least the number of values, commas inside short strings included: what building them all may cost."""
        self._position = 0
        self._next: Callable[[Scan, int], None] = Scan._begin  # takes the next byte that is not white space
        self._in_string = False  # in a string longer than one window, which began at _start
        self._start = 0
        self._closers = bytearray()  # the bracket that closes each open array and object
        self._name = ""  # of the top-level field whose value began at _value
        self._value = 0

    def step(self) -> bool:
        if self._in_string:
            self._continue_string()
            return True
        raw = self.raw
        space = _space.match(raw, self._position, self._position + _WINDOW)
        self._position = position = space.end() if space else self._position
        if position == len(raw):
            if self._next is not Scan._trailing:
                raise self._broken("it ends too early")
            return False
        byte = raw[position]
        if byte not in b" \t\n\r":  # else the window ended inside white space
            self._next(self, byte)
        return True

    # What may come next. Each takes the byte at _position and moves on.

    def _begin(self, byte: int) -> None:
        if byte != _OPEN_OBJECT:
            raise InvalidRequest("The body must be a JSON object.")
        self._open(byte)

    def _first_item(self, byte: int) -> None:
        if byte == self._closers[-1]:
            self._close()
        else:
            self._item(byte)

    def _item(self, byte: int) -> None:
        if self._run():
            return
        if self._closers[-1] == _CLOSE_ARRAY:
            self._item_value(byte)
        elif byte == _QUOTE:
            self._string()
        else:
            raise self._broken("a name is expected")

    def _colon(self, byte: int) -> None:
        if byte != _COLON:
            raise self._broken("a colon is expected")
        self._count_keys(1)
        self._position += 1
        self._next = Scan._item_value

    def _item_value(self, byte: int) -> None:
        if len(self._closers) == 1:
            self._value = self._position
        if byte == _QUOTE:
            self._string()
        elif byte in _CLOSERS:
            self._open(byte)
        else:
            self._word()

    def _separator(self, byte: int) -> None:
        if byte == _COMMA:
            self._position += 1
            self.values += 1
            self._next = Scan._item
        elif byte == self._closers[-1]:
            self._close()
        else:
            raise self._broken("a comma or a closing bracket is expected")

    def _trailing(self, byte: int) -> None:
        raise self._broken("something follows the object")

    # The pieces.

    def _run(self) -> bool:
        """Take as many whole items as one window shows; ``False`` if there is none."""
        depth = len(self._closers)
        if depth + _LEVELS > MAX_DEPTH:
            return False
        items, members, member = _patterns()
        position = self._position
        pattern = member if depth == 1 else items if self._closers[-1] == _CLOSE_ARRAY else members
        match = pattern.match(self.raw, position, position + _WINDOW)
        if not match or match.end() == position:
            return False
        self._position = end = match.end()
        self._account(position, end)
        if depth == 1:
            self._add_field(self._decode_name(*match.span(1)), *match.span(2))
        self._next = Scan._item if self.raw[end - 1] == _COMMA else Scan._separator
        return True

    def _open(self, byte: int) -> None:
        if len(self._closers) == MAX_DEPTH:
            raise InvalidRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")
        self._closers.append(_CLOSERS[byte])
        self._position += 1
        self.values += 1
        self._next = Scan._first_item

    def _close(self) -> None:
        self._closers.pop()
        self._position += 1
        self._end_value()
        if not self._closers:
            self._next = Scan._trailing

    def _word(self) -> None:
        """A number or a literal the expressions declined: it may be long, huge, cut by the window or wrong."""
        match = _word.match(self.raw, self._position, self._position + MAX_NUMBER + 1)
        word = match[0] if match else b""
        if len(word) > MAX_NUMBER:
            raise InvalidRequest(f"The body holds a number of more than {MAX_NUMBER} characters.")
        self._judge(word)
        self._position += len(word)
        self._end_value()

    def _string(self) -> None:
        self._start = start = self._position
        match = _string.match(self.raw, start, start + _WINDOW)
        if match:
            self._account(start, match.end())
            self._end_string(match.end())
        else:
            self._in_string = True
            self._position += 1

    def _continue_string(self) -> None:
        raw, start = self.raw, self._position
        chunk = raw[start : start + _CHUNK]
        if b"\\" in chunk:
            match = _characters.match(chunk)
            cut = match.end() if match else 0
        else:
            cut = chunk.find(b'"') if b'"' in chunk else len(chunk)
        closed = chunk[cut : cut + 1] == b'"'
        while not closed and cut > len(chunk) - 4 and raw[start + cut : start + cut + 1] in _LATER_BYTES:
            cut -= 1  # not in the middle of a character
        if cut <= 0 and not closed:
            raise self._broken("a string is not well-formed or has no end")
        self._judge(b'"%b"' % chunk[:cut])
        self._position = start + cut
        if closed:
            self._in_string = False
            self._end_string(start + cut + 1)

    # What was found.

    def _end_string(self, end: int) -> None:
        is_name = self._closers[-1] == _CLOSE_OBJECT and self._next is not Scan._item_value
        self._position = end
        if not is_name:
            self._end_value()
            return
        self._next = Scan._colon
        if len(self._closers) == 1:
            self._name = self._decode_name(self._start, end)

    def _end_value(self) -> None:
        if len(self._closers) == 1:
            self._add_field(self._name, self._value, self._position)
        self._next = Scan._separator

    def _add_field(self, name: str, start: int, end: int) -> None:
        if len(self.fields) == MAX_FIELDS:
            raise InvalidRequest(f"The body has more than {MAX_FIELDS} fields.")
        self.fields.append((name, start, end))

    def _decode_name(self, start: int, end: int) -> str:
        return "" if end - start > _LONGEST_NAME else str(orjson.loads(self.raw[start:end]))

    def _account(self, start: int, end: int) -> None:
        """Count a stretch the expressions took, and look at what they cannot: UTF-8."""
        span = self.raw[start:end]
        if not span.isascii():
            try:
                span.decode()
            except UnicodeDecodeError as error:
                raise InvalidRequest("The body is not valid UTF-8.") from error
        self.values += span.count(b",")
        self._count_keys(count_keys(span))

    def _count_keys(self, number: int) -> None:
        self.keys += number
        if self.keys > MAX_KEYS:
            raise InvalidRequest(f"The body has more than {MAX_KEYS} names.")

    def _judge(self, token: bytes) -> None:
        try:
            orjson.loads(token)
        except orjson.JSONDecodeError as error:
            raise self._broken(error.msg.partition(":")[0]) from error

    def _broken(self, reason: str) -> InvalidRequest:
        return InvalidRequest(f"The body is not valid JSON: {reason} (near byte {self._position}).")
