"""The gateway in one process: its listeners, the generation that serves, reload, drain and stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from gateway.config import Server as Settings
from gateway.errors import ConfigError, Overloaded
from gateway.front import FrontRunner
from gateway.generation import Generation, Host, Reloads, Source, build
from gateway.listening import leave, listen
from gateway.surfaces import plain
from gateway.watchdog import Watchdog

log = logging.getLogger("hookgate")
QUIET = 0.5
"""Seconds of a drain a kept connection must have been idle for before it is closed.

A proxy may be sending the next request into the very connection that is being closed, and would not repeat a POST.
During a drain each answer ends its connection, so a busy proxy soon comes to those it has not used for long; what it
has still not picked after a while, it is unlikely to pick just now.
"""
SHUTDOWN_LIMIT = 10.0
"""Seconds a stop waits for older generations that are just ending."""


class Server:
    """Two listeners, and the generation they serve."""

    def __init__(
        self,
        config_path: Path,
        environ: Mapping[str, str],
        overrides: Mapping[str, Any] | None = None,
        worker: int = 0,
    ) -> None:
        """``worker`` is this process's number among several; its admin listener is that many ports further."""
        self._source = Source(config_path, environ, dict(overrides or {}))
        self._worker = worker
        self._watchdog = Watchdog()
        self._reloads = Reloads()
        self._host = Host(self._watchdog, self._reloads, self._ready, self._reload_answer)
        self._generation: Generation | None = None
        self._living: list[Generation] = []
        self._admin: web.AppRunner | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._retiring: set[asyncio.Task[Any]] = set()
        self._reloading = asyncio.Lock()
        self._told = asyncio.Event()
        self._hurried = asyncio.Event()
        self.runner: FrontRunner | None = None
        """The public listener's; it has no socket before ``start``."""
        self.stopping = False
        self.addresses: list[tuple[str, int]] = []
        """Host and port of the public listener, then of the admin one."""

    @property
    def generation(self) -> Generation:
        """The one that serves. Raises ``LookupError`` before there is one."""
        if self._generation is None:
            raise LookupError("the gateway is not running")
        return self._generation

    async def start(self) -> None:
        """Load, build, listen. Raises ``ConfigError`` with every problem, ``OSError`` if an address is taken."""
        await self.open()
        try:
            assert self.runner is not None
            # Last: who gets an answer here finds the gateway whole.
            self.addresses.insert(0, await listen(self.runner, self.generation.config.server))
        except BaseException:
            await self._close()
            raise

    async def open(self) -> None:
        """All of ``start`` but the public socket, which gunicorn has in its workers."""
        _demand_c_parser()
        generation = await build(self._source, None, self._host)
        self._living.append(generation)
        try:
            self.runner = _runner(generation.config.server)
            await self.runner.setup()
            self._take_over(generation)
            await self._open_admin(generation)
        except BaseException:
            await self._close()
            raise
        for work in (self._watchdog.run(), self.runner.front.sweep(), self._reload_when_told()):
            self._keep(asyncio.get_running_loop().create_task(work))
        # Exchanges make few cycles; at the default of 700 objects the collector would run several times a millisecond.
        gc.set_threshold(20_000, 20, 50)

    def _keep(self, task: asyncio.Task[Any], among: set[asyncio.Task[Any]] | None = None) -> asyncio.Task[Any]:
        among = self._tasks if among is None else among
        among.add(task)
        task.add_done_callback(among.discard)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, (ConfigError, Overloaded)):
            log.error("the gateway itself failed", exc_info=error)

    async def _open_admin(self, generation: Generation) -> None:
        admin = generation.config.admin
        if not admin.enabled:
            return
        self._admin = web.AppRunner(web.Application(), access_log=None, shutdown_timeout=1.0)
        await self._admin.setup()
        assert self._admin.server is not None
        self._admin.server.request_handler = self._administer  # type: ignore[assignment]  # aiohttp hands it Requests
        port = admin.port + self._worker if admin.port else 0
        await web.TCPSite(
            self._admin, admin.host, port, backlog=128, reuse_port=generation.config.server.reuse_port or None
        ).start()
        self.addresses.append(self._admin.addresses[-1][:2])

    async def _administer(self, request: web.Request) -> web.StreamResponse:
        return await self.generation.admin._handle(request)

    async def _ready(self, request: web.Request) -> web.StreamResponse:
        if not self.stopping:
            return plain(200, b"ok\n")
        response = plain(503, b"stopping\n")
        response.force_close()
        return response

    def reload_soon(self) -> None:
        """Reload in the background; several wishes at once are one. The log tells the outcome."""
        self._told.set()

    async def _reload_when_told(self) -> None:
        while True:
            await self._told.wait()
            self._told.clear()
            with contextlib.suppress(ConfigError, Overloaded):  # logged
                await self.reload()

    async def reload(self) -> list[str]:
        """Put a generation of the configuration as it is now in the place of this one; the warnings about it.

        Exchanges under way end on the generation they began with. Raises ``ConfigError`` with every problem, which
        are logged, too, and ``Overloaded`` when the gateway is stopping; all goes on as before then.
        """
        async with self._reloading:
            if self.stopping:
                raise Overloaded("The gateway is stopping.")
            # A task of the server's, so that a stop can end it and whoever asked may leave.
            return await asyncio.shield(self._keep(asyncio.get_running_loop().create_task(self._replace())))

    async def _replace(self) -> list[str]:
        before = self.generation
        try:
            after = await build(self._source, before, self._host)
        except ConfigError as error:
            self._reloads.succeeded = False
            for problem in error.problems:
                log.error("%s", problem)
            log.error("not reloaded: generation %d goes on", self._reloads.generation)
            raise
        self._living.append(after)
        if self.stopping:
            await self._end(after)
            raise Overloaded("The gateway is stopping.")
        self._take_over(after)
        self._keep(asyncio.get_running_loop().create_task(self._retire(before)), self._retiring)
        return after.warnings

    def _take_over(self, generation: Generation) -> None:
        """Nothing is awaited here: every request sees one generation, the old or the new."""
        assert self.runner is not None
        front, settings = self.runner.front, generation.config.server
        front.exact, front.handler = generation.routes.exact, generation.routes.application._handle
        front.max_per_peer, front.head_timeout = settings.max_connections_per_peer, settings.head_timeout
        self._generation = generation
        self._reloads.generation += 1
        self._reloads.succeeded = True
        for warning in generation.warnings:
            log.warning("%s", warning)
        if self._reloads.generation > 1:
            log.info("reloaded: generation %d serves", self._reloads.generation)

    async def _retire(self, generation: Generation) -> None:
        while generation.dispatcher.active:  # noqa: ASYNC110 - an event would have to be set in every request
            await asyncio.sleep(0.05)
        await self._end(generation)
        gc.collect()  # its plugins refer to each other; some milliseconds, because what was imported is frozen

    async def _end(self, generation: Generation) -> None:
        if generation not in self._living:
            return
        self._living.remove(generation)
        await generation.close()
        if all(other.upstream is not generation.upstream for other in self._living):
            await generation.upstream.close()
        for link in generation.plugins.runtime.links:
            if all(link not in other.plugins.runtime.links for other in self._living):
                await link.close()

    async def _reload_answer(self, request: web.Request) -> web.StreamResponse:
        if "Origin" in request.headers:
            return web.json_response({"problems": ["web pages may not reload the gateway"]}, status=403)
        try:
            warnings = await self.reload()
        except ConfigError as error:
            return web.json_response({"problems": error.problems}, status=422)
        except Overloaded as error:
            return web.json_response({"problems": [error.message]}, status=503)
        return web.json_response({"generation": self._reloads.generation, "warnings": warnings})

    async def stop(self) -> None:
        """Readiness fails, after the delay nobody is let in any more, running exchanges finish within the grace, the
        rest get their error, then all is closed."""
        self.stopping = True
        began = asyncio.get_running_loop().time()
        for generation in self._living:
            generation.dispatcher.draining = True
        if self._generation is not None and self.runner is not None:
            settings = self._generation.config.server
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), settings.drain_delay)
            await leave(self.runner, settings)
            await self._drained(settings.shutdown_grace, began)
            self.interrupt_all()
            await self._drained(2.0, began)
        await self._close()

    async def _drained(self, within: float, began: float) -> None:
        """Wait until no connection is left and no exchange runs, ``within`` seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self._connections_left(began) or self._is_busy():  # noqa: ASYNC110 - as in _retire
                    await asyncio.sleep(0.02)

    def _connections_left(self, began: float) -> int:
        assert self.runner is not None
        now = asyncio.get_running_loop().time()
        quiet = 0.0 if self._hurried.is_set() else QUIET
        return self.runner.front.close_idle(now - quiet if now - began >= quiet else 0.0)

    def _is_busy(self) -> bool:
        return any(generation.dispatcher.active for generation in self._living)

    def interrupt_all(self) -> None:
        for generation in self._living:
            generation.dispatcher.interrupt_all()

    def hurry(self) -> None:
        """End a stop's delay and grace."""
        self._hurried.set()
        self.interrupt_all()

    async def _close(self) -> None:
        self.stopping = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for runner in (self.runner, self._admin):
            if runner is not None:
                await runner.cleanup()
        if self._retiring:  # no connection is left, so nothing keeps them but their plugins' on_shutdown
            await asyncio.wait(self._retiring, timeout=SHUTDOWN_LIMIT)
        for generation in list(self._living):
            await self._end(generation)


def _runner(settings: Settings) -> FrontRunner:
    return FrontRunner(
        max_per_peer=settings.max_connections_per_peer,
        head_timeout=settings.head_timeout,
        handler_cancellation=True,
        access_log=None,
        auto_decompress=False,
        # Longer than the 60 s nginx keeps its upstream connections, so that nginx always closes first.
        keepalive_timeout=75.0,
        shutdown_timeout=1.0,
    )


def _demand_c_parser() -> None:
    if HttpRequestParser is HttpRequestParserPy:
        raise ConfigError(
            ["aiohttp runs without its C extensions; its pure Python parser is not safe in front of clients."]
        )


async def serve(config_path: Path, environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> None:
    """Run until SIGTERM or SIGINT; a second signal stops at once. SIGHUP reloads."""
    server = Server(config_path, environ, overrides)
    await server.start()
    for listener, (host, port) in zip(("server", "admin"), server.addresses, strict=False):
        shown = host if host.startswith("unix:") else f"http://{f'[{host}]' if ':' in host else host}:{port}"
        log.info("[%s] listens on %s", listener, shown)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, server.reload_soon)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    stopping = loop.create_task(server.stop())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.hurry)
    await stopping
