"""The operator's own prices: which entry decides, and what one says."""

from __future__ import annotations

from decimal import Decimal

import pytest

from gateway.exchange import Usage
from gateway.pricing.overrides import discounted, given_for, price_of
from gateway.pricing.settings import ModelPrice, SizeTier, Variant

ONE = ModelPrice(input=1.0, output=1.0)


@pytest.mark.parametrize(
    ("entries", "decides"),
    [
        (("*", "gpt-*", "gpt-5", "openai/*", "openai/gpt-5"), "openai/gpt-5"),
        (("*", "gpt-*", "gpt-5", "openai/*"), "gpt-5"),
        (("gpt-*", "openai/*"), "openai/*"),
        (("gpt-*", "*-5"), "*-5"),  # it matches openai/gpt-5 as well
        (("gpt-*", "*"), "*"),
        (("gpt-?", "gpt-*"), "gpt-?"),
        (("gpt-*", "gpt-?"), "gpt-*"),
        (("azure/*", "gpt-4"), None),
        (("GPT-5",), None),
    ],
)
def test_exact_before_globs_and_provider_before_model(entries: tuple[str, ...], decides: str | None) -> None:
    found = given_for(dict.fromkeys(entries, ONE), "openai", "gpt-5")
    assert (found and found[0]) == decides


def test_an_entry_says_all_of_a_price() -> None:
    given = ModelPrice(
        input=2.0, output=8.0, cached_input=0.5, max_output_tokens=100, context=1000,
        tiers=(SizeTier(above=20, output=16.0), SizeTier(above=10, input=4.0, cached_input=1.0)),
        flex=Variant(factor=0.5), priority=Variant(input=3.0, tiers=(SizeTier(above=10, input=6.0),)),
    )  # fmt: skip
    price = price_of("gpt-*", given)
    assert (price.max_output_tokens, price.context, price.source) == (100, 1000, '[prices.models."gpt-*"]')
    assert price.cost(Usage(10, 10, 4)) == 12_000 + 2_000 + 80_000
    assert price.cost(Usage(20, 10, 10)) == 40_000 + 10_000 + 80_000
    assert price.cost(Usage(30, 10, 10)) == 80_000 + 10_000 + 160_000  # as below it where it says nothing
    assert price.cost(Usage(30, 10, 10, service_tier="flex")) == 125_000
    assert price.cost(Usage(10, 10, 4, service_tier="priority")) == 18_000 + 2_000 + 80_000
    assert price.cost(Usage(20, 10, service_tier="priority")) == 120_000 + 80_000
    assert price.cost(Usage(10, 10, 4, service_tier="batch")) == price.cost(Usage(10, 10, 4))


def test_a_factor_is_on_what_others_say() -> None:
    usual = price_of("x", ModelPrice(input=2.0, output=8.0, max_output_tokens=7, flex=Variant(factor=0.5)))
    cheaper = discounted(usual, "azure/*", ModelPrice(factor=0.9, context=5))
    assert cheaper.per_million() == (Decimal("1.8"), Decimal("7.2"))
    assert cheaper.cost(Usage(1000, 0, service_tier="flex")) == 900_000
    assert (cheaper.max_output_tokens, cheaper.context) == (7, 5)
    assert cheaper.source == '[prices.models."x"], [prices.models."azure/*"]'
