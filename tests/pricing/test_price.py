"""A model's price: tiers of size and of service, rounding, and the most a request can cost."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.exchange import Usage
from gateway.pricing.price import FREE, Price
from tests.support.pricing import MILLIONTH, sheets, usages, usd

USUAL = {"input": 2 * MILLIONTH, "output": 8 * MILLIONTH}
LARGE = {"input": 4 * MILLIONTH, "output": 12 * MILLIONTH}
PRICE = Price.listed(USUAL, {1000: LARGE}, variants={"flex": Price.listed({"input": MILLIONTH}, {})})


@given(sheets, st.dictionaries(st.integers(0, 40), sheets, max_size=3), sheets, usages)
def test_a_cost_is_exact_but_for_the_last_nano_dollar(
    sheet: dict[str, Decimal], tiers: dict[int, dict[str, Decimal]], flex: dict[str, Decimal], used: Usage
) -> None:
    price = Price.listed(sheet, tiers, variants={"flex": Price.listed(flex, {})})
    if used.input_tokens is None and used.output_tokens is None:
        assert price.cost(used) is None
        return
    reached = [above for above in tiers if (used.input_tokens or 0) > above]
    decides = flex if used.service_tier == "flex" else tiers[max(reached)] if reached else sheet
    exact = usd(decides, used) * 10**9
    assert price.cost(used) == int(exact.to_integral_value(ROUND_CEILING))


@pytest.mark.parametrize(
    ("used", "nano"),
    [
        (Usage(1000, 100), 2_800_000), (Usage(1001, 0), 4_004_000), (Usage(1000, None), 2_000_000),
        (Usage(None, 100), 800_000), (Usage(0, 0), 0), (Usage(), None), (Usage(cached_tokens=5), None),
        (Usage(1000, 100, service_tier="flex"), 1_000_000), (Usage(1000, 100, service_tier="scale"), 2_800_000),
        (Usage(1001, 100, service_tier="default"), 5_204_000), (Usage(2000, 9, service_tier="flex"), 2_000_000),
    ],
)  # fmt: skip
def test_the_tier_of_service_decides_then_the_size(used: Usage, nano: int | None) -> None:
    assert PRICE.cost(used) == nano


def test_a_part_of_a_nano_dollar_is_one_once_per_exchange() -> None:
    price = Price.listed({"input": Decimal("1e-12"), "output": Decimal("1e-12")}, {})
    assert price.cost(Usage(1, 1)) == 1
    assert price.cost(Usage(999, 1)) == 1
    assert price.cost(Usage(1000, 1)) == 2


@given(sheets, st.dictionaries(st.integers(0, 40), sheets, max_size=3), sheets, usages, st.data())
def test_no_usage_within_these_counts_costs_more_than_the_worst(
    sheet: dict[str, Decimal], tiers: dict[int, dict[str, Decimal]], flex: dict[str, Decimal], used: Usage, data: Any
) -> None:
    price = Price.listed(sheet, tiers, variants={"flex": Price.listed(flex, tiers)})
    given_tokens = data.draw(st.integers(used.input_tokens or 0, 60))
    made = data.draw(st.integers(used.output_tokens or 0, 60))
    assert price.worst(given_tokens, made, "flex") >= (price.cost(used) or 0)
    if used.service_tier != "flex":
        assert price.worst(given_tokens, made) >= (price.cost(used) or 0)


def test_the_worst_is_reached() -> None:
    price = Price.listed({**USUAL, "cache_write_1h": 5 * MILLIONTH, "reasoning": 9 * MILLIONTH}, {})
    used = Usage(100, 10, None, 100, 10, cache_write_1h_tokens=100)
    assert price.worst(100, 10) == price.cost(used) == 590_000


def test_a_size_that_is_not_reached_is_not_reserved_for() -> None:
    assert PRICE.worst(1000, 100) == 2_800_000
    assert PRICE.worst(1001, 100) == 5_204_000


def test_what_may_be_served_at_the_base_price_is_reserved_for_at_the_dearer() -> None:
    dear = attrs.evolve(PRICE, variants={"priority": PRICE.scaled(Decimal(2))})
    assert dear.worst(1000, 100, "priority") == 5_600_000
    assert PRICE.worst(1000, 100, "flex") == PRICE.worst(1000, 100, "auto") == PRICE.worst(1000, 100)


def test_a_factor_holds_for_every_size_and_service() -> None:
    half = PRICE.scaled(Decimal("0.5"))
    for used in (Usage(1000, 100), Usage(5000, 100), Usage(1000, 100, service_tier="flex")):
        assert half.cost(used) == (PRICE.cost(used) or 0) // 2


def test_people_read_dollars_for_a_million() -> None:
    assert PRICE.per_million() == (Decimal(2), Decimal(8))
    assert FREE.per_million() == (Decimal(0), Decimal(0))
    assert FREE.cost(Usage(10**9, 10**9)) == FREE.worst(10**9, 10**9) == 0
