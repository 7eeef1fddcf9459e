"""Any server that speaks OpenAI's API: bytes pass unchanged but for the model's name and the usage we ask for.

Clients of other dialects are served by its chat completions, or by its own ``/messages`` and ``/responses`` where it
has them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
import orjson

from gateway import Exchange, Reply, Runtime, Secret, Target, hookimpl
from gateway.dialects import openai_chat_provider as dialect
from gateway.dialects.presets import PRESETS, Preset
from gateway.errors import InvalidRequest, UpstreamProtocolError
from gateway.http_provider import HttpProvider, HttpSettings, path_of
from gateway.translation import answered, chat_of, counted, embedded, embeddings_of, streamed


def _is_preset(_: Settings, attribute: attrs.Attribute[str | None], value: str | None) -> None:
    if value is not None and value not in PRESETS:
        raise ValueError(f"{attribute.name}: there is no preset '{value}'; there are {', '.join(sorted(PRESETS))}.")


@attrs.frozen(kw_only=True)
class Settings(HttpSettings):
    base_url: str = ""
    """Root of the API, with its version: ``https://api.openai.com/v1``. A preset knows its own."""
    preset: str | None = attrs.field(default=None, validator=_is_preset)
    """A known service or server: ``groq``, ``mistral``, ``vllm``, …; sets what is not set here."""
    stream_usage: bool | None = None
    """Ask for usage in streams when the client does not (and take it out again); off for servers that refuse it."""
    done_marker: bool | None = None
    """Streams must end with ``[DONE]``; off for servers known to end with a ``finish_reason`` only."""
    responses: bool | None = None
    """It serves ``/responses`` itself; otherwise clients of that API are served by its chat completions."""
    messages: bool | None = None
    """It serves Anthropic's ``/messages`` itself (vLLM and llama.cpp do); otherwise likewise."""

    def __attrs_post_init__(self) -> None:
        if not self.base_url and self.preset is None:
            raise ValueError("base_url: is required.")


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        headers: dict[str, str | Secret] = {}
        if settings.api_key is not None:
            headers["Authorization"] = settings.api_key.prefixed("Bearer ")
        preset = PRESETS[settings.preset] if settings.preset is not None else Preset()
        self._preset = attrs.evolve(
            preset,
            **{
                name: value
                for name in ("stream_usage", "done_marker", "responses", "messages")
                if (value := getattr(settings, name)) is not None
            },
        )
        self._models = settings.models
        self._http = HttpProvider(settings, runtime, headers, settings.base_url or preset.base_url)
        native = {"openai_chat"}
        if self._preset.responses:
            native.add("openai_responses")
        if self._preset.messages:
            native.add("anthropic_messages")
        self._native = frozenset(native)

    @hookimpl
    async def forward(self, exchange: Exchange, target: Target) -> Reply:
        surface = exchange.surface
        if surface.dialect in self._native:
            edits = self._edits(exchange) if exchange.stream and surface.name in ("chat", "completions") else {}
            path = path_of(exchange)
            return await self._http.pass_through(
                exchange, target, path, edits=edits, terminated=self._preset.done_marker
            )
        if surface.counts:
            return await counted(exchange)
        if surface.embeds:
            return await self._embed(exchange, target)
        return await self._translated(exchange, target)

    async def _embed(self, exchange: Exchange, target: Target) -> Reply:
        request = {**await embeddings_of(exchange), "model": self._http.model(exchange, target)}
        answer = await self._http.ask(exchange, "/embeddings", request, dialect.error_to_chat)
        return await embedded(exchange, await answer.read(), None)

    def _edits(self, exchange: Exchange) -> dict[str, bytes]:
        """Ask for the usage of a stream whose client does not."""
        if not self._preset.stream_usage:
            return {}
        options = exchange.payload.get("stream_options")
        if options is not None and not isinstance(options, dict):
            raise InvalidRequest("stream_options must be an object.")
        if (options or {}).get("include_usage"):
            return {}
        exchange.notes["strip_usage"] = True
        return {"stream_options": orjson.dumps({**(options or {}), "include_usage": True})}

    async def _translated(self, exchange: Exchange, target: Target) -> Reply:
        chat = await chat_of(exchange)
        model = self._http.model(exchange, target)
        caps = attrs.evolve(self._http.caps(model), **self._preset.capabilities)
        request, dropped = dialect.request_from_chat(chat, model, caps=caps, usage=self._preset.stream_usage)
        request, more = self._preset.fit(request)
        exchange.drop((*dropped, *more))
        answer = await self._http.ask(exchange, "/chat/completions", request, dialect.error_to_chat)
        if exchange.stream:
            return await streamed(exchange, answer, dialect.Decoder(self._preset.done_marker))
        return await answered(exchange, answer, dialect.reply_to_chat, dialect.usage_of)

    @hookimpl
    async def list_models(self) -> Iterable[dict[str, Any]]:
        if self._models is not None:
            return [{"id": name} for name in self._models]
        listed = await self._http.endpoint.get_json("/models", self._http.models_ttl)
        models = listed.get("data") if isinstance(listed, dict) else listed
        if not isinstance(models, list):
            raise UpstreamProtocolError("The provider's model list is not a list.", target=self._http.name)
        return [model for model in models if isinstance(model, dict) and isinstance(model.get("id"), str)]

    @hookimpl
    async def check_health(self) -> str | None:
        return await self._http.healthy("/models")
