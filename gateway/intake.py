"""The way in: who is calling from where, and the request body, read under limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container
from time import monotonic
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
from aiohttp import web

from gateway import body as bodies
from gateway.config import Server
from gateway.dialects.ollama_models import LATEST
from gateway.errors import (
    Forbidden,
    GatewayError,
    InvalidRequest,
    PayloadTooLarge,
    RequestTimeout,
    UnsupportedEncoding,
)
from gateway.exchange import ANY, Exchange
from gateway.ids import RequestIds
from gateway.multipart import Form
from gateway.proxies import Proxies
from gateway.routing import authorise
from gateway.watchdog import Guard

FORM_HEAD = 1 << 20
"""Bytes of a form that are read before it is forwarded, in search of the model; a small file may come first."""


class StreamedBody:
    """A body that is never held in memory: multipart forms and raw uploads. Can be sent once."""

    raw: bytes | None = None
    stream = False

    def __init__(self, blocks: AsyncIterator[bytes], head: bytes = b"", form: Form | None = None) -> None:
        self._head = head
        self._blocks = blocks
        self._form = form
        self.model = form.model if form is not None else None
        self.sent = False
        """Part of it is gone to a provider, and cannot be sent to another."""

    async def chunks(self, model: str | None = None) -> AsyncIterator[bytes]:
        """The whole body, the part looked at included; with ``model`` in place of the name the client gave."""
        self.sent = True
        if self._head:
            yield self._renamed(model)
        async for block in self._blocks:
            yield block

    def growth(self, model: str | None) -> int:
        """Bytes by which ``chunks(model)`` is longer than what the client sends."""
        return len(self._renamed(model)) - len(self._head)

    def _renamed(self, model: str | None) -> bytes:
        if model is None or self._form is None or self._form.model is None:
            return self._head
        start, end = self._form.span
        return self._head[:start] + model.encode() + self._head[end:]

    def get(self, name: str) -> Any:
        return None

    def json(self) -> dict[str, Any]:
        raise InvalidRequest("This operation needs a JSON body.")


class Intake:
    """Reads requests for the dispatcher, by the limits of ``[server]``."""

    def __init__(self, server: Server, names: Container[str] = ()) -> None:
        """``names`` are the configured models."""
        self._names = names
        self._max_body = server.max_body
        self._progress = server.body_timeout
        self._total = server.body_total
        self.client_ip = Proxies(server.trusted_proxies).client_ip
        self.new_id = RequestIds().new

    def consumed(self, request: web.Request) -> bool:
        """Nothing of the request's body is left to arrive."""
        return request.content.is_eof()

    def read_now(self, exchange: Exchange) -> Any:
        """The payload of a short JSON body that is here already; see ``Exchange.read_now``."""
        if exchange.surface.body != "json" or (raw := exchange.arrived()) is None or len(raw) > bodies.SMALL:
            return None
        self._check(exchange)
        if len(raw) > self._max_body:
            raise self._too_large()
        payload = bodies.parse_small(raw)
        self._admit(exchange, payload)
        return payload

    def _admit(self, exchange: Exchange, payload: Any) -> None:
        # One that the path names comes first.
        model = payload.model if exchange.model is None else bodies.checked_model(exchange.model)
        if model is not None:
            if model.endswith(LATEST) and model not in self._names and exchange.surface.dialect.startswith("ollama"):
                model = model.removesuffix(LATEST)  # which Ollama's clients put behind a name without a tag
            authorise(exchange, model)
            exchange.model = model
        streams = exchange.surface.streams
        exchange.stream = payload.stream if streams == "asked" else _streams(streams, payload)

    def _check(self, exchange: Exchange) -> None:
        request: web.Request = exchange.request
        if "Content-Encoding" in request.headers and _is_encoded(request.headers.getall("Content-Encoding")):
            raise UnsupportedEncoding("Compressed request bodies are not accepted.")
        _check_query(exchange.query)

    async def read(self, exchange: Exchange) -> Any:
        """Read and parse the body of ``exchange``; see ``Exchange.read``."""
        request: web.Request = exchange.request
        self._check(exchange)
        length = request.content_length
        if length is not None and length > self._max_body:
            raise self._too_large()
        if request.headers.get("Expect", "").lower() == "100-continue" and not request.content.is_eof():
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        if exchange.surface.body == "json" or (request.content_type == "application/json" and request.body_exists):
            payload = await self._json(exchange)
        elif request.content_type == "multipart/form-data":
            payload = await self._multipart(exchange)
        else:
            payload = StreamedBody(self._upload(exchange))
            if not request.body_exists:
                payload.raw = b""  # a GET sent on as a chunked upload is refused by many servers
            elif exchange.principal is not None and not exchange.principal.allows(ANY):
                # Some servers read JSON whatever its type says, and with it a model nobody has looked at.
                raise Forbidden("This key may use certain models only, and a body of this type names none.")
        self._admit(exchange, payload)
        return payload

    async def _json(self, exchange: Exchange) -> Any:
        raw = exchange.arrived()
        if raw is None:
            blocks = [block async for block in self._chunks(exchange)]
            raw = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        elif len(raw) > self._max_body:
            raise self._too_large()
        if len(raw) <= bodies.SMALL:
            return bodies.parse_small(raw)
        return await bodies.parse(raw)

    async def _multipart(self, exchange: Exchange) -> StreamedBody:
        """The form, read up to its model's name; of one that names none up to ``FORM_HEAD``."""
        types = exchange.request.headers.getall("Content-Type")
        form = Form(", ".join(types))
        blocks = self._chunks(exchange)
        head: list[bytes] = []
        size = 0
        async for block in blocks:
            form.feed(block)
            head.append(block)
            size += len(block)
            if form.model is not None or size > FORM_HEAD:
                break
        else:
            form.finish()
        form.seal()
        return StreamedBody(self._upload(exchange, form, blocks), b"".join(head), form)

    async def _upload(
        self, exchange: Exchange, form: Form | None = None, blocks: AsyncIterator[bytes] | None = None
    ) -> AsyncIterator[bytes]:
        """What is left of a streamed body, which a provider's connection takes block by block in a task of its own."""
        guard = exchange.guard
        try:
            async for block in blocks or self._chunks(exchange):
                if form is not None:
                    form.feed(block)
                yield block
            if form is not None:
                form.finish()
        except GatewayError as error:
            if asyncio.current_task() is not guard.task:
                guard.fire(error)  # all that task would tell is that sending failed
            raise

    async def _chunks(self, exchange: Exchange) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises ``PayloadTooLarge``, ``RequestTimeout``, ``InvalidRequest``."""
        content = exchange.request.content
        deadline = monotonic() + self._total
        size = 0
        try:
            while block := await self._next(content, exchange.guard, deadline):
                size += len(block)
                if size > self._max_body:
                    raise self._too_large()
                yield block
        except asyncio.CancelledError:
            # A streamed upload is read by aiohttp's writer task; the reason is for the exchange's own task only.
            guard = exchange.guard
            error = guard.caught() if asyncio.current_task() is guard.task else None
            if error is None:
                raise
            raise error from None
        except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError) as error:
            raise InvalidRequest("The request body is not valid HTTP.") from error

    async def _next(self, content: aiohttp.StreamReader, guard: Guard, deadline: float) -> bytes:
        """The next block, under the client's time limit; the provider's, if one runs, stands still meanwhile."""
        began = monotonic()
        saved = guard.at, guard.error
        guard.arm(min(self._progress, max(0.01, deadline - began)), _too_slow)
        mine = guard.at
        try:
            return await content.readany()
        finally:
            if guard.at == mine:  # else it has fired, or the answer came before the body's end
                guard.at, guard.error = saved[0] + (monotonic() - began), saved[1]

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The request body is larger than {self._max_body} bytes.")


def _streams(kind: str, payload: Any) -> bool:
    return kind == "always" or (kind == "unless" and payload.get("stream") is not False)


def _is_encoded(values: list[str]) -> bool:
    return any(value.strip().lower() not in ("", "identity") for value in values)


def _check_query(query: str) -> None:
    """The query goes to the provider: it may not say there what a body may not say here."""
    if not query:
        return
    for name, _ in parse_qsl(query, keep_blank_values=True):
        known = name.casefold()
        if known in bodies.STEERING or known in bodies.ROUTING:
            raise InvalidRequest(f"'{known}' cannot be set in the query.")


def _too_slow() -> GatewayError:
    return RequestTimeout("The request body arrived too slowly.")
