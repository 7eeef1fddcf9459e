"""USD for a token as USD for a million, exactly; and what is no price."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.importing import converted


def prices(*entries: str) -> tuple[dict[str, Any], list[str]]:
    """Each entry is ``NAME|MODEL|parameters|model_info``."""
    text = "model_list:\n"
    for name, model, params, info in (entry.split("|") for entry in entries):
        text += f"- model_name: '{name}'\n  litellm_params: {{model: '{model}', {params}}}\n  model_info: {{{info}}}\n"
    document, told = converted(text)
    return document.get("prices", {}).get("models", {}), [line for line in told if not line.startswith("x: ")]


@pytest.mark.parametrize(
    ("per_token", "per_million"),
    [("0.0000025", 2.5), ("3e-6", 3), ("1.25e-07", 0.125), ("0.00000007", 0.07), ("0.00003", 30), ("0", 0)],
)
def test_a_price_is_exact(per_token: str, per_million: float) -> None:
    found, _ = prices(f"m|groq/a||input_cost_per_token: {per_token}, output_cost_per_token: 1")
    assert repr(found["groq/a"]["input"]) == repr(per_million)


def test_all_kinds_of_prices_and_their_sizes_and_tiers() -> None:
    found, told = prices(
        "m|groq/a|input_cost_per_token: 1e-6, output_cost_per_token: 2e-6|"
        "cache_read_input_token_cost: 1e-7, cache_creation_input_token_cost: 1.25e-6, input_cost_per_request: 0.5, "
        "input_cost_per_token_above_200k_tokens: 2e-6, output_cost_per_token_flex: 1e-6, max_output_tokens: 99, "
        "input_cost_per_token: 9, output_cost_per_token_ultrafast: 9e-6"
    )
    assert found["groq/a"] == {
        "input": 1, "output": 2, "cached_input": 0.1, "cache_write": 1.25, "per_request": 0.5,
        "tiers": [{"above": 200_000, "input": 2}],
        "flex": {"output": 1, "tiers": [{"above": 200_000, "input": 2}]},
        "max_output_tokens": 99,
    }  # fmt: skip
    assert told == ["x:3: its prices for ultrafast are not carried over: no provider here reports that."]


def test_an_embedding_has_no_output() -> None:
    assert prices("m|openai/e||mode: embedding, input_cost_per_token: 2e-8")[0] == {
        "openai/e": {"input": 0.02, "output": 0}
    }


def test_half_a_price_is_none_and_told() -> None:
    found, told = prices("m|groq/a|input_cost_per_token: 1e-6|", "n|groq/b||input_cost_per_token: dear")
    assert found == {}
    assert told == [
        "x:3: its prices are not carried over: they need both input_cost_per_token and output_cost_per_token here.",
        "x:7: input_cost_per_token: expected a number; left out.",
    ]


def test_a_price_stands_by_provider_and_model() -> None:
    given = "input_cost_per_token: 1e-6, output_cost_per_token: {}e-6"
    found, told = prices(
        f"groq/*|groq/*||{given.format(1)}", f"a|groq/x||{given.format(2)}", f"b|groq/x||{given.format(3)}"
    )
    assert {name: price["output"] for name, price in found.items()} == {"groq/*": 1, "groq/x": 2}
    assert told == ["x:10: groq/x has other prices already; these are left out."]


def test_what_is_no_price_is_told_once() -> None:
    _, told = prices(
        "a|groq/a||id: x, supports_vision: true, base_model: y, input_cost_per_second: 1", "b|groq/b||foo: 1"
    )
    assert [line.split(": ")[:2] for line in told] == [
        ["x:4", "base_model"], ["x:4", "input_cost_per_second"], ["x:4", "model_info"],
    ]  # fmt: skip
    assert told[-1].endswith("(also line 7)")
