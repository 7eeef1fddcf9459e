"""HTTP/1.1 as bytes: just enough to read a message off a socket, with nothing of the gateway in it.

An oracle must not share code with what it judges, so neither aiohttp's parser nor ours is used here.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import attrs

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
READ_LIMIT = 1 << 20
"""Bytes one head or one chunk-size line may have."""
# Below those the system gives to outgoing connections and to port 0: none of these takes a port found free before its
# server has started, and under load there are thousands.
_PORTS = range(20_000, 30_000)
_SHARE = 1_000


class Truncated(Exception):
    """The peer closed (``how == "closed"``) or reset (``"reset"``) the connection before its message was complete."""

    def __init__(self, how: str, received: bytes = b"") -> None:
        super().__init__(f"connection {how} inside a message, after {received[-80:]!r}")
        self.how = how
        self.received = received


@attrs.frozen
class Head:
    """Start line and headers as they came, names not folded, order kept."""

    start: str
    headers: list[tuple[str, str]]
    raw: bytes

    def get(self, name: str) -> str | None:
        """The first value of ``name``, in any case; ``None`` if it is absent."""
        return next(iter(self.all(name)), None)

    def all(self, name: str) -> list[str]:
        """Every value of ``name``, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


def pairs(headers: Headers) -> list[tuple[str, str]]:
    return list(headers.items() if isinstance(headers, Mapping) else headers)


def encode_head(start: str, headers: Headers) -> bytes:
    """A head as bytes; values are sent as they are, so that malformed ones can be sent too."""
    lines = [start, *(f"{name}: {value}" for name, value in pairs(headers)), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def encode_chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; ``b""`` gives the last one."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def json_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next head; ``None`` when the peer closed cleanly before its first byte. Raises ``Truncated``."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise Truncated("closed", error.partial) from None
    except ConnectionError:
        raise Truncated("reset") from None
    start, *lines = raw[:-4].decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines)
    return Head(start, [(name, value.strip()) for name, _, value in fields], raw)


async def read_body(reader: asyncio.StreamReader, head: Head, *, until_close: bool) -> AsyncIterator[bytes]:
    """The pieces of a body as they arrive, without their framing. Raises ``Truncated``.

    ``until_close``: a message with neither ``Transfer-Encoding`` nor ``Content-Length`` ends when the connection does
    (replies), else it has no body (requests); RFC 9112 section 6.3.
    """
    try:
        if "chunked" in (head.get("transfer-encoding") or "").lower():
            async for piece in _chunks(reader):
                yield piece
        elif (length := head.get("content-length")) is not None:
            left = int(length)
            while left:
                piece = await reader.read(min(left, 65536))
                if not piece:
                    raise Truncated("closed")
                left -= len(piece)
                yield piece
        elif until_close:
            while piece := await reader.read(65536):
                yield piece
    except asyncio.IncompleteReadError as error:
        raise Truncated("closed", error.partial) from None
    except ConnectionError:
        raise Truncated("reset") from None


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        data = await reader.readexactly(size + 2)
        yield data[:-2]
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers


def reset(transport: asyncio.BaseTransport) -> None:
    """End a connection with RST instead of FIN: no linger, then abort."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()  # type: ignore[attr-defined]  # BaseTransport lacks it, every stream transport has it


def free_ports(count: int) -> list[int]:
    """Different TCP ports of 127.0.0.1 nobody listens on now, and no other worker of pytest-xdist is given."""
    found: list[int] = []
    while len(found) < count:
        port = next(_candidates)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found


def _share() -> Iterator[int]:
    """This process's part of the ports, again and again; runs start anywhere, for another run may be under way."""
    start = random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID")).randrange(len(_PORTS))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for at in itertools.cycle(range(_SHARE)):
        yield _PORTS[(start + worker * _SHARE + at) % len(_PORTS)]


_candidates = _share()
