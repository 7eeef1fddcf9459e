"""Request heads that aiohttp takes and other servers read differently (RELIABILITY: M17, the parser corpus)."""

from __future__ import annotations

import re

from aiohttp import HttpVersion10, HttpVersion11
from aiohttp.http_parser import RawRequestMessage

from gateway.errors import InvalidRequest

_VERSIONS = (HttpVersion10, HttpVersion11)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_MOST_HOSTS = 64  # clients choose the names; a gateway has a handful
_good_hosts: set[str] = set()


class HeadTooLarge(InvalidRequest):
    """Request line or header fields beyond the parser's limits."""

    status = 431
    code = "request_header_fields_too_large"


class UnsupportedFraming(InvalidRequest):
    """A transfer coding this server does not decode (RFC 9112 section 6.1 asks for 501)."""

    status = 501
    code = "unsupported_transfer_coding"


class UnsupportedVersion(InvalidRequest):
    status = 505
    code = "http_version_not_supported"


def misframed(message: RawRequestMessage) -> InvalidRequest | None:
    """What is wrong with a request head that aiohttp takes and other servers read differently; ``None`` if nothing."""
    if message.version not in _VERSIONS:
        return UnsupportedVersion("Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    if not message.path.startswith("/"):
        return InvalidRequest("The request target must be a path.")
    headers = message.headers
    if (coding := headers.get("Transfer-Encoding")) is not None:
        if message.version != HttpVersion11:
            return InvalidRequest("Transfer-Encoding needs HTTP/1.1.")
        if coding.strip().lower() != "chunked" or len(headers.getall("Transfer-Encoding")) > 1:
            return UnsupportedFraming("Only the chunked transfer coding is accepted.")
    host = headers.get("Host")
    if host is not None and host not in _good_hosts:
        if not _HOST.fullmatch(host):
            return InvalidRequest("The Host header is not valid.")
        if len(_good_hosts) < _MOST_HOSTS:
            _good_hosts.add(host)
    return None
