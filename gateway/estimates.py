"""What an exchange used: as its provider reports it, and where that did not come, an estimate that is marked as one.

Providers report at the end of an answer. Who leaves just before would have had it for nothing.
"""

from __future__ import annotations

import attrs
import orjson

from gateway.dialects.registry import client
from gateway.dialects.said import said
from gateway.dialects.tokens import BYTES_PER_TOKEN, estimate_tokens
from gateway.errors import InvalidRequest
from gateway.exchange import Exchange, Reply, Surface, Usage
from gateway.routing import estimated_tokens

_READ = 8 << 20  # bytes up to which a request or a whole answer is read for an estimate: 10 ms of the event loop
_OBJECTS = 3000  # objects in a request up to which it is translated for one, 10 µs each


def used(exchange: Exchange, reply: Reply | None) -> Usage | None:
    """The usage of an exchange that is over and has none yet, ``reply`` being what its client was sent.

    ``None`` where nothing is reported and the call, if there was one, did not reach its provider or was refused.
    """
    reported, whole = _reported(exchange, reply)
    if whole or exchange.target is None or not is_metered(exchange.surface):
        return reported
    if not _is_paid(exchange, reply):
        return reported
    made = _made(exchange, reply)
    if reported is None:
        return Usage(_asked(exchange), made, provenance="estimated")
    return _completed(reported, made, exchange)


def _is_paid(exchange: Exchange, reply: Reply | None) -> bool:
    """Whether a provider has worked for it, as far as anybody knows."""
    if exchange.outcome == "ok":
        return reply is not None and reply.status < 400
    return exchange.committed or (exchange.sent and exchange.outcome != "upstream_failed")


def is_metered(surface: Surface) -> bool:
    """Whether its calls cost tokens that can be estimated: of a picture, a file or a batch nobody could say."""
    return surface.chat or surface.embeds or surface.name == "completions"


def _reported(exchange: Exchange, reply: Reply | None) -> tuple[Usage | None, bool]:
    """What the provider reported, and whether that is all there is to report."""
    if reply is None:
        return None, False
    found = reply.usage
    whole = exchange.outcome == "ok"
    if reply.events is not None:
        found = reply.events.usage or (found if whole else None)
        whole = whole or reply.events.counted
    return found, whole and found is not None


def _completed(reported: Usage, made: int, exchange: Exchange) -> Usage:
    """A report that broke off. Gemini's grows with the answer, Anthropic's begins with the input and little else."""
    output = reported.output_tokens
    if not output or reported.provenance == "partial":
        output = max(output or 0, made)
    given = reported.input_tokens
    return attrs.evolve(
        reported,
        input_tokens=_asked(exchange) if given is None else given,
        output_tokens=output,
        provenance="partial",
    )


def _made(exchange: Exchange, reply: Reply | None) -> int:
    """Tokens of the answer, as much of it as there was."""
    if reply is None or exchange.surface.embeds:
        return 0
    if reply.body is None:
        return reply.sample.tokens(exchange.reply_bytes) if reply.sample is not None else 0
    if len(reply.body) > _READ:
        return 0
    try:
        words = said(orjson.loads(reply.body))
    except ValueError:
        return 0
    return round(len(words.encode(errors="replace")) / BYTES_PER_TOKEN)


def _asked(exchange: Exchange) -> int:
    """Tokens of the request."""
    payload, surface = exchange.payload, exchange.surface
    raw: bytes | None = payload.raw if payload is not None and surface.chat else None
    if raw is not None and len(raw) <= _READ and raw.count(b"{") <= _OBJECTS:
        try:
            chat, _ = client(surface.dialect).request_to_chat(payload.json())
            return estimate_tokens(chat)
        except InvalidRequest:
            pass  # it passes to a provider of the same API all the same
    return estimated_tokens(payload)
