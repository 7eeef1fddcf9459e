"""What the gateway itself says in the head of an answer, and its errors as answers."""

from __future__ import annotations

from math import ceil
from time import perf_counter

from multidict import CIMultiDict, istr

from gateway.errors import GatewayError, RateLimited, UpstreamError, UpstreamRefused
from gateway.exchange import Exchange, Reply
from gateway.rendering import render_body

# Names that need no folding each time.
_ID, _TARGET, _CACHE = istr("x-request-id"), istr("x-gateway-target"), istr("x-gateway-cache")
_DROPPED, _OVERHEAD, _SERVER = istr("x-gateway-dropped"), istr("x-gateway-overhead-ms"), istr("server")


def error_reply(exchange: Exchange, error: GatewayError) -> Reply:
    """The error as a reply in the caller's dialect."""
    headers = CIMultiDict({"content-type": "application/json"})
    body = None
    if isinstance(error, UpstreamRefused) and error.http_status == error.upstream_status:
        body = error.body
        headers = CIMultiDict(error.headers)
    if isinstance(error, UpstreamError) and error.retry_after is None:
        headers["x-should-retry"] = "false"  # the gateway has used up its tries
    if error.retry_after is not None:
        headers.pop("retry-after-ms", None)
        headers["retry-after"] = str(max(1, ceil(error.retry_after)))
    if isinstance(error, RateLimited):
        headers.update(error.headers)
    return Reply(error.http_status, headers, body or render_body(error, exchange.surface.dialect, exchange.id))


def stamp(exchange: Exchange, reply: Reply) -> None:
    """Add the headers every reply carries; those of a provider or plugin by the same name are replaced."""
    headers = reply.headers
    headers[_ID] = exchange.id
    if exchange.target is not None:
        headers[_TARGET] = _printable(exchange.target.name)
    if exchange.cache is not None:
        headers[_CACHE] = exchange.cache
    if exchange.dropped:
        headers[_DROPPED] = _printable(", ".join(exchange.dropped))
    overhead = perf_counter() - exchange.started - exchange.upstream_seconds
    headers[_OVERHEAD] = f"{overhead * 1000:.1f}"
    headers[_SERVER] = "hookgate"


def _printable(value: str) -> str:
    """A header value made of client- or upstream-chosen text: visible ASCII only, at most 512 characters."""
    if len(value) <= 512 and value.isascii() and value.isprintable():
        return value
    return "".join(char if " " <= char <= "~" else "?" for char in value[:512])
