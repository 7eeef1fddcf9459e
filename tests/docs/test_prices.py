"""The example of ``docs/reference/prices.md`` is taken, and every setting is named there."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from gateway.config import load
from gateway.exchange import Target, Usage
from gateway.pricing.prices import Prices
from gateway.pricing.settings import ModelPrice, SizeTier
from gateway.pricing.settings import Prices as Settings
from tests.support.programs import ROOT

TEXT = (ROOT / "docs/reference/prices.md").read_text()
(EXAMPLE,) = re.findall(r"```toml\n(.*?)```", TEXT, re.S)


@pytest.mark.parametrize(
    ("target", "used", "nano"),
    [
        (Target("openai", "gpt-5.1"), Usage(1000, 100, 400), 1_800_000),
        (Target("openai", "gpt-5.1"), Usage(1000, 100, 400, service_tier="flex"), 900_000),
        (Target("openai", "gpt-5.1"), Usage(1000, 100, service_tier="priority"), 4_500_000),
        (Target("home", "llama"), Usage(1000, 100), 100_000),
        (Target("google", "gemini-2.5-pro"), Usage(200_001, 0), 500_002_500),
    ],
)  # fmt: skip
def test_the_example_costs_what_it_says(tmp_path: Path, target: Target, used: Usage, nano: int) -> None:
    (tmp_path / "gateway.toml").write_text(EXAMPLE)
    config, document = load(tmp_path / "gateway.toml", {})
    assert not document.problems and not document.warnings
    price = Prices(config).of(target, None)
    assert price is not None and price.cost(used) == nano


@pytest.mark.parametrize("cls", [Settings, ModelPrice, SizeTier])
def test_every_setting_is_named(cls: type) -> None:
    for field in attrs.fields(cls):
        assert not field.init or re.search(rf"`[^`]*\b{field.name}\b[^`]*`", TEXT), field.name
