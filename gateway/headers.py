"""Which headers cross the gateway: request headers by allow-list, reply headers without what is not the client's.

Hop-by-hop rules are RFC 9110 section 7.6.1; the lists follow what real SDKs send and need.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeVar

from multidict import CIMultiDict

_REQUEST_NAMES = frozenset({
    "accept", "accept-language", "content-type", "idempotency-key", "originator", "session-id", "thread-id",
    "session_id", "conversation_id", "traceparent", "tracestate", "x-app", "x-client-request-id", "x-goog-api-client",
    "x-request-id", "x-server-timeout", "http-referer", "x-title",
})  # fmt: skip
_REQUEST_PREFIXES = ("anthropic-", "openai-", "x-stainless-", "x-claude-code-", "x-codex-")
# openai-organization and openai-project choose whose account pays: that is the provider's configuration.
_REQUEST_NEVER = frozenset({"openai-organization", "openai-project"})

_REPLY_NEVER = frozenset({
    "alt-svc", "cf-cache-status", "cf-ray", "connection", "content-length", "date", "keep-alive", "location", "nel",
    "p3p", "proxy-authenticate", "proxy-authorization", "proxy-connection", "refresh", "report-to", "server",
    "set-cookie", "set-cookie2", "strict-transport-security", "te", "trailer", "transfer-encoding", "upgrade", "via",
    "www-authenticate", "x-powered-by", "x-sendfile", "x-lighttpd-send-file", "openai-organization", "openai-project",
    "anthropic-organization-id", "x-aspnet-version", "x-runtime", "x-litellm-key-spend", "x-request-id",
    "clear-site-data", "public-key-pins", "service-worker-allowed", "x-litespeed-location",
})  # fmt: skip
# x-accel-*: nginx obeys them (X-Accel-Redirect serves local files). access-control-*: CORS is ours to decide.
_REPLY_PREFIXES = (
    "x-accel-", "access-control-", "x-envoy-", "x-amz-cf-", "x-gateway-", "x-litellm-", "x-ms-", "x-azure-",
)  # fmt: skip

_CONNECTION_ALONE = (None, "keep-alive", "close")
_Name = TypeVar("_Name", str, bytes)

TOKEN = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""A request id we accept from outside."""


def _request_allowed(name: str) -> bool:
    low = name.lower()
    return (low in _REQUEST_NAMES or low.startswith(_REQUEST_PREFIXES)) and low not in _REQUEST_NEVER


def _reply_allowed(name: str) -> bool:
    low = name.lower()
    return low not in _REPLY_NEVER and not low.startswith(_REPLY_PREFIXES)


class _Verdicts(dict[_Name, bool]):
    """A verdict per header name, remembered: clients and providers repeat the same few dozen names."""

    def __init__(self, rule: Callable[[_Name], bool]) -> None:
        super().__init__()
        self._rule: Callable[[_Name], bool] = rule

    def __missing__(self, name: _Name) -> bool:
        verdict = self._rule(name)
        if len(self) < 2048:  # the names are the client's to choose; the memory is not
            self[name] = verdict
        return verdict


_allowed_up = _Verdicts(_request_allowed)
_allowed_down = _Verdicts(_reply_allowed)


class Passed:
    """The header lines of a client that an upstream may see, without those the gateway sets itself.

    Works on the bytes the parser took them from: it lets no line break through, so none can be made here.
    """

    def __init__(self, own: Collection[str]) -> None:
        self._own = own
        self._verdicts = _Verdicts[bytes](self._verdict)

    def _verdict(self, name: bytes) -> bool:
        text = name.decode("latin-1")
        return _allowed_up[text] and text.lower() not in self._own

    def lines(self, raw: Iterable[tuple[bytes, bytes]]) -> bytes:
        verdicts = self._verdicts
        return b"".join([b"%b: %b\r\n" % field for field in raw if verdicts[field[0]]])


def names_others(headers: Mapping[str, str]) -> bool:
    """Whether ``Connection`` lists further headers that must not pass."""
    return headers.get("Connection") not in _CONNECTION_ALONE


def _named_by_connection(headers: Mapping[str, str]) -> frozenset[str]:
    values: Iterable[str] = headers.getall("Connection", ()) if hasattr(headers, "getall") else ()
    return frozenset(item.strip().lower() for value in values for item in value.split(","))


def to_upstream(headers: Mapping[str, str], own: Collection[str] = ()) -> list[tuple[str, str]]:
    """The client's ``headers`` an upstream may see, without those the gateway sets itself (``own``, in lower case)."""
    listed = _named_by_connection(headers) if names_others(headers) else frozenset()
    kept = [(name, value) for name, value in headers.items() if _allowed_up[name]]
    if listed or own:
        kept = [(name, value) for name, value in kept if (low := name.lower()) not in own and low not in listed]
    return kept


def to_client(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers of an upstream's answer that the client gets; the upstream's own request id under another name."""
    # Not printable are control characters, of either kind, and bytes that are no text: aiohttp reads them all.
    allowed = [field for field in headers.items() if _allowed_down[field[0]] and field[1].isprintable()]
    if names_others(headers):
        listed = _named_by_connection(headers)
        allowed = [field for field in allowed if field[0].lower() not in listed]
    kept = CIMultiDict(allowed)
    upstream_id = headers.get("x-request-id")
    if upstream_id is not None and upstream_id.isprintable():
        kept["x-upstream-request-id"] = upstream_id
    return kept
