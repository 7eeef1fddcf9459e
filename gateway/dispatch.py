"""One exchange from its request to its last byte: on_request* → route → forward → on_reply* → relay → on_finish*.

Every proxied route goes through ``Dispatcher.run``; there is no other way to a provider.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from time import perf_counter
from typing import Any

from aiohttp import web

from gateway import relay
from gateway.attempts import Attempts
from gateway.commit import is_events
from gateway.config import Config
from gateway.drain import Drain
from gateway.errors import (
    GatewayError,
    InternalError,
    Overloaded,
    RequestRejected,
    RouteNotFound,
    forget_frames,
)
from gateway.estimates import used
from gateway.exchange import Event, Exchange, Reply, Surface, Target, Usage
from gateway.intake import Intake
from gateway.plugins import Call, Plugins
from gateway.replies import error_reply, stamp
from gateway.routing import Router
from gateway.watchdog import Guard, Watchdog

log = logging.getLogger("hookgate")
HOOK_LIMIT = 30.0
"""Seconds a request hook may take; a hook that hangs refuses the request."""
Answer = Callable[[Exchange], Awaitable[Reply]]


class Dispatcher:
    """Runs exchanges on one generation of plugins and routes."""

    def __init__(self, config: Config, plugins: Plugins, router: Router, watchdog: Watchdog) -> None:
        self.plugins = plugins
        self.router = router
        self.active: set[Exchange] = set()
        self.draining = False
        """The gateway is stopping: connections close behind their answers."""
        self._finishing: set[asyncio.Future[Any]] = set()
        self._intake = Intake(config.server, config.models)
        self._reader_timeout = config.server.reader_timeout
        self._watchdog = watchdog
        self._strict = config.strict
        self.attempts = Attempts(config, plugins, router, self._observer if plugins.on_event else None)

    async def run(
        self, request: web.Request, surface: Surface, tail: str, answer: Answer | None, model: str | None = None
    ) -> web.StreamResponse:
        """Run one exchange. ``answer`` replies instead of a provider (model lists, plugin routes); ``model`` is the one
        that the path names."""
        exchange = Exchange(request, surface, self._intake.read, self._intake.read_now)
        exchange.id = self._intake.new_id()
        exchange.tail = tail
        exchange.strict = self._strict
        exchange.model = model
        exchange.client_ip = self._intake.client_ip(request)
        guard = exchange.guard = Guard(asyncio.current_task(), self._watchdog.guards)  # type: ignore[arg-type]
        self.active.add(exchange)
        reply: Reply | None = None
        try:
            try:
                reply = await self._reply(exchange, answer or self.attempts.forward)
            except asyncio.CancelledError:
                if (error := guard.caught()) is None:
                    raise
                reply = await self._failed(exchange, error)
            except Exception as error:  # noqa: BLE001 - answered, and logged where it is not ours
                reply = await self._failed(exchange, error)
            reply = await self._on_reply(exchange, reply)
            return await self._send(request, exchange, reply)
        except (asyncio.CancelledError, ConnectionError) as error:
            # OpenAI's SDK leaves at the terminal marker, without waiting for the end of the body.
            if reply is None or reply.events is None or not reply.events.delivered:
                exchange.outcome = "client_gone"
                exchange.error = exchange.error or error  # type: ignore[assignment]
            raise
        finally:
            try:
                if exchange.drain is not None:
                    await exchange.drain.finish(reply)
            finally:
                self._settle(exchange, reply)
                try:
                    await self._finish(exchange)
                finally:
                    self.active.discard(exchange)  # only now: a generation ends behind its last on_finish

    async def _reply(self, exchange: Exchange, answer: Answer) -> Reply:
        clock = perf_counter()
        for call in self.plugins.on_request:
            try:
                reply = call.function(exchange)
            except Exception as error:  # noqa: BLE001 - it becomes one of ours
                ours = _ours(call, error)
                raise ours from ours.__cause__
            if reply is not None and not isinstance(reply, Reply):
                if not isawaitable(reply):
                    raise _HookFailed(call, f"returned {type(reply).__name__}, not a Reply")
                reply = await self._awaited(call, exchange, reply)
            clock = call.stat.lap(clock)
            if isinstance(reply, Reply):
                return reply
        if exchange.principal is not None and exchange.principal.drains and exchange.surface.repeatable:
            exchange.drain = Drain(exchange)
        return await answer(exchange)

    async def _awaited(self, call: Call, exchange: Exchange, running: Awaitable[Any]) -> Any:
        """What a hook that has to wait returns, under its time limit; what is not an error of ours becomes one."""
        exchange.guard.arm(HOOK_LIMIT, _HookLimit(call))
        try:
            return await running
        except asyncio.CancelledError:
            if (error := exchange.guard.caught()) is None:
                raise
            raise error from None
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - it becomes one of ours
            ours = _ours(call, error)
            raise ours from ours.__cause__
        finally:
            exchange.guard.disarm()

    async def forward(self, exchange: Exchange) -> Reply:
        """Forward to the targets of the model the exchange names."""
        return await self.attempts.forward(exchange)

    async def forward_to_named(self, exchange: Exchange) -> Reply:
        """Forward to the provider that the path names (``/p/{provider}/…``)."""
        name = exchange.request.match_info["provider"]
        if not self.attempts.serves(name):
            raise RouteNotFound("There is nothing at this path.")
        return await self.attempts.forward(exchange, (Target(name),))

    def _observer(self, exchange: Exchange) -> Callable[[Event], None]:
        calls = self.plugins.on_event

        def observe(event: Event) -> None:
            clock = perf_counter()
            for call in calls:
                try:
                    call.function(exchange, event)
                except Exception as error:  # noqa: BLE001 - it becomes one of ours
                    ours = _ours(call, error)
                    raise ours from ours.__cause__
                clock = call.stat.lap(clock)

        return observe

    async def _failed(self, exchange: Exchange, error: Exception) -> Reply:
        for call in self.plugins.on_error:
            try:
                mapped = call.function(exchange, error)
                error = (await self._awaited(call, exchange, mapped) if isawaitable(mapped) else mapped) or error
            except Exception as later:  # noqa: BLE001 - answered in the first one's place
                error = later
        exchange.error = error
        if not isinstance(error, GatewayError):
            log.error("exchange %s failed", exchange.id, exc_info=error)
            error = InternalError()
        elif isinstance(error, _HookFailed):
            log.error("exchange %s: %s", exchange.id, error.detail, exc_info=error.__cause__)
        if isinstance(error, RequestRejected):
            exchange.outcome = "refused" if error.http_status < 500 else "failed"
        else:
            exchange.outcome = "upstream_failed"
        return error_reply(exchange, error)

    async def _on_reply(self, exchange: Exchange, reply: Reply) -> Reply:
        clock = perf_counter()
        for call in self.plugins.on_reply:
            try:
                if (running := call.function(exchange, reply)) is not None and isawaitable(running):
                    await self._awaited(call, exchange, running)
            except Exception as error:  # noqa: BLE001 - answered in the reply's place
                exchange.usage = exchange.usage or self._used(exchange, reply)  # it is paid for all the same
                if reply.close is not None:
                    reply.close()
                reply = await self._failed(exchange, _ours(call, error))
            clock = call.stat.lap(clock)
        stamp(exchange, reply)
        return reply

    def _send(self, request: web.Request, exchange: Exchange, reply: Reply) -> Awaitable[web.StreamResponse]:
        if self.draining or not self._intake.consumed(request):
            # Where the body was refused unread, no more of it is wanted on this connection.
            reply.headers["connection"] = "close"
        if reply.stream is None:
            exchange.usage = exchange.usage or reply.usage
            return relay.send_whole(request, exchange, reply, self._reader_timeout)
        events = is_events(reply, exchange.surface)
        if events:
            reply.headers["cache-control"] = "no-cache, no-transform"
            reply.headers["x-accel-buffering"] = "no"
        return relay.send_stream(request, exchange, reply, reply.stream, events, self._reader_timeout)

    def _settle(self, exchange: Exchange, reply: Reply | None) -> None:
        """The call is over: what it used is known, and what it held is given back."""
        if exchange.usage is None:
            exchange.usage = self._used(exchange, reply)
        if reply is not None and reply.close is not None:
            reply.close()
        if exchange.call is not None:
            exchange.call.end(exchange.outcome)
        exchange.guard.close()  # another one where the call's stream was cut loose from the exchange
        exchange.finished = perf_counter()

    def _used(self, exchange: Exchange, reply: Reply | None) -> Usage | None:
        try:
            return used(exchange, reply)
        except Exception:  # of an answer nobody understands; on_finish must run all the same
            log.exception("exchange %s: what it used cannot be told", exchange.id)
            return None

    async def _finish(self, exchange: Exchange) -> None:
        """Every on_finish, once, whatever the others do and also when the client's leaving cancels us meanwhile."""
        cancelled: asyncio.CancelledError | None = None
        clock = exchange.finished
        for call in self.plugins.on_finish:
            try:
                if (running := call.function(exchange)) is not None and isawaitable(running):
                    task = asyncio.ensure_future(running)  # noqa: TID251 - held in _finishing and awaited here
                    self._finishing.add(task)  # the loop keeps only a weak reference
                    task.add_done_callback(self._finishing.discard)
                    await asyncio.shield(task)
            except asyncio.CancelledError as error:
                cancelled = error
            except Exception:
                log.exception("exchange %s: plugin %s failed in on_finish", exchange.id, call.plugin)
            clock = call.stat.lap(clock)
        if exchange.error is not None:
            forget_frames(exchange.error)
        if cancelled is not None:
            raise cancelled

    def interrupt_all(self) -> None:
        """The grace of a stop is over: every exchange still running gets its error."""
        for exchange in [each for each in self.active if not each.finished]:
            exchange.guard.fire(Overloaded("The gateway is stopping.", retry_after=1))


class _HookFailed(InternalError):
    """A hook raised what it must not; the client is told nothing of it, the log everything."""

    __slots__ = ("detail",)

    def __init__(self, call: Call, detail: str) -> None:
        super().__init__()
        self.detail = f"plugin {call.plugin}, {call.hook}: {detail}"


def _ours(call: Call, error: Exception) -> GatewayError:
    """The error of ours a hook raised, or the one that hides what else it raised."""
    if isinstance(error, GatewayError):
        return error
    failed = _HookFailed(call, type(error).__name__)
    failed.__cause__ = error  # so that its traceback is logged also where this one is returned, not raised
    return failed


class _HookLimit:
    """Makes the error of a hook that takes too long; made per hook call, so that its name is at hand."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def __call__(self) -> GatewayError:
        return _HookFailed(self._call, f"took longer than {HOOK_LIMIT:.0f} s")
