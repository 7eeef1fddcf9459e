"""The aiohttp application: routes, start, stop. Which surface answers which path is the table below."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
from aiohttp import web
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from gateway import config as configuration
from gateway import health, live, plugins
from gateway.dispatch import Answer, Dispatcher
from gateway.errors import ConfigError, RouteNotFound, UpgradeRequired
from gateway.exchange import Exchange, Reply, Surface
from gateway.front import LINGER, Front
from gateway.routing import Router
from gateway.upstream import Upstream
from gateway.watchdog import Watchdog

log = logging.getLogger("hookgate")
_CHAT, _RESPONSES = "openai_chat", "openai_responses"

PASSTHROUGH = Surface("passthrough", _CHAT, "{tail}", body="any")
# (methods, path, surface); the caller's path below /v1 is the path below the provider's base_url.
SURFACES: tuple[tuple[str, str, Surface], ...] = (
    ("POST", "/chat/completions", Surface("chat", _CHAT, "/chat/completions", "json", True, True)),
    ("POST", "/completions", Surface("completions", _CHAT, "/completions", "json", True, True)),
    ("POST", "/embeddings", Surface("embeddings", _CHAT, "/embeddings", "json", True, True)),
    ("POST", "/responses", Surface("responses", _RESPONSES, "/responses", "json", True, stores=True)),
    ("POST", "/moderations", Surface("moderations", _CHAT, "/moderations", "any", True, True)),
    ("POST", "/rerank", Surface("rerank", _CHAT, "/rerank", "json", True, True)),
    ("POST", "/images/generations", Surface("images", _CHAT, "/images/generations", "any")),
    ("POST", "/images/edits", Surface("images", _CHAT, "/images/edits", "any")),
    ("POST", "/images/variations", Surface("images", _CHAT, "/images/variations", "any")),
    ("POST", "/audio/speech", Surface("audio", _CHAT, "/audio/speech", "any")),
    ("POST", "/audio/transcriptions", Surface("audio", _CHAT, "/audio/transcriptions", "any")),
    ("POST", "/audio/translations", Surface("audio", _CHAT, "/audio/translations", "any")),
    ("*", "/files", Surface("files", _CHAT, "/files", "any")),
    ("*", "/files/{tail}", Surface("files", _CHAT, "/files/{tail}", "any")),
    ("*", "/batches", Surface("batches", _CHAT, "/batches", "any")),
    ("*", "/batches/{tail}", Surface("batches", _CHAT, "/batches/{tail}", "any")),
)
_MODELS = Surface("models", _CHAT, "/models", "any")
_MODEL = Surface("models", _CHAT, "/models/{tail}", "any")
_HEALTH = Surface("health", _CHAT, "/health", "any")
_PLUGIN = Surface("plugin", _CHAT, "", "any")
_NOWHERE = Surface("none", _CHAT, "", "any")
_PLAIN = {"server": "hookgate", "content-type": "text/plain; charset=utf-8"}


@attrs.define
class Generation:
    """One loaded configuration with everything built from it."""

    config: configuration.Config
    plugins: plugins.Plugins
    router: Router
    dispatcher: Dispatcher
    health: health.Health


class Server:
    """The gateway in one process: two listeners, one generation."""

    def __init__(
        self, config_path: Path, environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None
    ) -> None:
        self._path = config_path
        self._environ = environ
        self._overrides = dict(overrides or {})
        self._watchdog = Watchdog()
        self._upstream: Upstream | None = None
        self._generation: Generation | None = None
        self._runners: list[web.BaseRunner] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._exact: dict[tuple[str, str], Callable[..., Awaitable[web.StreamResponse]]] = {}
        self.stopping = False
        self.addresses: list[tuple[str, int]] = []
        """Host and port of the public listener, then of the admin one."""

    async def start(self) -> None:
        """Load, build, listen. Raises ``ConfigError`` with every problem, ``OSError`` if an address is taken."""
        _demand_c_parser()
        config, document = configuration.load(self._path, self._environ, self._overrides)
        self._upstream = Upstream(config.pool, config.providers)
        try:
            runtime = plugins.Runtime(config, self._upstream)
            loaded = plugins.load(config, document, runtime)
            document.raise_problems()
            for warning in document.warnings:
                log.warning("%s", warning)
            router = Router(config, loaded)
            dispatcher = Dispatcher(config, loaded, router, self._watchdog)
            self._generation = Generation(config, loaded, router, dispatcher, health.Health(loaded))
            await loaded.startup()
            await self._listen(self._generation, runtime)
        except BaseException:
            await self._close()
            raise
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._watchdog.run()))
        gc.collect()
        gc.freeze()
        # Exchanges make few cycles; at the default of 700 objects the collector would run several times a millisecond.
        gc.set_threshold(20_000, 20, 50)

    async def _listen(self, generation: Generation, runtime: plugins.Runtime) -> None:
        config = generation.config
        runner = _FrontRunner(
            self._application(generation),
            self._exact,
            max_per_peer=config.server.max_connections_per_peer,
            head_timeout=config.server.head_timeout,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            # Longer than the 60 s nginx keeps its upstream connections, so that nginx always closes first.
            keepalive_timeout=75.0,
            shutdown_timeout=1.0,
        )
        if config.admin.enabled:
            application = web.Application()
            application.add_routes([*runtime.admin_routes, live.route(runtime)])
            admin = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
            await self._serve(admin, config.admin.host, config.admin.port)
        # Last: who gets an answer here finds the gateway whole.
        await self._serve(runner, config.server.host, config.server.port)
        self._tasks.append(asyncio.get_running_loop().create_task(runner.front.sweep()))

    async def _serve(self, runner: web.BaseRunner, host: str, port: int) -> None:
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, host, port, backlog=1024)
        await site.start()
        self.addresses.insert(0, runner.addresses[-1][:2])

    def _application(self, generation: Generation) -> web.Application:
        application = web.Application()
        router = application.router

        def add(method: str, path: str, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
            router.add_route(method, path, handler, expect_handler=_no_early_continue)
            if method != "*" and "{" not in path:
                self._exact[method, path] = handler

        for method, path, text in (("*", "/health/live", b"ok\n"), ("*", "/", b"Hookgate is running\n")):
            add(method, path, self._static(text))
        add("*", "/health/ready", self._ready)
        run = self._exchange
        add("GET", "/health", run(_HEALTH, generation.health.answer))
        catalog = health.models_answer(generation.router)
        add("GET", "/v1/models", run(_MODELS, catalog))
        add("GET", "/v1/models/{tail:.+}", run(_MODEL, catalog))
        add("GET", "/v1/responses", run(_NOWHERE, _upgrade_or(self._nowhere)))
        for method, path, surface in SURFACES:
            pattern = path.replace("{tail}", "{tail:.+}")
            add(method, f"/v1{pattern}", run(surface))
        add("*", "/v1/{tail:.+}", run(PASSTHROUGH, _upgrade_or(generation.dispatcher.forward)))
        add("*", "/p/{provider}/{tail:.+}", run(PASSTHROUGH, _upgrade_or(generation.dispatcher.forward_to_named)))
        for item in generation.plugins.manager.hook.routes():
            for route in item:
                # Not by way of the exact routes: a plugin's handler may look at match_info and app.
                handler = run(_PLUGIN, _plugin_answer(route.handler))
                router.add_route(route.method, route.path, handler, expect_handler=_no_early_continue)
        add("*", "/{tail:.*}", run(_NOWHERE, _upgrade_or(self._nowhere)))
        return application

    def _exchange(self, surface: Surface, answer: Answer | None = None) -> Callable[..., Awaitable[web.StreamResponse]]:
        """The handler of one route: what is decided here is decided once."""
        variable = "{tail" in surface.path

        async def handle(request: web.Request) -> web.StreamResponse:
            assert self._generation is not None
            tail = raw_tail(request) if variable else ""
            return await self._generation.dispatcher.run(request, surface, tail, answer)

        return handle

    def _static(self, text: bytes) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            return web.Response(body=text, headers=_PLAIN)

        return handle

    async def _ready(self, request: web.Request) -> web.StreamResponse:
        status, text = (503, b"stopping\n") if self.stopping else (200, b"ok\n")
        return web.Response(status=status, body=text, headers=_PLAIN)

    async def _nowhere(self, exchange: Exchange) -> Reply:
        raise RouteNotFound("There is nothing at this path.")

    async def stop(self) -> None:
        """Readiness fails, running exchanges finish within the grace, the rest get their error, then all is closed."""
        self.stopping = True
        generation = self._generation
        if generation is not None:
            generation.dispatcher.draining = True
            for runner in self._runners:
                for site in list(runner.sites):
                    await site.stop()
            await _finished(generation.dispatcher, generation.config.server.shutdown_grace)
            generation.dispatcher.interrupt_all()
            await _finished(generation.dispatcher, 2.0)
        await self._close()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for runner in self._runners:
            await runner.cleanup()
        if self._generation is not None:
            await self._generation.router.catalog.close()
            await self._generation.plugins.shutdown()
        if self._upstream is not None:
            await self._upstream.close()


async def _finished(dispatcher: Dispatcher, within: float) -> None:
    """Wait until no exchange runs any more, ``within`` seconds at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            while dispatcher.active:  # noqa: ASYNC110 - an event would have to be set on the path of every request
                await asyncio.sleep(0.02)


