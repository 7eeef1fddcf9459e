"""Which surface answers which path: the table, and the application one generation makes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol
from urllib.parse import unquote

import attrs
from aiohttp import web

from gateway import health, listing
from gateway.dispatch import Answer, Dispatcher
from gateway.errors import RouteNotFound, UpgradeRequired
from gateway.exchange import Exchange, Reply, Surface
from gateway.front import Handler

_CHAT, _RESPONSES, _MESSAGES = "openai_chat", "openai_responses", "anthropic_messages"
_GEMINI, _OLLAMA, _GENERATE = "gemini", "ollama", "ollama_generate"

PASSTHROUGH = Surface("passthrough", _CHAT, "{tail}", body="any")
# (methods, path, surface); the caller's path below /v1 is the path below the provider's base_url.
SURFACES: tuple[tuple[str, str, Surface], ...] = (
    ("POST", "/chat/completions", Surface("chat", _CHAT, "/chat/completions", "json", True, True, chat=True)),
    ("POST", "/completions", Surface("completions", _CHAT, "/completions", "json", True, True)),
    ("POST", "/embeddings", Surface("embeddings", _CHAT, "/embeddings", "json", True, True, embeds=True)),
    ("POST", "/responses", Surface("responses", _RESPONSES, "/responses", "json", True, stores=True, chat=True)),
    ("POST", "/messages", Surface("messages", _MESSAGES, "/messages", "json", True, chat=True)),
    (
        "POST",
        "/messages/count_tokens",
        Surface("count_tokens", _MESSAGES, "/messages/count_tokens", "json", True, counts=True),
    ),
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
# What Gemini's clients call behind the model's name and a colon.
ACTIONS = {
    "generateContent": Surface("generate_content", _GEMINI, "/models/{tail}", "json", True, chat=True, streams="never"),
    "streamGenerateContent": Surface(
        "generate_content", _GEMINI, "/models/{tail}", "json", True, chat=True, streams="always"
    ),
    "countTokens": Surface("gemini_count_tokens", _GEMINI, "/models/{tail}", "json", True, counts=True),
    "embedContent": Surface("embed_content", _GEMINI, "/models/{tail}", "json", True, embeds=True),
    "batchEmbedContents": Surface("batch_embed_contents", _GEMINI, "/models/{tail}", "json", True, embeds=True),
}
OLLAMA: tuple[tuple[str, Surface], ...] = (
    ("/api/chat", Surface("ollama_chat", _OLLAMA, "/api/chat", "json", True, chat=True, streams="unless")),
    (
        "/api/generate",
        Surface("ollama_generate", _GENERATE, "/api/generate", "json", True, chat=True, streams="unless"),
    ),
    ("/api/embed", Surface("ollama_embed", _OLLAMA, "/api/embed", "json", True, embeds=True)),
    ("/api/embeddings", Surface("ollama_embeddings", _OLLAMA, "/api/embeddings", "json", True, embeds=True)),
)
# Below /openai/deployments/{model}: Azure's paths, whose model is the path's.
DEPLOYMENTS = frozenset({
    "/chat/completions", "/completions", "/embeddings", "/images/generations", "/images/edits", "/audio/speech",
    "/audio/transcriptions", "/audio/translations",
})  # fmt: skip
# Base URLs are written with and without /v1 (CLIENTS.md): these work both ways.
ALIASES = frozenset({
    "/chat/completions", "/completions", "/embeddings", "/responses", "/messages", "/messages/count_tokens",
})  # fmt: skip
_MODELS = Surface("models", _CHAT, "/models", "any")
_MODEL = Surface("models", _CHAT, "/models/{tail}", "any")
_GEMINI_MODELS = Surface("models", _GEMINI, "/models", "any")
_GEMINI_MODEL = Surface("models", _GEMINI, "/models/{tail}", "any")
_TAGS = Surface("models", _OLLAMA, "/api/tags", "any")
_SHOW = Surface("models", _OLLAMA, "/api/show", "json")
_VERSION = Surface("models", _OLLAMA, "/api/version", "any")
_PS = Surface("models", _OLLAMA, "/api/ps", "any")
_HEALTH = Surface("health", _CHAT, "/health", "any")
_PLUGIN = Surface("plugin", _CHAT, "", "any")
_NOWHERE = Surface("none", _CHAT, "", "any")
_GEMINI_NOWHERE = Surface("none", _GEMINI, "", "any")
_PLAIN = {"server": "hookgate", "content-type": "text/plain; charset=utf-8"}


_Add = Callable[[str, str, Handler], None]


class _Run(Protocol):
    def __call__(self, surface: Surface, answer: Answer | None = None) -> Handler: ...


@attrs.frozen
class Routes:
    """The handlers of one generation."""

    application: web.Application
    """All of them, frozen."""
    exact: dict[tuple[str, str], Handler]
    """Those without a variable part by method and path: one look-up instead of a search."""


def build(dispatcher: Dispatcher, ready: Handler) -> Routes:
    """The public listener's routes; ``ready`` answers ``/health/ready``. Raises what a plugin's ``routes`` raises."""
    application = web.Application()
    router = application.router
    exact: dict[tuple[str, str], Handler] = {}

    def add(method: str, path: str, handler: Handler) -> None:
        router.add_route(method, path, _coroutine(handler), expect_handler=_no_early_continue)
        if method != "*" and "{" not in path:
            exact[method, path] = handler

    def run(surface: Surface, answer: Answer | None = None) -> Handler:
        return _exchange(dispatcher, surface, answer)

    for method, path, text in (("*", "/health/live", b"ok\n"), ("*", "/", b"Hookgate is running\n")):
        add(method, path, _static(text))
    add("*", "/health/ready", ready)
    add("GET", "/health", run(_HEALTH, health.Health(dispatcher.plugins).answer))
    _add_models(add, run, dispatcher)
    add("GET", "/v1/responses", run(_NOWHERE, _upgrade_or(_nowhere)))
    _add_surfaces(add, run, dispatcher)
    add("*", "/v1/{tail:.+}", run(PASSTHROUGH, _upgrade_or(dispatcher.forward)))
    for method, path, surface in SURFACES:
        if surface.body == "json":  # what is counted by tokens there is counted here
            add(method, f"/p/{{provider}}{path}", run(surface, dispatcher.forward_to_named))
    add("*", "/p/{provider}/{tail:.+}", run(PASSTHROUGH, _upgrade_or(dispatcher.forward_to_named)))
    for item in dispatcher.plugins.manager.hook.routes():
        for route in item:
            # Not by way of the exact routes: a plugin's handler may look at match_info and app.
            handler = run(_PLUGIN, _plugin_answer(route.handler))
            router.add_route(route.method, route.path, _coroutine(handler), expect_handler=_no_early_continue)
    add("*", "/v1beta/{tail:.+}", run(_GEMINI_NOWHERE, _upgrade_or(_nowhere)))
    add("*", "/{tail:.*}", run(_NOWHERE, _upgrade_or(_nowhere)))
    application.freeze()
    return Routes(application, exact)


def _add_models(add: _Add, run: _Run, dispatcher: Dispatcher) -> None:
    """The lists of models, in the shape of whoever asks."""
    catalog = listing.Listing(dispatcher.router)
    add("GET", "/v1/models", run(_MODELS, catalog.by_headers))
    add("GET", "/v1/models/{tail:.+}", run(_MODEL, catalog.by_headers))
    add("GET", "/v1beta/models", run(_GEMINI_MODELS, catalog.gemini))
    add("GET", "/v1beta/models/{tail:.+}", run(_GEMINI_MODEL, catalog.gemini))
    add("GET", "/api/tags", run(_TAGS, catalog.tags))
    add("POST", "/api/show", run(_SHOW, catalog.show))
    add("GET", "/api/version", run(_VERSION, listing.version))
    add("GET", "/api/ps", run(_PS, listing.running))


def _add_surfaces(add: _Add, run: _Run, dispatcher: Dispatcher) -> None:
    for path in ("/v1/models/{tail:.+}", "/v1beta/models/{tail:.+}"):
        add("POST", path, _gemini(dispatcher))
    for method, path, surface in SURFACES:
        pattern = path.replace("{tail}", "{tail:.+}")
        add(method, f"/v1{pattern}", run(surface))
        if path in ALIASES:
            add(method, pattern, run(surface))
        if path in DEPLOYMENTS:
            add(method, f"/openai/deployments/{{model}}{pattern}", _deployment(dispatcher, surface))
    for path, surface in OLLAMA:
        add("POST", path, run(surface))


def _coroutine(handler: Handler) -> Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]:
    """What aiohttp's router takes; the exact routes do without this layer."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    return handle


