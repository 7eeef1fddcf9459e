"""Our errors as bytes, in the dialect of whoever called."""

from __future__ import annotations

from gateway.dialects.registry import client
from gateway.errors import GatewayError


def render_body(error: GatewayError, dialect: str, request_id: str) -> bytes:
    """The error as a whole JSON body in ``dialect``."""
    return client(dialect).error_body(error.http_status, error.code, error.message, request_id)


def render_event(error: GatewayError, dialect: str, request_id: str) -> bytes:
    """The error as the event that ends a stream in ``dialect``; never a success marker."""
    return client(dialect).error_event(error.http_status, error.code, error.message, request_id)
