"""The list of models, with only what the caller may use, in the shape the caller reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import time
from typing import Any
from urllib.parse import unquote

import orjson

from gateway.dialects.anthropic_client import model_from_chat, models_from_chat
from gateway.dialects.gemini_models import model_body, models_body
from gateway.dialects.ollama_models import LATEST, ps_body, show_body, tags_body, version_body
from gateway.errors import InvalidRequest, ModelNotFound
from gateway.exchange import Exchange, Reply
from gateway.routing import Router

_Models = list[dict[str, Any]]


class Listing:
    """Answers the surfaces that list models."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._started = int(time())

    async def by_headers(self, exchange: Exchange) -> Reply:
        """``GET /v1/models`` is OpenAI's, Anthropic's and Gemini's: the clients' own headers tell them apart."""
        headers = exchange.headers
        if "anthropic-version" in headers:
            return await self._answer(exchange, models_from_chat, model_from_chat)
        if "x-goog-api-key" in headers or "x-goog-api-client" in headers:
            return await self.gemini(exchange)
        return await self._answer(exchange, lambda models: {"object": "list", "data": models}, lambda model: model)

    async def gemini(self, exchange: Exchange) -> Reply:
        """``GET /v1beta/models``."""
        return await self._answer(exchange, models_body, model_body)

    async def tags(self, exchange: Exchange) -> Reply:
        """``GET /api/tags`` of Ollama."""
        return as_json(tags_body(await self.models(exchange)))

    async def show(self, exchange: Exchange) -> Reply:
        """``POST /api/show`` of Ollama; older clients send the model as ``name``."""
        payload = await exchange.read()
        wanted = exchange.model or payload.get("name")
        if not isinstance(wanted, str):
            raise InvalidRequest("The request names no model.")
        return as_json(show_body(_named(await self.models(exchange), wanted, wanted.removesuffix(LATEST))))

    async def models(self, exchange: Exchange) -> _Models:
        """What the caller may use, as OpenAI's model objects: configured names first."""
        listed: dict[str, dict[str, Any]] = {
            name: {"id": name, "object": "model", "created": self._started, "owned_by": "hookgate"}
            for name in self._router.names
        }
        for provider, models in (await self._router.catalog.models()).items():
            for model in models:
                full = {"object": "model", "created": self._started, "owned_by": provider, **model}
                listed.setdefault(model["id"], full)
        principal = exchange.principal
        return [model for name, model in listed.items() if principal is None or principal.allows(name)]

    async def _answer(
        self,
        exchange: Exchange,
        several: Callable[[_Models], Mapping[str, Any]],
        one: Callable[[dict[str, Any]], Mapping[str, Any]],
    ) -> Reply:
        models = await self.models(exchange)
        if not exchange.tail:
            return as_json(several(models))
        return as_json(one(_named(models, unquote(exchange.tail))))


async def version(exchange: Exchange) -> Reply:
    """``GET /api/version`` of Ollama."""
    return as_json(version_body())


async def running(exchange: Exchange) -> Reply:
    """``GET /api/ps`` of Ollama."""
    return as_json(ps_body())


def _named(models: _Models, *names: str) -> dict[str, Any]:
    """The model of the first of the names that is known. Raises ``ModelNotFound``."""
    for name in names:
        for model in models:
            if model["id"] == name:
                return model
    raise ModelNotFound("The model does not exist or is not served here.")


def as_json(body: Any) -> Reply:
    return Reply(200, {"content-type": "application/json"}, orjson.dumps(body))
