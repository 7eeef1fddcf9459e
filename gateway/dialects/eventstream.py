"""AWS event streams (``application/vnd.amazon.eventstream``) as they arrive: in pieces cut anywhere.

A message is a prelude (length of all, length of the headers, CRC-32 of those eight bytes), headers, a payload, and the
CRC-32 of everything before it; numbers are big-endian. Source: "Event stream encoding", Amazon Transcribe developer
guide; the exceptions and their statuses are those of botocore's model of ``bedrock-runtime``.
"""

from __future__ import annotations

import re
import struct
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from gateway.dialects.sse import LIMIT
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError

_PRELUDE = struct.Struct(">II")
_CRC = struct.Struct(">I")
_FRAME = 16  # bytes of prelude, its CRC and the CRC of the message
_STRING = 7
_KNOWN = 32
# Type of a header's value → how many bytes it has, and what they mean.
_FIXED: dict[int, tuple[int, Callable[[bytes], Any]]] = {
    0: (0, lambda raw: True),
    1: (0, lambda raw: False),
    2: (1, lambda raw: int.from_bytes(raw, "big", signed=True)),
    3: (2, lambda raw: int.from_bytes(raw, "big", signed=True)),
    4: (4, lambda raw: int.from_bytes(raw, "big", signed=True)),
    5: (8, lambda raw: int.from_bytes(raw, "big", signed=True)),
    8: (8, lambda raw: int.from_bytes(raw, "big", signed=True)),  # milliseconds since 1970
    9: (16, bytes),  # a UUID
}
_BYTES = 6

# Statuses as AWS gives them, but where they would be judged wrongly here: a model that failed (424) or took too long
# (408) is the provider's failure, not the request's.
_STATUSES = {
    "AccessDenied": 403, "Conflict": 400, "InternalServer": 500, "ModelError": 502, "ModelNotReady": 429,
    "ModelStreamError": 502, "ModelTimeout": 504, "ResourceNotFound": 404, "ServiceQuotaExceeded": 400,
    "ServiceUnavailable": 503, "Throttling": 429, "Validation": 400,
}  # fmt: skip
_CODES = {"Throttling": "rate_limit_exceeded", "ResourceNotFound": "model_not_found"}
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LONGEST_MESSAGE = 1000  # characters of an upstream's error text that are passed on


class Message(NamedTuple):
    headers: Mapping[str, Any]
    payload: bytes


