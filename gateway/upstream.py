"""The way out: one shared, pooled ``ClientSession``, tuned for relaying, and an ``Endpoint`` per provider on top of it.

aiohttp's defaults follow redirects with the key, keep cookies between tenants, inflate bombs and cut streams after five
minutes; each setting below undoes one of them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from math import inf
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

import aiohttp
from yarl import URL

from gateway import headers as header_rules
from gateway.answer import Answer
from gateway.config import Pool, ProviderConfig, Secret, Timeouts
from gateway.connector import READ_AHEAD, Connector
from gateway.errors import InvalidRequest, UpstreamError, UpstreamProtocolError, UpstreamTimeout, from_upstream
from gateway.lists import Lists
from gateway.prepared import ReusedConnectionLost, Route, lines, supported
from gateway.tls import Contexts

if TYPE_CHECKING:
    from gateway.exchange import Exchange

_HEAD_LIMIT = 65536  # bytes per header line; providers send rate-limit and policy headers beyond aiohttp's 8,190


class Endpoint:
    """One provider's address: base URL, credential bound to its origin, time limits, TLS identity."""

    def __init__(
        self,
        upstream: Upstream,
        name: str,
        base_url: str,
        headers: Mapping[str, str | Secret],
        timeouts: Timeouts,
        tls: ssl.SSLContext | bool,
    ) -> None:
        self.name = name
        self._retries = name not in upstream.unrepeated
        self.timeouts = timeouts
        # Until the head of an answer, whichever limit is the shortest.
        self._patience = min(timeouts.head or inf, timeouts.first_token or inf, timeouts.total or inf)
        self._upstream = upstream
        self._base = base_url.rstrip("/")
        self._tls = tls
        self._headers = dict(headers)
        configured = {name.lower() for name in headers}
        self._own = configured | {"x-request-id"}
        self._passed: dict[tuple[str, ...], header_rules.Passed] = {}
        self._fixed_for: tuple[str, ...] | None = None
        self._fixed_lines = b""
        constant = (("Accept-Encoding", "identity"), ("User-Agent", "hookgate"))
        self._constant = [(name, value) for name, value in constant if name.lower() not in configured]
        self._urls: dict[str, URL] = {}
        # "connect" includes the wait for a free connection of the pool.
        connect = timeouts.connect or None
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect)
        address = _address(self._base)
        self._root = address.raw_path.rstrip("/")
        self._route = Route(upstream.session, address, tls, self._timeout, _HEAD_LIMIT) if supported() else None

    def url(self, path: str, query: str = "") -> URL:
        """Absolute URL of ``path`` below the base; the path is taken as encoded."""
        if query:
            return URL(f"{self._base}{path}?{query}", encoded=True)
        url = self._urls.get(path)
        if url is None:
            url = URL(self._base + path, encoded=True)
            if len(self._urls) < 256:  # paths may hold client-chosen ids
                self._urls[path] = url
        return url

    def _head(self, exchange: Exchange | None, extra: Mapping[str, str]) -> bytes:
        """The header lines of a prepared call: those of ``_fields``, without making strings of the client's."""
        values = tuple([v.reveal() if isinstance(v, Secret) else v for v in self._headers.values()])
        if values != self._fixed_for:  # the first time, and when a secret has been rotated
            self._fixed_for = values
            self._fixed_lines = lines([*self._constant, *zip(self._headers, values, strict=True)])
        if exchange is None:
            return self._fixed_lines + lines(self._unset(extra))
        request = exchange.request
        if exchange.headers is not request.headers or header_rules.names_others(exchange.headers):
            return lines(self._fields(exchange, extra))
        given = tuple(extra)
        passed = self._passed.get(given)
        if passed is None:
            passed = self._passed[given] = header_rules.Passed({*self._own, *map(str.lower, extra)})
        added = lines([("x-request-id", exchange.id), *self._unset(extra)])
        return b"%b%b%b" % (self._fixed_lines, passed.lines(request.raw_headers), added)

    def _unset(self, extra: Mapping[str, str]) -> list[tuple[str, str]]:
        """What a provider adds, without what the configuration sets already."""
        return [item for item in extra.items() if item[0].lower() not in self._own]

    def _fields(self, exchange: Exchange | None, extra: Mapping[str, str]) -> list[tuple[str, str]]:
        """The header fields of a request. What the configuration or the provider sets, the client cannot."""
        fields = list(self._constant)
        if exchange is not None:
            own = {*self._own, *map(str.lower, extra)} if extra else self._own
            fields += header_rules.to_upstream(exchange.headers, own)
            fields.append(("x-request-id", exchange.id))
        fields += self._unset(extra)
        fields += [
            (name, value.reveal() if isinstance(value, Secret) else value) for name, value in self._headers.items()
        ]
        return fields

    async def send(
        self,
        exchange: Exchange | None,
        method: str,
        path: str,
        *,
        query: str = "",
        body: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] = {},
    ) -> Answer:
        """Send a request and wait for the head of its answer, whatever its status below 300 or from 400.

        ``path`` is percent-encoded and below ``base_url``. The client's allow-listed headers go along. Raises
        ``UpstreamUnreachable``, ``UpstreamTimeout`` or ``UpstreamProtocolError`` (redirects are never followed).
        """
        guard = exchange.guard if exchange is not None else None
        sent = monotonic()
        if guard is not None:
            guard.arm(self._patience, self._silent)
        began = perf_counter()
        try:
            if self._route is not None and (body is None or type(body) is bytes):
                answer = await self._prepared(self._route, exchange, method, path, query, headers, body, sent)
            else:
                answer = await self._requested(exchange, method, path, query, headers, body, sent)
        except asyncio.CancelledError:
            if guard is None or (error := guard.caught()) is None:
                raise
            raise error from None
        except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, OSError) as error:
            raise from_upstream(error, self.name) from error
        except ValueError as error:  # a header that would split the request (a bad certificate is a ClientError first)
            raise InvalidRequest("A request header holds characters that must not be sent on.") from error
        finally:
            if guard is not None:
                guard.disarm()
            if exchange is not None:
                exchange.upstream_seconds += perf_counter() - began
        if 300 <= answer.status < 400:
            answer.close()
            raise UpstreamProtocolError("The provider answered with a redirect.", target=self.name)
        return answer

    async def _prepared(
        self,
        route: Route,
        exchange: Exchange | None,
        method: str,
        path: str,
        query: str,
        extra: Mapping[str, str],
        body: bytes | None,
        sent: float,
    ) -> Answer:
        headers = self._head(exchange, extra)
        target = f"{self._root}{path}?{query}" if query else self._root + path
        try:
            connection, message, payload = await route.call(method, target, headers, body, exchange)
        except ReusedConnectionLost:
            # The server may have closed the connection before it saw the request, or after: a repeat is only right
            # where it costs tokens and changes nothing.
            route.forget_idle()
            if method != "GET" and not (self._retries and exchange is not None and exchange.repeatable()):
                raise
            connection, message, payload = await route.call(method, target, headers, body, exchange)
        payload.on_eof(connection.release)
        return Answer(message.code, message.headers, payload, connection.close, exchange, self, sent)

    async def _requested(
        self,
        exchange: Exchange | None,
        method: str,
        path: str,
        query: str,
        extra: Mapping[str, str],
        body: Any,
        sent: float,
    ) -> Answer:
        if exchange is not None:
            exchange.sent = True  # it will be in a moment; aiohttp does not say when
        response = await self._upstream.session.request(
            method,
            self.url(path, query),
            data=body,
            headers=self._fields(exchange, extra),
            allow_redirects=False,
            timeout=self._timeout,
            ssl=self._tls,
        )
        return Answer(response.status, response.headers, response.content, response.close, exchange, self, sent)

    async def get_json(self, path: str, ttl: float, headers: Mapping[str, str] = {}) -> Any:
        """A JSON document (model lists), up to ``ttl`` seconds old. Raises ``UpstreamError``."""
        try:
            async with asyncio.timeout(self.timeouts.connect * 2 or 10):
                fields = dict(self._fields(None, headers))
                return await self._upstream.lists.get(
                    self.url(path), fields, ttl, tls=self._tls, limits=self._timeout, name=self.name
                )
        except (aiohttp.ClientError, OSError) as error:
            raise from_upstream(error, self.name) from error
        except ValueError as error:
            raise UpstreamProtocolError("The provider's answer is not JSON.", target=self.name) from error

    def _silent(self) -> UpstreamError:
        return UpstreamTimeout("The provider did not answer in time.", target=self.name)


