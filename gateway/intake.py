"""The way in: who is calling from where, and the request body, read under limits of size and time."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from ipaddress import IPv4Network, IPv6Network, ip_address
from time import monotonic
from typing import Any

import aiohttp
from aiohttp import web

from gateway import body as bodies
from gateway.config import Server
from gateway.errors import GatewayError, InvalidRequest, PayloadTooLarge, RequestTimeout, UnsupportedEncoding
from gateway.exchange import Exchange
from gateway.routing import authorise

_SMALL = 1 << 20  # bytes up to which a body is parsed in one go


class StreamedBody:
    """A body that is never held in memory: multipart forms and raw uploads. Can be sent once."""

    raw: bytes | None = None

    def __init__(self, chunks: AsyncIterator[bytes], model: str | None) -> None:
        self._chunks = chunks
        self.model = model
        self.stream = False

    def chunks(self) -> AsyncIterator[bytes]:
        """The whole body, the part looked at included."""
        return self._chunks

    def get(self, name: str) -> Any:
        return None

    def json(self) -> dict[str, Any]:
        raise InvalidRequest("This operation needs a JSON body.")


class Intake:
    """Reads requests for the dispatcher, by the limits of ``[server]``."""

    def __init__(self, server: Server) -> None:
        self._max_body = server.max_body
        self._progress = server.body_timeout
        self._total = server.body_total
        self._trusted: tuple[IPv4Network | IPv6Network, ...] = tuple(server.trusted_proxies)
        self._prefix = os.urandom(6).hex()
        self._serial = itertools.count()

    def new_id(self) -> str:
        """An id no other request of this or any other process has."""
        return f"{self._prefix}-{next(self._serial):x}"

    def client_ip(self, request: web.Request) -> str:
        """The peer, or what trusted proxies say of it: the right-most address that is not a trusted proxy's."""
        peer = request.transport.get_extra_info("peername") if request.transport else None
        address = peer[0] if isinstance(peer, tuple) else ""
        if not self._trusted or "X-Forwarded-For" not in request.headers or not self._is_trusted(address or "127.0.0.1"):
            return address
        hops = [hop.strip() for value in request.headers.getall("X-Forwarded-For") for hop in value.split(",")]
        for hop in reversed(hops):
            plain = _plain_address(hop)
            if plain is None:
                return address  # junk: nothing beyond it can be believed
            address = plain
            if not self._is_trusted(plain):
                break
        return address

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)

    def consumed(self, request: web.Request) -> bool:
        """Nothing of the request's body is left to arrive."""
        return request.content.is_eof()

    async def read(self, exchange: Exchange) -> Any:
        """Read and parse the body of ``exchange``; see ``Exchange.read``."""
        request: web.Request = exchange.request
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise UnsupportedEncoding("Compressed request bodies are not accepted.")
        length = request.content_length
        if length is not None and length > self._max_body:
            raise self._too_large()
        if request.headers.get("Expect", "").lower() == "100-continue" and not request.content.is_eof():
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        kind = request.content_type
        chunks = self._chunks(exchange)
        if exchange.surface.body == "json" or (kind == "application/json" and request.body_exists):
            payload = await self._json(chunks)
        elif kind == "multipart/form-data":
            payload = await bodies.read_multipart(chunks, request.headers["Content-Type"], StreamedBody)
        else:
            payload = StreamedBody(chunks, None)
        if payload.model is not None:
            authorise(exchange, payload.model)
            exchange.model = payload.model
        exchange.stream = payload.stream
        return payload

    async def _json(self, chunks: AsyncIterator[bytes]) -> Any:
        blocks = [block async for block in chunks]
        raw = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        if len(raw) <= _SMALL:
            return bodies.parse_small(raw)
        return await bodies.parse(raw)

    async def _chunks(self, exchange: Exchange) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises ``PayloadTooLarge``, ``RequestTimeout``, ``InvalidRequest``."""
        content = exchange.request.content
        guard = exchange.guard
        deadline = monotonic() + self._total
        size = 0
        saved = guard.at, guard.error
        try:
            while True:
                guard.arm(min(self._progress, max(0.01, deadline - monotonic())), _too_slow)
                block = await content.readany()
                if not block:
                    return
                size += len(block)
                if size > self._max_body:
                    raise self._too_large()
                yield block
        except asyncio.CancelledError:
            # A streamed upload is read by aiohttp's writer task; the reason is for the exchange's own task only.
            error = guard.caught() if asyncio.current_task() is guard.task else None
            if error is None:
                raise
            raise error from None
        except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError) as error:
            raise InvalidRequest("The request body is not valid HTTP.") from error
        finally:
            guard.at, guard.error = saved

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The request body is larger than {self._max_body} bytes.")


def _plain_address(hop: str) -> str | None:
    """The address in one X-Forwarded-For item, without brackets and port; ``None`` for junk."""
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    try:
        return str(ip_address(hop))
    except ValueError:
        return None


def _too_slow() -> GatewayError:
    return RequestTimeout("The request body arrived too slowly.")
