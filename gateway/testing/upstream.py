"""A model provider that does exactly what a script says and writes down all that happened to it.

    async with ScriptedUpstream(chat_stream(5, ending="reset")) as upstream:
        …                                      # point a provider's base_url at upstream.url
        assert upstream.calls[0].json["model"] == "gpt-4o"

The ledger (``connections``, ``requests``) is the oracle of a test: what is not in it did not reach the provider.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any, Self

import attrs

from gateway.testing import wire
from gateway.testing.wire import Head, Headers, Truncated

Script = Callable[["Call"], Awaitable[None]]
"""Answers one request. It is cancelled when the client leaves, and then the request counts as aborted."""


@attrs.define(eq=False)
class Connection:
    """One TCP connection, as the upstream saw it. Times are ``time.monotonic`` seconds."""

    opened: float = attrs.field(factory=monotonic)
    left: float | None = None
    """When the client's FIN or RST was noticed; ``None`` while it stays or when the script closed first."""
    closed: float | None = None
    """When either side had closed it for good."""
    requests: list[Received] = attrs.field(factory=list)


@attrs.define(eq=False)
class Received:
    """One request with what became of its answer. Times are ``time.monotonic`` seconds."""

    connection: Connection
    head: Head
    method: str
    target: str
    """The request target as sent: raw, percent-encoded, with its query."""
    body: bytearray = attrs.field(factory=bytearray)
    started: float = attrs.field(factory=monotonic)
    read: float | None = None
    """When the last byte of the request had arrived."""
    finished: float | None = None
    """When the script had answered to its end."""
    aborted: float | None = None
    """When the client left before that."""
    written: int = 0
    """Bytes of answer handed to the socket."""

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Name and value of every header, in the order and case they came in."""
        return self.head.headers

    def header(self, name: str) -> str | None:
        return self.head.get(name)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Call:
    """What a script holds: the request, and the hand that writes the answer."""

    def __init__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Raw bytes; returns when the socket has taken them (back-pressure reaches the script)."""
        self._writer.write(data)
        self.request.written += len(data)
        await self._writer.drain()

    async def head(self, status: int = 200, headers: Headers = (), *, reason: str = "OK") -> None:
        """A head exactly as given: no header is added."""
        await self.send(wire.encode_head(f"HTTP/1.1 {status} {reason}", headers))

    async def answer(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """A whole answer with its ``Content-Length``."""
        fields = [*wire.pairs(headers), ("Content-Length", str(len(body)))]
        await self.send(wire.encode_head(f"HTTP/1.1 {status} X", fields) + body)

    async def chunk(self, data: bytes) -> None:
        """One chunk of a chunked body; ``b""`` ends it."""
        await self.send(wire.encode_chunk(data))

    async def stall(self) -> None:
        """Send nothing more until the client leaves."""
        await asyncio.Event().wait()

    def close(self) -> None:
        """FIN, after what was sent."""
        self.request.connection.closed = monotonic()
        self._writer.close()

    def reset(self) -> None:
        """RST, now."""
        self.request.connection.closed = monotonic()
        wire.reset(self._writer.transport)


class _Wire(asyncio.StreamReaderProtocol):
    """A stream protocol that notices at once when the client leaves, also while a script sends or sleeps."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        reader = asyncio.StreamReader(limit=wire.READ_LIMIT)
        super().__init__(reader, self._connected)
        self.reader = reader
        self.ledger = Connection()
        self.script: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None
        self._upstream = upstream

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._upstream.connections.append(self.ledger)
        self.task = asyncio.get_running_loop().create_task(self._upstream.serve(self, reader, writer))

    def _client_left(self) -> None:
        if self.ledger.left is None and self.ledger.closed is None:
            self.ledger.left = monotonic()
            if self.script is not None:
                self.script.cancel()
        self._upstream.changed()

    def eof_received(self) -> bool | None:
        self._client_left()
        return super().eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._client_left()
        self.ledger.closed = self.ledger.closed or monotonic()
        self._upstream.changed()
        super().connection_lost(error)


class ScriptedUpstream:
    """A raw HTTP/1.1 server on loopback.

    ``script`` answers every request; of a sequence, each request takes the next one and the last repeats. Assign
    ``script`` to change it between requests. With ``models`` set, ``GET …/models`` is answered from it. A script that
    raises fails the test when the ``async with`` block ends.
    """

    def __init__(
        self,
        script: Script | Sequence[Script],
        *,
        models: Sequence[str] = ("m",),
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.script = script
        self.models = models
        self.host = host
        self.port = port
        self.connections: list[Connection] = []
        self.requests: list[Received] = []
        """Every request, in order of arrival; its body may still be on its way."""
        self.failures: list[BaseException] = []
        self._tls = tls
        self._wires: list[_Wire] = []
        self._changed = asyncio.Event()
        self._taken = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._wire, self.host, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        if self.failures:
            raise self.failures[0]

    async def stop(self) -> None:
        """Refuse new connections and reset the open ones."""
        self._server.close()
        running = [task for each in self._wires for task in (each.script, each.task) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    @property
    def calls(self) -> list[Received]:
        """The requests a script answered: all but model lists."""
        return [request for request in self.requests if not self._asks_models(request)]

    @property
    def open_connections(self) -> int:
        return sum(connection.closed is None for connection in self.connections)

    async def until(self, condition: Callable[[], bool], within: float = 1.0) -> None:
        """Wait until the ledger fulfils ``condition``. Raises ``TimeoutError`` after ``within`` seconds."""
        async with asyncio.timeout(within):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def wait_calls(self, count: int = 1, within: float = 1.0) -> Received:
        """The ``count``-th call, fully received. Raises ``TimeoutError``."""
        await self.until(lambda: len(self.calls) >= count and self.calls[count - 1].read is not None, within)
        return self.calls[count - 1]

    async def wait_aborted(self, count: int = 1, within: float = 1.0) -> Received:
        """The ``count``-th request whose client left before it was answered. Raises ``TimeoutError``."""
        await self.until(lambda: sum(each.aborted is not None for each in self.requests) >= count, within)
        return [each for each in self.requests if each.aborted is not None][count - 1]

    def changed(self) -> None:
        self._changed.set()

    def _wire(self) -> _Wire:
        self._wires.append(_Wire(self))
        return self._wires[-1]

    def _asks_models(self, request: Received) -> bool:
        return bool(self.models) and request.method == "GET" and request.target.split("?")[0].endswith("/models")

    def _script_for(self, request: Received) -> Script:
        if self._asks_models(request):
            return _model_list(self.models)
        if callable(self.script):
            return self.script
        self._taken += 1
        return self.script[min(self._taken, len(self.script)) - 1]

    async def serve(self, wire_: _Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await wire.read_head(reader)) is not None:
                method, target, _version = head.start.split(" ")
                request = Received(wire_.ledger, head, method, target)
                wire_.ledger.requests.append(request)
                self.requests.append(request)
                self.changed()
                if not await self._answer(request, wire_, reader, writer):
                    break
        except Truncated:
            pass  # the ledger has it: connection.left
        finally:
            wire_.ledger.closed = wire_.ledger.closed or monotonic()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(
        self, request: Received, wire_: _Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Whether the connection stays open for another request."""
        try:
            async for piece in wire.read_body(reader, request.head, until_close=False):
                request.body += piece
        except Truncated:
            request.aborted = monotonic()
            self.changed()
            raise
        request.read = monotonic()
        self.changed()
        call = Call(request, writer)
        wire_.script = asyncio.ensure_future(self._script_for(request)(call))  # noqa: TID251 - held until it is done
        await asyncio.wait({wire_.script})
        script, wire_.script = wire_.script, None
        error = None if script.cancelled() else script.exception()
        if script.cancelled() or isinstance(error, ConnectionError):
            request.aborted = monotonic()
        elif error is not None:
            self.failures.append(error)
        else:
            request.finished = monotonic()
        self.changed()
        return request.finished is not None and wire_.ledger.closed is None and request.header("connection") != "close"


def _model_list(models: Sequence[str]) -> Script:
    data = [{"id": model, "object": "model", "created": 1700000000, "owned_by": "test"} for model in models]

    async def script(call: Call) -> None:
        await call.answer(200, wire.json_bytes({"object": "list", "data": data}), {"Content-Type": "application/json"})

    return script
