"""A price list in LiteLLM's format: what is read of it, what is wrong with it, where a model is found."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.exchange import Usage
from gateway.pricing.entries import price_of
from gateway.pricing.price_file import entry_for, read
from gateway.pricing.vendors import vendor_of
from tests.support.recordings import Recordings

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
PRICED = {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06}


def written(folder: Path, content: Any) -> Path:
    path = folder / "prices.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_what_tells_no_price_is_not_kept(tmp_path: Path) -> None:
    entry = {**PRICED, "supports_vision": True, "source": "https://…", "mode": "chat", "litellm_provider": "openai"}
    table, mistakes = read(written(tmp_path, {"sample_spec": {"input_cost_per_token": "a number"}, "m": entry}))
    assert not mistakes
    assert table == {"m": {**PRICED, "litellm_provider": "openai"}}


@pytest.mark.parametrize(
    ("content", "mistakes"),
    [
        ("[", ["is not JSON: "]), ("[]", ["is not an object of models."]),
        ('{"m": 1}', ["model 'm': is not an object."]),
        ('{"m": {"input_cost_per_token": "1"}, "n": {"output_cost_per_token_flex": -1}}',
         ["model 'm': 'input_cost_per_token' is not a price.",
          "model 'n': 'output_cost_per_token_flex' is not a price."]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(tmp_path: Path, content: str, mistakes: list[str]) -> None:
    table, found = read(written(tmp_path, content))
    assert not table
    assert [wrong.startswith(start) for wrong, start in zip(found, mistakes, strict=True)] == [True] * len(mistakes)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert read(tmp_path / "none.json") == ({}, ["cannot be read: No such file or directory."])


TABLE = {
    "gpt-4o": {"litellm_provider": "openai"}, "ft:gpt-4o": {"litellm_provider": "openai"},
    "azure/gpt-4o": {"litellm_provider": "azure"},
    "local/gpt-4o": {"litellm_provider": "hosted"}, "groq/llama": {"litellm_provider": "groq"},
    "claude": {"litellm_provider": "vertex_ai-anthropic_models"},
    "anthropic.claude-v1:0": {"litellm_provider": "bedrock_converse"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "kind", "url", "model", "key"),
    [
        ("openai", "openai_compat", "https://api.openai.com/v1", "gpt-4o", "gpt-4o"),
        ("mine", "openai_compat", "https://api.openai.com/v1", "gpt-4o", "gpt-4o"),
        ("openai", "openai_compat", "https://api.openai.com/v1", "ft:gpt-4o:acme:bot:id", "ft:gpt-4o"),
        ("openai", "openai_compat", "https://api.openai.com/v1", "gpt-4o:x", None),
        ("mine", "azure_openai", "", "gpt-4o", "azure/gpt-4o"),
        ("local", "openai_compat", "http://127.0.0.1/v1", "gpt-4o", "local/gpt-4o"),
        ("other", "openai_compat", "http://127.0.0.1/v1", "gpt-4o", None),
        ("fast", "openai_compat", "https://api.groq.com/openai/v1", "llama", "groq/llama"),
        ("fast", "openai_compat", "https://api.groq.com/openai/v1", "gpt-4o", None),
        ("google", "vertex", "", "claude", "claude"), ("anthropic", "anthropic", "", "claude", None),
        ("aws", "bedrock", "", "anthropic.claude-v1:0", "anthropic.claude-v1:0"),
    ],
)  # fmt: skip
def test_a_model_is_found_under_its_provider_its_vendor_or_alone(
    provider: str, kind: str, url: str, model: str, key: str | None
) -> None:
    found = entry_for(TABLE, provider, vendor_of(kind, url), model)
    assert (found and found[0]) == key


def test_litellm_s_own_list_is_read_without_a_mistake(test_data: Recordings) -> None:
    path = test_data.folder.parent / "prices" / "litellm.model_prices_and_context_window.json"
    table, mistakes = read(path)
    assert not mistakes and len(table) > 4500
    listed = json.loads(path.read_bytes())
    used = Usage(250_000, 1000, 50_000, 10_000, 100, "reported", 1000, 10, 10)
    seen = 0
    for model, entry in table.items():
        if (price := price_of(model, entry, NOW)) is None:  # not for tokens
            assert not listed[model].get("output_cost_per_token"), model
            continue
        cost = price.cost(used)
        assert cost is not None and 0 <= cost <= price.worst(250_000, 1000), model
        if listed[model].get("mode") == "chat" and not {"tiered_pricing", "off_peak_pricing"} & listed[model].keys():
            seen += 1
            assert price.cost(Usage(1000, 500)) == pytest.approx(plain(listed[model], 1000, 500) * 1e9, abs=1), model
    assert seen > 3000


def plain(entry: dict[str, Any], read: int, made: int) -> float:
    """USD, in floating point, by the three fields that a plain request is priced by."""
    names = ("input_cost_per_token", "output_cost_per_token", "input_cost_per_request")
    costs = [entry.get(name) or 0 for name in names]
    return float(costs[0] * read + costs[1] * made + costs[2])
