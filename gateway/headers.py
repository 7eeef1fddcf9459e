"""Which headers cross the gateway: request headers by allow-list, reply headers without what is not the client's.

Hop-by-hop rules are RFC 9110 section 7.6.1; the lists follow what real SDKs send and need.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping

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

TOKEN = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""A request id we accept from outside."""


def _request_allowed(name: str) -> bool:
    low = name.lower()
    return (low in _REQUEST_NAMES or low.startswith(_REQUEST_PREFIXES)) and low not in _REQUEST_NEVER


def _reply_allowed(name: str) -> bool:
    low = name.lower()
    return low not in _REPLY_NEVER and not low.startswith(_REPLY_PREFIXES)


class _Filter:
    """A verdict per header name, remembered: clients and providers repeat the same few dozen names."""

    def __init__(self, rule: Callable[[str], bool]) -> None:
        self._rule = rule
        self._known: dict[str, bool] = {}

    def __call__(self, name: str) -> bool:
        verdict = self._known.get(name)
        if verdict is None:
            verdict = self._rule(name)
            if len(self._known) < 2048:  # the names are the client's to choose; the memory is not
                self._known[name] = verdict
        return verdict


request_allowed = _Filter(_request_allowed)
reply_allowed = _Filter(_reply_allowed)


def _named_by_connection(headers: Mapping[str, str]) -> frozenset[str]:
    values: Iterable[str] = headers.getall("Connection", ()) if hasattr(headers, "getall") else ()
    return frozenset(item.strip().lower() for value in values for item in value.split(","))


def to_upstream(headers: Mapping[str, str], own: Collection[str] = ()) -> list[tuple[str, str]]:
    """The client's ``headers`` an upstream may see, without those the gateway sets itself (``own``, in lower case)."""
    connection = headers.get("Connection")
    listed = frozenset() if connection in (None, "keep-alive", "close") else _named_by_connection(headers)
    kept = [(name, value) for name, value in headers.items() if request_allowed(name)]
    if listed or own:
        kept = [(name, value) for name, value in kept if (low := name.lower()) not in own and low not in listed]
    return kept


def to_client(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers of an upstream's answer that the client gets; the upstream's own request id under another name."""
    kept: CIMultiDict[str] = CIMultiDict()
    listed = _named_by_connection(headers) if headers.get("Connection", "keep-alive") != "keep-alive" else ()
    for name, value in headers.items():
        if not value.isprintable():
            continue  # control characters, of either kind, and bytes that are no text: aiohttp reads them all
        if reply_allowed(name) and (not listed or name.lower() not in listed):
            kept.add(name, value)
    upstream_id = headers.get("x-request-id")
    if upstream_id is not None and upstream_id.isprintable():
        kept["x-upstream-request-id"] = upstream_id
    return kept
