"""The HTTP front door: aiohttp's server protocol with the limits and the errors a gateway needs.

aiohttp has no deadline for request heads other than its keep-alive time, answers its own errors in plain text with its
version, and accepts a few framings that proxies in front read differently (RELIABILITY: M10, M17, the parser corpus).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextvars import copy_context
from time import monotonic
from typing import Any

import aiohttp
from aiohttp import HttpVersion11, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.http_writer import StreamWriter
from aiohttp.web_protocol import ERROR, RequestHandler

from gateway.errors import GatewayError, InternalError, InvalidRequest, RouteNotFound
from gateway.framing import HeadTooLarge, misframed
from gateway.outbox import outbox
from gateway.rendering import render_body

LINGER = 2.0
"""Seconds the rest of a body is read and dropped after an answer that did not wait for it.

Closed with unread bytes, TCP resets the connection, and a client that sends all before it reads never sees the answer
(RFC 9112 section 9.6).
"""

_OWN_LOOP = aiohttp.__version__.startswith("3.14.")
# ``Connection.start`` mirrors this version's; with any other, aiohttp's own serves.

Handler = Callable[[Any], Awaitable[web.StreamResponse]]


class Sent(web.StreamResponse):
    """Stands for an answer that is on the wire already; aiohttp's server asks these three of what a handler returns."""

    def __init__(self) -> None:
        pass

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


SENT = Sent()


class _InOwnContext:
    """Awaits a coroutine with context variables of its own, as a task would, at a twentieth of a task's price."""

    __slots__ = ("_coro",)

    def __init__(self, coro: Awaitable[web.StreamResponse]) -> None:
        self._coro = coro

    def __await__(self) -> Generator[Any, Any, web.StreamResponse]:
        coro: Any = self._coro
        run = copy_context().run
        step: Callable[[Any], Any] = coro.send
        given: Any = None
        while True:
            try:
                wanted = run(step, given)
            except StopIteration as end:
                result: web.StreamResponse = end.value
                return result
            try:
                given = yield wanted
                step = coro.send
            except BaseException as error:  # noqa: BLE001 - the coroutine's to handle
                given, step = error, coro.throw


class Connection(RequestHandler):
    """One client connection."""

    __slots__ = ("head_since", "outlived", "peer")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.head_since = monotonic()
        """When the request head now arriving began; 0.0 while none is."""
        self.peer = ""
        self.outlived: Callable[[], bool] | None = None
        """Asked when the client leaves: whether what is answering it goes on. Otherwise that is cancelled."""

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
        if self.outlived is not None and self.outlived():
            self._task_handler = None  # else aiohttp cancels it
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        heads = self._request_count
        super().data_received(data)
        if self._request_count != heads:
            self.head_since = 0.0
        elif not self.head_since and self._waiter is not None and not self._waiter.done():
            self.head_since = monotonic()

    def force_close(self) -> None:
        outbox.flush()
        super().force_close()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp calls this for every block that is read, and parses nothing at all each time."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    async def start(self) -> None:
        """Serve the requests of this connection, one after the other.

        aiohttp's own loop runs each handler in a task of its own, which costs a tenth of a request. Here the
        connection's task runs it; what is not the usual way (an answer not yet sent, a body not read, an upgrade) goes
        through the same methods of aiohttp as there.
        """
        if not _OWN_LOOP:
            await super().start()
            return
        loop = self._loop
        try:
            while not self._force_close:
                if not self._messages:
                    try:
                        self._waiter = loop.create_future()
                        await self._waiter
                    finally:
                        self._waiter = None
                if not await self._serve_one(*self._messages.popleft()):
                    break
                self._next_keepalive_close_time = close_time = loop.time() + self._keepalive_timeout
                if self._keepalive_handle is None:
                    self._keepalive_handle = loop.call_at(close_time, self._process_keepalive)
        except asyncio.CancelledError:
            self.force_close()
            raise
        except Exception as error:  # noqa: BLE001 - nobody else would tell
            self.log_exception("Unhandled exception", exc_info=error)
            self.force_close()
        if not self._force_close:
            self._task_handler = None
            outbox.flush()
            if self.transport is not None:
                self.transport.close()

    async def _serve_one(self, message: Any, payload: Any) -> bool:
        """Answer one request; ``False`` when the connection is to be closed behind it."""
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        front: Front | None = self._manager  # type: ignore[assignment]
        task = self._task_handler
        if front is None or task is None:
            return False
        handler = front.request_handler
        if type(message) is not RawRequestMessage:  # what could not be parsed
            handler, message = self._make_error_handler(message), ERROR
        request = front.request_factory(message, payload, self, StreamWriter(self, self._loop), task)
        self._request_in_progress = True
        self._current_request = request
        try:
            response = await _InOwnContext(handler(request))
        except ConnectionError:
            return False
        except web.HTTPException:  # no route matches a path with a line break in it
            response = refusal(RouteNotFound("There is nothing at this path."))
        except Exception as error:  # noqa: BLE001 - answered, and logged
            response = self.handle_error(request, 500, error)
        finally:
            self._current_request = None
            self._request_in_progress = False
            if self._handler_waiter is not None:
                self._handler_waiter.set_result(None)
        if response is SENT and not self._upgraded and payload.is_eof():
            return not (self._close or self._force_close)
        return await self._finish(request, response, payload)

    async def _finish(self, request: web.BaseRequest, response: web.StreamResponse, payload: Any) -> bool:
        """Send what is not sent yet, and drop what is left of the body; ``False`` as ``_serve_one``."""
        response, reset = await self.finish_response(request, response, None)
        if reset:
            return False
        if not payload.is_eof():
            await self._drop_rest(payload)
        return bool(response.keep_alive) and not (self._close or self._force_close)

    async def _drop_rest(self, payload: aiohttp.StreamReader) -> None:
        """Read what is left of a request body and drop it, for ``LINGER`` seconds at most."""
        if self._lingering_time and not self._force_close:
            await asyncio.sleep(0)  # the upload to a provider that answered early is cancelled, but may still read
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._lingering_time):
                    while not payload.is_eof():
                        await payload.readany()
        if not payload.is_eof():
            self.close()

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

    def handle(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        message = request._message
        wrong = misframed(message)
        if wrong is None:
            # Most requests need no more than this one look-up.
            return front.exact.get((message.method, message.path), front.handler)(request)
        return refused(request, wrong)

    async def refused(request: web.BaseRequest, wrong: GatewayError) -> web.StreamResponse:
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
