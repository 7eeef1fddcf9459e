"""One model of LiteLLM's list: sizes, service tiers and what counts where they do not say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.exchange import Usage
from gateway.pricing.entries import changes, is_price, mistake, price_of
from gateway.pricing.price import Price

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
PLAIN = {"input_cost_per_token": 2e-06, "output_cost_per_token": 8e-06}


def made(**fields: Any) -> Price:
    price = price_of("m", {**PLAIN, **fields}, NOON)
    assert price is not None
    return price


def cost(used: Usage, **fields: Any) -> int | None:
    return made(**fields).cost(used)


@pytest.mark.parametrize(
    ("fields", "used", "nano"),
    [
        ({}, Usage(100, 10), 280_000),
        ({"cache_read_input_token_cost": 5e-07}, Usage(100, 0, 40), 140_000),
        ({"input_cost_per_token_cache_hit": 5e-07}, Usage(100, 0, 40), 140_000),
        ({"cache_creation_input_token_cost": 3e-06}, Usage(100, 0, None, 40), 240_000),
        ({"cache_creation_input_token_cost": 0}, Usage(100, 0, None, 40), 200_000),
        ({"cache_creation_input_token_cost_above_1hr": 4e-06}, Usage(100, 0, None, 40, cache_write_1h_tokens=40),
         280_000),
        ({"input_cost_per_audio_token": 1e-05}, Usage(100, 0, audio_input_tokens=10), 280_000),
        ({"output_cost_per_audio_token": 1e-05}, Usage(0, 100, audio_output_tokens=10), 820_000),
        ({"input_cost_per_image_token": 1e-05}, Usage(100, 0, image_input_tokens=10), 280_000),
        ({"output_cost_per_image_token": 1e-05}, Usage(0, 100, image_output_tokens=10), 820_000),
        ({"output_cost_per_reasoning_token": 1e-05}, Usage(0, 100, reasoning_tokens=10), 820_000),
        ({"input_cost_per_request": 0.005}, Usage(100, 0), 5_200_000),
        ({"search_context_cost_per_query": {"search_context_size_medium": 0.01}}, Usage(0, 0, web_searches=2),
         20_000_000),
    ],
)  # fmt: skip
def test_each_field_has_its_place(fields: dict[str, Any], used: Usage, nano: int) -> None:
    assert cost(used, **fields) == nano


def test_sizes_and_service_tiers() -> None:
    price = made(
        input_cost_per_token_above_200k_tokens=4e-06, input_cost_per_token_above_272k_tokens=5e-06,
        input_cost_per_token_flex=1e-06, input_cost_per_token_above_200k_tokens_flex=3e-06,
        input_cost_per_token_batches=1e-06, output_cost_per_token_priority=1.6e-05,
    )  # fmt: skip
    assert price.cost(Usage(200_000, 0)) == 400_000_000
    assert price.cost(Usage(200_001, 0)) == 800_004_000
    assert price.cost(Usage(272_001, 0)) == 1_360_005_000
    assert price.cost(Usage(200_000, 0, service_tier="flex")) == 200_000_000
    assert price.cost(Usage(200_001, 0, service_tier="flex")) == 600_003_000
    assert price.cost(Usage(272_001, 0, service_tier="flex")) == 1_360_005_000  # the usual one above that size
    assert price.cost(Usage(100, 10, service_tier="batch")) == 180_000
    assert price.cost(Usage(100, 10, service_tier="priority")) == price.cost(Usage(100, 10, service_tier="fast"))
    assert price.cost(Usage(100, 10, service_tier="priority")) == 360_000


def test_an_hour_in_the_cache_may_be_priced_by_size_too() -> None:
    fields = {
        "cache_creation_input_token_cost_above_1hr": 3e-06,
        "cache_creation_input_token_cost_above_1hr_above_200k_tokens": 6e-06,
    }
    used = Usage(200_001, 0, None, 200_001, cache_write_1h_tokens=200_001)
    assert cost(used, **fields) == 1_200_006_000


def test_a_rate_that_repeats_another_follows_it_into_every_tier() -> None:
    """Gemini's thoughts are listed, at the price of output; for ``priority`` output alone is."""
    fields = {"output_cost_per_reasoning_token": 8e-06, "output_cost_per_token_priority": 1.6e-05}
    assert cost(Usage(0, 10, reasoning_tokens=10, service_tier="priority"), **fields) == 160_000
    fields |= {"output_cost_per_reasoning_token": 9e-06}
    assert cost(Usage(0, 10, reasoning_tokens=10, service_tier="priority"), **fields) == 90_000


