"""What providers behind HTTP share: settings, the endpoint, refusals that show no secret, translated streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping
from time import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs
import orjson

from gateway.config import Secret, Timeouts
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamError, UpstreamRefused, openai_type
from gateway.exchange import Exchange, Target, Usage
from gateway.retry import retry_after

if TYPE_CHECKING:
    from gateway.plugins import Runtime
    from gateway.upstream import Answer, Endpoint

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
_STEPS = 32  # vectors translated at a time: 2 ms at 1,024 dimensions
_ERROR_LIMIT = 1 << 20  # bytes of an error body that are read
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

    def secrets(self) -> list[Secret]:
        """What must not appear in anything a client is sent."""
        return [value for value in (self.api_key, *self.headers.values()) if isinstance(value, Secret)]

    def endpoint(self, runtime: Runtime, base_url: str | None = None) -> Endpoint:
        """The way there, with the key as a bearer token; ``base_url`` where the provider works it out.

        Raises ``ValueError`` for a base URL that is not one, ``OSError`` or ``ssl.SSLError`` for TLS files.
        """
        headers = dict(self.headers)
        if self.api_key is not None:
            headers["Authorization"] = self.api_key.prefixed("Bearer ")
        return runtime.upstream.endpoint(
            runtime.name,
            base_url or self.base_url,
            headers=headers,
            timeouts=self.timeouts,
            ca_file=self.ca_file,
            client_cert=self.client_cert,
            client_key=self.client_key,
        )


def leaks(secrets: Iterable[Secret], body: bytes) -> bool:
    return any(secret.reveal().encode() in body for secret in secrets)


async def refused(
    answer: Answer, target: Target, secrets: Iterable[Secret], shape: Callable[[int, bytes], tuple[int, bytes]]
) -> UpstreamRefused:
    """The error for an answer of status 400 or above; ``shape`` turns its status and body into the client's.

    A body that shows one of ``secrets`` is not read.
    """
    try:
        raw = await answer.read(_ERROR_LIMIT)
    finally:
        answer.close()
    wait = retry_after(answer.headers, raw, time())
    status, body = shape(answer.status, b"" if leaks(secrets, raw) else raw)
    return UpstreamRefused(status, body, JSON, target=target.name, retry_after=wait)


def error_body(status: int, code: str | None, message: str) -> bytes:
    """An error in OpenAI's shape."""
    param = "model" if code == "model_not_found" else None
    return orjson.dumps({"error": {"message": message, "type": openai_type(status), "param": param, "code": code}})


def told_in_band(error: StreamError, target: Target) -> UpstreamRefused:
    """An error the provider told inside an answer that claimed success, judged as an answer of its status."""
    body = error_body(error.status, error.code, error.message)
    refusal = UpstreamRefused(error.status, body, JSON, target=target.name)
    refusal.message = f"The provider reported an error: {error.message}"
    return refusal


class StreamDecoder(Protocol):
    """What a dialect brings to read a provider's stream (``gateway/dialects``)."""

    done: bool
    usage: Usage | None

    def feed(self, block: bytes) -> list[dict[str, Any]]: ...

    def end(self) -> list[dict[str, Any]]: ...


async def chat_events(
    exchange: Exchange, answer: Answer, decoder: StreamDecoder, target: Target, include_usage: bool
) -> AsyncIterator[bytes]:
    """A translated stream as OpenAI's events; ``[DONE]`` stands for the provider's own terminal marker."""
    try:
        try:
            async for block in answer.chunks():
                chunks = decoder.feed(block)
                exchange.usage = decoder.usage
                if events := _events(chunks, include_usage):
                    yield events
        except UpstreamError:
            if not decoder.done:  # behind the terminal marker nothing is missing, however the connection ended
                raise
        chunks = decoder.end()
        exchange.usage = decoder.usage
    except StreamError as error:
        raise told_in_band(error, target) from error
    yield _events(chunks, include_usage) + b"data: [DONE]\n\n"


def _events(chunks: list[dict[str, Any]], include_usage: bool) -> bytes:
    return b"".join([b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks if include_usage or chunk["choices"]])


def include_usage(body: Mapping[str, Any]) -> bool:
    """Whether the client asks for the usage of a stream."""
    options = body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


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
