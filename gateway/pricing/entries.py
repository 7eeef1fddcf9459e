"""One model of LiteLLM's price list → ``Price``.

The fields are USD for one token. A name may end in a size and a service tier:
``input_cost_per_token_above_200k_tokens_flex``. Where that is not given, the usual price above the size counts, then
the tier's, then the usual one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeGuard

import attrs

from gateway.pricing.off_peak import is_off_peak
from gateway.pricing.price import Price
from gateway.pricing.rates import STANDS_IN

_RATES = {
    "input_cost_per_token": "input", "output_cost_per_token": "output", "input_cost_per_request": "per_request",
    "cache_read_input_token_cost": "cached_input", "input_cost_per_token_cache_hit": "cached_input",
    "cache_creation_input_token_cost": "cache_write", "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "input_cost_per_audio_token": "audio_input", "output_cost_per_audio_token": "audio_output",
    "input_cost_per_image_token": "image_input", "output_cost_per_image_token": "image_output",
    "output_cost_per_reasoning_token": "reasoning",
}  # fmt: skip
_TIERS = {"batches": "batch"}
"""What LiteLLM calls a tier, where its providers have another word."""
_NAMES = "|".join(sorted(_RATES, key=len, reverse=True))  # one begins with another
_FIELD = re.compile(rf"({_NAMES})(?:_above_(\d+)k_tokens)?(?:_(batches|flex|priority|ultrafast))?")
_PER = "_cost_per_"
_SEARCHES = "search_context_cost_per_query"
_SPECIAL = ("tiered_pricing", "off_peak_pricing", "provider_specific_entry", _SEARCHES)
_Sheet = dict[str, Decimal]
Sheets = dict[tuple[str, int], _Sheet]
"""Service tier (empty: the usual one) and size above which it holds → prices."""


def is_price(name: str) -> bool:
    """Whether a field of the list tells what ``price_of`` looks at."""
    return name in _SPECIAL or _PER in name or _FIELD.fullmatch(name) is not None


def is_rate(name: str) -> bool:
    """Whether a field is an amount that ``sheets_of`` takes."""
    return _FIELD.fullmatch(name) is not None


def mistake(entry: Any) -> str | None:
    """What is wrong with a model of the list; ``None``: nothing."""
    if not isinstance(entry, dict):
        return "is not an object."
    for name, value in entry.items():
        if _FIELD.fullmatch(name) and not _is_amount(value):
            return f"'{name}' is not a price."
    tiers = entry.get("tiered_pricing")
    if tiers is not None and not (isinstance(tiers, list) and all(map(_is_size_tier, tiers))):
        return "'tiered_pricing' is not a list of prices with a 'range'."
    return None


def price_of(key: str, entry: Mapping[str, Any], now: datetime) -> Price | None:
    """A checked entry's price now; ``None`` if it is not for tokens: pictures or seconds are not counted."""
    sheets = sheets_of(entry)
    usual = sheets.setdefault(("", 0), {})
    if not usual.keys() & {"input", "output", "image_output", "audio_output"} or _asks_for_else(entry, usual):
        return None
    usual |= _searches(entry.get(_SEARCHES))
    off_peak = entry.get("off_peak_pricing")
    if isinstance(off_peak, dict) and is_off_peak(off_peak, now):
        usual |= sheets_of(off_peak).get(("", 0), {})
    price = _price(sheets, "")
    return attrs.evolve(
        price,
        variants=_variants(sheets, price, entry.get("provider_specific_entry")),
        max_output_tokens=_size(entry.get("max_output_tokens")),
        context=_size(entry.get("max_input_tokens")),
        source=f"[prices] file: '{key}'",
    )


def changes(entry: Mapping[str, Any]) -> bool:
    """Whether the price depends on the time."""
    return "off_peak_pricing" in entry


def sheets_of(entry: Mapping[str, Any]) -> Sheets:
    """The amounts of a checked entry, in USD for one."""
    found: Sheets = {}
    for name, value in entry.items():
        if (match := _FIELD.fullmatch(name)) is not None and _is_amount(value):
            field, above, tier = match.groups()
            if value or field != "cache_creation_input_token_cost":  # 0: nothing beside the price of input
                place = (_TIERS.get(tier, tier or ""), int(above or 0) * 1000)
                found.setdefault(place, {})[_RATES[field]] = _usd(value)
    for tier in entry.get("tiered_pricing") or ():
        if (sheet := sheets_of(_without_tiers(tier)).get(("", 0))) is not None:
            found.setdefault(("", int(tier["range"][0])), {}).update(sheet)
    _forget_repeated(found)
    return found


def _forget_repeated(sheets: Sheets) -> None:
    """A rate that is always given as what stands in for it says nothing of the tiers that give only that."""
    for name, general in STANDS_IN.items():
        if all(name not in sheet or sheet[name] == sheet.get(general) for sheet in sheets.values()):
            for sheet in sheets.values():
                sheet.pop(name, None)


def _price(sheets: Sheets, tier: str) -> Price:
    usual = {**sheets["", 0], **sheets.get((tier, 0), {})}
    sizes = {above for name, above in sheets if above and name in ("", tier)}
    tiers = {above: {**usual, **sheets.get(("", above), {}), **sheets.get((tier, above), {})} for above in sizes}
    return Price.listed(_whole(usual), {above: _whole(each) for above, each in tiers.items()})


def _whole(sheet: _Sheet) -> _Sheet:
    """A model that makes nothing but pictures, or sound, has no other price for its output."""
    if "output" in sheet:
        return sheet
    made = sheet.get("image_output", sheet.get("audio_output"))
    return sheet if made is None else {**sheet, "output": made}


def _variants(sheets: Sheets, usual: Price, special: Any) -> dict[str, Price]:
    variants = {tier: _price(sheets, tier) for tier, _ in sheets if tier}
    if "priority" in variants:
        variants["fast"] = variants["priority"]  # OpenAI's other word for it
    if isinstance(special, dict) and _is_amount(special.get("fast")):
        variants["fast"] = usual.scaled(_usd(special["fast"]))
    return variants


def _searches(each: Any) -> _Sheet:
    """Of the sizes a search may have: no provider that counts searches has more than one price."""
    usd = each.get("search_context_size_medium") if isinstance(each, dict) else None
    return {"per_search": _usd(usd)} if _is_amount(usd) else {}


def _asks_for_else(entry: Mapping[str, Any], usual: _Sheet) -> bool:
    """Tokens are listed at zero, and something else is not: a search of Cohere's, a picture."""
    return not any(usual.values()) and any(_PER in name and _is_amount(each) and each for name, each in entry.items())


def _without_tiers(tier: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tier.items() if name != "tiered_pricing"}


def _is_size_tier(tier: Any) -> bool:
    """Prices of searches come by the number of results, and are none of ours."""
    if not isinstance(tier, dict) or mistake(_without_tiers(tier)) is not None:
        return False
    reach = tier.get("range")
    has_range = isinstance(reach, list) and bool(reach) and _is_amount(reach[0])
    return has_range or not sheets_of(_without_tiers(tier))


def _is_amount(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _usd(value: float) -> Decimal:
    return Decimal(repr(value))


def _size(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None
