"""``runtime.prices``: which source decides, what an exchange cost, what is remembered and what is said once."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from gateway.config import load
from gateway.exchange import Target, Usage
from gateway.pricing import prices as module
from gateway.pricing.price import FREE
from gateway.pricing.prices import Prices
from tests.support.exchanges import finished_exchange

PROVIDERS = """
[providers.openai]
type = "openai_compat"
base_url = "https://api.openai.com/v1"
[providers.home]
type = "openai_compat"
base_url = "http://127.0.0.1:8000/v1"
[providers.fast]
type = "openai_compat"
preset = "groq"
[providers.nvidia]
type = "openai_compat"
preset = "nvidia"
[providers.arcee]
type = "openai_compat"
base_url = "https://api.arcee.ai/v1"
[providers.echo]
type = "echo"
[providers.ollama]
type = "ollama"
"""
OPENAI = Target("openai", "gpt-4o")


def make(folder: Path, prices: str = "", listed: Any = None) -> Prices:
    text = f"[prices]\n{prices}\n{PROVIDERS}"
    if listed is not None:
        (folder / "list.json").write_text(json.dumps(listed))
        text = text.replace("[prices]\n", '[prices]\nfile = "list.json"\n')
    (folder / "gateway.toml").write_text(text)
    config, document = load(folder / "gateway.toml", {})
    document.raise_problems()
    return Prices(config)


def per_million(prices: Prices, target: Target, model: str | None = None) -> tuple[float, float] | None:
    price = prices.of(target, model)
    return None if price is None else (float(price.per_million()[0]), float(price.per_million()[1]))


LISTED: dict[str, Any] = {
    "gpt-4o": {"input_cost_per_token": 3e-06, "output_cost_per_token": 4e-06, "litellm_provider": "openai"},
    "groq/llama": {"input_cost_per_token": 5e-06, "output_cost_per_token": 6e-06, "litellm_provider": "groq"},
    "home/own": {"input_cost_per_token": 7e-06, "output_cost_per_token": 8e-06},
    "tts-1": {"input_cost_per_character": 1.0, "litellm_provider": "openai"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("prices", "target", "model", "usd"),
    [
        ("", OPENAI, None, (3, 4)),
        ("", Target("openai"), "gpt-4o", (3, 4)),
        ("", Target("openai", "gpt-4o-mini"), None, (0.15, 0.6)),  # from genai-prices
        ("genai = false", Target("openai", "gpt-4o-mini"), None, None),
        ("", Target("openai", "tts-1"), None, None),
        ("", Target("fast", "llama"), None, (5, 6)),
        ("", Target("fast", "gpt-4o"), None, None),
        ("", Target("home", "own"), None, (7, 8)),
        ("", Target("home", "gpt-4o"), None, None),
        ("", Target("nvidia", "gpt-4o"), None, None),  # genai-prices does not know this vendor
        ("", Target("nobody", "gpt-4o"), None, None),
        ("", Target("openai"), None, None),
        ("", Target("ollama", "gpt-4o"), None, (0, 0)),
        ("", Target("echo"), None, (0, 0)),
        ("free = []", Target("echo"), "echo", None),
        ("free = ['openai_compat']", OPENAI, None, (0, 0)),
        ("models.'gpt-*' = { input = 1, output = 2 }", OPENAI, None, (1, 2)),
        ("models.'openai/*' = { input = 1, output = 2 }", OPENAI, None, (1, 2)),
        ("models.'ollama/*' = { input = 1, output = 2 }", Target("ollama"), "llama3", (1, 2)),
        ("models.'*' = { factor = 0.5 }", OPENAI, None, (1.5, 2)),
        ("models.'*' = { factor = 0.5 }", Target("openai", "gpt-4o-mini"), None, (0.075, 0.3)),
        ("models.'*' = { factor = 0.5 }", Target("home", "gpt-4o"), None, None),
        ("models.'*' = { factor = 0.5 }", Target("ollama"), "llama3", (0, 0)),
        ("models.'*' = { input = 1, output = 2 }", Target("openai"), None, None),  # no model, no price of one
    ],
)  # fmt: skip
def test_the_first_source_that_knows_decides(
    tmp_path: Path, prices: str, target: Target, model: str | None, usd: tuple[float, float] | None
) -> None:
    pytest.importorskip("genai_prices")
    assert per_million(make(tmp_path, prices, LISTED), target, model) == usd


def test_a_vendor_is_found_by_its_address_where_only_genai_prices_knows_it(tmp_path: Path) -> None:
    pytest.importorskip("genai_prices")
    price = make(tmp_path).of(Target("arcee", "trinity-large-thinking"), None)
    assert price is not None and price.source.startswith("genai-prices: arcee")


USED = Usage(1000, 100)


@pytest.mark.parametrize(
    ("facts", "cost"),
    [
        ({}, 3_400_000),
        ({"cache": "hit", "target": None}, 0), ({"cache": "coalesced"}, 0), ({"target": None}, None),
        ({"usage": None}, None), ({"usage": Usage()}, None), ({"target": Target("home", "x")}, None),
        ({"target": Target("echo"), "usage": None}, 0), ({"target": Target("openai"), "model": "gpt-4o"}, 3_400_000),
    ],
)  # fmt: skip
def test_what_an_exchange_cost(tmp_path: Path, facts: dict[str, Any], cost: int | None) -> None:
    exchange = finished_exchange({}, **{"usage": USED, "target": OPENAI, **facts})
    assert make(tmp_path, "genai = false", LISTED).cost(exchange) == cost
    assert exchange.cost is None


def test_a_cost_is_settled_once(tmp_path: Path) -> None:
    prices = make(tmp_path, "genai = false", LISTED)
    exchange = finished_exchange(usage=USED, target=OPENAI)
    assert prices.settle(exchange) == exchange.cost == 3_400_000
    exchange.usage = Usage(2000, 0)
    assert prices.settle(exchange) == 3_400_000
    unknown = finished_exchange(usage=USED, target=Target("home"))
    assert prices.settle(unknown) is unknown.cost is None


def test_a_model_without_a_price_is_named_once_when_it_was_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = make(tmp_path, "genai = false")
    monkeypatch.setattr(module, "_MOST_TOLD", 3)
    with caplog.at_level(logging.WARNING, "hookgate"):
        assert prices.of(OPENAI, None) is None
        prices.cost(finished_exchange(usage=None, target=OPENAI))
        assert not caplog.records
        for _ in range(3):
            prices.cost(finished_exchange(usage=USED, target=OPENAI))
        prices.cost(finished_exchange(usage=USED, target=Target("openai"), model="own\nmodel" + "x" * 1000))
        for number in range(10):
            prices.cost(finished_exchange(usage=USED, target=Target("openai", str(number))))
    said = [record.message for record in caplog.records]
    assert len(said) == 3 and len(said[1]) < 400 and "\n" not in said[1]
    assert said[0] == "no price is known for 'openai/gpt-4o': what it costs is not counted ([prices])"


def test_what_clients_name_is_remembered_in_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 10)
    prices = make(tmp_path, "genai = false", LISTED)
    for number in range(100):
        assert prices.of(Target("openai"), f"model-{number}") is None
    assert len(prices._known) == 10
    assert per_million(prices, OPENAI) == (3, 4)


def test_a_price_that_depends_on_the_time_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    always: Any = {"input_cost_per_token": 1e-06, "windows": [{"hours_utc": "00:00-00:00"}]}
    table: Any = {"a": LISTED["gpt-4o"], "b": {**LISTED["gpt-4o"], "off_peak_pricing": always}}
    fixed, changing = Target("openai", "a"), Target("openai", "b")
    prices = make(tmp_path, "", table)
    assert prices.of(changing, None) is prices.of(changing, None)
    monkeypatch.setattr(module, "_FRESH", -1.0)
    prices = make(tmp_path, "", table)
    kept = prices.of(fixed, None)
    assert per_million(prices, changing) == (1, 4)
    prices._settings.table["b"]["off_peak_pricing"]["windows"].clear()
    assert per_million(prices, changing) == (3, 4)
    assert prices.of(fixed, None) is kept


async def test_what_takes_long_can_be_imported_beforehand(tmp_path: Path) -> None:
    await make(tmp_path).load()
    await make(tmp_path, "genai = false").load()


def test_nothing_configured_knows_what_is_free(tmp_path: Path) -> None:
    assert make(tmp_path).of(Target("ollama", "llama3"), None) is FREE
