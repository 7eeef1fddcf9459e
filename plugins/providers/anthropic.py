"""Anthropic's Messages API: its own clients pass through, all others are translated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import attrs

from gateway import Exchange, Reply, Runtime, Secret, Target, hookimpl
from gateway.dialects import anthropic_messages, anthropic_messages_reply
from gateway.dialects.anthropic_messages_stream import Decoder
from gateway.dialects.anthropic_usage import usage_of
from gateway.errors import RouteNotFound, UpstreamProtocolError
from gateway.http_provider import HttpProvider, HttpSettings, path_of
from gateway.translation import answered, chat_of, counted, streamed

_VERSION = "anthropic-version"


@attrs.frozen(kw_only=True)
class Settings(HttpSettings):
    base_url: str = "https://api.anthropic.com/v1"
    """Root of the API, with its version."""
    version: Literal["2023-06-01", "2026-10-21"] = "2023-06-01"
    """``anthropic-version`` of translated requests, and of clients that name none."""
    auth: Literal["x-api-key", "bearer"] = "x-api-key"
    """How the key is sent."""


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        headers: dict[str, str | Secret] = {}
        if settings.api_key is not None and settings.auth == "bearer":
            headers["Authorization"] = settings.api_key.prefixed("Bearer ")
        elif settings.api_key is not None:
            headers["x-api-key"] = settings.api_key
        self._settings = settings
        self._version = {"Content-Type": "application/json", _VERSION: settings.version}
        self._http = HttpProvider(settings, runtime, headers)

    @hookimpl
    async def forward(self, exchange: Exchange, target: Target) -> Reply:
        surface = exchange.surface
        if surface.dialect == "anthropic_messages" or surface.name == "passthrough":
            more = {} if _VERSION in exchange.headers else {_VERSION: self._settings.version}
            return await self._http.pass_through(exchange, target, path_of(exchange), headers=more)
        if surface.counts:
            return await self._count(exchange, target)
        if not surface.chat:
            raise RouteNotFound("The anthropic provider serves chats only.")
        request, dropped = await self._request(exchange, target)
        exchange.drop(dropped)
        answer = await self._http.ask(
            exchange, "/messages", request, anthropic_messages_reply.error_to_chat, headers=self._version
        )
        if exchange.stream:
            return await streamed(exchange, answer, Decoder())
        return await answered(exchange, answer, anthropic_messages_reply.reply_to_chat, usage_of)

    async def _request(self, exchange: Exchange, target: Target) -> tuple[dict[str, Any], list[str]]:
        model = self._http.model(exchange, target)
        caps = self._http.caps(model)
        chat = await chat_of(exchange)
        return anthropic_messages.request_from_chat(chat, model, caps=caps, version=self._settings.version)

    async def _count(self, exchange: Exchange, target: Target) -> Reply:
        return await counted(exchange)

    @hookimpl
    async def list_models(self) -> Iterable[dict[str, Any]]:
        if self._settings.models is not None:
            return [{"id": name} for name in self._settings.models]
        listed = await self._http.endpoint.get_json("/models?limit=1000", self._http.models_ttl, self._version)
        models = listed.get("data") if isinstance(listed, dict) else None
        if not isinstance(models, list):
            raise UpstreamProtocolError("The provider's model list is not a list.", target=self._http.name)
        return [
            {"id": model["id"], "name": model.get("display_name")}
            for model in models
            if isinstance(model, dict) and isinstance(model.get("id"), str)
        ]

    @hookimpl
    async def check_health(self) -> str | None:
        return await self._http.healthy("/models", self._version)
