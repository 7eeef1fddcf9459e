"""What every provider behind HTTP does alike: settings, the endpoint, refusals. A provider plugin adds its dialect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping
from time import time
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import orjson

from gateway import translation
from gateway.config import Secret, Timeouts
from gateway.dialects.capabilities import Capabilities
from gateway.errors import InvalidRequest, UpstreamProtocolError, UpstreamRefused
from gateway.exchange import Exchange, Target
from gateway.retry import retry_after

if TYPE_CHECKING:
    from gateway.plugins import Runtime
    from gateway.upstream import Answer

HOLD = 1 << 20
"""Bytes of an error answer that are read."""
_STEPS = 32  # vectors translated at a time: 2 ms at 1,024 dimensions
_Result = TypeVar("_Result")


@attrs.frozen(kw_only=True)
class HttpSettings:
    """Settings of every provider behind HTTP; a provider's own class adds to them and may give defaults."""

    base_url: str
    """Root of the API."""
    api_key: Secret | None = None
    """Sent as ``Authorization: Bearer`` to this origin and no other."""
    headers: Mapping[str, str | Secret] = attrs.field(factory=dict)
    """Sent with every request; values may be secret references."""
    timeouts: Timeouts = Timeouts()
    """connect, first_token, idle and total."""
    ca_file: str | None = None
    """PEM file of the authorities this provider's certificate may come from; the system's by default."""
    client_cert: str | None = None
    """PEM file of our certificate, for providers that ask for one."""
    client_key: str | None = None
    """PEM file of its key."""
    models: tuple[str, ...] | None = None
    """Models to list instead of asking the provider."""

    def bearer(self) -> dict[str, Secret]:
        """The header with the key, where there is one."""
        return {} if self.api_key is None else {"Authorization": self.api_key.prefixed("Bearer ")}


class HttpProvider:
    """One provider's way out."""

    def __init__(
        self, settings: HttpSettings, runtime: Runtime, headers: Mapping[str, str | Secret], base_url: str = ""
    ) -> None:
        """``headers`` are the provider's own, its credential among them, and win over the operator's.

        Raises ``ValueError`` for a base URL that is not one, ``OSError`` or ``ssl.SSLError`` for TLS files.
        """
        every: dict[str, str | Secret] = {**settings.headers, **headers}
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
        secrets = (settings.api_key, *settings.headers.values())
        self._secrets = [value for value in secrets if isinstance(value, Secret)]

    def caps(self, model: str) -> Capabilities:
        """What an upstream model can take."""
        return Capabilities()

    def model(self, exchange: Exchange, target: Target) -> str:
        """The upstream's name of the model. Raises ``InvalidRequest`` where there is none."""
        model = target.model or exchange.model
        if model is None:
            raise InvalidRequest("model: is required.")
        return model

    def leaks(self, body: bytes) -> bool:
        """Whether our credential stands in it."""
        return any(secret.reveal().encode() in body for secret in self._secrets)

    async def refusal(
        self, exchange: Exchange, answer: Answer, read: Callable[[int, bytes], tuple[int, str, str]]
    ) -> UpstreamRefused:
        """An error answer in the client's dialect; ``read`` makes status, code and message of its status and body.

        A body that shows our credential is not read.
        """
        try:
            raw = await answer.read(HOLD)
        finally:
            answer.close()
        wait = retry_after(answer.headers, raw, time())
        status, code, message = read(answer.status, b"" if self.leaks(raw) else raw)
        return translation.refused(exchange, status, code, message, retry_after=wait)


def json_object(raw: bytes) -> dict[str, Any]:
    """A whole answer. Raises ``UpstreamProtocolError`` for what is no JSON object."""
    try:
        body = orjson.loads(raw)
    except ValueError as error:
        raise UpstreamProtocolError("The provider's answer is not valid JSON.") from error
    if not isinstance(body, dict):
        raise UpstreamProtocolError("The provider's answer is not an object.")
    return body


async def in_turns(steps: Generator[None, None, _Result]) -> _Result:
    """Run a long computation in pieces, between which the event loop serves others."""
    while True:
        try:
            for _ in range(_STEPS):
                next(steps)
        except StopIteration as end:
            result: _Result = end.value
            return result
        await asyncio.sleep(0)
