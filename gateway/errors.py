"""Every error the gateway raises on purpose, and its one rendering per dialect.

GatewayError
├ ConfigError · PluginError                 at start or reload
├ RequestRejected                           the gateway says no
│ ├ InvalidRequest            400
│ ├ Unauthenticated           401
│ ├ BudgetExceeded            402
│ ├ Forbidden                 403
│ ├ ModelNotFound             404
│ ├ RouteNotFound             404
│ ├ RequestTimeout            408
│ ├ PayloadTooLarge           413
│ ├ UnsupportedEncoding       415
│ ├ UpgradeRequired           426
│ ├ RateLimited               429
│ ├ InternalError             500           a hook or the gateway itself broke
│ └ Overloaded                503
└ UpstreamError                             the provider did not deliver
  ├ UpstreamUnreachable       502
  ├ UpstreamProtocolError     502
  ├ UpstreamTimeout           504
  ├ UpstreamRefused           the upstream's own status and body
  └ StreamInterrupted         after the first byte: an error event, then abort
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import aiohttp
import orjson


class GatewayError(Exception):
    """Base of all our errors. ``message`` goes to the client; it names no secret, path, host or version."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    __slots__ = ("message", "retry_after")

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        """Seconds after which a repeat makes sense."""

    @property
    def http_status(self) -> int:
        return self.status


class ConfigError(GatewayError):
    """The configuration does not hold. ``problems`` are ``FILE:LINE: message`` lines, all of them at once."""

    code = "config_error"
    __slots__ = ("problems",)

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class PluginError(GatewayError):
    """A plugin cannot be found, loaded or registered; names the plugin, its file and the reason."""

    code = "plugin_error"


class RequestRejected(GatewayError):
    """The gateway itself refuses; no upstream was called for this answer."""


class InvalidRequest(RequestRejected):
    """The request cannot be understood or carries what it must not."""

    status = 400
    code = "invalid_request"


class Unauthenticated(RequestRejected):
    """No valid key. The message tells a stranger nothing."""

    status = 401
    code = "invalid_api_key"

    def __init__(self, message: str = "Missing or invalid API key.") -> None:
        super().__init__(message)


class BudgetExceeded(RequestRejected):
    """The principal's budget is spent."""

    status = 402
    code = "insufficient_quota"


class Forbidden(RequestRejected):
    """The key is good, the request is not for it. Names no allow-list."""

    status = 403
    code = "forbidden"


class ModelNotFound(RequestRejected):
    """No target serves this model."""

    status = 404
    code = "model_not_found"


class RouteNotFound(RequestRejected):
    """No route serves this path."""

    status = 404
    code = "not_found"


class RequestTimeout(RequestRejected):
    """The client was too slow sending its request body."""

    status = 408
    code = "request_timeout"


class PayloadTooLarge(RequestRejected):
    """The request body passes the limit; noticed while reading it."""

    status = 413
    code = "request_too_large"


class UnsupportedEncoding(RequestRejected):
    """The request body carries a ``Content-Encoding``."""

    status = 415
    code = "unsupported_content_encoding"


class UpgradeRequired(RequestRejected):
    """A WebSocket upgrade nobody serves (clients fall back to HTTP on 426, not on 404)."""

    status = 426
    code = "upgrade_required"


