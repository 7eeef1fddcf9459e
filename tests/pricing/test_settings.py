"""``[prices]`` as it is written: what must be given, what excludes what, and in which units."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from gateway.config import load
from gateway.pricing.settings import ModelPrice, SizeTier, Variant

MODEL = '[prices.models."gpt-*"]\n'


def problems(folder: Path, text: str) -> list[str]:
    path = folder / "gateway.toml"
    path.write_text(text)
    _, document = load(path, {})
    return [problem.replace(f"{path}:", "") for problem in document.problems]


def test_a_million_tokens_or_one_request() -> None:
    sheet = ModelPrice(input=0.15, output=0.0, per_request=0.005, per_search=0.01).sheet()
    assert sheet == {
        "input": Decimal("0.00000015"), "output": 0, "per_request": Decimal("0.005"), "per_search": Decimal("0.01"),
    }  # fmt: skip


def test_a_price_is_what_was_written_not_the_nearest_binary_fraction() -> None:
    assert SizeTier(above=1, input=0.1).sheet() == {"input": Decimal("0.0000001")}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("input = 1", "1: prices.models.\"gpt-*\": needs 'input' and 'output' (0 is nothing), or a 'factor'."),
        ("output = 1", "1: prices.models.\"gpt-*\": needs 'input' and 'output' (0 is nothing), or a 'factor'."),
        ("input = 1\noutput = -1", "3: prices.models.\"gpt-*\".output: 'output' must be >= 0.0: -1.0."),
        ("input = 1\noutput = '2'", '3: prices.models."gpt-*".output: expected a number.'),
        ("input = 1\noutput = 2\nfactor = 0.5",
         "4: prices.models.\"gpt-*\".factor: 'factor' stands instead of prices, not beside them."),
        ("factor = -1", "2: prices.models.\"gpt-*\".factor: 'factor' must be >= 0.0: -1.0."),
        ("input = 1\noutput = 2\ncached = 1",
         "4: prices.models.\"gpt-*\".cached: unknown key. Did you mean 'cached_input'?"),
        ("input = 1\noutput = 2\nflex = { factor = 0.5, input = 1 }",
         "4: prices.models.\"gpt-*\".flex.factor: 'factor' stands instead of prices, not beside them."),
        ("input = 1\noutput = 2\nflex = 0.5", '4: prices.models."gpt-*".flex: expected a table, not a decimal number.'),
        ("input = 1\noutput = 2\ntiers = [{ input = 1 }]",
         '4: prices.models."gpt-*".tiers[0].above: is missing.'),
        ("input = 1\noutput = 2\ntiers = [{ above = 0 }]",
         "4: prices.models.\"gpt-*\".tiers[0].above: 'above' must be > 0: 0."),
        ("input = 1\noutput = 2\ntiers = [{ above = 5 }, { above = 5, input = 2 }]",
         "4: prices.models.\"gpt-*\".tiers: 'tiers' has two tables for the same size."),
        ("input = 1\noutput = 2\nmax_output_tokens = 0",
         "4: prices.models.\"gpt-*\".max_output_tokens: 'max_output_tokens' must be >= 1: 0."),
    ],
)  # fmt: skip
def test_a_mistake_is_told_at_its_line(tmp_path: Path, text: str, problem: str) -> None:
    assert problems(tmp_path, MODEL + text) == [problem]


def test_mistakes_are_told_together(tmp_path: Path) -> None:
    text = "[prices]\nfile = 1\nfre = []\n[prices.models.a]\ninput = 'x'\noutput = 'y'\n"
    assert sorted(problem.partition(":")[0] for problem in problems(tmp_path, text)) == ["2", "3", "5", "6"]


def test_every_form_is_taken(tmp_path: Path) -> None:
    text = """
[prices]
free = ["echo", "ollama"]
[prices.models."*"]
factor = 1.1
[prices.models."gpt-5*"]
input = 1.25
output = 10
tiers = [{ above = 200_000, input = 2.5, output = 15, cached_input = 0.25 }, { above = 500_000, input = 5 }]
flex = { factor = 0.5 }
[prices.models."gpt-5*".priority]
input = 2.5
output = 20
tiers = [{ above = 200_000, input = 5 }]
"""
    assert problems(tmp_path, text) == []
    config, _ = load(tmp_path / "gateway.toml", {})
    assert config.prices.models["*"].factor == 1.1
    found = config.prices.models["gpt-5*"]
    assert found.flex == Variant(factor=0.5)
    assert found.priority == Variant(input=2.5, output=20.0, tiers=(SizeTier(above=200_000, input=5.0),))
