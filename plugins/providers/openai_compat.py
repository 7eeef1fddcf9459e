"""Any server that speaks OpenAI's API: bytes pass unchanged but for the model's name and the usage we ask for."""

from __future__ import annotations

from collections.abc import Iterable
from time import time
from typing import Any

import attrs
import orjson

from gateway import Exchange, Reply, Runtime, Target, hookimpl
from gateway.errors import InvalidRequest, UpstreamProtocolError, UpstreamRefused
from gateway.headers import to_client
from gateway.http_provider import HOLD, HttpProvider, HttpSettings
from gateway.retry import retry_after
from gateway.tails import safe_tail
from gateway.upstream import Answer


@attrs.frozen(kw_only=True)
class Settings(HttpSettings):
    base_url: str
    """Root of the API, with its version: ``https://api.openai.com/v1``."""
    stream_usage: bool = True
    """Ask for usage in streams when the client does not (and take it out again); off for servers that refuse it."""
    done_marker: bool = True
    """Streams must end with ``[DONE]``; off for servers known to end with a ``finish_reason`` only."""


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._settings = settings
        self._provider = HttpProvider(settings, runtime, settings.bearer())
        self._endpoint = self._provider.endpoint

    @hookimpl
    async def forward(self, exchange: Exchange, target: Target) -> Reply:
        payload = exchange.read_now() or await exchange.read()
        path = exchange.surface.path
        if exchange.tail:
            path = path.replace("/{tail}", safe_tail(exchange.tail)).replace("{tail}", safe_tail(exchange.tail))
        body = payload.chunks(target.model) if payload.raw is None else self._body(exchange, target, payload)
        headers = {}
        if payload.raw is None and (length := exchange.headers.get("Content-Length")) is not None:
            headers["Content-Length"] = str(int(length) + payload.growth(target.model))
        answer = await self._endpoint.send(
            exchange, exchange.method, path, query=exchange.query, body=body or None, headers=headers
        )
        if answer.status >= 400:
            raise await self._refused(answer, target)
        return await self._reply(answer)

    def _body(self, exchange: Exchange, target: Target, payload: Any) -> bytes:
        edits: dict[str, bytes] = {}
        if target.model is not None and target.model != payload.model:
            edits["model"] = orjson.dumps(target.model)
        if exchange.stream and self._settings.stream_usage and exchange.surface.name in ("chat", "completions"):
            options = payload.get("stream_options")
            if options is not None and not isinstance(options, dict):
                raise InvalidRequest("stream_options must be an object.")
            if not (options or {}).get("include_usage"):
                edits["stream_options"] = orjson.dumps({**(options or {}), "include_usage": True})
                exchange.notes["strip_usage"] = True
        body: bytes = payload.edited(**edits) if edits else payload.raw
        return body

    async def _reply(self, answer: Answer) -> Reply:
        headers = to_client(answer.headers)
        length = answer.headers.get("Content-Length")
        kind = answer.headers.get("Content-Type", "").lower()
        if kind.startswith("application/json") and (length is None or int(length) <= HOLD):
            return Reply(answer.status, headers, answer.arrived() or await answer.read())
        if length is not None and not kind.startswith("text/event-stream"):
            headers["Content-Length"] = length  # events may be taken out or added
        return Reply(
            answer.status, headers, stream=answer.chunks(), close=answer.close, terminated=self._settings.done_marker
        )

    async def _refused(self, answer: Answer, target: Target) -> UpstreamRefused:
        body = await answer.read(HOLD)
        wait = retry_after(answer.headers, body, time())
        headers = to_client(answer.headers)
        kind = headers.get("content-type", "").lower()
        if "json" not in kind or self._provider.leaks(body):
            body = b""  # not an error an SDK could read, or one that shows our credential
            headers = type(headers)((k, v) for k, v in headers.items() if k.lower() == "retry-after")
            headers["content-type"] = "application/json"
        return UpstreamRefused(answer.status, body, headers, target=target.name, retry_after=wait)

    @hookimpl
    async def list_models(self) -> Iterable[dict[str, Any]]:
        if self._settings.models is not None:
            return [{"id": name} for name in self._settings.models]
        listed = await self._endpoint.get_json("/models", self._provider.models_ttl)
        models = listed.get("data") if isinstance(listed, dict) else listed
        if not isinstance(models, list):
            raise UpstreamProtocolError("The provider's model list is not a list.", target=self._provider.name)
        return [model for model in models if isinstance(model, dict) and isinstance(model.get("id"), str)]

    @hookimpl
    async def check_health(self) -> str | None:
        answer = await self._endpoint.send(None, "GET", "/models")
        answer.close()
        return None if answer.status < 400 else f"answered {answer.status}"
