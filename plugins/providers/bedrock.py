"""Models on Amazon Bedrock, by the Converse API; Anthropic's for clients who speak Messages also by its own.

A request is signed with botocore (``pip install 'hookgate[bedrock]'``), or carries a Bedrock API key; then botocore is
not needed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from functools import partial
from typing import Any, Literal
from urllib.parse import quote
from uuid import uuid4

import attrs

from gateway import Exchange, Reply, Runtime, Secret, Target, hookimpl
from gateway.dialects import bedrock_converse, bedrock_converse_stream
from gateway.dialects.eventstream import AnthropicEvents
from gateway.dialects.ollama import encode
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamError, UpstreamProtocolError
from gateway.http_provider import HttpProvider, HttpSettings, json_object
from gateway.sigv4 import Keys, Signer
from gateway.translation import answered, chat_of, counted, refused, streamed

_JSON = {"content-type": "application/json"}
_EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
_NOT_IN_INVOKE = ("model", "stream")  # the path says both


@attrs.frozen(kw_only=True)
class Settings(HttpSettings):
    base_url: str = ""
    """Root of the runtime API: that of ``region`` by default; another one for a VPC endpoint or FIPS."""
    control_url: str = ""
    """Root of the API that lists models: that of ``region`` by default, none where ``base_url`` is another."""
    region: str = ""
    """``us-east-1``, say; needed but where ``base_url`` and ``api_key`` are given."""
    api: Literal["converse", "anthropic"] = "converse"
    """``anthropic``: requests of Anthropic's Messages go to Anthropic's models unchanged (``InvokeModel``); all others
    are asked by Converse still."""
    api_key: Secret | None = None
    """A Bedrock API key, sent as ``Authorization: Bearer``; nothing is signed then."""
    access_key: Secret | None = None
    """Access key to sign with; without one, botocore's default chain looks for credentials: environment, profile, web
    identity, container, instance."""
    secret_key: Secret | None = None
    """Secret of ``access_key``."""
    session_token: Secret | None = None
    """Token that belongs to temporary keys."""
    anthropic_version: str = "bedrock-2023-05-31"
    """``anthropic_version`` of an invocation where the client gives none."""

    def __attrs_post_init__(self) -> None:
        if not self.region and not (self.base_url and self.api_key is not None):
            raise ValueError("region is needed, to find the service and to sign for it.")
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key are given together, or neither.")
        if self.session_token is not None and self.access_key is None:
            raise ValueError("session_token belongs to an access_key.")

    def service(self, name: str) -> str:
        """The public address of a service in the region."""
        return f"https://{name}.{self.region}.amazonaws.com{'.cn' if self.region.startswith('cn-') else ''}"


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._settings = settings
        self._base = (settings.base_url or settings.service("bedrock-runtime")).rstrip("/")
        self._provider = HttpProvider(settings, runtime, settings.bearer(), self._base)
        control = settings.control_url or ("" if settings.base_url else settings.service("bedrock"))
        self._control_base = control.rstrip("/")
        self._control = HttpProvider(settings, runtime, settings.bearer(), control).endpoint if control else None
        given = (settings.access_key, settings.secret_key, settings.session_token)
        self._keys = [key for key in given if key is not None]
        self._signer: Signer | None = None
        if settings.api_key is None:
            keys = None
            if settings.access_key is not None and settings.secret_key is not None:
                keys = Keys(settings.access_key, settings.secret_key, settings.session_token)
            self._signer = Signer(settings.region, "bedrock", keys)

    @hookimpl
    async def forward(self, exchange: Exchange, target: Target) -> Reply:
        model = self._provider.model(exchange, target)
        if self._settings.api == "anthropic" and exchange.surface.name == "messages":
            return await self._invoke(exchange, model)
        if exchange.surface.counts:
            return await counted(exchange)
        chat = await chat_of(exchange)
        request, dropped = bedrock_converse.request_from_chat(chat, model, caps=self._provider.caps(model))
        exchange.drop(dropped)
        answer = await self._ask(exchange, model, "converse-stream" if exchange.stream else "converse", request)
        answer_id = uuid4().hex
        if exchange.stream:
            return await streamed(exchange, answer, bedrock_converse_stream.Decoder(model, answer_id))
        return await answered(
            exchange,
            answer,
            lambda body: bedrock_converse_stream.reply_to_chat(body, model, answer_id),
            bedrock_converse_stream.usage_of,
        )

    async def _invoke(self, exchange: Exchange, model: str) -> Reply:
        """Anthropic's Messages as they are, but for what stands in the path and in headers elsewhere."""
        body = (await exchange.read()).json()
        request = {name: value for name, value in body.items() if name not in _NOT_IN_INVOKE}
        request.setdefault("anthropic_version", self._settings.anthropic_version)
        if beta := exchange.headers.get("anthropic-beta"):
            request.setdefault("anthropic_beta", [name.strip() for name in beta.split(",")])
        how = "invoke-with-response-stream" if exchange.stream else "invoke"
        answer = await self._ask(exchange, model, how, request)
        if exchange.stream:
            return Reply(200, _EVENTS, stream=_anthropic_events(exchange, answer), close=answer.close)
        return Reply(200, _JSON, await answer.read())

    async def _ask(self, exchange: Exchange, model: str, how: str, request: Mapping[str, Any]) -> Any:
        path = f"/model/{quote(model, safe='')}/{how}"
        body = encode(request)
        headers = _JSON
        if self._signer is not None:
            signed = await self._signer.headers("POST", self._base + path, _JSON.items(), body)
            headers = {**_JSON, **signed}
        answer = await self._provider.endpoint.send(exchange, "POST", path, body=body, headers=headers)
        if answer.status >= 400:
            kind = answer.headers.get("x-amzn-errortype", "")
            raise await self._provider.refusal(exchange, answer, partial(self._error, kind))
        return answer

    def _error(self, kind: str, status: int, body: bytes) -> tuple[int, str, str]:
        if any(secret.reveal().encode() in body for secret in self._keys):
            body = b""
        judged = bedrock_converse_stream.error_status(status, kind)
        return judged, *bedrock_converse_stream.error_to_chat(status, body, kind)

    @hookimpl
    async def list_models(self) -> Iterable[dict[str, Any]]:
        if self._settings.models is not None:
            return [{"id": name} for name in self._settings.models]
        if self._control is None:
            return []
        models = await self._listed("/foundation-models", "byInferenceType=ON_DEMAND", "modelSummaries", "modelId")
        # The newer models are called through profiles only.
        profiles = await self._listed(
            "/inference-profiles", "maxResults=1000", "inferenceProfileSummaries", "inferenceProfileId"
        )
        return [
            {"id": name, "object": "model", "created": 0, "owned_by": "amazon-bedrock"} for name in models + profiles
        ]

    async def _listed(self, path: str, query: str, field: str, name: str) -> list[str]:
        assert self._control is not None
        headers = {}
        if self._signer is not None:
            headers = await self._signer.headers("GET", f"{self._control_base}{path}?{query}", (), b"")
        answer = await self._control.send(None, "GET", path, query=query, headers=headers)
        raw = await answer.read()
        if answer.status != 200:
            raise UpstreamProtocolError(f"The provider answered {answer.status}.", target=self._provider.name)
        items = json_object(raw).get(field)
        if not isinstance(items, list):
            raise UpstreamProtocolError("The provider's model list is not a list.", target=self._provider.name)
        return [item[name] for item in items if isinstance(item, dict) and isinstance(item.get(name), str)]

    @hookimpl
    async def check_health(self) -> str | None:
        # The service has no route for this: that it says so, to whoever asks, is all that is wanted.
        answer = await self._provider.endpoint.send(None, "GET", "/ping")
        answer.close()
        return None if answer.status < 500 else f"answered {answer.status}"


async def _anthropic_events(exchange: Exchange, answer: Any) -> AsyncIterator[bytes]:
    decoder = AnthropicEvents()
    try:
        async for block in answer.chunks():
            if events := decoder.feed(block):
                yield events
        decoder.end()
    except UpstreamError:
        if not decoder.done:  # behind the terminal marker nothing is missing, however the connection ended
            raise
    except StreamError as error:
        raise refused(exchange, error.status, error.code, error.message) from error
