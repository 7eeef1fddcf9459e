"""An id for every exchange: the client's own where it is fit to be logged, else the gateway's.

A client may send the same id twice, so the gateway's stays in the log line beside it.
"""

from __future__ import annotations

import re

import attrs
from multidict import istr

from gateway import Exchange, Reply, Runtime, hookimpl

NOTE = "request_id"
"""Key of ``exchange.notes`` under which the gateway's own id stands, unique also across processes and restarts."""

_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,128}").fullmatch
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")


def _field_name(instance: Settings, attribute: attrs.Attribute[str], value: str) -> None:
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"{attribute.name}: '{value}' is not a header name")


@attrs.frozen(kw_only=True)
class Settings:
    header: str = attrs.field(default="x-request-id", validator=_field_name)
    """The header a client's id is read from and answered in; ``x-request-id`` is always answered as well."""
    trust_client: bool = True
    """Take the client's id where it consists of 1 to 128 letters, digits, ``.``, ``_`` and ``-``."""


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._header = istr(settings.header)
        self._answered = istr(settings.header.lower())
        self._trust_client = settings.trust_client

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        exchange.notes[NOTE] = exchange.id
        if self._trust_client and (sent := exchange.headers.get(self._header)) is not None and _ACCEPTED(sent):
            exchange.id = sent

    @hookimpl
    def on_reply(self, exchange: Exchange, reply: Reply) -> None:
        reply.headers[self._answered] = exchange.id
