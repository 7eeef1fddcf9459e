"""Exact sums: what a usage costs, token by token, and what stands in for a rate that is not given."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given

from gateway.exchange import Usage
from gateway.pricing.rates import PER_NANO, rates_of, usd_of
from tests.support.pricing import MILLIONTH, PER_TOKEN, sheets, usages, usd

SHEET = {"input": 2 * MILLIONTH, "output": 8 * MILLIONTH}


@given(sheets, usages)
def test_a_sum_is_exact(sheet: dict[str, Decimal], used: Usage) -> None:
    assert usd_of(rates_of(sheet).total(used)) == usd(sheet, used)


@pytest.mark.parametrize(
    ("name", "stands_in"),
    [
        ("cached_input", "input"), ("cache_write", "input"), ("cache_write_1h", "cache_write"),
        ("audio_input", "input"), ("image_input", "input"), ("audio_output", "output"), ("image_output", "output"),
        ("reasoning", "output"),
    ],
)  # fmt: skip
def test_what_is_not_given_costs_what_the_more_general_does(name: str, stands_in: str) -> None:
    sheet = {**SHEET, "cache_write": 3 * MILLIONTH}
    sheet.pop(name, None)
    rates = rates_of(sheet)
    assert getattr(rates, name) == getattr(rates, stands_in) > 0
    assert getattr(rates_of({**SHEET, name: Decimal(1)}), name) != getattr(rates, stands_in)


def test_nothing_given_costs_nothing() -> None:
    assert rates_of({}).total(Usage(100, 100, 10, 10, 10, web_searches=3)) == 0


def test_requests_and_searches_are_charged_on_top() -> None:
    rates = rates_of({**SHEET, "per_request": Decimal("0.005"), "per_search": Decimal("0.01")})
    assert usd_of(rates.total(Usage(1000, 1000, web_searches=3))) == Decimal("0.045")


def test_more_than_there_is_counts_as_all_there_is() -> None:
    rates = rates_of({**SHEET, "cached_input": MILLIONTH})
    assert rates.total(Usage(100, 0, cached_tokens=1000)) == rates.total(Usage(100, 0, cached_tokens=100))
    hour = rates_of({**SHEET, "cache_write_1h": 5 * MILLIONTH})
    assert usd_of(hour.total(Usage(100, 0, None, 10, cache_write_1h_tokens=50))) == 230 * MILLIONTH


def test_a_rate_too_fine_is_rounded_up() -> None:
    assert rates_of({"input": Decimal("1e-30")}).input == 1


def test_published_prices_are_fine_enough() -> None:
    """The longest in either source has 24 decimal places per token."""
    price = Decimal("0.000000041666666666666664")
    assert usd_of(rates_of({"input": price}).input) == price
    assert usd_of(PER_NANO) == Decimal("1e-9")


@given(sheets)
def test_the_dearest_is_the_dearest(sheet: dict[str, Decimal]) -> None:
    rates = rates_of(sheet)
    read = [name for name in PER_TOKEN if "input" in name or "cache" in name]
    assert rates.dearest_input == max(getattr(rates, name) for name in read)
    assert rates.dearest_output == max(getattr(rates, name) for name in PER_TOKEN if name not in read)


def test_a_factor_changes_tokens_and_nothing_else() -> None:
    rates = rates_of({**SHEET, "per_request": Decimal("0.005"), "per_search": Decimal("0.01")})
    half = rates.scaled(Decimal("0.5"))
    assert half == rates_of(
        {"input": MILLIONTH, "output": 4 * MILLIONTH, "per_request": Decimal("0.005"), "per_search": Decimal("0.01")}
    )
