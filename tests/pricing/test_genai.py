"""Our prices against genai-prices' own arithmetic, for all it knows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any

import attrs
import pytest

from gateway.exchange import Usage
from gateway.pricing import genai
from tests.support.programs import ROOT

genai_prices = pytest.importorskip("genai_prices")

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
PLAIN = Usage(100_000, 1000)
LARGE = Usage(600_000, 1000, 200_000, 50_000, 300, cache_write_1h_tokens=20_000, web_searches=2)
SOUND = Usage(
    9000, 1000, audio_input_tokens=500, audio_output_tokens=70, image_input_tokens=400, image_output_tokens=50
)
_NAMES = {
    "input_tokens": "input_tokens", "output_tokens": "output_tokens", "cached_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens", "cache_write_1h_tokens": "cache_write_1h_tokens",
    "reasoning_tokens": "output_reasoning_tokens", "audio_input_tokens": "input_audio_tokens",
    "audio_output_tokens": "output_audio_tokens", "image_input_tokens": "input_image_tokens",
    "image_output_tokens": "output_image_tokens", "web_searches": "web_searches",
}  # fmt: skip


def models() -> Iterator[tuple[Any, str, Any]]:
    """Each model with a name it is found by; its own is not always one."""
    for provider in genai_prices.data_snapshot.get_snapshot().providers:
        for model in provider.models:
            names = [model.id, *words(model.match)]
            name = next((name for name in names if provider.find_model(name) is model), None)
            if name is not None:
                yield provider, name, model


def words(clause: Any) -> Iterator[str]:
    """What stands in a rule by which models are found."""
    for value in vars(clause).values():
        if isinstance(value, str):
            yield value
        else:
            for inner in value:
                yield from words(inner)


def theirs(provider: str, model: str, used: Usage, context: Any = None, now: datetime = NOW) -> int:
    """Nano-USD, rounded up."""
    counts = {theirs: getattr(used, ours) for ours, theirs in _NAMES.items()}
    usage = genai_prices.Usage(**{name: count for name, count in counts.items() if count is not None})
    found = genai_prices.calc_price(
        usage, model, provider_id=provider, genai_request_timestamp=now, price_context=context
    )
    return int((found.total_price * 10**9).to_integral_value(ROUND_CEILING))


def test_every_model_costs_what_genai_prices_says() -> None:
    seen = unpriced = 0
    for provider, name, _ in models():
        price = genai.price_of(provider.id, "", name, NOW)
        if price is None:  # by the hour, the page or the character
            assert theirs(provider.id, name, PLAIN) == 0, name
            unpriced += 1
            continue
        seen += 1
        for used in (PLAIN, LARGE, SOUND):
            assert price.cost(used) == theirs(provider.id, name, used), (provider.id, name, used)
        assert price.worst(600_000, 1000) >= (price.cost(attrs.evolve(LARGE, web_searches=None)) or 0)
    assert seen > 2000 and unpriced < 100


def test_every_tier_of_service_costs_what_genai_prices_says() -> None:
    seen = set()
    for provider, name, model in models():
        for variant in model.price_variants or ():
            (kind, tier), *more = variant.when.items()
            price = genai.price_of(provider.id, "", name, NOW)
            if kind not in ("service_tier", "speed", "processing") or more or price is None:
                continue
            used = attrs.evolve(LARGE, service_tier=tier)
            assert price.cost(used) == theirs(provider.id, name, used, variant.when), (provider.id, name, tier)
            seen.add(tier)
    assert seen >= {"flex", "priority", "batch", "fast"}


def test_a_price_is_that_of_the_moment() -> None:
    days = [datetime(2026, month, 15, hour, tzinfo=UTC) for month in (3, 11) for hour in (2, 12, 17)]
    changed = 0
    for provider, name, model in models():
        if isinstance(model.prices, list) and provider.id != "openrouter":
            costs = []
            for now in days:
                price = genai.price_of(provider.id, "", name, now)
                costs.append(None if price is None else price.cost(PLAIN))
                assert costs[-1] in (None, theirs(provider.id, name, PLAIN, now=now))
            changed += len(set(costs)) > 1
    assert changed > 3


@pytest.mark.parametrize(
    ("vendor", "url", "model", "provider"),
    [
        ("openai", "", "gpt-4o-2024-08-06", "openai"), ("openai", "", "GPT-4o", "openai"),
        ("azure", "", "gpt-4o", "azure"), ("google", "", "claude-sonnet-4@20250514", "google"),
        ("aws", "", "us.anthropic.claude-sonnet-4-20250514-v1:0", "aws"),
        ("", "https://api.groq.com/openai/v1", "llama-3.3-70b-versatile", "groq"),
    ],
)  # fmt: skip
def test_models_are_found_as_providers_name_them(vendor: str, url: str, model: str, provider: str) -> None:
    price = genai.price_of(vendor, url, model, NOW)
    assert price is not None and price.per_million()[0] > 0
    assert price.source.startswith(f"genai-prices: {provider} '")


@pytest.mark.parametrize(
    ("vendor", "url", "model"),
    [
        ("openai", "", "my-own-model"), ("openai", "", "gpt-4o" * 100), ("nobody", "", "gpt-4o"),
        ("", "http://127.0.0.1:8000/v1", "gpt-4o"), ("openai", "", "whisper-1"),
    ],
)  # fmt: skip
def test_what_it_does_not_know_has_no_price(vendor: str, url: str, model: str) -> None:
    assert genai.price_of(vendor, url, model, NOW) is None


def test_names_of_clients_are_not_remembered() -> None:
    snapshot = genai_prices.data_snapshot.get_snapshot()
    genai.price_of("openai", "", "gpt-4o", NOW)
    before = len(snapshot._lookup_cache), len(snapshot._provider_cache), len(snapshot._provider_misses)
    for number in range(10):
        genai.price_of("openai", "", f"gpt-4o-{number}", NOW)
    assert (len(snapshot._lookup_cache), len(snapshot._provider_cache), len(snapshot._provider_misses)) == before


def test_a_model_that_asks_for_nothing_is_free() -> None:
    provider, name, _ = next(each for each in models() if each[1].endswith(":free"))
    price = genai.price_of(provider.id, "", name, NOW)
    assert price is not None and price.per_million() == (Decimal(0), Decimal(0))


def test_it_is_imported_when_it_is_needed_and_not_before() -> None:
    code = (
        "import sys, gateway.runtime, gateway.pricing.prices as p\n"
        "assert 'genai_prices' not in sys.modules and 'pydantic' not in sys.modules\n"
        "assert p.genai.is_installed()\n"
        "assert 'genai_prices' not in sys.modules\n"
        "p.genai.load()\n"
        "assert 'genai_prices.data' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
