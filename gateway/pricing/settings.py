"""The settings of ``[prices]``. Prices are USD for a million tokens, as vendors print them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import attrs
from attrs.validators import and_, ge, gt, le, optional

SERVICE_TIERS = ("batch", "flex", "priority", "fast")
"""Sub-tables of a model's prices, by the word the provider reports."""
FREE_TYPES = ("echo", "ollama", "probe")
_PER_REQUEST = ("per_request", "per_search")
_MILLION = 6  # digits


def _usd() -> Any:
    return attrs.field(default=None, validator=optional(ge(0.0)))


@attrs.frozen(kw_only=True)
class Listed:
    """A list of prices. What is not given costs what the next more general kind does."""

    input: float | None = _usd()
    """All that is sent, but for what is listed apart."""
    output: float | None = _usd()
    """All that is answered, likewise."""
    cached_input: float | None = _usd()
    """Input read from the provider's cache; ``input`` if not given."""
    cache_write: float | None = _usd()
    """Input written to it; ``input`` if not given."""
    cache_write_1h: float | None = _usd()
    """Input kept there for an hour; ``cache_write`` if not given."""
    audio_input: float | None = _usd()
    """Sound; ``input`` if not given."""
    audio_output: float | None = _usd()
    """Sound; ``output`` if not given."""
    image_input: float | None = _usd()
    """Pictures; ``input`` if not given."""
    image_output: float | None = _usd()
    """Pictures; ``output`` if not given."""
    reasoning: float | None = _usd()
    """Output that is thought; ``output`` if not given."""
    per_request: float | None = _usd()
    """USD for each request, on top."""
    per_search: float | None = _usd()
    """USD for each search that the provider makes and counts."""

    def sheet(self) -> dict[str, Decimal]:
        """What is given, in USD for one (``gateway.pricing.rates.Sheet``)."""
        names = [field.name for field in attrs.fields(Listed)]
        given = {name: Decimal(repr(value)) for name in names if (value := getattr(self, name)) is not None}
        return {name: usd if name in _PER_REQUEST else usd.scaleb(-_MILLION) for name, usd in given.items()}


@attrs.frozen(kw_only=True)
class SizeTier(Listed):
    """Prices of requests above a size; what is not given is as below it."""

    above: int = attrs.field(validator=gt(0))
    """Input tokens, those of a cache among them. One more, and all tokens of the request cost this."""


@attrs.frozen(kw_only=True)
class Variant(Listed):
    """Prices of one service tier, as a list of their own or by a factor."""

    factor: float | None = attrs.field(default=None, validator=optional(and_(ge(0.0), le(1000.0))))
    """Of the usual prices: 0.5 is half of them. Instead of a list."""
    tiers: tuple[SizeTier, ...] = attrs.field(default=())
    """Tables with ``above`` and the prices that differ above it."""

    @factor.validator
    def _is_alone(self, _: attrs.Attribute[float | None], value: float | None) -> None:
        if value is not None and (self.sheet() or self.tiers):
            raise ValueError("'factor' stands instead of prices, not beside them.")

    @tiers.validator
    def _differ(self, _: attrs.Attribute[tuple[SizeTier, ...]], value: tuple[SizeTier, ...]) -> None:
        if len({tier.above for tier in value}) < len(value):
            raise ValueError("'tiers' has two tables for the same size.")


@attrs.frozen(kw_only=True)
class ModelPrice(Variant):
    """``[prices.models."GLOB"]``: what models cost whose name, or ``provider/name``, matches. ``factor`` alone is a
    discount on what the other sources say."""

    batch: Variant | None = None
    """What the provider says it served as ``batch``; at the usual prices if not given. So are the next ones."""
    flex: Variant | None = None
    """Slower and cheaper."""
    priority: Variant | None = None
    """Sooner and dearer."""
    fast: Variant | None = None
    """Anthropic's fast mode."""
    max_output_tokens: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Most tokens of an answer."""
    context: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Most tokens of a request."""

    def __attrs_post_init__(self) -> None:
        if self.factor is None and (self.input is None or self.output is None):
            raise ValueError("needs 'input' and 'output' (0 is nothing), or a 'factor'.")


@attrs.frozen(kw_only=True)
class Prices:
    """``[prices]``: what models cost. Asked in this order: ``models``, ``free``, ``file``, genai-prices."""

    file: str = ""
    """A price list in LiteLLM's format, relative to the configuration file."""
    genai: bool = True
    """Ask genai-prices where it is installed (``hookgate[cost]``). It is never refreshed from the network."""
    free: tuple[str, ...] = FREE_TYPES
    """Types of providers that cost nothing."""
    models: dict[str, ModelPrice] = attrs.field(factory=dict)
    """By exact name or glob of ``provider/model`` or ``model``, as the provider is asked for it; exact names first."""
    table: dict[str, dict[str, Any]] = attrs.field(factory=dict, init=False, repr=False)
    """What stands in ``file``: model → its fields that tell prices."""