def _address(base_url: str) -> URL:
    """What every URL of an endpoint begins with. A query or a fragment would swallow the path behind it."""
    url = URL(base_url, encoded=True)
    if url.scheme not in ("http", "https") or not url.raw_host or {"?", "#", "@", "\\"} & set(base_url):
        raise ValueError("the address must be http[s]://HOST[:PORT][/PATH], without user, query or fragment")
    if not base_url.isascii() or any(char <= " " for char in base_url):
        raise ValueError("the address must be plain ASCII without spaces")
    return url


class Upstream:
    """The shared session. Made inside a running loop, closed by the server with the last generation that uses it."""

    def __init__(self, pool: Pool) -> None:
        self.unrepeated: set[str] = set()
        """Providers whose requests are not repeated when a reused connection dies."""
        self.connector = Connector(pool)
        self.session = aiohttp.ClientSession(
            connector=self.connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),
            max_line_size=_HEAD_LIMIT,
            max_field_size=_HEAD_LIMIT,
            read_bufsize=READ_AHEAD,
        )
        self.lists = Lists(self.connector)
        self._tls = Contexts()

    def configure(self, providers: Mapping[str, ProviderConfig]) -> None:
        """What holds for the endpoints made from now on."""
        self.unrepeated = {name for name, provider in providers.items() if not provider.retry_ambiguous}

    def endpoint(
        self,
        name: str,
        base_url: str,
        *,
        headers: Mapping[str, str | Secret] = {},
        timeouts: Timeouts | None = None,
        ca_file: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
    ) -> Endpoint:
        """The way to one provider.

        Raises ``ValueError`` for a base URL that is not one, ``OSError`` or ``ssl.SSLError`` for TLS files.
        """
        tls = self._tls.of(ca_file, client_cert, client_key)
        return Endpoint(self, name, base_url, headers, timeouts or Timeouts(), tls)

    def stats(self) -> dict[str, int]:
        """Connections of the pool: ``acquired`` (in use), ``idle`` (kept alive), ``limit`` (0: none)."""
        connector = self.connector
        # A copy: a scrape asks from another thread.
        idle = sum(len(connections) for connections in dict(connector._conns).values())
        return {"acquired": len(connector._acquired), "idle": idle, "limit": connector.limit}

    async def close(self) -> None:
        await self.lists.close()
        await self.session.close()
