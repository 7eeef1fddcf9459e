"""Finds the ``model`` field of a ``multipart/form-data`` body that streams through (RFC 7578).

File contents are never kept. What two readers could read differently is refused, since the model that was authorised
must be the model the provider finds: bare line feeds, folded or repeated headers, a second ``model``, another spelling.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.body import STEERING, check_model
from gateway.errors import InvalidRequest

HOLD = 256 * 1024
"""Bytes looked at before the body is forwarded; some SDKs send the file in front of the model."""

_MAX_PARTS = 1_000
_MAX_HEAD = 8_192  # bytes of one part's headers
_MAX_VALUE = 1_024  # bytes of the model's name
_boundary = re.compile(r""";\s*boundary\s*=\s*("[^"]*"|[^;\s]*)""", re.IGNORECASE)
_boundary_characters = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046, 5.1.1
_header = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_disposition = re.compile(rb"form-data((?:[ \t]*;[ \t]*[^=;\s\"]+=(?:\"(?:[^\"\\]|\\.)*+\"|[^;\s\"]*))*)[ \t]*", re.IGNORECASE)
_parameter = re.compile(rb";[ \t]*([^=;\s\"]+)=(\"(?:[^\"\\]|\\.)*+\"|[^;\s\"]*)")
_escaped = re.compile(rb"\\(.)")


class MultipartModel:
    """Feed it the whole body, chunk by chunk, the part behind the decision too: it watches for a second ``model``.

    Every method raises ``InvalidRequest`` for a body that is malformed or ambiguous.
    """

    def __init__(self, content_type: str, hold: int = HOLD, late: Callable[[str], None] | None = None) -> None:
        """``late`` is called with a model that is found after the decision and may raise; without it that is refused."""
        found = _boundary.findall(content_type)
        boundary = found[0].strip('"') if len(found) == 1 else ""
        if not _boundary_characters.fullmatch(boundary):
            raise _malformed("its Content-Type has no valid boundary")
        self.model: str | None = None
        self.decided = False
        """The model is known, or ``hold`` bytes or the whole body went by without it."""
        self.held: list[bytes] = []
        """The chunks up to the decision, to be forwarded as they are."""
        self._hold = hold
        self._late = late
        self._delimiter = b"--" + boundary.encode()
        self._buffer = b""
        self._offset = 0  # of the buffer in the body
        self._content = 0  # where the current part's content began
        self._value = (0, 0)  # where the model's name is
        self._parts = 0
        self._is_model = False
        self._next: Callable[[], bool] = self._begin  # False: more bytes are needed

    def feed(self, chunk: bytes) -> bool:
        """Take the next bytes; returns ``decided``."""
        if not self.decided:
            self.held.append(chunk)
        self._buffer += chunk
        while self._next():
            pass
        if self._offset + len(self._buffer) > self._hold:
            self.decided = True
        return self.decided

    def close(self) -> None:
        """The body has ended."""
        if self._next != self._epilogue:
            raise _malformed("it ends before its last boundary")

    def held_with(self, model: str) -> bytes:
        """``held`` with another name in place of the model's, which must have been found."""
        start, end = self._value
        held = b"".join(self.held)
        return held[:start] + model.encode() + held[end:]

    def _drop(self, size: int) -> None:
        self._buffer = self._buffer[size:]
        self._offset += size

    # What comes next.

    def _begin(self) -> bool:
        if len(self._buffer) < len(self._delimiter) + 2:
            return False
        skipped = 2 if self._buffer.startswith(b"\r\n") else 0
        if not self._buffer.startswith(self._delimiter, skipped):
            raise _malformed("it does not begin with its boundary")
        self._drop(skipped + len(self._delimiter))
        self._next = self._behind_delimiter
        return True

    def _behind_delimiter(self) -> bool:
        if len(self._buffer) < 2:
            return False
        end = self._buffer[:2]
        if end == b"--":
            self.decided = True
            self._next = self._epilogue
        elif end == b"\r\n":
            self._next = self._head
        else:
            raise _malformed("something follows a boundary")
        self._drop(2)
        return True

    def _head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 and len(self._buffer) <= _MAX_HEAD:
            return False
        self._parts += 1
        if not 0 <= end <= _MAX_HEAD or self._parts > _MAX_PARTS:
            raise _malformed("it has too many parts, or too long a part header")
        self._is_model = _is_model(self._buffer[:end])
        self._content = self._offset + end + 4
        self._drop(end + 2)  # not the last CRLF: a boundary right behind it, without a content, is found so
        self._next = self._skip
        return True

    def _skip(self) -> bool:
        line_feed = self._buffer.find(b"\n" + self._delimiter)
        if line_feed < 0:
            if not self._is_model:
                self._drop(max(0, len(self._buffer) - len(self._delimiter) - 2))
            elif len(self._buffer) > _MAX_VALUE + len(self._delimiter) + 4:
                raise _malformed("its model is too long")
            return False
        end = line_feed - 1
        if self._buffer[end:line_feed] != b"\r" or self._offset + end < self._content:
            raise _malformed("a boundary does not stand on a line of its own")
        if self._is_model:
            self._found(self._content, self._offset + end)
        self._drop(line_feed + 1 + len(self._delimiter))
        self._next = self._behind_delimiter
        return True

    def _found(self, start: int, end: int) -> None:
        if self.model is not None:
            raise InvalidRequest("The field 'model' is given twice.")
        value = self._buffer[start - self._offset : end - self._offset]
        self.model = check_model(value.decode(errors="replace"))
        self._value = (start, end)
        if self.decided:
            if self._late is None:
                raise InvalidRequest("The field 'model' must come before the file.")
            self._late(self.model)
        self.decided = True

    def _epilogue(self) -> bool:
        if self._buffer.strip(b"\r\n"):
            raise _malformed("something follows its last boundary")
        self._drop(len(self._buffer))
        return False


