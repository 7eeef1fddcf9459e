"""Ollama by its own API: its own clients pass through, those of other dialects are translated.

Its native routes take what its ``/v1`` does not: ``options`` (``num_ctx`` above all), ``keep_alive``, ``think``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import uuid4

import attrs
import orjson

from gateway import Duration, Exchange, Reply, Runtime, Secret, Target, Timeouts, hookimpl
from gateway.dialects import ollama, ollama_embed, ollama_reply
from gateway.dialects.dropped import table
from gateway.dialects.stream_error import StreamError
from gateway.errors import RouteNotFound
from gateway.http_provider import HttpProvider, HttpSettings
from gateway.translation import chat_of, embedded, embeddings_of, in_turns, refused, streamed, whole

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


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        headers: dict[str, str | Secret] = {}
        if settings.api_key is not None:
            headers["Authorization"] = settings.api_key.prefixed("Bearer ")
        self._settings = settings
        self._http = HttpProvider(settings, runtime, headers)

    @hookimpl
    async def forward(self, exchange: Exchange, target: Target) -> Reply:
        surface = exchange.surface
        if surface.dialect.startswith("ollama"):
            return await self._pass_through(exchange, target)
        if surface.embeds:
            return await self._embed(exchange, target)
        if surface.chat:
            request = self._request(ollama.chat_request, await chat_of(exchange), exchange, target)
            return await self._answer(
                exchange, "/api/chat", request, ollama_reply.chat_completion, ollama_reply.ChatStream
            )
        if surface.name == "completions":  # not by way of chat: its own form knows a suffix
            body = (await exchange.read()).json()
            request = self._request(ollama.generate_request, body, exchange, target)
            return await self._answer(
                exchange, "/api/generate", request, ollama_reply.text_completion, ollama_reply.TextStream
            )
        raise RouteNotFound("The ollama provider serves chat, completions and embeddings.")

    async def _pass_through(self, exchange: Exchange, target: Target) -> Reply:
        """What a client of Ollama's own says; nothing is added but what the operator set and the client did not."""
        payload = exchange.read_now() or await exchange.read()
        settings = self._settings
        edits: dict[str, bytes] = {}
        if settings.options:
            given = table({"options": payload.get("options")}, "options")
            edits["options"] = orjson.dumps({**settings.options, **given})
        if settings.keep_alive is not None and payload.get("keep_alive") is None:
            edits["keep_alive"] = orjson.dumps(settings.keep_alive)
        reply = await self._http.pass_through(exchange, target, exchange.surface.path, edits=edits)
        if reply.body is not None:
            reply.usage = ollama_reply.usage_in(reply.body)
        return reply

    def _request(
        self, translate: Callable[..., ollama.Translated], body: Mapping[str, Any], exchange: Exchange, target: Target
    ) -> bytes:
        model = self._http.model(exchange, target)
        settings = self._settings
        request, dropped = translate(body, model, options=settings.options, keep_alive=settings.keep_alive)
        exchange.drop(dropped)
        return ollama.encode(request)

    async def _answer(
        self,
        exchange: Exchange,
        path: str,
        request: bytes,
        to_openai: Callable[[Mapping[str, Any], str], dict[str, Any]],
        stream: type[ollama_reply.Stream],
    ) -> Reply:
        answer = await self._http.ask(exchange, path, request, ollama_reply.error_to_chat)
        if exchange.stream:
            return await streamed(exchange, answer, stream(uuid4().hex))
        try:
            part = ollama_reply.parse(await answer.read())
        except StreamError as error:
            raise refused(exchange, error.status, error.code, error.message) from error
        return await whole(exchange, to_openai(part, uuid4().hex), ollama_reply.usage(part))

    async def _embed(self, exchange: Exchange, target: Target) -> Reply:
        embeddings = await embeddings_of(exchange)
        request = self._request(ollama.embed_request, embeddings, exchange, target)
        answer = await self._http.ask(exchange, "/api/embed", request, ollama_reply.error_to_chat)
        raw = await answer.read()
        try:
            listed, used = await in_turns(ollama_embed.embeddings(raw, embeddings.get("encoding_format") == "base64"))
        except StreamError as error:
            raise refused(exchange, error.status, error.code, error.message) from error
        return await embedded(exchange, listed, used)

    @hookimpl
    async def list_models(self) -> Iterable[dict[str, Any]]:
        if self._settings.models is not None:
            return [{"id": name} for name in self._settings.models]
        return ollama_reply.models(await self._http.endpoint.get_json("/api/tags", self._http.models_ttl))

    @hookimpl
    async def check_health(self) -> str | None:
        return await self._http.healthy("/api/version")
