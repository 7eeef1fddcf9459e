"""The price of one model: rates, by the size of the input and by the service tier."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import attrs

from gateway.exchange import Usage
from gateway.pricing.rates import PER_NANO, Rates, Sheet, rates_of, usd_of


@attrs.frozen(kw_only=True)
class Price:
    """What a model costs. Money is a whole number of nano-USD (1e-9 USD), rounded up once per exchange."""

    base: Rates
    tiers: tuple[tuple[int, Rates], ...] = ()
    """Input tokens above which other rates hold, for all tokens of the request; largest first."""
    variants: Mapping[str, Price] = attrs.field(factory=dict)
    """``Usage.service_tier`` → its own price."""
    max_output_tokens: int | None = None
    """Most tokens of an answer, where the source knows it."""
    context: int | None = None
    """Most tokens of a request, likewise."""
    source: str = ""
    """Where the price stands, for people."""

    @classmethod
    def listed(cls, sheet: Sheet, tiers: Mapping[int, Sheet], **more: Any) -> Price:
        """Of prices in USD: for all sizes, and for those above some."""
        sizes = sorted(tiers, reverse=True)
        return cls(base=rates_of(sheet), tiers=tuple((size, rates_of(tiers[size])) for size in sizes), **more)

    def cost(self, usage: Usage) -> int | None:
        """Nano-USD for ``usage``; ``None`` where neither input nor output was counted, which is not nothing.

        One count alone is priced alone. A tier without a variant of its own is served at the base price.
        """
        given = usage.input_tokens
        if given is None and usage.output_tokens is None:
            return None
        price = self
        if self.variants and usage.service_tier is not None:
            price = self.variants.get(usage.service_tier, self)
        return -(-price._rates(given or 0).total(usage) // PER_NANO)

    def worst(self, input_tokens: int, output_tokens: int, service_tier: str | None = None) -> int:
        """Nano-USD no request with at most so many tokens costs more than, however they are split up: cached, written
        to a cache, sound, pictures, thoughts. Searches of the provider come on top.

        ``service_tier`` is what the client asks for; a provider may serve it at the base price as well.
        """
        if not self.variants and not self.tiers:  # most prices
            return -(-self.base.worst(input_tokens, output_tokens) // PER_NANO)
        variant = self.variants.get(service_tier or "", self)
        lists = self._within(input_tokens) + variant._within(input_tokens)
        return -(-max(rates.worst(input_tokens, output_tokens) for rates in lists) // PER_NANO)

    def scaled(self, factor: Decimal) -> Price:
        """The same price at ``factor``; what is charged per request or search stays as it is."""
        tiers = tuple((above, rates.scaled(factor)) for above, rates in self.tiers)
        variants = {name: price.scaled(factor) for name, price in self.variants.items()}
        return attrs.evolve(self, base=self.base.scaled(factor), tiers=tiers, variants=variants)

    def per_million(self) -> tuple[Decimal, Decimal]:
        """USD for a million tokens of plain input and of output."""
        return usd_of(self.base.input * 1_000_000), usd_of(self.base.output * 1_000_000)

    def _rates(self, input_tokens: int) -> Rates:
        for above, rates in self.tiers:
            if input_tokens > above:
                return rates
        return self.base

    def _within(self, input_tokens: int) -> list[Rates]:
        """The rates of all requests of up to this size."""
        return [self.base, *(rates for above, rates in self.tiers if input_tokens > above)]


FREE = Price.listed({}, {}, source="[prices] free")
"""Costs nothing, whatever is used."""