def _exchange(dispatcher: Dispatcher, surface: Surface, answer: Answer | None) -> Handler:
    """The handler of one route: what is decided here is decided once."""
    variable = "{tail" in surface.path

    def handle(request: web.Request) -> Awaitable[web.StreamResponse]:
        return dispatcher.run(request, surface, raw_tail(request) if variable else "", answer)

    return handle


def _deployment(dispatcher: Dispatcher, surface: Surface) -> Handler:
    """Azure's form of a route."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await dispatcher.run(request, surface, "", None, request.match_info["model"])

    return handle


def _gemini(dispatcher: Dispatcher) -> Handler:
    """``…/models/{model}:{action}``. A model's name may hold slashes and colons."""
    other = _exchange(dispatcher, PASSTHROUGH, None)

    async def handle(request: web.Request) -> web.StreamResponse:
        tail = raw_tail(request)
        model, _, action = tail.rpartition(":")
        surface = ACTIONS.get(action)
        if surface is None or not model:
            return await other(request)
        return await dispatcher.run(request, surface, tail, None, unquote(model))

    return handle


def plain(status: int, text: bytes) -> web.Response:
    return web.Response(status=status, body=text, headers=_PLAIN)


def _static(text: bytes) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return plain(200, text)

    return handle


async def _nowhere(exchange: Exchange) -> Reply:
    raise RouteNotFound("There is nothing at this path.")


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
