"""A client that says exactly the bytes it is told to and hears exactly what came back."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any, Self
from urllib.parse import urlsplit

import attrs

from gateway.testing import wire
from gateway.testing.wire import Head, Headers


@attrs.frozen
class Response:
    """A whole answer."""

    status: int
    head: Head
    body: bytes

    def header(self, name: str) -> str | None:
        return self.head.get(name)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    """One TCP connection. Every read has a time limit of ``timeout`` seconds and raises ``TimeoutError``.

    async with RawClient(gateway.url) as client:
        await client.chat("gpt-4o", "hi", stream=True)
        head = await client.read_head()
        async for piece in client.body(): …
    """

    def __init__(
        self,
        url: str,
        *,
        host: str | None = None,
        source: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = 10.0,
    ) -> None:
        """``host`` is sent as ``Host`` instead of the address, and with ``tls`` it is whose certificate is expected;
        ``source`` is the local address to call from."""
        parts = urlsplit(url)
        self.host = host or parts.netloc
        self.timeout = timeout
        self._address = parts.hostname or "127.0.0.1", parts.port or 80
        self._source = (source, 0) if source is not None else None
        self._tls = tls
        self._server_name = host if tls is not None else None
        self._head: Head | None = None

    async def __aenter__(self) -> Self:
        async with asyncio.timeout(self.timeout):
            self._reader, self._writer = await asyncio.open_connection(
                *self._address,
                limit=wire.READ_LIMIT,
                local_addr=self._source,
                ssl=self._tls,
                server_hostname=self._server_name,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)

    async def send(self, data: bytes) -> None:
        """Raw bytes. Raises ``ConnectionError`` when the other side has reset."""
        self._writer.write(data)
        await self._writer.drain()

    async def request(self, method: str, target: str, headers: Headers = (), body: bytes | None = None) -> None:
        """Send a request; ``Host`` and ``Content-Length`` are added where ``headers`` does not have them."""
        fields = wire.pairs(headers)
        names = {name.lower() for name, _ in fields}
        if "host" not in names:
            fields.insert(0, ("Host", self.host))
        if body is not None and not names & {"content-length", "transfer-encoding"}:
            fields.append(("Content-Length", str(len(body))))
        await self.send(wire.encode_head(f"{method} {target} HTTP/1.1", fields) + (body or b""))

    async def chat(self, model: str = "m", content: str = "hi", *, headers: Headers = (), **fields: Any) -> None:
        """Send a chat completion request; ``fields`` adds to its body, ``key`` is the virtual key."""
        extra = wire.pairs(headers)
        if (key := fields.pop("key", None)) is not None:
            extra.append(("Authorization", f"Bearer {key}"))
        body = wire.json_bytes({"model": model, "messages": [{"role": "user", "content": content}], **fields})
        await self.request("POST", "/v1/chat/completions", [("Content-Type", "application/json"), *extra], body)

    async def read_head(self) -> Head:
        """The next final head; interim ones (100, 103) are skipped. Raises ``Truncated`` when the connection ends."""
        async with asyncio.timeout(self.timeout):
            while True:
                head = await wire.read_head(self._reader)
                if head is None:
                    raise wire.Truncated("closed")
                if not head.start.split(" ")[1].startswith("1"):
                    self._head = head
                    return head

    async def body(self) -> AsyncIterator[bytes]:
        """The pieces of the body whose head was read last. Raises ``Truncated`` when it is cut."""
        head, self._head = self._head, None
        if head is None:
            raise LookupError("read_head() first")
        if head.start.split(" ")[1] in ("204", "304"):
            return
        pieces = wire.read_body(self._reader, head, until_close=True)
        while True:
            async with asyncio.timeout(self.timeout):
                piece = await anext(pieces, b"")
            if not piece:
                return
            yield piece

    async def events(self) -> AsyncIterator[bytes]:
        """The body cut at blank lines: each event with the blank line that ends it, the unfinished rest last."""
        rest = b""
        async for piece in self.body():
            rest += piece
            *complete, rest = rest.replace(b"\r\n", b"\n").split(b"\n\n")
            for block in complete:
                yield block + b"\n\n"
        if rest:
            yield rest

    async def read(self) -> Response:
        """The whole next answer. Raises ``Truncated``, with what had come, when it is cut."""
        head = await self.read_head()
        received = b""
        try:
            async for piece in self.body():
                received += piece
        except wire.Truncated as error:
            raise wire.Truncated(error.how, received + error.received) from None
        return Response(int(head.start.split(" ")[1]), head, received)

    async def wait_closed(self, within: float = 1.0) -> bytes:
        """Wait until the other side ends the connection; returns what it still sent. Raises ``TimeoutError``."""
        rest = b""
        async with asyncio.timeout(within):
            try:
                while piece := await self._reader.read(65536):
                    rest += piece
            except ConnectionError:
                return rest
        return rest

    async def read_some(self) -> bytes:
        """Bytes as they are, ``b""`` when the connection has ended."""
        async with asyncio.timeout(self.timeout):
            try:
                return await self._reader.read(65536)
            except ConnectionError:
                return b""

    def finish(self) -> None:
        """FIN for what is sent; answers can still be read."""
        self._writer.write_eof()

    def leave(self) -> None:
        """FIN."""
        self._writer.close()

    def abort(self) -> None:
        """RST."""
        wire.reset(self._writer.transport)


async def fetch(
    url: str, method: str = "GET", headers: Headers = (), body: bytes | None = None, *, host: str | None = None
) -> Response:
    """One request on a connection of its own; ``url``'s path is sent as it is."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    async with RawClient(url, host=host) as client:
        await client.request(method, target, [*wire.pairs(headers), ("Connection", "close")], body)
        return await client.read()


async def fetch_chat(
    url: str, model: str = "m", content: str = "hi", *, host: str | None = None, **fields: Any
) -> Response:
    """One chat completion on a connection of its own; arguments as for ``RawClient.chat``."""
    async with RawClient(url, host=host) as client:
        await client.chat(model, content, **fields)
        return await client.read()
