"""Google's Gemini API: its own clients pass through, all others are translated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import attrs

from gateway import Exchange, Reply, Runtime, Secret, Target, hookimpl
from gateway.dialects import gemini, gemini_embed, gemini_error, gemini_models, gemini_reply
from gateway.dialects.gemini_stream import Decoder
from gateway.errors import RouteNotFound
from gateway.http_provider import HttpProvider, HttpSettings, path_of, without
from gateway.translation import answered, chat_of, counted, embedded, embeddings_of, in_turns, streamed


@attrs.frozen(kw_only=True)
class Settings(HttpSettings):
    base_url: str = "https://generativelanguage.googleapis.com/v1beta"
    """Root of the API, with its version."""


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        headers: dict[str, str | Secret] = {}
        if settings.api_key is not None:
            headers["x-goog-api-key"] = settings.api_key
        self._settings = settings
        self._http = HttpProvider(settings, runtime, headers)

    @hookimpl
    async def forward(self, exchange: Exchange, target: Target) -> Reply:
        surface = exchange.surface
        query = without(exchange.query, "key")  # some clients put their key for us there
        if surface.dialect == "gemini":
            action = exchange.tail.rpartition(":")[2]
            path = self._path(self._http.model(exchange, target), action)
            return await self._http.pass_through(exchange, target, path, query=query)
        if surface.name == "passthrough":
            return await self._http.pass_through(exchange, target, path_of(exchange), query=query)
        if surface.counts:
            return await counted(exchange)
        if surface.embeds:
            return await self._embed(exchange, target)
        if not surface.chat:
            raise RouteNotFound("The gemini provider serves chats and embeddings.")
        model = self._http.model(exchange, target)
        request, dropped = gemini.request_from_chat(await chat_of(exchange), model, caps=self._http.caps(model))
        exchange.drop(dropped)
        path, query = self._path(model, "generateContent"), ""
        if exchange.stream:
            path, query = self._path(model, "streamGenerateContent"), "alt=sse"
        answer = await self._http.ask(exchange, path, request, gemini_error.error_to_chat, query=query)
        if exchange.stream:
            return await streamed(exchange, answer, Decoder())
        return await answered(exchange, answer, gemini_reply.reply_to_chat, gemini_reply.usage_of)

    def _path(self, model: str, action: str) -> str:
        return f"/models/{quote(model.removeprefix('models/'), safe='')}:{action}"

    async def _embed(self, exchange: Exchange, target: Target) -> Reply:
        model = self._http.model(exchange, target)
        wanted = await embeddings_of(exchange)
        request, dropped = gemini_embed.embed_from_openai(wanted, model)
        exchange.drop(dropped)
        path = self._path(model, "batchEmbedContents")
        answer = await self._http.ask(exchange, path, request, gemini_error.error_to_chat)
        return await embedded(
            exchange, *await in_turns(gemini_embed.embed_to_openai(await answer.read(), model, False))
        )

    @hookimpl
    async def list_models(self) -> Iterable[dict[str, Any]]:
        if self._settings.models is not None:
            return [{"id": name} for name in self._settings.models]
        listed = await self._http.endpoint.get_json("/models?pageSize=1000", self._http.models_ttl)
        return gemini_models.models_to_openai(listed)

    @hookimpl
    async def check_health(self) -> str | None:
        return await self._http.healthy("/models?pageSize=1")