def _is_model(head: bytes) -> bool:
    """Whether a part with these headers is the ``model`` field."""
    headers: dict[bytes, bytes] = {}
    for line in head.split(b"\r\n"):
        header = _header.fullmatch(line)
        if not header or header[1].lower() in headers:
            raise _malformed("a part has a broken, folded or repeated header")
        headers[header[1].lower()] = header[2]
    disposition = _disposition.fullmatch(headers.get(b"content-disposition", b""))
    if not disposition:
        raise _malformed("a part has no proper Content-Disposition")
    parameters = [(name.lower(), value) for name, value in _parameter.findall(disposition[1])]
    names = [_unquote(value) for name, value in parameters if name == b"name"]
    others = {name for name, _ in parameters}
    if len(names) != 1 or b"name*" in others:
        raise _malformed("a part does not have exactly one name")
    known = names[0].strip().casefold()
    if known in STEERING:
        raise InvalidRequest(f"The field '{known}' cannot be set by a request.")
    if known != "model":
        return False
    if names[0] != "model" or others != {b"name"} or not _is_plain(headers):
        raise InvalidRequest("The field 'model' must be spelt so, and be plain text.")
    return True


def _is_plain(headers: dict[bytes, bytes]) -> bool:
    kind = headers.get(b"content-type", b"text/plain").replace(b" ", b"").lower()
    encoding = headers.get(b"content-transfer-encoding", b"8bit").lower()
    return kind in (b"text/plain", b"text/plain;charset=utf-8") and encoding in (b"7bit", b"8bit", b"binary")


def _unquote(value: bytes) -> str:
    if value.startswith(b'"'):
        value = _escaped.sub(rb"\1", value[1:-1])
    return value.decode(errors="replace")


def _malformed(reason: str) -> InvalidRequest:
    return InvalidRequest(f"The multipart body is malformed: {reason}.")
