"""Ollama by its own API: chat, completions and embeddings as clients of OpenAI know them.

Its native routes take what its ``/v1`` does not: ``options`` (``num_ctx`` above all), ``keep_alive``, ``think``.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any
from uuid import uuid4

import attrs
import orjson

from gateway import Duration, Exchange, Reply, Runtime, Secret, Target, Timeouts, hookimpl
from gateway.dialects import ollama, ollama_embed, ollama_reply
from gateway.errors import InvalidRequest, RouteNotFound
from gateway.http_provider import EVENTS, JSON, HttpSettings, in_turns, include_usage, refused
from gateway.upstream import Answer

_GO_DURATION = re.compile(r"0|-?([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+")


def _is_go_duration(_: object, attribute: object, value: str) -> None:
    if not _GO_DURATION.fullmatch(value):
        raise ValueError('expected a time as Ollama spells it: "10m", "1h30m", "0", "-1m".')


@attrs.frozen(kw_only=True)
class PatientTimeouts(Timeouts):
    """As elsewhere, but the first token may wait for a model being loaded, and a whole answer for its last one."""

    first_token: Duration = Duration(300.0)


@attrs.frozen(kw_only=True)
class Settings(HttpSettings):
    base_url: str = "http://127.0.0.1:11434"
    """Root of the server, without ``/api``."""
    api_key: Secret | None = None
    """Sent as ``Authorization: Bearer`` to this origin and no other; ollama.com wants one, a server at home none."""
    timeouts: PatientTimeouts = PatientTimeouts()
    """connect, first_token, idle and total."""
    options: Mapping[str, Any] = attrs.field(factory=dict)
    """Ollama's ``options`` where the client says nothing: ``num_ctx`` above all, whose default cuts long prompts off
    without a word."""
    keep_alive: str | None = attrs.field(default=None, validator=attrs.validators.optional(_is_go_duration))
    """How long the model stays in memory where the client says nothing: ``"10m"``, ``"1h30m"``; ``"0"`` unloads it at
    once, a negative time never."""


@attrs.frozen
class _Route:
    """One surface: where it goes, and its translation there and back."""

    path: str
    request: Callable[..., ollama.Translated]
    whole: Callable[[Mapping[str, Any], str], dict[str, Any]] | None = None
    stream: type[ollama_reply.Stream] | None = None


_ROUTES = {
    "chat": _Route("/api/chat", ollama.chat_request, ollama_reply.chat_completion, ollama_reply.ChatStream),
    "completions": _Route(
        "/api/generate", ollama.generate_request, ollama_reply.text_completion, ollama_reply.TextStream
    ),
    "embeddings": _Route("/api/embed", ollama.embed_request),
}


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._settings = settings
        self._models_ttl = runtime.config.models_ttl
        self._endpoint = settings.endpoint(runtime)

    @hookimpl
    async def forward(self, exchange: Exchange, target: Target) -> Reply:
        route = _ROUTES.get(exchange.surface.name)
        if route is None:
            raise RouteNotFound("The ollama provider serves chat, completions and embeddings.")
        body = (await exchange.read()).json()
        model = target.model or exchange.model
        if model is None:
            raise InvalidRequest("model: is required.")
        settings = self._settings
        request, dropped = route.request(body, model, options=settings.options, keep_alive=settings.keep_alive)
        answer = await self._endpoint.send(exchange, "POST", route.path, body=ollama.encode(request), headers=JSON)
        if answer.status >= 400:
            raise await refused(answer, target, settings.secrets(), _error)
        exchange.dropped.extend(name for name in dropped if name not in exchange.dropped)
        if exchange.stream and route.stream is not None:
            stream = route.stream(uuid4().hex, include_usage(body))
            return Reply(200, EVENTS, stream=_events(exchange, answer, stream), close=answer.close)
        try:
            raw = await answer.read()
        finally:
            answer.close()
        if route.whole is None:
            base64 = body.get("encoding_format") == "base64"
            text, used = await in_turns(ollama_embed.embeddings(raw, base64))
            return Reply(200, JSON, text, usage=used)
        part = ollama_reply.parse(raw)
        return Reply(200, JSON, orjson.dumps(route.whole(part, uuid4().hex)), usage=ollama_reply.usage(part))

    @hookimpl
    async def list_models(self) -> Iterable[dict[str, Any]]:
        return ollama_reply.models(await self._endpoint.get_json("/api/tags", self._models_ttl))

    @hookimpl
    async def check_health(self) -> str | None:
        answer = await self._endpoint.send(None, "GET", "/api/version")
        answer.close()
        return None if answer.status < 400 else f"answered {answer.status}"


def _error(status: int, raw: bytes) -> tuple[int, bytes]:
    return status, ollama_reply.error_body(status, raw)


async def _events(exchange: Exchange, answer: Answer, stream: ollama_reply.Stream) -> AsyncIterator[bytes]:
    async for block in answer.chunks():
        if events := stream.feed(block):
            exchange.usage = stream.usage
            yield events
    if events := stream.end():
        exchange.usage = stream.usage
        yield events
