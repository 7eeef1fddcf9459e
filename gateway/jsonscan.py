"""Finds the top-level fields of a JSON object without building it, one bounded step at a time.

Why not ``orjson.loads``: it holds the GIL for the whole body (44 MB of token ids: 270 ms), keeps only the last of two
equal names and tells no offsets. So a body is read in windows. Each window is cut behind a comma, the brackets that are
open there are opened in front of it and closed behind it, and orjson judges the result. What is accepted is therefore
what orjson accepts, with the limits of this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable

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

_WINDOW = 1 << 15  # bytes of one step: at most 30 ns each, so 1 ms
_CHUNK = 1 << 16  # bytes of a long string checked at once; beyond 128 KiB malloc would map and unmap pages each time
_LONGEST_NAME = 1_024  # a name of more raw bytes is none we look for, even with every letter escaped

_QUOTE, _COLON, _COMMA, _OPEN_OBJECT, _CLOSE_ARRAY, _CLOSE_OBJECT = b'":,{]}'
_CLOSERS = {_OPEN_OBJECT: _CLOSE_OBJECT, ord("["): _CLOSE_ARRAY}
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_LATER_BYTES = frozenset(bytes([byte]) for byte in range(0x80, 0xC0))  # of a UTF-8 character, after its first

# These expressions only find where things end; orjson decides whether they are well-formed.
_SPACE = rb"[ \t\n\r]*+"
# Mostly the first quote ends a string: a search for one byte is six times as fast as one for quotes and backslashes.
_STRING = rb'"(?:[^"]*+"(?<!\\")|(?=[^"]*+")[^"\\]*+(?:\\[\x00-\xff][^"\\]*+)*+")'
_WORD = rb'[^\[\]{}",: \t\n\r]++'  # a number or literal
_nested = rb'[\[{](?:[^\[\]{}"]++|' + _STRING + rb")*+[\]}]"
for _ in range(8):
    _nested = rb'[\[{](?:[^\[\]{}"]++|' + _STRING + b"|" + _nested + rb")*+[\]}]"

_space = re.compile(_SPACE)
_string = re.compile(_STRING)
_word = re.compile(_WORD)
_value = b"(" + _STRING + b"|" + _WORD + b"|" + _nested + b")"
_member = re.compile(b"(" + _STRING + b")" + _SPACE + b":" + _SPACE + _value + b"(?=" + _SPACE + b"[,}])")
# Everything up to the last comma outside strings: a stretch without strings, or one with strings up to its first comma.
_up_to_comma = re.compile(rb'(?:[^"]*,|[^",]*+(?:' + _STRING + rb'[^",]*+)++,)*+')
_bracket = re.compile(_STRING + rb"|([\[\]{}])")
# Whole characters of a string: no escape and no pair of surrogates is cut.
_characters = re.compile(
    rb'[^"\\]*+(?:\\(?:[^u]|u(?![dD][89abAB])[0-9a-fA-F]{4}|u[dD][89abAB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4})[^"\\]*+)*+'
)
_digits = (251, re.compile(rb"[0-9]{7}")), (13, re.compile(rb"[0-9]{153}"))
_long_number = re.compile(_WORD.removesuffix(b"++") + b"{%d}" % (MAX_NUMBER + 1))


def outside_strings(json: bytes) -> bytes:
    """Valid JSON without its strings: what is left of ``,``, ``:`` and brackets is structure."""
    return _string.sub(b"", json) if b'"' in json else json


def may_hold_long_number(json: bytes) -> bool:
    """A cheap look: a number beyond the limit has 1,990 digits in a row if orjson takes it, and so has any sample."""
    return len(json) > MAX_NUMBER and all(digits.search(json[::stride]) for stride, digits in _digits)


def check_outside(bare: bytes, keys_before: int = 0) -> int:
    """The number of names in what ``outside_strings`` left. Raises ``InvalidRequest`` for what passes a limit."""
    keys = keys_before + bare.count(b":")
    if keys > MAX_KEYS:
        raise InvalidRequest(f"The body has more than {MAX_KEYS} names.")
    if may_hold_long_number(bare) and _long_number.search(bare):
        raise InvalidRequest(f"The body holds a number of more than {MAX_NUMBER} characters.")
    return keys


class Scan:
    """One pass over a body: call ``step`` until it says ``False``, then ``fields`` is complete.

    A step holds the GIL for about a millisecond at most. Raises ``InvalidRequest``.
    """

    __slots__ = (
        "_closers", "_dry", "_in_string", "_name", "_next", "_position", "_start", "_value",
        "fields", "keys", "raw", "values",
    )  # fmt: skip

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.fields: list[Field] = []
        """Top-level fields in their order, equal names included."""
        self.keys = 0
        self.values = 0
        """About how many values there are: what building them would cost."""
        self._position = 0
        self._next: Callable[[Scan, int], None] = Scan._begin  # takes the next byte that is not white space
        self._closers = bytearray()  # the bracket that closes each open array and object
        self._in_string = False  # in a string longer than a window, which began at _start
        self._start = 0
        self._name = ""  # of the top-level field whose value began at _value
        self._value = 0
        self._dry = 0  # up to here there is no comma outside strings

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
        if byte in b",]}":
            raise self._broken("a value or a name is expected")
        if self._take_member() if len(self._closers) == 1 else self._take_window():
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
        self._count(b":")
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
            self._count(b",")
            self._position += 1
            self._next = Scan._item
        elif byte == self._closers[-1]:
            self._close()
        else:
            raise self._broken("a comma or a closing bracket is expected")

    def _trailing(self, byte: int) -> None:
        raise self._broken("something follows the object")

    # The pieces.

    def _take_member(self) -> bool:
        """A whole top-level field, if it fits into a window."""
        match = _member.match(self.raw, self._position, self._position + _WINDOW)
        if not match:
            return False
        self._judge(b"{%b}" % match[0])
        self._count(outside_strings(match[0]))
        self._name = self._decode_name(*match.span(1))
        self._value, self._position = match.span(2)
        self._end_value()
        return True

    def _take_window(self) -> bool:
        """The rest of a window up to its last comma, or to the end of the top-level value."""
        raw, start = self.raw, self._position
        match = _up_to_comma.match(raw, start, start + _WINDOW) if start >= self._dry else None
        if not match or match.end() == start:
            self._dry = max(self._dry, start + _WINDOW)
            return False
        end = match.end()
        text = raw[start : end - 1]
        bare = outside_strings(text)
        closers = self._closers_behind(bare)
        if len(closers) == 1:
            end = self._end_of_top_level_value(start)
            text = raw[start:end]
            bare = outside_strings(text)
        self._judge(_openers(self._closers) + text + closers[::-1])
        self._count(bare)
        self._closers = closers
        self._position = end
        self._next = Scan._item
        if len(closers) == 1:
            self._end_value()
        return True

    def _closers_behind(self, bare: bytes) -> bytearray:
        """What is to be closed behind a stretch of JSON, or behind the top-level value that ends in it."""
        brackets = bare.translate(None, _NO_BRACKETS)
        # Innermost pairs change nothing but two levels of depth, and are many: they are dropped in C.
        without_leaves = brackets.replace(b"[]", b"").replace(b"{}", b"")
        closers = self._follow(without_leaves, MAX_DEPTH - 2) or self._follow(brackets, MAX_DEPTH)
        if not closers:
            raise InvalidRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")
        return closers

    def _follow(self, brackets: bytes, limit: int) -> bytearray | None:
        closers = self._closers[:]
        for byte in brackets:
            if byte in _CLOSERS:
                closers.append(_CLOSERS[byte])
                if len(closers) > limit:
                    return None
            elif closers.pop() != byte:
                raise self._broken("brackets do not match")
            elif len(closers) == 1:
                break
        return closers

    def _end_of_top_level_value(self, start: int) -> int:
        depth = len(self._closers)
        for match in _bracket.finditer(self.raw, start):
            if match[1]:
                depth += 1 if match[1] in b"[{" else -1
                if depth == 1:
                    return match.end()
        raise self._broken("it ends too early")

    def _open(self, byte: int) -> None:
        if len(self._closers) == MAX_DEPTH:
            raise InvalidRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")
        self._closers.append(_CLOSERS[byte])
        self._position += 1
        self._next = Scan._first_item

    def _close(self) -> None:
        self._closers.pop()
        self._position += 1
        self._end_value()
        if not self._closers:
            self._next = Scan._trailing

    def _word(self) -> None:
        match = _word.match(self.raw, self._position, self._position + MAX_NUMBER + 1)
        word = match[0] if match else b""
        self._count(word)
        self._judge(word)
        self._position += len(word)
        self._end_value()

    def _string(self) -> None:
        self._start = start = self._position
        match = _string.match(self.raw, start, start + _WINDOW)
        if match:
            self._judge(match[0])
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
        self._next = Scan._separator
        if len(self._closers) != 1:
            return
        if len(self.fields) == MAX_FIELDS:
            raise InvalidRequest(f"The body has more than {MAX_FIELDS} fields.")
        self.fields.append((self._name, self._value, self._position))

    def _decode_name(self, start: int, end: int) -> str:
        return "" if end - start > _LONGEST_NAME else str(orjson.loads(self.raw[start:end]))

    def _count(self, bare: bytes) -> None:
        self.keys = check_outside(bare, self.keys)
        self.values += bare.count(b",") + bare.count(b"[") + bare.count(b"{")

    def _judge(self, json: bytes) -> None:
        try:
            orjson.loads(json)
        except orjson.JSONDecodeError as error:
            raise self._broken(error.msg.partition(":")[0]) from error

    def _broken(self, reason: str) -> InvalidRequest:
        return InvalidRequest(f"The body is not valid JSON: {reason} (near byte {self._position}).")


def _openers(closers: bytearray) -> bytes:
    """JSON up to the point where the next item of the innermost of these containers is expected."""
    outer = b"".join(b'{"":' if closer == _CLOSE_OBJECT else b"[" for closer in closers[:-1])
    return outer + (b"{" if closers[-1] == _CLOSE_OBJECT else b"[")
