"""Vendors as provider tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.dialects.presets import PRESETS
from gateway.importing import toml_text
from gateway.importing.vendors import PLACEHOLDER, VENDORS
from tests.support.importing import converted, deployment
from tests.support.programs import ROOT


@pytest.mark.parametrize(
    ("params", "table"),
    [
        ("model: gpt-4o", {"type": "openai_compat", "preset": "openai", "api_key": "env:OPENAI_API_KEY?"}),
        (
            "model: openai/Qwen/Qwen3, api_base: 'http://h:8000/v1/', api_key: os.environ/K",
            {"type": "openai_compat", "base_url": "http://h:8000/v1", "api_key": "env:K?"},
        ),
        (
            "model: azure/d, api_base: 'https://r.openai.azure.com/openai/deployments/d', api_version: latest",
            {
                "type": "azure_openai", "base_url": "https://r.openai.azure.com", "api_version": "v1",
                "api_key": "env:AZURE_API_KEY?",
            },
        ),
        (
            "model: azure/d, api_base: 'https://r.openai.azure.com', azure_ad_token: os.environ/T",
            {"type": "azure_openai", "base_url": "https://r.openai.azure.com", "token": "env:T?"},
        ),
        (
            "model: anthropic/claude-x, api_base: 'https://a.example/v1/messages'",
            {"type": "anthropic", "base_url": "https://a.example/v1", "api_key": "env:ANTHROPIC_API_KEY?"},
        ),
        ("model: claude-x, custom_llm_provider: bedrock, aws_region_name: eu-west-1",
         {"type": "bedrock", "region": "eu-west-1"}),
        ("model: bedrock/us-west-2/meta.llama3", {"type": "bedrock", "region": "us-west-2"}),
        (
            "model: vertex_ai/claude-x, vertex_project: p, vertex_location: us-east5",
            {"type": "vertex", "project": "p", "location": "us-east5", "publisher": "anthropic"},
        ),
        ("model: gemini/g, api_key: os.environ/G", {"type": "gemini", "api_key": "env:G?"}),
        ("model: cohere_chat/command-r, api_base: 'https://api.cohere.com/v2/chat'",
         {"type": "cohere", "base_url": "https://api.cohere.com", "api_key": "env:COHERE_API_KEY?"}),
        ("model: ollama_chat/l, api_base: 'http://h:11434/api'", {"type": "ollama", "base_url": "http://h:11434"}),
        ("model: groq/l", {"type": "openai_compat", "preset": "groq", "api_key": "env:GROQ_API_KEY?"}),
        (
            "model: hosted_vllm/l, api_base: 'http://h/v1', timeout: 5, headers: {X-A: b}",
            {
                "type": "openai_compat", "preset": "vllm", "base_url": "http://h/v1",
                "api_key": "env:HOSTED_VLLM_API_KEY?", "headers": {"X-A": "b"},
                "timeouts": {"first_token": 5, "idle": 5},
            },
        ),
    ],
)  # fmt: skip
def test_a_deployment_becomes_a_table(params: str, table: dict[str, Any]) -> None:
    assert deployment(params)[0] == table


def test_the_address_comes_from_the_environment_or_is_a_placeholder() -> None:
    params = "model: azure/d, api_base: os.environ/BASE"
    assert deployment(params, {"BASE": "https://r.openai.azure.com/"})[0]["base_url"] == "https://r.openai.azure.com"
    provider, told = deployment(params)
    assert provider["base_url"] == PLACEHOLDER
    assert any("x:3: api_base: no address is known" in line for line in told)


@pytest.mark.parametrize(
    "base", ["http://u:hunter2@h/v1", "http://h/v1?key=hunter2", "h/v1?hunter2", "http://[hunter2"]
)
def test_an_address_brings_no_credential(base: str) -> None:
    provider, told = deployment(f"model: openai/x, api_base: '{base}'")
    assert provider["base_url"] in ("http://h/v1", PLACEHOLDER)
    assert "hunter2" not in f"{provider}{told}"
    assert any("api_base: " in line for line in told)


def test_openais_key_is_not_sent_elsewhere_by_default() -> None:
    provider, told = deployment("model: openai/x, api_base: 'http://h/v1'")
    assert "api_key" not in provider
    assert any("OPENAI_API_KEY is not sent" in line for line in told)


def test_headers_that_may_be_secret_are_told_and_not_copied() -> None:
    headers = "{Authorization: hunter2, X-A: os.environ/hunter2, X-B: sk-hunter2, X-C: plain, 'bad name': hunter2}"
    provider, told = deployment(f"model: groq/x, extra_headers: {headers}")
    assert provider["headers"] == {"X-C": "plain"}
    assert "hunter2" not in f"{provider}{told}"
    assert sum("extra_headers: " in line for line in told) == 4


def test_client_credentials_of_azure_are_told() -> None:
    provider, told = deployment(
        "model: azure/x, api_base: 'https://r', tenant_id: t, client_id: c, client_secret: hunter2"
    )
    assert "hunter2" not in f"{provider}{told}"
    assert any("entra = {" in line for line in told)


def test_presets_exist() -> None:
    assert {vendor.preset for vendor in VENDORS.values()} - {None} <= set(PRESETS)


def test_every_vendor_makes_a_provider_that_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("OPENAI_API_KEY", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    entries = "".join(f"- {{model_name: {name}-m, litellm_params: {{model: {name}/m}}}}\n" for name in VENDORS)
    document, _ = converted(f"model_list:\n{entries}")
    assert len(document["providers"]) == len(document["models"]) == len(VENDORS)
    config = tmp_path / "gateway.toml"
    config.write_text(toml_text.write(document))
    monkeypatch.chdir(ROOT)
    assert main(["check", "--config", str(config)]) == 0, capsys.readouterr().err