def test_prices_in_steps() -> None:
    steps = [
        {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06, "range": [0, 32000.0]},
        {"input_cost_per_token": 3e-06, "output_cost_per_reasoning_token": 9e-06, "range": [32000.0, 128000.0]},
    ]
    price = price_of("m", {"tiered_pricing": steps}, NOON)
    assert price is not None
    assert price.cost(Usage(32_000, 10)) == 32_020_000
    assert price.cost(Usage(32_001, 10)) == 96_023_000
    assert price.cost(Usage(32_001, 10, reasoning_tokens=10)) == 96_093_000


def test_hours_at_which_it_is_cheaper() -> None:
    entry = {**PLAIN, "off_peak_pricing": {"input_cost_per_token": 1e-06, "windows": [{"hours_utc": "11:00-13:00"}]}}
    assert changes(entry) and not changes(PLAIN)
    at_noon, at_two = price_of("m", entry, NOON), price_of("m", entry, NOON.replace(hour=14))
    assert at_noon is not None and at_two is not None
    assert (at_noon.cost(Usage(100, 10)), at_two.cost(Usage(100, 10))) == (180_000, 280_000)


def test_anthropic_s_fast_mode_is_a_factor() -> None:
    special = {"us": 1.1, "fast": 2}
    assert cost(Usage(100, 10, service_tier="fast"), provider_specific_entry=special) == 560_000


def test_a_model_that_makes_pictures_only() -> None:
    entry = {"input_cost_per_token": 5e-06, "output_cost_per_image_token": 4e-05}
    price = price_of("gpt-image-1", entry, NOON)
    assert price is not None
    assert price.cost(Usage(100, 10)) == 900_000


@pytest.mark.parametrize(
    "entry",
    [
        {}, {"input_cost_per_second": 1.0}, {"output_cost_per_image": 1.0}, {"cache_read_input_token_cost": 1.0},
        {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0, "input_cost_per_query": 0.002},
    ],
)  # fmt: skip
def test_what_does_not_price_tokens_has_no_price(entry: dict[str, Any]) -> None:
    assert price_of("m", entry, NOON) is None


def test_what_costs_nothing_at_all_has_a_price() -> None:
    price = price_of("m", {"input_cost_per_token": 0.0, "output_cost_per_token": 0, "output_cost_per_image": 0}, NOON)
    assert price is not None and price.cost(Usage(100, 10)) == 0


def test_limits_are_told_where_they_are_numbers() -> None:
    price = made(max_output_tokens=4096, max_input_tokens=128_000)
    assert (price.max_output_tokens, price.context, price.source) == (4096, 128_000, "[prices] file: 'm'")
    assert made(max_output_tokens="many", max_input_tokens=0).context is None


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("input_cost_per_token", True), ("input_cost_per_token_above_200k_tokens_priority", True),
        ("cache_creation_input_token_cost_above_1hr_above_272k_tokens_flex", True), ("tiered_pricing", True),
        ("input_cost_per_second", True), ("max_tokens", False), ("supports_vision", False), ("source", False),
    ],
)  # fmt: skip
def test_which_fields_matter(name: str, kept: bool) -> None:
    assert is_price(name) is kept


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        (PLAIN, None), ([], "is not an object."),
        ({"input_cost_per_token": True}, "'input_cost_per_token' is not a price."),
        ({"tiered_pricing": {}}, "'tiered_pricing' is not a list of prices with a 'range'."),
        ({"tiered_pricing": [PLAIN]}, "'tiered_pricing' is not a list of prices with a 'range'."),
        ({"tiered_pricing": [{**PLAIN, "range": []}]}, "'tiered_pricing' is not a list of prices with a 'range'."),
        ({"tiered_pricing": [{"input_cost_per_query": 1, "max_results_range": [0, 25]}]}, None),
        ({"litellm_provider": 3, "supports_vision": "?"}, None),
    ],
)  # fmt: skip
def test_mistakes(entry: Any, wrong: str | None) -> None:
    assert mistake(entry) == wrong
