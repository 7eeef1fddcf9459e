"""Any server that speaks OpenAI's API: bytes pass unchanged but for the model's name and the usage we ask for.

Clients of other dialects are served by its chat completions, or by its own ``/messages`` and ``/responses`` where it
has them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from gateway import Exchange, Reply, Runtime, Secret, Target, hookimpl
from gateway.dialects.presets import PRESETS, Preset
from gateway.http_provider import HttpProvider, HttpSettings, path_of
from gateway.openai_provider import edits, embeddings, models_in, translated
from gateway.structure import did_you_mean
from gateway.translation import counted


def _is_preset(_: Settings, attribute: attrs.Attribute[str | None], value: str | None) -> None:
    if value is not None and value not in PRESETS:
        known = ", ".join(sorted(PRESETS))
        raise ValueError(f"there is no preset '{value}'; there are {known}.{did_you_mean(value, PRESETS)}")


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
            return await self._http.pass_through(
                exchange,
                target,
                path_of(exchange),
                edits=edits(exchange, target, self._preset.stream_usage),
                terminated=self._preset.done_marker,
            )
        if surface.counts:
            return await counted(exchange)
        if surface.embeds:
            return await embeddings(self._http, exchange, target, "/embeddings")
        return await translated(self._http, exchange, target, self._preset, "/chat/completions")

    @hookimpl
    async def list_models(self) -> Iterable[dict[str, Any]]:
        if self._models is not None:
            return [{"id": name} for name in self._models]
        listed = await self._http.endpoint.get_json("/models", self._http.models_ttl)
        return models_in(listed, self._http.name)

    @hookimpl
    async def check_health(self) -> str | None:
        return await self._http.healthy("/models")