class _FrontRunner(web.AppRunner):
    """``AppRunner`` with our server protocol."""

    def __init__(
        self, application: web.Application, exact: Any, *, max_per_peer: int, head_timeout: float, **kwargs: Any
    ) -> None:
        super().__init__(application, lingering_time=LINGER, **kwargs)
        self._exact = exact
        self._max_per_peer = max_per_peer
        self._head_timeout = head_timeout
        self.front: Front

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        self.front = Front(
            made.request_handler,
            self._exact,
            max_per_peer=self._max_per_peer,
            head_timeout=self._head_timeout,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )
        return self.front


async def _no_early_continue(request: web.Request) -> None:
    """``100 Continue`` is sent when the body is wanted, not before the key has been looked at."""


def raw_tail(request: web.Request) -> str:
    """What ``{tail}`` stands for, percent-encoded as sent: aiohttp's own ``match_info`` is decoded."""
    tail = request.match_info.get("tail")
    if tail is None:
        return ""
    raw = request.rel_url.raw_path
    prefix = request.match_info.route.resource.canonical.partition("{tail")[0]  # type: ignore[union-attr]
    return raw.split("/", prefix.count("/"))[-1]


def _plugin_answer(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Answer:
    async def answer(exchange: Exchange) -> Reply:
        response = await handler(exchange.request)
        if not isinstance(response, web.Response):
            raise TypeError("a plugin route must return a web.Response")
        body = response.body
        return Reply(response.status, response.headers, bytes(body) if isinstance(body, (bytes, bytearray)) else b"")

    return answer


def _upgrade_or(answer: Answer) -> Answer:
    async def choose(exchange: Exchange) -> Reply:
        if exchange.headers.get("Upgrade", "").lower() == "websocket":
            raise UpgradeRequired("WebSockets are not served here; use HTTP.")
        return await answer(exchange)

    return choose


def _demand_c_parser() -> None:
    if HttpRequestParser is HttpRequestParserPy:
        raise ConfigError(
            ["aiohttp runs without its C extensions; its pure Python parser is not safe in front of clients."]
        )


async def serve(config_path: Path, environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> None:
    """Run until SIGTERM or SIGINT; a second signal stops at once."""
    server = Server(config_path, environ, overrides)
    await server.start()
    for listener, (host, port) in zip(("server", "admin"), server.addresses, strict=False):
        log.info("[%s] listens on http://%s:%d", listener, f"[{host}]" if ":" in host else host, port)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    stopping = loop.create_task(server.stop())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _hurry, server)
    await stopping


def _hurry(server: Server) -> None:
    generation = server._generation
    if generation is not None:
        generation.dispatcher.interrupt_all()