def encode(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message; all values of its headers are strings, as all of Bedrock's are."""
    fields = b"".join([_encode_header(name.encode(), value.encode()) for name, value in headers.items()])
    prelude = _PRELUDE.pack(_FRAME + len(fields) + len(payload), len(fields))
    message = prelude + _CRC.pack(crc32(prelude)) + fields + payload
    return message + _CRC.pack(crc32(message))


def _encode_header(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + bytes([_STRING]) + struct.pack(">H", len(value)) + value


class MessageSplitter:
    """Cuts a stream into its messages. Memory and time are linear in the size of one message."""

    __slots__ = ("_buffer", "_headers", "_limit", "_wanted")

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._headers: dict[bytes, dict[str, Any]] = {}  # read once: a stream has a handful of different ones
        self._wanted = 0  # bytes of the message that has begun; 0 while its prelude is not complete

    def feed(self, block: bytes) -> list[Message]:
        """The complete messages up to here.

        Raises ``UpstreamProtocolError`` for a wrong checksum, a length that cannot be or passes the limit, and headers
        that are none.
        """
        buffer = self._buffer
        buffer += block
        messages: list[Message] = []
        start = 0
        while True:
            if not self._wanted and len(buffer) - start >= _FRAME - _CRC.size:
                self._wanted = self._length(buffer, start)
            if not self._wanted or len(buffer) - start < self._wanted:
                break
            messages.append(self._message(bytes(buffer[start : start + self._wanted])))
            start += self._wanted
            self._wanted = 0
        del buffer[:start]
        return messages

    @property
    def rest(self) -> bytes:
        """What was fed and not given out: the beginning of a message."""
        return bytes(self._buffer)

    def _length(self, buffer: bytearray, start: int) -> int:
        total, headers = _PRELUDE.unpack_from(buffer, start)
        (checksum,) = _CRC.unpack_from(buffer, start + _PRELUDE.size)
        if crc32(buffer[start : start + _PRELUDE.size]) != checksum:
            raise malformed()
        if total > self._limit:
            raise UpstreamProtocolError("The provider sent a message that is too large.")
        if total < _FRAME + headers:
            raise malformed()
        return int(total)

    def _message(self, raw: bytes) -> Message:
        (checksum,) = _CRC.unpack_from(raw, len(raw) - _CRC.size)
        if crc32(raw[: -_CRC.size]) != checksum:
            raise malformed()
        begin = _FRAME - _CRC.size
        end = begin + _PRELUDE.unpack_from(raw)[1]
        fields = raw[begin:end]
        headers = self._headers.get(fields)
        if headers is None:
            try:
                headers = _headers(fields)
            except (IndexError, KeyError, ValueError) as error:
                raise malformed() from error
            if len(self._headers) < _KNOWN:
                self._headers[fields] = headers
        return Message(headers, raw[end : -_CRC.size])


def _headers(raw: bytes) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        if at > len(raw):
            raise ValueError("a header ends behind the headers")
        return raw[at - size : at]

    while at < len(raw):
        name = take(take(1)[0]).decode()
        kind = take(1)[0]
        if kind in (_BYTES, _STRING):
            value = take(int.from_bytes(take(2), "big"))
            headers[name] = value.decode() if kind == _STRING else value
        else:
            size, read = _FIXED[kind]
            headers[name] = read(take(size))
    return headers


def malformed() -> UpstreamProtocolError:
    """The error for bytes that are no event stream, and for events that are not the service's."""
    return UpstreamProtocolError("The provider sent a malformed event.")


def event(message: Message) -> tuple[str, dict[str, Any]]:
    """Type and content of an event.

    Raises ``StreamError`` for an exception or error of the service, ``UpstreamProtocolError`` for what is no event.
    """
    headers = message.headers
    kind = headers.get(":message-type")
    if kind == "exception":
        raise StreamError(*error_of(str(headers.get(":exception-type")), message.payload))
    if kind == "error":
        body = orjson.dumps({"message": str(headers.get(":error-message") or "")})
        raise StreamError(*error_of(str(headers.get(":error-code")), body))
    try:
        content = orjson.loads(message.payload)
    except ValueError as error:
        raise malformed() from error
    name = headers.get(":event-type")
    if kind != "event" or not isinstance(name, str) or not isinstance(content, dict):
        raise malformed()
    return name, content


def error_of(kind: str, body: bytes, status: int = 502) -> tuple[int, str, str]:
    """Status, code and message of an exception named ``kind`` (``ThrottlingException``, also with a URI behind a colon,
    as ``x-amzn-errortype`` has it) with the JSON ``body``; ``status`` holds for names that are not known."""
    name = kind.partition(":")[0].rpartition("#")[2].removesuffix("Exception")
    name = name[:1].upper() + name[1:]
    code = _CODES.get(name, _WORD.sub("_", name).lower())
    return _STATUSES.get(name, status), code, _text(body) or "The provider reported an error."


def _text(body: bytes) -> str:
    try:
        said = orjson.loads(body)
    except ValueError:
        return ""
    found = [said.get(name) for name in ("message", "Message", "originalMessage")] if isinstance(said, dict) else []
    return next((text[:_LONGEST_MESSAGE] for text in found if isinstance(text, str) and text), "")


class AnthropicEvents:
    """The event stream of ``invoke-with-response-stream`` of an Anthropic model → Anthropic's own server-sent events.

    ``chunk`` events hold one event each, in base64. The bytes of an event stay as they are, but for Amazon's
    ``amazon-bedrock-invocationMetrics`` in the last one, which is taken out.
    """

    __slots__ = ("_splitter", "done")

    def __init__(self) -> None:
        self._splitter = MessageSplitter()
        self.done = False
        """``message_stop`` came."""

    def feed(self, block: bytes) -> bytes:
        """The events that ``block``, cut anywhere, completes. Raises ``StreamError`` and ``UpstreamProtocolError``."""
        return b"".join([self._event(message) for message in self._splitter.feed(block)])

    def end(self) -> bytes:
        """Nothing. Raises ``UpstreamProtocolError`` if ``message_stop`` never came."""
        if not self.done:
            raise UpstreamProtocolError("The provider's stream ended before it was complete.")
        return b""

    def _event(self, message: Message) -> bytes:
        name, content = event(message)
        if name != "chunk":
            return b""
        try:
            data = b64decode(content["bytes"], validate=True)
            parsed = orjson.loads(data)
            kind = parsed["type"]
            if parsed.pop("amazon-bedrock-invocationMetrics", None) is not None:
                data = orjson.dumps(parsed)
            if b"\n" in data or b"\r" in data:
                data = orjson.dumps(parsed)
            head = f"event: {kind}\ndata: ".encode()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise malformed() from error
        self.done = self.done or kind == "message_stop"
        return head + data + b"\n\n"
