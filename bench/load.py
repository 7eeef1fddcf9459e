"""The load: keep-alive connections that send one rendered request again and again and check every answer."""

from __future__ import annotations

import asyncio
import re
from time import perf_counter
from typing import cast

import attrs

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_BATCH = 64
"""Connections opened at once: below the listen backlog of 128 that aiohttp asks for."""


@attrs.define
class Counts:
    """What happened since the connections were opened."""

    requests: int = 0
    body_bytes: int = 0
    errors: int = 0
    first_error: str = ""
    latencies: list[float] = attrs.field(factory=list)
    """Seconds from sending a request to the first byte of its answer."""


class Load:
    """``connections`` clients in a closed loop: each sends its next request when its answer is complete.

    An answer counts as an error unless its status is 200 and its body equals ``expected``.
    """

    def __init__(self, port: int, request: bytes, expected: bytes, connections: int) -> None:
        self.counts = Counts()
        self.request = request
        self.expected = expected
        self.head = b""
        """Head of the latest answer."""
        self.running = True
        self.limit = 0
        self.busy: set[_Client] = set()
        """Connections that wait for the rest of an answer."""
        self.changed = asyncio.Event()
        """Set when the limit of requests is reached or no connection is busy any more."""
        self._port = port
        self._connections = connections
        self._clients: list[_Client] = []

    async def open(self) -> None:
        """Connect, and begin to send."""
        loop = asyncio.get_running_loop()
        for start in range(0, self._connections, _BATCH):
            count = min(_BATCH, self._connections - start)
            made = [loop.create_connection(lambda: _Client(self), "127.0.0.1", self._port) for _ in range(count)]
            self._clients += [client for _, client in await asyncio.gather(*made)]

    async def go_on(self, seconds: float, requests: int = 0) -> None:
        """Let it run for so long, or until so many more requests are complete (0: no such limit)."""
        self.changed.clear()
        self.limit = self.counts.requests + requests if requests else 0
        await self._wait(seconds)

    async def drain(self, seconds: float) -> None:
        """Let the answers under way complete, for so long at most, and disconnect."""
        self.running = False
        self.changed.clear()
        await self._wait(seconds)
        self.close()

    def close(self) -> None:
        """Disconnect at once."""
        self.running = False
        for client in self._clients:
            client.abort()

    async def _wait(self, seconds: float) -> None:
        if not self.busy:
            return
        try:
            async with asyncio.timeout(seconds):
                await self.changed.wait()
        except TimeoutError:
            pass  # the usual end of a timed round


class _Client(asyncio.Protocol):
    """One connection: a minimal reader of answers with a length or in chunks."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._rest = b""
        self._parts: list[bytes] = []
        self._left: int | None = None  # bytes of a body with a length still to come; None: chunked
        self._in_body = False
        self._sent = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its base class
        if self._load.running:
            self._send()

    def abort(self) -> None:
        self._load.busy.discard(self)
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._load.busy:
            self._fail(f"connection lost: {exc or 'closed by the server'}")

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            head, separator, data = (self._rest + data).partition(b"\r\n\r\n")
            if not separator:
                self._rest = head
                return
            self._begin(head)
        if self._left is None:
            self._read_chunks(self._rest + data)
        else:
            self._part(data)
            self._left -= len(data)
            if self._left <= 0:
                self._complete()

    def _begin(self, head: bytes) -> None:
        self._load.counts.latencies.append(perf_counter() - self._sent)
        self._load.head = head
        length = _LENGTH.search(head)
        self._left = int(length[1]) if length else None
        self._rest = b""
        self._in_body = True

    def _read_chunks(self, data: bytes) -> None:
        start = 0
        while (line := data.find(b"\r\n", start)) >= 0:
            size = int(data[start:line], 16)
            end = line + 2 + size
            if len(data) < end + 2:
                break
            if not size:
                self._rest = b""
                self._complete()
                return
            self._part(data[line + 2 : end])
            start = end + 2
        self._rest = data[start:]

    def _part(self, data: bytes) -> None:
        self._parts.append(data)
        self._load.counts.body_bytes += len(data)

    def _complete(self) -> None:
        load, body = self._load, b"".join(self._parts)
        load.busy.discard(self)
        if body != load.expected or not load.head.startswith(b"HTTP/1.1 200"):
            self._fail(f"{load.head[:300]!r} with {len(body)} bytes: {body[:300]!r}")
            return
        load.counts.requests += 1
        if load.running:
            self._send()
        elif not load.busy:
            load.changed.set()
        if load.limit and load.counts.requests >= load.limit:
            load.changed.set()

    def _send(self) -> None:
        self._parts = []
        self._in_body = False
        self._load.busy.add(self)
        self._sent = perf_counter()
        self._transport.write(self._load.request)

    def _fail(self, reason: str) -> None:
        """Gives this connection up: after a wrong answer its figures mean nothing."""
        load = self._load
        load.counts.errors += 1
        load.counts.first_error = load.counts.first_error or reason
        self.abort()
        if not load.busy:
            load.changed.set()