class RateLimited(RequestRejected):
    """A limit of the principal is reached. ``headers`` carries its ``x-ratelimit-*``."""

    status = 429
    code = "rate_limit_exceeded"
    __slots__ = ("headers",)

    def __init__(
        self, message: str, *, retry_after: float | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.headers: Mapping[str, str] = headers or {}


class InternalError(RequestRejected):
    """A hook or the gateway itself failed; the log has the reason under the request id."""

    status = 500
    code = "internal_error"

    def __init__(self, message: str = "The gateway failed to process this request.") -> None:
        super().__init__(message)


class Overloaded(RequestRejected):
    """Too much at once, or the gateway is stopping."""

    status = 503
    code = "overloaded"


class UpstreamError(GatewayError):
    """A call to a provider failed. ``fallback`` says whether another target may be tried.

    ``sent`` is false only where the provider cannot have got the request: to repeat it does nothing twice.
    """

    status = 502
    code = "upstream_error"
    __slots__ = ("fallback", "sent", "target", "upstream_status")

    def __init__(
        self,
        message: str,
        *,
        target: str | None = None,
        upstream_status: int | None = None,
        fallback: bool = True,
        sent: bool = True,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.target = target
        self.upstream_status = upstream_status
        self.fallback = fallback
        self.sent = sent


class UpstreamUnreachable(UpstreamError):
    """No connection (name, TCP, TLS), or it died before an answer."""

    code = "upstream_unreachable"


class UpstreamProtocolError(UpstreamError):
    """The upstream answered something that is not its protocol (a redirect counts)."""

    code = "upstream_protocol_error"


class UpstreamTimeout(UpstreamError):
    """A time limit of the provider passed: connect, first token, idle or total."""

    status = 504
    code = "upstream_timeout"


class UpstreamRefused(UpstreamError):
    """The upstream answered with an error of its own; ``body`` and ``headers`` pass on where the dialect is the same.

    A refusal of the gateway's own credential (401, 403) is a 502 and its body stays here.
    """

    code = "upstream_refused"
    __slots__ = ("body", "headers")

    def __init__(self, upstream_status: int, body: bytes, headers: Mapping[str, str], **more: Any) -> None:
        super().__init__(f"The provider answered {upstream_status}.", upstream_status=upstream_status, **more)
        self.body = body
        self.headers = headers

    @property
    def http_status(self) -> int:
        upstream = self.upstream_status or 502
        return 502 if upstream in (401, 403, 407) or upstream < 400 else upstream


class StreamInterrupted(UpstreamError):
    """The upstream's stream broke after its first event reached the client; nothing can be repeated."""

    code = "stream_interrupted"

    def __init__(self, message: str, **more: Any) -> None:
        super().__init__(message, fallback=False, **more)


# aiohttp's and the operating system's exceptions → ours; the first match wins.
_UPSTREAM_ERRORS: tuple[tuple[type[BaseException], type[UpstreamError], str], ...] = (
    (aiohttp.ClientConnectorCertificateError, UpstreamUnreachable, "The provider's TLS certificate was refused."),
    (aiohttp.ClientSSLError, UpstreamUnreachable, "TLS with the provider failed."),
    (ssl.SSLError, UpstreamUnreachable, "TLS with the provider failed."),
    (aiohttp.ConnectionTimeoutError, UpstreamTimeout, "Connecting to the provider took too long."),
    (asyncio.TimeoutError, UpstreamTimeout, "The provider did not answer in time."),
    (aiohttp.ClientConnectorError, UpstreamUnreachable, "The provider cannot be reached."),
    (aiohttp.ServerDisconnectedError, UpstreamUnreachable, "The provider closed the connection without an answer."),
    (aiohttp.ClientPayloadError, UpstreamProtocolError, "The provider's answer was cut short."),
    (aiohttp.ClientResponseError, UpstreamProtocolError, "The provider's answer is not valid HTTP."),
    (aiohttp.http_exceptions.HttpProcessingError, UpstreamProtocolError, "The provider's answer is not valid HTTP."),
    (aiohttp.InvalidURL, UpstreamProtocolError, "The provider's address is not valid."),
    (aiohttp.ClientError, UpstreamUnreachable, "The connection to the provider failed."),
    (OSError, UpstreamUnreachable, "The connection to the provider failed."),
)
# Raised before a byte of the request was written; aiohttp's certificate and TLS errors are kinds of the first.
_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)


def from_upstream(error: BaseException, target: str | None = None) -> UpstreamError:
    """Our error for what a call to an upstream raised. Raises ``error`` itself if the table does not know it."""
    if isinstance(error, UpstreamError):
        return error
    for foreign, ours, message in _UPSTREAM_ERRORS:
        if isinstance(error, foreign):
            mapped = ours(message, target=target, sent=not isinstance(error, _NOT_SENT))
            mapped.__cause__ = error
            return mapped
    raise error


def openai_type(status: int) -> str:
    """``type`` of an error object of OpenAI's."""
    if status == 429:
        return "rate_limit_error"
    if status == 401:
        return "authentication_error"
    if status == 403:
        return "permission_error"
    return "invalid_request_error" if status < 500 else "server_error"


def _openai_error(error: GatewayError, request_id: str) -> dict[str, Any]:
    return {
        "message": f"{error.message} (request id: {request_id})" if request_id else error.message,
        "type": openai_type(error.http_status),
        "param": "model" if isinstance(error, ModelNotFound) else None,
        "code": error.code,
    }


def _openai_body(error: GatewayError, request_id: str) -> bytes:
    return orjson.dumps({"error": _openai_error(error, request_id)})


def _openai_event(error: GatewayError, request_id: str) -> bytes:
    # openai-python raises APIError for a chunk whose "error" is truthy; PROTOCOLS.md 1.1.
    return b"data: " + _openai_body(error, request_id) + b"\n\n"


def _responses_event(error: GatewayError, request_id: str) -> bytes:
    body = _openai_error(error, request_id)
    event = {"type": "error", "code": body["code"], "message": body["message"], "param": None, "sequence_number": 0}
    return b"event: error\ndata: " + orjson.dumps(event) + b"\n\n"


_Renderer = Callable[[GatewayError, str], bytes]
# dialect → (whole error body, error event inside a stream)
_RENDERERS: dict[str, tuple[_Renderer, _Renderer]] = {
    "openai_chat": (_openai_body, _openai_event),
    "openai_responses": (_openai_body, _responses_event),
}


def render_body(error: GatewayError, dialect: str, request_id: str) -> bytes:
    """The error as a whole JSON body in ``dialect``."""
    return _RENDERERS[dialect][0](error, request_id)


def render_event(error: GatewayError, dialect: str, request_id: str) -> bytes:
    """The error as the event that ends a stream in ``dialect``; never a success marker."""
    return _RENDERERS[dialect][1](error, request_id)
