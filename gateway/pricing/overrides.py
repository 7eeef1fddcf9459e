"""The operator's own prices: ``[prices.models."GLOB"]``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from fnmatch import fnmatchcase

import attrs

from gateway.pricing.price import Price
from gateway.pricing.rates import Sheet
from gateway.pricing.settings import SERVICE_TIERS, ModelPrice, SizeTier, Variant


def given_for(models: Mapping[str, ModelPrice], provider: str, model: str) -> tuple[str, ModelPrice] | None:
    """The entry that decides, with its key: exact names before globs, ``provider/model`` before ``model``."""
    names = (f"{provider}/{model}", model)
    exact = next((name for name in names if name in models), None)
    if exact is not None:
        return exact, models[exact]
    matching = (glob for name in names for glob in models if fnmatchcase(name, glob))
    return next(((glob, models[glob]) for glob in matching), None)


def price_of(glob: str, given: ModelPrice) -> Price:
    """An entry's price, where it is no mere ``factor``."""
    sheet = given.sheet()
    usual = Price.listed(sheet, _tiers(sheet, given.tiers))
    told = {name: getattr(given, name) for name in SERVICE_TIERS}
    return attrs.evolve(
        usual,
        variants={name: _variant(usual, sheet, variant) for name, variant in told.items() if variant is not None},
        max_output_tokens=given.max_output_tokens,
        context=given.context,
        source=f'[prices.models."{glob}"]',
    )


def discounted(price: Price, glob: str, given: ModelPrice) -> Price:
    """What another source says, at the entry's ``factor``."""
    assert given.factor is not None
    return attrs.evolve(
        price.scaled(Decimal(repr(given.factor))),
        max_output_tokens=given.max_output_tokens or price.max_output_tokens,
        context=given.context or price.context,
        source=f'{price.source}, [prices.models."{glob}"]',
    )


def _variant(usual: Price, sheet: Sheet, given: Variant) -> Price:
    if given.factor is not None:
        return usual.scaled(Decimal(repr(given.factor)))
    own = {**sheet, **given.sheet()}
    return Price.listed(own, _tiers(own, given.tiers))


def _tiers(sheet: Sheet, tiers: Iterable[SizeTier]) -> dict[int, Sheet]:
    """Each with what the one below it says where it says nothing."""
    found: dict[int, Sheet] = {}
    for tier in sorted(tiers, key=lambda tier: tier.above):
        found[tier.above] = sheet = {**sheet, **tier.sheet()}
    return found
