"""What a request may use, estimated before its call from its body: what limits and budgets reserve."""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.estimates import is_metered
from gateway.exchange import Exchange
from gateway.routing import MEDIA, estimated_tokens

_BYTES_PER_TOKEN = 4
# No usual text has more tokens than that: CJK has 3 bytes a character and up to 1.2 tokens, code and JSON 3 a token.
_LEAST_BYTES_PER_TOKEN = 2
_MEDIUM = 1600  # tokens of an image of usual size; the dearest of the vendors' (Anthropic)
_MEDIUM_BYTES_PER_TOKEN = 25  # of a long document: 2,000 tokens for a page of 50 kB
_LONG = 1 << 18
_SHORT = 8192  # bytes of a body in which a medium counts little more as text
# Where a request says how long its answer may be, in each dialect.
_BOUNDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_NESTED_BOUNDS = (("generationConfig", "maxOutputTokens"), ("options", "num_predict"))


class Demand(NamedTuple):
    """Tokens of one request."""

    input_tokens: int
    """About."""
    most_input_tokens: int
    """No usual text has more."""
    most_output_tokens: int | None
    """What the request allows its answer, of all choices together; ``None``: it does not say."""

    def output_tokens(self, usual: int) -> int:
        """About; ``usual`` where the request allows more."""
        return usual if self.most_output_tokens is None else min(usual, self.most_output_tokens)


NOTHING = Demand(0, 0, 0)


def spends(exchange: Exchange) -> bool:
    """Whether the request asks a model for what is paid by the token."""
    return is_metered(exchange.surface)


def may_spend(exchange: Exchange) -> bool:
    """``spends``, or it names a model on a path nobody knows: what that uses is not reported, but not nothing."""
    return spends(exchange) or (exchange.surface.name == "passthrough" and exchange.model is not None)


def demand(exchange: Exchange) -> Demand:
    """Of a request whose body was read."""
    body = exchange.payload
    if not may_spend(exchange) or body is None or body.raw is None:
        return NOTHING
    text, media = _sizes(body)
    tokens = text // _BYTES_PER_TOKEN + media + 1
    most = text // _LEAST_BYTES_PER_TOKEN + media + 1
    return Demand(tokens, most, 0 if exchange.surface.embeds else _bound(body))


def _sizes(body: Any) -> tuple[int, int]:
    """Bytes of text, and tokens of what is base64."""
    raw: bytes = body.raw
    # What a medium stands behind in every dialect is soon looked for, and seldom in a prompt.
    if len(raw) < _SHORT or not (b"data" in raw or b'images"' in raw or b'bytes"' in raw):
        return len(raw), 0
    if len(raw) > _LONG:
        # Every byte of 50 MB would be half a second of the event loop; some places of it tell what it mostly is.
        text = 4 * estimated_tokens(body)
        return text, max(0, len(raw) - text) // _MEDIUM_BYTES_PER_TOKEN
    found = [len(match.group()) for match in MEDIA.finditer(raw)]
    return len(raw) - sum(found), sum(max(_MEDIUM, size // _MEDIUM_BYTES_PER_TOKEN) for size in found)


def _bound(body: Any) -> int | None:
    given = None
    for name in _BOUNDS:
        if _is_count(value := body.get(name)):
            given = value
            break
    else:
        for table, name in _NESTED_BOUNDS:
            if isinstance(inner := body.get(table), dict) and _is_count(inner.get(name)):
                given = inner[name]
    if given is None:
        return None
    choices = body.get("n")
    return int(given) * (choices if _is_count(choices) else 1)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 31
