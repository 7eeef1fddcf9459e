"""Whose prices hold at a provider."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.presets import PRESETS
from gateway.pricing.vendors import Vendor, address_of, vendor_of

AT_HOME = {"huggingface", "vllm", "llama_cpp", "lmstudio", "sglang"}
"""Presets of servers whose operator alone knows the price, or that pass on to many vendors."""


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_of_a_vendor_has_its_prices(preset: str) -> None:
    vendor = vendor_of("openai_compat", address_of({"preset": preset}))
    assert (vendor is None) == (preset in AT_HOME)


@pytest.mark.parametrize(
    ("kind", "url", "genai"),
    [
        ("openai_compat", "https://api.openai.com/v1", "openai"),
        ("openai_compat", "https://API.GROQ.com/openai/v1", "groq"),
        ("openai_compat", "https://acme.openai.azure.com/openai/v1", "azure"),
        ("openai_compat", "https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1", "aws"),
        ("openai_compat", "https://ec2-1-2-3-4.compute.amazonaws.com/v1", None),
        ("openai_compat", "https://us-central1-aiplatform.googleapis.com/v1", "google"),
        ("openai_compat", "https://api.openai.com.evil.test/v1", None),
        ("openai_compat", "https://notapi.openai.com.test", None),
        ("openai_compat", "http://127.0.0.1:8000/v1", None),
        ("openai_compat", "http://[", None),
        ("openai_compat", "", None),
        ("anthropic", "", "anthropic"),
        ("anthropic", "https://llm.example.com/anthropic", "anthropic"),
        ("anthropic", "https://api.deepseek.com/anthropic", "deepseek"),
        ("gemini", "", "google"), ("vertex", "", "google"), ("bedrock", "", "aws"), ("cohere", "", "cohere"),
        ("azure_openai", "https://gpt.example.com", "azure"),
        ("my_own", "", None),
    ],
)  # fmt: skip
def test_the_address_decides_then_the_type(kind: str, url: str, genai: str | None) -> None:
    vendor = vendor_of(kind, url)
    assert (vendor and vendor.genai) == genai


@pytest.mark.parametrize(
    ("table", "url"),
    [
        ({"base_url": "http://a", "preset": "groq"}, "http://a"), ({"preset": "groq"}, PRESETS["groq"].base_url),
        ({}, ""), ({"base_url": 1, "preset": []}, ""), ({"preset": "gork"}, ""),
    ],
)  # fmt: skip
def test_an_address_is_a_table_s_own_or_its_preset_s(table: dict[str, Any], url: str) -> None:
    assert address_of(table) == url


def test_a_bare_name_is_a_vendor_s_if_the_list_says_so() -> None:
    vendor = Vendor("google", ("vertex_ai",), ("vertex_ai",))
    assert vendor.is_bare("vertex_ai-language-models") and vendor.is_bare("vertex_ai")
    assert not vendor.is_bare("vertex_ai_beta") and not vendor.is_bare("gemini") and not vendor.is_bare(None)
    assert list(vendor.keys("gemini-2.5-pro")) == ["vertex_ai/gemini-2.5-pro"]
