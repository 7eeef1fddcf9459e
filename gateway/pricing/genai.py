"""Prices of genai-prices (the extra ``cost``), turned into ours.

Its own arithmetic takes twenty times as long, and its caches remember every name it is asked for. So its data are read,
and what it says of a model at this moment becomes a ``Price``: they come to the same for every usage the gateway can
count (tests hold the two against each other, over all of its models). Imported when the first price is asked for: that
takes 0.2 s and 15 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from importlib.util import find_spec
from typing import Any

from gateway.pricing.price import Price

_RATES = {
    "input_mtok": "input", "output_mtok": "output", "cache_read_mtok": "cached_input",
    "cache_write_mtok": "cache_write", "cache_write_1h_mtok": "cache_write_1h", "input_audio_mtok": "audio_input",
    "output_audio_mtok": "audio_output", "input_image_mtok": "image_input", "output_image_mtok": "image_output",
    "output_reasoning_mtok": "reasoning", "requests_kcount": "per_request", "web_searches_kcount": "per_search",
}  # fmt: skip
_THOUSANDS = ("per_request", "per_search")  # all others are for a million
_LONGEST = 256  # characters of a model's name; they go through a vendor's regular expressions


def is_installed() -> bool:
    return find_spec("genai_prices") is not None


def load() -> None:
    """Import it now."""
    _snapshot()


def price_of(vendor: str, base_url: str, model: str, now: datetime) -> Price | None:
    """What it says of a vendor's model at ``now``; without a ``vendor``, the one whose address ``base_url`` is."""
    snapshot = _snapshot()
    try:
        provider = snapshot.find_provider(None, vendor or None, None if vendor else base_url)
    except LookupError:
        return None
    if len(model) > _LONGEST or (found := provider.find_model(model, all_providers=snapshot.providers)) is None:
        return None
    usual = found.get_prices(now)
    if not _counts_tokens(usual):
        return None
    variants = dict(_variants(found, now)) if any(found is each for each in provider.models) else {}
    return _price(
        usual, variants=variants, context=found.context_window, source=f"genai-prices: {provider.id} '{found.id}'"
    )


def _snapshot() -> Any:
    from genai_prices import data_snapshot

    return data_snapshot.get_snapshot()


def _counts_tokens(prices: Any) -> bool:
    """Whether tokens are what it asks for; no price at all is none to pay, as for ``…:free`` models."""
    told = _told(prices)
    return not told or bool(told.keys() & {"input_mtok", "output_mtok"})


def _variants(model: Any, now: datetime) -> Iterator[tuple[str, Price]]:
    """Service tiers by the word that the provider reports; what it calls route or search is none."""
    usual = _told(model.get_prices(now))
    for variant in model.price_variants or ():
        tier = [word for kind, word in variant.when.items() if kind in ("service_tier", "speed", "processing")]
        if len(tier) == len(variant.when) == 1:
            prices = model.get_prices(now, variant.when)
            if _told(prices) != usual:
                yield tier[0], _price(prices)


def _price(prices: Any, **more: Any) -> Price:
    told = {_RATES[name]: value for name, value in _told(prices).items() if name in _RATES}
    sizes = {tier.start for value in told.values() for tier in getattr(value, "tiers", ())}
    return Price.listed(_sheet(told, 0), {size: _sheet(told, size + 1) for size in sizes}, **more)


def _told(prices: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(prices).items() if value is not None}


def _sheet(told: dict[str, Any], input_tokens: int) -> dict[str, Decimal]:
    """The prices for an input of this size, in USD for one."""
    return {
        name: _at(value, input_tokens).scaleb(-3 if name in _THOUSANDS else -6) for name, value in told.items()
    }  # fmt: skip


def _at(value: Any, input_tokens: int) -> Decimal:
    """A price, or one that changes with the size of the input."""
    found: Decimal = getattr(value, "base", value)
    for tier in getattr(value, "tiers", ()):  # ascending
        if input_tokens > tier.start:
            found = tier.price
    return found
