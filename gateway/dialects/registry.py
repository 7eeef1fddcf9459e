"""The dialects that clients speak, each as one object: what it takes to understand them and to answer them.

A module of a dialect is imported when a surface that speaks it is built, and registers how its errors look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any, Protocol

import attrs

from gateway import errors
from gateway.errors import GatewayError
from gateway.events import StreamReader

Translated = tuple[dict[str, Any], list[str]]
"""A request in another dialect, and the names of what it does not carry."""
SSE = "text/event-stream; charset=utf-8"
NDJSON = "application/x-ndjson"


class Encoder(Protocol):
    """Canonical chunks → the client's stream."""

    def feed(self, chunk: dict[str, Any]) -> bytes: ...

    def end(self) -> bytes:
        """The terminal events; asked for only when the upstream's own terminal marker has come."""
        ...


@attrs.frozen(kw_only=True)
class Client:
    """A dialect as its clients speak it."""

    request_to_chat: Callable[[Mapping[str, Any]], Translated]
    """The client's chat request as a canonical one. Raises ``InvalidRequest``."""
    reply_from_chat: Callable[[dict[str, Any], Mapping[str, Any]], dict[str, Any]]
    """A canonical reply, and the client's request → the client's reply."""
    encoder: Callable[[Mapping[str, Any]], Encoder]
    """For a stream that answers the client's request."""
    reader: Callable[[], StreamReader]
    """For a stream that is in this dialect already."""
    error_body: Callable[[int, str, str, str], bytes]
    """Status, code, message, request id → a whole error."""
    error_event: Callable[[int, str, str, str], bytes]
    """The same as the event that ends a stream."""
    media: str = SSE
    """Content type of a stream."""


# Dialect → the module that has its ``CLIENT``.
_MODULES = {
    "openai_chat": "openai_chat_client",
    "openai_responses": "openai_responses_client",
    "anthropic_messages": "anthropic_messages_client",
    "gemini": "gemini_client_side",
    "ollama": "ollama_client",
}


@cache
def client(dialect: str) -> Client:
    """The dialect by its name; its errors are rendered from now on."""
    found: Client = import_module(f"gateway.dialects.{_MODULES[dialect]}").CLIENT
    if dialect not in errors.RENDERERS:
        errors.RENDERERS[dialect] = (_renderer(found.error_body), _renderer(found.error_event))
    return found


def _renderer(render: Callable[[int, str, str, str], bytes]) -> Callable[[GatewayError, str], bytes]:
    def rendered(error: GatewayError, request_id: str) -> bytes:
        return render(error.http_status, error.code, error.message, request_id)

    return rendered
