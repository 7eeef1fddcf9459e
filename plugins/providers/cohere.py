"""Cohere by its API v2: chat in any dialect, embeddings, rerank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import attrs
import orjson

from gateway import Exchange, Reply, Runtime, Target, hookimpl
from gateway.dialects import cohere, cohere_embed, cohere_reply
from gateway.dialects.ollama import encode
from gateway.errors import UpstreamProtocolError
from gateway.http_provider import HttpProvider, HttpSettings, json_object
from gateway.translation import answered, chat_of, counted, embedded, embeddings_of, in_turns, streamed

_JSON = {"content-type": "application/json"}
_ENDPOINTS = {"chat", "embed", "rerank"}


@attrs.frozen(kw_only=True)
class Settings(HttpSettings):
    base_url: str = "https://api.cohere.com"
    """Root of the API, without its version."""
    input_type: Literal["search_document", "search_query", "classification", "clustering"] = "search_document"
    """What texts are embedded for where the client says nothing; Cohere demands a word."""


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._settings = settings
        self._provider = HttpProvider(settings, runtime, settings.bearer())

    @hookimpl
    async def forward(self, exchange: Exchange, target: Target) -> Reply:
        model = self._provider.model(exchange, target)
        if exchange.surface.counts:
            return await counted(exchange)
        if exchange.surface.embeds:
            return await self._embeddings(exchange, model)
        if exchange.surface.name == "rerank":
            return await self._rerank(exchange, model)
        chat = await chat_of(exchange)
        request, dropped = cohere.request_from_chat(chat, model, caps=self._provider.caps(model))
        answer = await self._ask(exchange, "/v2/chat", request, dropped)
        if exchange.stream:
            return await streamed(exchange, answer, cohere_reply.Decoder(model))
        return await answered(
            exchange, answer, lambda body: cohere_reply.reply_to_chat(body, model), cohere_reply.usage_of
        )

    async def _embeddings(self, exchange: Exchange, model: str) -> Reply:
        body = await embeddings_of(exchange)
        request, dropped = cohere.request_from_embeddings(body, model, input_type=self._settings.input_type)
        answer = await self._ask(exchange, "/v2/embed", request, dropped)
        return await embedded(
            exchange, *await in_turns(cohere_embed.embeddings(await answer.read(), model, base64=False))
        )

    async def _rerank(self, exchange: Exchange, model: str) -> Reply:
        body = (await exchange.read()).json()
        request, dropped = cohere.request_from_rerank(body, model)
        answer = await self._ask(exchange, "/v2/rerank", request, dropped)
        return Reply(
            200, _JSON, orjson.dumps(cohere_embed.reply_to_rerank(json_object(await answer.read()), body, model))
        )

    async def _ask(self, exchange: Exchange, path: str, request: Mapping[str, Any], dropped: list[str]) -> Any:
        exchange.drop(dropped)
        answer = await self._provider.endpoint.send(exchange, "POST", path, body=encode(request), headers=_JSON)
        if answer.status >= 400:
            raise await self._provider.refusal(exchange, answer, _error)
        return answer

    @hookimpl
    async def list_models(self) -> Iterable[dict[str, Any]]:
        if self._settings.models is not None:
            return [{"id": name} for name in self._settings.models]
        listed = await self._provider.endpoint.get_json("/v1/models?page_size=1000", self._provider.models_ttl)
        models = listed.get("models") if isinstance(listed, dict) else None
        if not isinstance(models, list):
            raise UpstreamProtocolError("The provider's model list is not a list.", target=self._provider.name)
        return [
            {"id": model["name"], "object": "model", "created": 0, "owned_by": "cohere"}
            for model in models
            if isinstance(model, dict) and isinstance(model.get("name"), str) and _serves(model)
        ]

    @hookimpl
    async def check_health(self) -> str | None:
        answer = await self._provider.endpoint.send(None, "GET", "/v1/models", query="page_size=1")
        answer.close()
        return None if answer.status < 400 else f"answered {answer.status}"


def _serves(model: Mapping[str, Any]) -> bool:
    endpoints = model.get("endpoints")
    return not isinstance(endpoints, list) or bool(_ENDPOINTS & {str(endpoint) for endpoint in endpoints})


def _error(status: int, body: bytes) -> tuple[int, str, str]:
    return cohere_reply.error_status(status), *cohere_reply.error_to_chat(status, body)
