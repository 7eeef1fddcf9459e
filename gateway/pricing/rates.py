"""What one token costs, in whole numbers of 1e-24 USD: fine enough for every published price, and sums are exact."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal

import attrs

from gateway.exchange import Usage

PER_NANO = 10**15
"""Units in a nano-USD."""
_DIGITS = 24
Sheet = Mapping[str, Decimal]
"""Rate → USD for one token, one request or one search."""
Part = tuple[int | None, int]
"""Tokens of one kind, and what one costs."""
STANDS_IN = {
    "cached_input": "input", "cache_write": "input", "cache_write_1h": "cache_write", "audio_input": "input",
    "image_input": "input", "audio_output": "output", "image_output": "output", "reasoning": "output",
}  # fmt: skip
"""What a rate that is not given costs instead."""


@attrs.frozen(kw_only=True)
class Rates:
    """One list of prices: what each kind of token costs. ``rates_of`` makes it."""

    input: int
    output: int
    cached_input: int
    cache_write: int
    """Of input that is written to a cache for five minutes, or for as long as the provider pleases."""
    cache_write_1h: int
    audio_input: int
    image_input: int
    audio_output: int
    image_output: int
    reasoning: int
    per_request: int = 0
    per_search: int = 0
    dearest_input: int = attrs.field(init=False)
    dearest_output: int = attrs.field(init=False)

    @dearest_input.default
    def _dearest_input(self) -> int:
        written = (self.cache_write, self.cache_write_1h)
        return max(self.input, self.cached_input, *written, self.audio_input, self.image_input)

    @dearest_output.default
    def _dearest_output(self) -> int:
        return max(self.output, self.audio_output, self.image_output, self.reasoning)

    def total(self, usage: Usage) -> int:
        """Cost of ``usage``, in units. Each token is counted as one thing: what was cached or written as that, also
        where it is sound, for providers do not say how these overlap."""
        searches = (usage.web_searches or 0) * self.per_search
        return self.per_request + searches + self._read(usage) + self._made(usage)

    def _read(self, usage: Usage) -> int:
        written, kept = usage.cache_write_tokens or 0, usage.cache_write_1h_tokens or 0
        parts = (
            (usage.cached_tokens, self.cached_input),
            (min(kept, written), self.cache_write_1h),
            (max(written - kept, 0), self.cache_write),
            (usage.audio_input_tokens, self.audio_input),
            (usage.image_input_tokens, self.image_input),
        )
        return _sum(usage.input_tokens or 0, self.input, parts)

    def _made(self, usage: Usage) -> int:
        parts = (
            (usage.audio_output_tokens, self.audio_output),
            (usage.image_output_tokens, self.image_output),
            (usage.reasoning_tokens, self.reasoning),
        )
        return _sum(usage.output_tokens or 0, self.output, parts)

    def worst(self, input_tokens: int, output_tokens: int) -> int:
        """Most that a request with so many tokens can cost, in units, whatever kinds they are of; without searches."""
        return self.per_request + input_tokens * self.dearest_input + output_tokens * self.dearest_output

    def scaled(self, factor: Decimal) -> Rates:
        """The same list at ``factor`` of its prices; what is charged per request or search stays as it is."""
        fixed = {"per_request": self.per_request, "per_search": self.per_search}
        tokens = {name: _ceil(getattr(self, name) * factor) for name in ("input", "output", *STANDS_IN)}
        return Rates(**tokens, **fixed)


def rates_of(sheet: Sheet) -> Rates:
    """What is not given costs what the next more general kind does, and in the end nothing."""
    usd = {name: sheet.get(name, Decimal(0)) for name in ("input", "output", "per_request", "per_search")}
    for name, general in STANDS_IN.items():
        usd[name] = sheet.get(name, usd[general])
    return Rates(**{name: _ceil(price.scaleb(_DIGITS)) for name, price in usd.items()})


def usd_of(units: int) -> Decimal:
    """What ``rates_of`` made of it, back in USD."""
    return Decimal(units).scaleb(-_DIGITS)


def _ceil(units: Decimal) -> int:
    return int(units.to_integral_value(ROUND_CEILING))


def _sum(left: int, rest: int, parts: tuple[Part, ...]) -> int:
    """``parts`` at their rates, as far as the tokens reach, what is left at ``rest``."""
    total = 0
    for tokens, rate in parts:
        if tokens:
            tokens = min(tokens, left)
            left -= tokens
            total += tokens * rate
    return total + left * rest
