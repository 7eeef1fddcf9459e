"""What all providers behind HTTP do alike: settings, pass-through, refusals. A provider plugin adds its dialect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter, time
from typing import Any
from urllib.parse import unquote_plus

import attrs
import orjson

from gateway.answer import Answer
from gateway.bearer import Token
from gateway.dialects.capabilities import Capabilities
from gateway.errors import InvalidRequest, UpstreamProtocolError, UpstreamRefused
from gateway.exchange import Exchange, Reply, Target
from gateway.headers import to_client
from gateway.retry import retry_after
from gateway.runtime import Runtime
from gateway.secret import Secret
from gateway.settings import Timeouts
from gateway.tails import safe_tail
from gateway.translation import refused

HOLD = 1 << 20
"""Bytes of a reply that are held to be sent as one; larger ones flow through."""
_JSON = {"Content-Type": "application/json"}


@attrs.frozen(kw_only=True)
class HttpSettings:
    """The settings all of them have."""

    base_url: str
    """Root of the API, with its version."""
    api_key: Secret | None = None
    """Goes to this origin and no other."""
    headers: Mapping[str, str | Secret] = attrs.field(factory=dict)
    """Sent with every request; values may be secret references."""
    timeouts: Timeouts = Timeouts()
    """connect, head, first_token, idle and total."""
    ca_file: str | None = None
    """PEM file of the authorities this provider's certificate may come from; the system's by default."""
    client_cert: str | None = None
    """PEM file of our certificate, for providers that ask for one."""
    client_key: str | None = None
    """PEM file of its key."""
    models: tuple[str, ...] | None = None
    """Models to list instead of asking the provider."""

    def bearer(self) -> dict[str, str | Secret]:
        """The header with the key, where there is one."""
        return {} if self.api_key is None else {"Authorization": self.api_key.prefixed("Bearer ")}


class HttpProvider:
    """One provider's way out."""

    def __init__(
        self,
        settings: HttpSettings,
        runtime: Runtime,
        headers: Mapping[str, str | Secret],
        base_url: str = "",
        token: Token | None = None,
    ) -> None:
        """``headers`` are the provider's own, its credential among them; the operator's come on top. ``token`` is a
        credential that has to be fetched."""
        own: dict[str, str | Secret] = {} if token is None else {"Authorization": token.secret.prefixed("Bearer ")}
        every: dict[str, str | Secret] = {**headers, **own, **settings.headers}
        self.name = runtime.name
        self.models_ttl = runtime.config.models_ttl
        self.endpoint = runtime.upstream.endpoint(
            runtime.name,
            base_url or settings.base_url,
            headers=every,
            timeouts=settings.timeouts,
            ca_file=settings.ca_file,
            client_cert=settings.client_cert,
            client_key=settings.client_key,
        )
        secrets = (settings.api_key, token and token.secret, *every.values())
        self._secrets = [value for value in secrets if isinstance(value, Secret)]
        self._capabilities = runtime.models
        self._token = token

    def caps(self, model: str) -> Capabilities:
        """What an upstream model can take."""
        found: Capabilities = self._capabilities.of(model)
        return found

    def model(self, exchange: Exchange, target: Target) -> str:
        """The upstream's name of the model. Raises ``InvalidRequest`` where there is none."""
        model = target.model or exchange.model
        if model is None:
            raise InvalidRequest("The request names no model.")
        return model

    async def pass_through(
        self,
        exchange: Exchange,
        target: Target,
        path: str,
        *,
        edits: Mapping[str, bytes | None] = {},
        query: str | None = None,
        headers: Mapping[str, str] = {},
        terminated: bool = True,
    ) -> Reply:
        """Send the client's bytes on, with the target's model in place of the client's and ``edits`` (JSON values by
        name; ``None`` takes a field out), and give back what comes.

        Raises ``UpstreamRefused`` with the provider's own answer.
        """
        payload = exchange.read_now() or await exchange.read()
        more = dict(headers)
        body: Any
        if payload.raw is None:
            body = payload.chunks(target.model)
            if (length := exchange.headers.get("Content-Length")) is not None:
                more["Content-Length"] = str(int(length) + payload.growth(target.model))
        else:
            wanted = dict(edits)
            named = target.model or exchange.model
            if named != payload.model and payload.model is not None and named is not None:
                wanted.setdefault("model", orjson.dumps(named))
            body = payload.edited(**wanted) if wanted else payload.raw
        asked = exchange.query if query is None else query
        if self._token is not None and not self._token.fresh():
            await self._fetched(self._token, exchange)
        answer = await self.endpoint.send(exchange, exchange.method, path, query=asked, body=body or None, headers=more)
        if answer.status >= 400:
            raise await self.passed_refusal(answer, target)
        return await self.reply(answer, terminated)

    async def reply(self, answer: Answer, terminated: bool = True) -> Reply:
        """A provider's answer as it is: held where it is short JSON, else flowing through."""
        headers = to_client(answer.headers)
        length = answer.headers.get("Content-Length")
        kind = answer.headers.get("Content-Type", "").lower()
        if kind.startswith("application/json") and (length is None or int(length) <= HOLD):
            return Reply(answer.status, headers, answer.arrived() or await answer.read())
        if length is not None and not kind.startswith(("text/event-stream", "application/x-ndjson")):
            headers["Content-Length"] = length  # events may be taken out or added
        return Reply(answer.status, headers, stream=answer.chunks(), close=answer.close, terminated=terminated)

    async def passed_refusal(self, answer: Answer, target: Target) -> UpstreamRefused:
        """An error answer, as the provider wrote it."""
        body = await answer.read(HOLD)
        self._seen(answer.status)
        wait = retry_after(answer.headers, body, time())
        headers = to_client(answer.headers)
        kind = headers.get("content-type", "").lower()
        if "json" not in kind or self.leaks(body):
            body = b""  # not an error an SDK could read, or one that shows our credential
            headers = type(headers)((k, v) for k, v in headers.items() if k.lower() == "retry-after")
            headers["content-type"] = "application/json"
        return UpstreamRefused(answer.status, body, headers, target=target.name, retry_after=wait)

    def leaks(self, body: bytes) -> bool:
        """Whether our credential stands in it."""
        return any((value := secret.reveal()) and value.encode() in body for secret in self._secrets)

    async def ask(
        self,
        exchange: Exchange,
        path: str,
        request: Any,
        error_to_chat: Callable[[int, bytes], tuple[str, str]],
        *,
        query: str = "",
        headers: Mapping[str, str] = _JSON,
    ) -> Answer:
        """Send a translated request and wait for a good answer's head.

        Raises ``UpstreamRefused`` with the provider's error in the client's dialect.
        """
        body = request if isinstance(request, bytes) else orjson.dumps(request)
        if self._token is not None and not self._token.fresh():
            await self._fetched(self._token, exchange)
        answer = await self.endpoint.send(exchange, "POST", path, query=query, body=body, headers=headers)
        if answer.status < 400:
            return answer
        raise await self.refusal(exchange, answer, lambda status, raw: (status, *error_to_chat(status, raw)))

    async def refusal(
        self, exchange: Exchange, answer: Answer, read: Callable[[int, bytes], tuple[int, str, str]]
    ) -> UpstreamRefused:
        """An error answer in the client's dialect; ``read`` makes status, code and message of its status and body.

        A body that shows our credential is not read.
        """
        raw = await answer.read(HOLD)
        self._seen(answer.status)
        wait = retry_after(answer.headers, raw, time())
        status, code, message = read(answer.status, b"" if self.leaks(raw) else raw)
        return refused(exchange, status, code, message, retry_after=wait)

    async def healthy(self, path: str, headers: Mapping[str, str] = {}) -> str | None:
        """``check_health`` by asking for ``path``."""
        await self.credential()
        answer = await self.endpoint.send(None, "GET", path, headers=headers)
        answer.close()
        return None if answer.status < 400 else f"answered {answer.status}"

    async def credential(self) -> None:
        """Have a credential, for calls that belong to no exchange. Raises ``UpstreamError``."""
        if self._token is not None and not self._token.fresh():
            await self._token.ready()

    async def _fetched(self, token: Token, exchange: Exchange) -> None:
        began = perf_counter()
        try:
            await token.ready()
        finally:
            exchange.upstream_seconds += perf_counter() - began

    def _seen(self, status: int) -> None:
        """What the status of a refusal says of our token."""
        if status == 401 and self._token is not None:
            self._token.refused()


def without(query: str, *names: str) -> str:
    """A query without the parameters called ``names``; the others as they were."""
    if not any(name in query for name in names) and "%" not in query:
        return query
    return "&".join(part for part in query.split("&") if unquote_plus(part.partition("=")[0]) not in names)


def path_of(exchange: Exchange) -> str:
    """The path below ``base_url`` for what the client asked. Raises ``InvalidRequest`` for a tail that leaves it."""
    path = exchange.surface.path
    if exchange.tail:
        path = path.replace("/{tail}", safe_tail(exchange.tail)).replace("{tail}", safe_tail(exchange.tail))
    return path


def json_object(raw: bytes) -> dict[str, Any]:
    """A whole answer. Raises ``UpstreamProtocolError`` for what is no JSON object."""
    try:
        body = orjson.loads(raw)
    except ValueError as error:
        raise UpstreamProtocolError("The provider's answer is not valid JSON.") from error
    if not isinstance(body, dict):
        raise UpstreamProtocolError("The provider's answer is not an object.")
    return body
