"""A price list in the format of LiteLLM's ``model_prices_and_context_window.json``: read, checked, looked up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from gateway.pricing.entries import is_price, mistake
from gateway.pricing.vendors import Vendor

Table = dict[str, dict[str, Any]]
_SAMPLE = "sample_spec"  # LiteLLM's explanation of its own format
_KEPT = ("litellm_provider", "max_output_tokens", "max_input_tokens")


def read(path: Path) -> tuple[Table, list[str]]:
    """The models with the fields that tell prices, and what is wrong with the file; a model in error is left out."""
    try:
        listed = orjson.loads(path.read_bytes())
    except OSError as error:
        return {}, [f"cannot be read: {error.strerror}."]
    except ValueError as error:
        return {}, [f"is not JSON: {error}."]
    if not isinstance(listed, dict):
        return {}, ["is not an object of models."]
    table: Table = {}
    mistakes = []
    for model, entry in listed.items():
        if model == _SAMPLE:
            continue
        if (wrong := mistake(entry)) is not None:
            mistakes.append(f"model '{model}': {wrong}")
        else:
            table[model] = {name: value for name, value in entry.items() if name in _KEPT or is_price(name)}
    return table, mistakes


def entry_for(
    table: Mapping[str, dict[str, Any]], provider: str, vendor: Vendor | None, model: str
) -> tuple[str, dict[str, Any]] | None:
    """The model's entry with its key: under the provider's own name, under one of its vendor's, or the model's alone if
    the entry says it is of this vendor."""
    if model.startswith("ft:"):
        model = ":".join(model.split(":")[:2])  # ft:MODEL:ORGANISATION:NAME:ID is listed as ft:MODEL
    keys = [f"{provider}/{model}", *(vendor.keys(model) if vendor is not None else ())]
    for key in keys:
        if key in table:
            return key, table[key]
    bare = table.get(model)
    if bare is not None and vendor is not None and vendor.is_bare(bare.get("litellm_provider")):
        return model, bare
    return None
