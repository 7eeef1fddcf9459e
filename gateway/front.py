"""The HTTP front door: aiohttp's server protocol with the limits and the errors a gateway needs.

aiohttp has no deadline for request heads other than its keep-alive time, answers its own errors in plain text with its
version, and accepts a few framings that proxies in front read differently (RELIABILITY: M10, M17, the parser corpus).
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from gateway.errors import GatewayError, InternalError, InvalidRequest, render_body

LINGER = 2.0
"""Seconds the rest of a body is read and dropped after an answer that did not wait for it.

Closed with unread bytes, TCP resets the connection, and a client that sends all before it reads never sees the answer
(RFC 9112 section 9.6).
"""
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


Handler = Callable[[Any], Awaitable[web.StreamResponse]]
_VERSIONS = (HttpVersion10, HttpVersion11)


class HeadTooLarge(InvalidRequest):
    """Request line or header fields beyond the parser's limits."""

    status = 431
    code = "request_header_fields_too_large"


class UnsupportedFraming(InvalidRequest):
    """A transfer coding this server does not decode (RFC 9112 section 6.1 asks for 501)."""

    status = 501
    code = "unsupported_transfer_coding"


class UnsupportedVersion(InvalidRequest):
    status = 505
    code = "http_version_not_supported"


def misframed(message: RawRequestMessage) -> InvalidRequest | None:
    """What is wrong with a request head that aiohttp takes and other servers read differently; ``None`` if nothing."""
    if message.version not in _VERSIONS:
        return UnsupportedVersion("Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    if not message.path.startswith("/"):
        return InvalidRequest("The request target must be a path.")
    headers = message.headers
    coding = headers.get("Transfer-Encoding")
    if coding is not None:
        if message.version != HttpVersion11:
            return InvalidRequest("Transfer-Encoding needs HTTP/1.1.")
        if coding.strip().lower() != "chunked" or len(headers.getall("Transfer-Encoding")) > 1:
            return UnsupportedFraming("Only the chunked transfer coding is accepted.")
    host = headers.get("Host")
    if host is not None and not _HOST.fullmatch(host):
        return InvalidRequest("The Host header is not valid.")
    return None


class Connection(RequestHandler):
    """One client connection."""

    __slots__ = ("head_since", "peer")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.head_since = monotonic()
        """When the request head now arriving began; 0.0 while none is."""
        self.peer = ""

    @property
    def is_idle(self) -> bool:
        """No request is being answered, and the head of the next one is not complete."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def idle_since(self) -> float:
        """When the connection was made or its last answer ended; the event loop's time."""
        return self._next_keepalive_close_time - self._keepalive_timeout

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        front: Front = self._manager  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        front.peers[self.peer] += 1
        if front.max_per_peer and front.peers[self.peer] > front.max_per_peer:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        front: Front | None = self._manager  # type: ignore[assignment]
        if front is not None:
            front.peers[self.peer] -= 1
            if not front.peers[self.peer]:
                del front.peers[self.peer]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        heads = self._request_count
        super().data_received(data)
        if self._request_count != heads:
            self.head_since = 0.0
        elif not self.head_since and self._waiter is not None and not self._waiter.done():
            self.head_since = monotonic()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """aiohttp's own errors (a head it cannot parse, a handler that broke) in our shape; closes the connection."""
        if status == 500 and not isinstance(exc, ConnectionError):  # the client left while it was being written to
            self.log_exception("Error handling request", exc_info=exc)
        error: GatewayError = InternalError() if status >= 500 else InvalidRequest("The request is not valid HTTP.")
        if status < 500 and type(exc).__name__ == "LineTooLong":
            error = HeadTooLarge("The request line or a header is too large.")
        return refusal(error)


def refusal(error: GatewayError, request_id: str = "") -> web.Response:
    """An error for a request that never became an exchange; the connection closes behind it."""
    headers = {"server": "hookgate", "content-type": "application/json", "connection": "close"}
    response = web.Response(
        status=error.http_status, headers=headers, body=render_body(error, "openai_chat", request_id)
    )
    response.force_close()
    return response


def _well_framed(front: Front) -> Handler:
    """The routes of ``front`` for requests that every server reads alike; asked before any route is looked for."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        message = request._message
        wrong = misframed(message)
        if wrong is None:
            # Most requests need no more than this one look-up.
            return await front.exact.get((message.method, message.path), front.handler)(request)
        request._version = HttpVersion11  # the answer's status line would repeat the client's
        request.protocol._lingering_time = 0.0  # where this request's body ends is not sure
        return refusal(wrong)

    return handle


class Front(web.Server):
    """Makes ``Connection``s, and closes those whose request head does not come."""

    def __init__(
        self,
        handler: Handler,
        exact: Mapping[tuple[str, str], Handler],
        *,
        max_per_peer: int = 0,
        head_timeout: float = 15.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(_well_framed(self), **kwargs)
        self.handler = handler
        self.exact = exact
        """The routes without a variable part. Both may be replaced at any time: the next request goes by them."""
        self.max_per_peer = max_per_peer
        self.head_timeout = head_timeout
        self.peers: Counter[str] = Counter()

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)

    def close_idle(self, since: float) -> int:
        """Close connections that have waited for a request since then (the event loop's time); how many there are.

        Those just closed count until the next round of the event loop, and so do those whose request has arrived and is
        not looked at yet.
        """
        for connection in self.connections:
            if isinstance(connection, Connection) and connection.is_idle and connection.idle_since <= since:
                connection.force_close()
        return len(self.connections)

    async def sweep(self) -> None:
        """Run for ever: close connections whose request head takes longer than ``head_timeout``."""
        while True:
            await asyncio.sleep(min(1.0, self.head_timeout / 4))
            oldest = monotonic() - self.head_timeout
            for connection in self.connections:
                if isinstance(connection, Connection) and 0.0 < connection.head_since < oldest:
                    connection.force_close()


class FrontRunner(web.AppRunner):
    """``AppRunner`` with our server protocol. Its application has no routes: ``front`` gets a generation's.

    A ``setup`` beyond the first does nothing: gunicorn's worker calls it once more.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(web.Application(), lingering_time=LINGER, **kwargs)
        self.front: Front

    async def setup(self) -> None:
        if self.server is None:
            await super().setup()

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        self.front = Front(
            made.request_handler,
            {},
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )
        return self.front
