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
from typing import Any

import aiohttp
from aiohttp import ClientRequest, ClientTimeout
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import BaseConnector, Connection
from aiohttp.http import RawResponseMessage
from aiohttp.streams import EofStream, StreamReader
from yarl import URL

_JOIN = 1 << 16  # bytes up to which head and body are cheaper sent as one
_USED = "_hookgate_used"


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
        # Never sent: the connector reads host, port and TLS settings off it.
        self._request = ClientRequest("GET", url, loop=connector._loop, session=session, ssl=tls)
        self._host = f"Host: {self._request.headers['Host']}\r\n"

    async def call(
        self, method: str, path: str, headers: Iterable[tuple[str, str]], body: bytes | None
    ) -> tuple[Connection, RawResponseMessage, StreamReader]:
        """Send one request, wait for the head of its answer. The caller closes or releases the connection.

        Raises what aiohttp raises, ``ReusedConnectionLost`` among it, and ``ValueError`` for a header that would
        split the request.
        """
        lines = [f"{name}: {value}\r\n" for name, value in headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}\r\n")
        elif method not in ("GET", "HEAD", "OPTIONS"):
            lines.append("Content-Length: 0\r\n")
        head = f"{method} {path} HTTP/1.1\r\n{self._host}{''.join(lines)}\r\n"
        if head.count("\n") != len(lines) + 3 or head.count("\r") != len(lines) + 3 or "\0" in head:
            raise ValueError("a header holds a line break")
        try:
            connection = await self._connector.connect(self._request, [], self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError("no connection in time") from error
        try:
            message, payload = await self._exchange(connection, head.encode("utf-8", "surrogateescape"), body, method)
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
        reused = getattr(protocol, _USED, False)
        setattr(protocol, _USED, True)
        protocol.set_response_params(
            skip_payload=method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            max_line_size=self._head_limit,
            max_field_size=self._head_limit,
        )
        if not body:
            transport.write(head)
        elif len(body) < _JOIN:
            transport.write(head + body)
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
