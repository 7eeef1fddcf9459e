"""The fast way over the shared session: its connector's pooled connection, without aiohttp's own objects.

Building ``ClientRequest`` and ``ClientResponse`` is the largest single cost of a proxied request. What they would build
is known in advance for an endpoint, so the head is written from parts prepared once. Pool, limits, DNS and TLS stay the
connector's; the answer is read by aiohttp's own response protocol.

This leans on parts of aiohttp that are not its public face: ``connector.connect``, ``Connection``, ``ResponseHandler``.
They are used here and nowhere else, a contract test pins them, and ``supported`` says whether this aiohttp has them;
where it does not, ``session.request`` serves.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import aiohttp
from aiohttp import ClientRequest, ClientTimeout
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import BaseConnector, Connection
from aiohttp.http import RawResponseMessage
from aiohttp.streams import EofStream, StreamReader
from yarl import URL

from gateway.connector import Handler
from gateway.outbox import outbox

_JOIN = 1 << 16  # bytes up to which head and body are cheaper sent as one


def supported() -> bool:
    """Whether the installed aiohttp has the parts this module uses, with the parameters it uses."""
    wanted = {"skip_payload", "read_until_eof", "auto_decompress", "read_timeout", "max_line_size", "max_field_size"}
    return (
        aiohttp.__version__.startswith("3.14.")
        and wanted <= set(inspect.signature(ResponseHandler.set_response_params).parameters)
        and list(inspect.signature(BaseConnector.connect).parameters) == ["self", "req", "traces", "timeout"]
        and {"protocol", "transport", "release", "close"} <= set(dir(Connection))
    )


class ReusedConnectionLost(aiohttp.ServerDisconnectedError):
    """A kept-alive connection died before one byte of an answer: most likely the server had closed it already."""


def lines(fields: Iterable[tuple[str, str]]) -> bytes:
    """Header lines for ``Route.call``. Raises ``ValueError`` for a header that would split the request."""
    made = [f"{name}: {value}\r\n" for name, value in fields]
    text = "".join(made)
    if text.count("\n") != len(made) or text.count("\r") != len(made) or "\0" in text:
        raise ValueError("a header holds a line break")
    return text.encode("utf-8", "surrogateescape")


class _Address(ClientRequest):
    """Never sent: the connector reads host, port and TLS settings off it."""

    @cached_property
    def connection_key(self) -> Any:
        """Made once; the connector asks for it three times a call."""
        return super().connection_key


class Route:
    """Where one endpoint's requests go: what the connector needs to know, and the constant part of the head."""

    def __init__(
        self, session: aiohttp.ClientSession, url: URL, tls: Any, timeout: ClientTimeout, head_limit: int
    ) -> None:
        connector = session.connector
        assert connector is not None
        self._connector = connector
        self._timeout = timeout
        self._head_limit = head_limit
        self._request = _Address("GET", url, loop=connector._loop, session=session, ssl=tls)
        self._host = self._request.headers["Host"]
        self._starts: dict[tuple[str, str], bytes] = {}

    def _start(self, method: str, path: str) -> bytes:
        start = self._starts.get((method, path))
        if start is None:
            if any(char <= " " for char in method + path):
                raise ValueError("method or path holds a line break")
            start = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\n".encode("utf-8", "surrogateescape")
            if len(self._starts) < 256 and len(path) < 256:  # paths may hold client-chosen ids
                self._starts[method, path] = start
        return start

    async def call(
        self, method: str, path: str, headers: bytes, body: bytes | None, exchange: Any = None
    ) -> tuple[Connection, RawResponseMessage, StreamReader]:
        """Send one request, wait for the head of its answer. The caller closes or releases the connection.

        ``headers`` are whole lines (``lines`` makes them). On a connection the ``exchange`` is ``sent``. Raises
        what aiohttp raises, ``ReusedConnectionLost`` among it, and ``ValueError`` for a method or path that would split
        the request.
        """
        start = self._start(method, path)
        if body is not None:
            head = b"%b%bContent-Length: %d\r\n\r\n" % (start, headers, len(body))
        elif method in ("GET", "HEAD", "OPTIONS"):
            head = b"%b%b\r\n" % (start, headers)
        else:
            head = b"%b%bContent-Length: 0\r\n\r\n" % (start, headers)
        try:
            connection = await self._connector.connect(self._request, [], self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError("no connection in time") from error
        if exchange is not None:
            exchange.sent = True
        try:
            message, payload = await self._exchange(connection, head, body, method)
        except BaseException:
            connection.close()
            raise
        return connection, message, payload

    async def _exchange(
        self, connection: Connection, head: bytes, body: bytes | None, method: str
    ) -> tuple[RawResponseMessage, StreamReader]:
        protocol = connection.protocol
        transport = connection.transport
        if protocol is None or transport is None:
            raise ReusedConnectionLost
        assert isinstance(protocol, Handler)
        reused = protocol.used
        protocol.used = True
        protocol.expect(method == "HEAD", self._head_limit)
        if not body:
            outbox.write(transport, head)
        elif len(body) < _JOIN:
            outbox.write(transport, head + body)
        else:
            transport.write(head)
            transport.write(body)
        try:
            while True:
                message, payload = await protocol.read()
                if not 100 <= message.code < 200:
                    return message, payload
        except EofStream as error:
            raise aiohttp.ServerDisconnectedError from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            # A head that had begun is the "message"; otherwise it is aiohttp's text.
            if reused and not isinstance(getattr(error, "message", None), RawResponseMessage):
                raise ReusedConnectionLost from error
            raise

    def forget_idle(self) -> None:
        """Close this route's idle connections: one died of age, the others are no younger."""
        for protocol, _ in self._connector._conns.pop(self._request.connection_key, ()):
            protocol.close()
