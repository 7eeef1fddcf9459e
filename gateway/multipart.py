"""A multipart form (RFC 7578), looked at while it streams by: which model it names, and where.

Strict where readers differ: what one server takes for a second ``model`` part and another for bytes of a file must not
pass. So a boundary stands only behind CRLF, part heads have one spelling, and nothing surrounds the form.
"""

from __future__ import annotations

import re

from gateway.body import MAX_MODEL, ROUTING, STEERING
from gateway.errors import InvalidRequest

MAX_HEAD = 8192
"""Bytes of one part's head."""
MAX_PARTS = 1000

_BOUNDARY = r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]"  # RFC 2046 section 5.1.1
_FORM = re.compile(
    r"multipart/form-data(?:[ \t]*;[ \t]*charset=\"?utf-8\"?)?[ \t]*;[ \t]*"
    rf'boundary=(?:"(?P<quoted>{_BOUNDARY})"|(?P<plain>[0-9A-Za-z\'+_.-]{{1,70}}))'
    r"(?:[ \t]*;[ \t]*charset=\"?utf-8\"?)?",
    re.IGNORECASE,
)
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*({_WORD})=("(?:[^"\\\r\n]|\\.)*"|{_WORD}|[^";\\\r\n ]+)')
_TEXT = re.compile(r'text/plain(?:[ \t]*;[ \t]*charset="?(?:utf-8|us-ascii)"?)?', re.IGNORECASE)


class Form:
    """One form. Feed it all blocks in order; it raises ``InvalidRequest`` at the first that is wrong."""

    def __init__(self, content_type: str) -> None:
        match = _FORM.fullmatch(content_type.strip())
        if match is None:
            raise InvalidRequest("The Content-Type of a form must be multipart/form-data with one boundary.")
        self.model: str | None = None
        self.span = (0, 0)
        """Where the model's name stands, in bytes of the body."""
        self.ended = False
        self._mark = b"--" + (match["quoted"] or match["plain"]).encode()
        self._buffer = b"\r\n"  # what stands before the first boundary, if it stands at the start
        self._offset = -2  # of the buffer in the body
        self._name: str | None = None  # of the part being read; None before the first
        self._parts = 0
        self._sealed = False

    def seal(self) -> None:
        """The body is on its way to where the model, or its absence, has led: no other may be named any more."""
        self._sealed = True

    def feed(self, block: bytes) -> None:
        self._buffer += block
        while self._step():
            pass

    def finish(self) -> None:
        """The body has ended."""
        if not self.ended:
            raise InvalidRequest("The form is cut short.")

    def _step(self) -> bool:
        """Take one part off the buffer; whether there may be another in it."""
        if self.ended:
            if self._buffer not in (b"", b"\r", b"\r\n"):
                raise InvalidRequest("The form is followed by something.")
            return False
        at = self._buffer.find(self._mark)
        if at < 0:
            self._check_text(len(self._buffer))
            if self._name != "model":
                self._drop(max(0, len(self._buffer) - len(self._mark) - 1))
            return False
        end = at + len(self._mark)
        follows = self._buffer[end : end + 2]
        if self._buffer[at - 2 : at] != b"\r\n" or not (b"\r\n".startswith(follows) or b"--".startswith(follows)):
            raise InvalidRequest("The form's boundary does not stand on a line of its own.")
        if len(follows) < 2:
            return False
        return self._last(at - 2, end + 2) if follows == b"--" else self._next(at - 2, end + 2)

    def _last(self, part_end: int, end: int) -> bool:
        self._close(part_end)
        self._drop(end)
        self.ended = True
        return True

    def _next(self, part_end: int, begin: int) -> bool:
        """Another part, whose head begins at ``begin``; whether all of that head is here."""
        end = self._buffer.find(b"\r\n\r\n", begin - 2)
        if (end if end >= 0 else len(self._buffer)) - begin > MAX_HEAD:
            raise InvalidRequest("A part of the form has too large a head.")
        if end < 0:
            return False
        head = self._buffer[begin:end]
        self._close(part_end)
        self._open(head)
        self._drop(end + 4)
        return True

    def _drop(self, count: int) -> None:
        self._buffer = self._buffer[count:]
        self._offset += count

    def _check_text(self, size: int) -> None:
        if self._name == "model" and size > 4 * MAX_MODEL + len(self._mark) + 4:
            raise InvalidRequest(f"The field 'model' is longer than {MAX_MODEL} characters.")

    def _open(self, head: bytes) -> None:
        """A part begins. Its name is read the one way in which every server reads it."""
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidRequest(f"The form has more than {MAX_PARTS} parts.")
        headers = _headers(head)
        parameters = _disposition(headers.pop("content-disposition", ""))
        name = self._name = parameters["name"]
        known = name.casefold()
        if known in STEERING:
            raise InvalidRequest(f"The field '{known}' cannot be set by a request.")
        if known in ROUTING and known != name:
            raise InvalidRequest(f"The field '{known}' must be spelt in lower case.")
        if name != "model":
            return
        if self.model is not None:
            raise InvalidRequest("The field 'model' is given twice.")
        if self._sealed:
            raise InvalidRequest("The field 'model' must come before the file.")
        if (
            len(parameters) > 1
            or headers.keys() - {"content-type"}
            or not _TEXT.fullmatch(headers.get("content-type", "text/plain"))
        ):
            raise InvalidRequest("The field 'model' must be plain text.")

    def _close(self, end: int) -> None:
        """The part that was read ends before ``end``; the buffer begins with it if it is the model's."""
        if self._name is None and self._offset + end != -2:
            raise InvalidRequest("The form does not begin with its boundary.")
        if self._name == "model":
            try:
                model = self._buffer[:end].decode()
            except UnicodeDecodeError as error:
                raise InvalidRequest("The field 'model' is not UTF-8.") from error
            if not 0 < len(model) <= MAX_MODEL or not model.isprintable():
                raise InvalidRequest(f"The field 'model' must be 1 to {MAX_MODEL} printable characters.")
            self.model = model
            self.span = (self._offset, self._offset + end)


def _headers(head: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in head.decode("utf-8", "surrogateescape").split("\r\n"):
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not re.fullmatch(_WORD, name) or name in headers or "\n" in value or "\r" in value:
            raise InvalidRequest("A part of the form has a malformed head.")
        headers[name] = value.strip(" \t")
    return headers


def _disposition(value: str) -> dict[str, str]:
    """The parameters of a Content-Disposition: ``name``, and what is known of a file's name."""
    kind, rest = value[:9], value[9:]
    parameters: dict[str, str] = {}
    at = 0
    while match := _PARAMETER.match(rest, at):
        key = match[1].lower()
        if key in parameters or key not in ("name", "filename", "filename*"):
            break
        parameters[key] = match[2]
        at = match.end()
    name = parameters.get("name", "")
    if kind.lower() != "form-data" or at != len(rest) or "\\" in name or name in ("", '""'):
        raise InvalidRequest("A part of the form has no clear name.")
    parameters["name"] = name.strip('"')
    return parameters
