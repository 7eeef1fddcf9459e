"""Vertex AI: Google's Gemini models by their own API, and Anthropic's by Messages in Google's envelope.

Needs google-auth (``pip install 'hookgate[vertex]'``) unless an API key is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, Literal
from urllib.parse import quote

import attrs
import orjson

from gateway import Exchange, Reply, Runtime, Secret, Target, hookimpl
from gateway.bearer import Token
from gateway.dialects import (
    anthropic_messages,
    anthropic_messages_reply,
    anthropic_usage,
    gemini,
    gemini_error,
    gemini_reply,
)
from gateway.dialects.anthropic_messages_stream import Decoder as MessagesDecoder
from gateway.dialects.gemini_stream import Decoder
from gateway.errors import RouteNotFound, UpstreamRefused
from gateway.google_token import GoogleToken
from gateway.http_provider import HttpProvider, HttpSettings, path_of, without
from gateway.translation import answered, chat_of, counted, refused, streamed

_NAME = attrs.validators.matches_re(r"[A-Za-z0-9.:_-]+")


@attrs.frozen(kw_only=True)
class Settings(HttpSettings):
    base_url: str = ""
    """Root of the API, with its version; by default the one of ``location``."""
    project: str | None = attrs.field(default=None, validator=attrs.validators.optional(_NAME))
    """Whose quota is used and who pays. Only with ``api_key`` can it be left out."""
    location: str = attrs.field(default="global", validator=_NAME)
    """Region, ``us`` or ``eu``, or ``global``."""
    publisher: Literal["google", "anthropic"] = "google"
    """Whose models these are."""
    credentials: Secret | None = None
    """A service account's key, the whole JSON of it; without it (and without ``api_key``) the application default."""
    version: str = "vertex-2023-10-16"
    """``anthropic_version`` of requests that bring none."""

    def __attrs_post_init__(self) -> None:
        if self.api_key is not None and self.credentials is not None:
            raise ValueError("api_key: only one of api_key and credentials can be used.")
        if self.project is None and (self.api_key is None or self.publisher != "google"):
            raise ValueError("project: is required.")


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        headers: dict[str, str | Secret] = {}
        token = None
        if settings.api_key is not None:
            headers["x-goog-api-key"] = settings.api_key
        else:
            _demand_google_auth()
            token = Token(runtime.name, GoogleToken(settings.credentials).fetch, runtime.spawn)
        self._settings = settings
        self._http = HttpProvider(settings, runtime, headers, settings.base_url or _root(settings.location), token)
        self._prefix = f"/projects/{settings.project}/locations/{settings.location}" if settings.project else ""
        self._version = orjson.dumps(settings.version)
        self._answer = self._google if settings.publisher == "google" else self._anthropic

    @hookimpl
    async def forward(self, exchange: Exchange, target: Target) -> Reply:
        surface = exchange.surface
        if surface.name == "passthrough":
            # Below our project: with our credential, others may be within reach.
            path, query = self._prefix + path_of(exchange), without(exchange.query, "key")
            return await self._http.pass_through(exchange, target, path, query=query)
        if not surface.chat and not surface.counts:
            raise RouteNotFound("The vertex provider serves chats only.")
        return await self._answer(exchange, target)

    def _path(self, model: str, action: str) -> str:
        name = quote(model.removeprefix("models/"), safe="@")
        return f"{self._prefix}/publishers/{self._settings.publisher}/models/{name}:{action}"

    async def _google(self, exchange: Exchange, target: Target) -> Reply:
        model = self._http.model(exchange, target)
        if exchange.surface.dialect == "gemini":
            path = self._path(model, exchange.tail.rpartition(":")[2])
            return await self._http.pass_through(exchange, target, path, query=without(exchange.query, "key"))
        if exchange.surface.counts:
            return await counted(exchange)
        request, dropped = gemini.request_from_chat(await chat_of(exchange), model, caps=self._http.caps(model))
        exchange.drop(dropped)
        path, query = self._path(model, "generateContent"), ""
        if exchange.stream:
            path, query = self._path(model, "streamGenerateContent"), "alt=sse"
        answer = await self._http.ask(exchange, path, request, gemini_error.error_to_chat, query=query)
        if exchange.stream:
            return await streamed(exchange, answer, Decoder())
        return await answered(exchange, answer, gemini_reply.reply_to_chat, gemini_reply.usage_of)

    async def _anthropic(self, exchange: Exchange, target: Target) -> Reply:
        if exchange.surface.dialect == "anthropic_messages":
            return await self._messages(exchange, target)
        if exchange.surface.counts:
            return await counted(exchange)
        model = self._http.model(exchange, target)
        # Sampling and the like are judged by the version of the API that Google's name for it stands for.
        request, dropped = anthropic_messages.request_from_chat(
            await chat_of(exchange), model, caps=self._http.caps(model)
        )
        exchange.drop(dropped)
        del request["model"]
        request["anthropic_version"] = self._settings.version
        answer = await self._http.ask(exchange, self._raw_path(exchange, model), request, _error_to_chat)
        if exchange.stream:
            return await streamed(exchange, answer, MessagesDecoder())
        return await answered(exchange, answer, anthropic_messages_reply.reply_to_chat, anthropic_usage.usage_of)

    def _raw_path(self, exchange: Exchange, model: str) -> str:
        return self._path(model, "streamRawPredict" if exchange.stream else "rawPredict")

    async def _messages(self, exchange: Exchange, target: Target) -> Reply:
        """A client's own request, with the model in the path and the version in the body."""
        changed: dict[str, bytes | None] = {}
        if exchange.payload.get("anthropic_version") is None:
            changed["anthropic_version"] = self._version
        if exchange.surface.counts:
            path = self._path("count-tokens", "rawPredict")  # its requests name their model in the body
        else:
            changed["model"] = None
            path = self._raw_path(exchange, self._http.model(exchange, target))
        try:
            return await self._http.pass_through(exchange, target, path, edits=changed, query="")
        except UpstreamRefused as error:
            if not error.body or _is_anthropics(error.body):
                raise
            # Google's own, about the model's place or the quota: not what clients of Messages read.
            status = error.upstream_status or 502
            code, message = gemini_error.error_to_chat(status, error.body)
            raise refused(exchange, status, code, message, retry_after=error.retry_after) from error

    @hookimpl
    async def list_models(self) -> Iterable[dict[str, Any]]:
        """The configured ones: Vertex lists what there is, not what a project may use."""
        return [{"id": name} for name in self._settings.models or ()]

    @hookimpl
    async def check_health(self) -> str | None:
        """A token can be had; Vertex has nothing to ask for that is free and needs no more rights than generating."""
        await self._http.credential()
        return None


def _root(location: str) -> str:
    if location == "global":
        return "https://aiplatform.googleapis.com/v1"
    if location in ("us", "eu"):
        return f"https://aiplatform.{location}.rep.googleapis.com/v1"
    return f"https://{location}-aiplatform.googleapis.com/v1"


def _demand_google_auth() -> None:
    try:
        found = find_spec("google.auth") and find_spec("requests")
    except ModuleNotFoundError:
        found = None
    if not found:
        raise ValueError("needs google-auth: pip install 'hookgate[vertex]'")


def _is_anthropics(body: bytes) -> bool:
    try:
        told = orjson.loads(body)
    except ValueError:
        return False
    return isinstance(told, dict) and told.get("type") == "error"


def _error_to_chat(status: int, body: bytes) -> tuple[str, str]:
    if _is_anthropics(body):
        return anthropic_messages_reply.error_to_chat(status, body)
    return gemini_error.error_to_chat(status, body)
