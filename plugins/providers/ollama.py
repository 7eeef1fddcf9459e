"""Ollama by its own API: chat, completions and embeddings as clients of OpenAI know them.

Its native routes take what its ``/v1`` does not: ``options`` (``num_ctx`` above all), ``keep_alive``, ``think``.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from time import time
from typing import Any
from uuid import uuid4

import attrs
import orjson

from gateway import Duration, Exchange, Reply, Runtime, Secret, Target, Timeouts, hookimpl
from gateway.answer import Answer
from gateway.dialects import ollama, ollama_embed, ollama_reply
from gateway.errors import RouteNotFound, UpstreamRefused
from gateway.http_provider import HOLD, HttpProvider, HttpSettings
from gateway.retry import retry_after
from gateway.translation import in_turns

_JSON = {"content-type": "application/json"}
_EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
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
        self._provider = HttpProvider(settings, runtime, settings.bearer())
        self._endpoint = self._provider.endpoint

    @hookimpl
    async def forward(self, exchange: Exchange, target: Target) -> Reply:
        route = _ROUTES.get(exchange.surface.name)
        if route is None:
            raise RouteNotFound("The ollama provider serves chat, completions and embeddings.")
        body = (await exchange.read()).json()
        model = self._provider.model(exchange, target)
        settings = self._settings
        request, dropped = route.request(body, model, options=settings.options, keep_alive=settings.keep_alive)
        answer = await self._endpoint.send(exchange, "POST", route.path, body=ollama.encode(request), headers=_JSON)
        if answer.status >= 400:
            raise await self._refused(answer, target)
        exchange.dropped.extend(name for name in dropped if name not in exchange.dropped)
        if exchange.stream and route.stream is not None:
            stream = route.stream(uuid4().hex, _include_usage(body))
            return Reply(200, _EVENTS, stream=_events(exchange, answer, stream), close=answer.close)
        try:
            raw = await answer.read()
        finally:
            answer.close()
        if route.whole is None:
            base64 = body.get("encoding_format") == "base64"
            text, used = await in_turns(ollama_embed.embeddings(raw, base64))
            return Reply(200, _JSON, text, usage=used)
        part = ollama_reply.parse(raw)
        return Reply(200, _JSON, orjson.dumps(route.whole(part, uuid4().hex)), usage=ollama_reply.usage(part))

    async def _refused(self, answer: Answer, target: Target) -> UpstreamRefused:
        try:
            raw = await answer.read(HOLD)
        finally:
            answer.close()
        wait = retry_after(answer.headers, raw, time())
        body = ollama_reply.error_body(answer.status, b"" if self._provider.leaks(raw) else raw)
        return UpstreamRefused(answer.status, body, _JSON, target=target.name, retry_after=wait)

    @hookimpl
    async def list_models(self) -> Iterable[dict[str, Any]]:
        if self._settings.models is not None:
            return [{"id": name} for name in self._settings.models]
        return ollama_reply.models(await self._endpoint.get_json("/api/tags", self._provider.models_ttl))

    @hookimpl
    async def check_health(self) -> str | None:
        answer = await self._endpoint.send(None, "GET", "/api/version")
        answer.close()
        return None if answer.status < 400 else f"answered {answer.status}"


def _include_usage(body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


async def _events(exchange: Exchange, answer: Answer, stream: ollama_reply.Stream) -> AsyncIterator[bytes]:
    async for block in answer.chunks():
        if events := stream.feed(block):
            exchange.usage = stream.usage
            yield events
    if events := stream.end():
        exchange.usage = stream.usage
        yield events
