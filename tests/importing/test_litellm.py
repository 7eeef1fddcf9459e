"""A whole configuration of LiteLLM: what is written holds, starts, and has nothing of its secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import config
from gateway.cli import main
from gateway.errors import ConfigError
from gateway.importing.litellm import convert
from gateway.importing.notes import Notes
from gateway.importing.source import Source
from gateway.importing.toml_text import write
from gateway.testing import GatewayFactory, ScriptedUpstream, chat, fetch_chat
from tests.support.importing import converted
from tests.support.programs import ROOT

SAMPLES = sorted((ROOT / "tests/importing/data").glob("*.yaml"))
SECRETS = ("hunter2", "very-secret", "sk-", "0a1b2c3d")


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_what_is_written_passes_the_check_without_any_variable(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["import", "litellm", str(sample), "-o", "gateway.toml"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert all(line.startswith(f"{sample}:") for line in told.err.splitlines())
    assert not [secret for secret in SECRETS if secret in told.err + Path("gateway.toml").read_text()]
    assert main(["check"]) == 0, capsys.readouterr().err


def test_the_team_keeps_its_names_and_their_order() -> None:
    document, _ = converted((ROOT / "tests/importing/data/team.yaml").read_text())
    assert list(document["models"]) == ["gpt-4o", "claude", "gemini-pro", "local", "local-qwen", "embed", "gpt-4"]
    assert [target["provider"] for target in document["models"]["gpt-4o"]["targets"]] == ["azure", "azure-2", "openai"]
    assert document["models"]["gpt-4"]["fallbacks"] == ["claude", "local"]
    assert document["plugins"]["rate_limit"]["total"] == [
        {"requests": 2100, "per": "minute", "models": ["gpt-4o", "gpt-4"]},
        {"usd": 500, "per": "month"},
    ]
    assert document["state"] == {"redis": "env:HOOKGATE_REDIS_URL?", "ledger": "env:DATABASE_URL?"}
    assert document["prices"]["models"] == {"cohere/embed-v4.0": {"input": 0.12, "output": 0}}
    assert document["providers"]["cohere"]["api_key"] == "env:COHERE_TEAM_KEY?"
    assert document["providers"]["openai"]["timeouts"] == {"first_token": 30, "idle": 10}


def test_limits_that_are_shorter_here_are_told() -> None:
    entry = "model_list: [{model_name: a, litellm_params: {model: groq/a}}]\n"
    assert converted(entry)[1][0].startswith("x: LiteLLM waits for minutes where no timeout is given")
    assert converted(f"{entry}litellm_settings: {{request_timeout: 600}}\n")[1] == []


@pytest.mark.parametrize("text", ["", "- a", "just text"])
def test_something_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a configuration of LiteLLM"):
        converted(text)


@pytest.mark.parametrize("entry", ["x", "{model_name: a}", "{litellm_params: {model: groq/a}}", "{model_name: [a]}"])
def test_an_element_without_a_name_or_parameters_is_told(entry: str) -> None:
    assert converted(f"model_list:\n- {entry}\n")[1] == ["x:2: left out: expected a model_name and litellm_params."]


@pytest.mark.parametrize("name", ["model_list", "router_settings", "litellm_settings", "general_settings"])
@pytest.mark.parametrize("value", ["x", "[x]", "{x: [{y: z}]}", "3"])
def test_sections_of_another_shape_do_no_harm(name: str, value: str) -> None:
    assert "plugins" in converted(f"{name}: {value}\n")[0]


MODELS = (
    "gpt-4o",
    "azure/x",
    "bedrock/eu-west-1/y",
    "vertex_ai/claude-x",
    "groq/*",
    "*",
    "openai/*",
    "ollama/l",
    "?/x",
)
NAMES = st.sampled_from(["a", "b", "*", "groq/*", "c [d]", "", "é\x7f"])
VALUES = ("os.environ/KEY", "os.environ/BASE", "http://h:1/v1", "https://u:p@h", "5", "/run/x", "30d", "redis", *MODELS)
INNER = ("type", "host", "port", "db", "url", "namespace", "ttl", "supported_call_types", "rpm_limit", "max_budget")
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(VALUES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=3)
    | st.dictionaries(st.sampled_from(INNER), inner, max_size=4),
    max_leaves=6,
)  # fmt: skip
PARAMETERS = (
    "api_base api_key api_version azure_ad_token tenant_id organization extra_headers timeout stream_timeout weight "
    "order rpm tpm max_parallel_requests aws_region_name aws_access_key_id aws_secret_access_key aws_session_token "
    "vertex_project vertex_location vertex_credentials litellm_credential_name custom_llm_provider temperature "
    "max_budget budget_duration input_cost_per_token output_cost_per_token cache_read_input_token_cost "
    "input_cost_per_token_above_200k_tokens output_cost_per_token_flex"
).split()
SETTINGS = (
    "num_retries allowed_fails cooldown_time disable_cooldowns fallbacks default_fallbacks cache ttl "
    "cache_params model_group_alias timeout request_timeout default_max_parallel_requests drop_params "
    "max_request_size_mb routing_strategy redis_url redis_host redis_port redis_password redis_db database_url "
    "max_budget budget_duration default_key_generate_params global_max_parallel_requests"
).split()


def some(keys: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(keys), ODD, max_size=6)


DEPLOYMENT = st.builds(
    lambda name, model, more, info: {
        "model_name": name, "litellm_params": {"model": model, **more}, "model_info": info
    },
    NAMES, st.sampled_from(MODELS) | ODD, some(PARAMETERS), some([*PARAMETERS, "mode", "max_output_tokens"]) | ODD,
)  # fmt: skip
CONFIGURATION = st.fixed_dictionaries(
    {
        "model_list": st.lists(DEPLOYMENT | ODD, max_size=4),
        "router_settings": some(SETTINGS) | ODD,
        "litellm_settings": some(SETTINGS) | ODD,
        "general_settings": some(SETTINGS) | ODD,
    }
)


@given(CONFIGURATION)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_there_the_core_takes_what_is_written(tmp_path: Path, data: dict[str, Any]) -> None:
    notes = Notes()
    document = convert(Source(data, {}), {"BASE": "https://r.example"}, notes)
    path = tmp_path / "gateway.toml"
    path.write_text(write(document))
    _, read = config.load(path, {})
    assert read.problems == []
    assert all(line.isprintable() for line in notes.told("x"))


async def test_an_imported_gateway_calls_what_the_other_called(gateway_server: GatewayFactory, tmp_path: Path) -> None:
    async with ScriptedUpstream(chat()) as upstream:
        source = tmp_path / "config.yaml"
        source.write_text(
            "model_list:\n- model_name: mine\n  litellm_params:\n    model: openai/theirs\n"
            f"    api_base: {upstream.url}\n    api_key: os.environ/IMPORTED_KEY\n    rpm: 1\n"
        )
        assert main(["import", "litellm", str(source), "-o", str(tmp_path / "imported.toml")]) == 0
        gateway = gateway_server((tmp_path / "imported.toml").read_text(), env={"IMPORTED_KEY": "the-key"})
        assert (await fetch_chat(gateway.url, "mine")).status == 200
        (call,) = upstream.calls
        assert call.header("authorization") == "Bearer the-key"
        assert call.json["model"] == "theirs"
        assert (await fetch_chat(gateway.url, "mine")).status == 429
        assert len(upstream.calls) == 1


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_what_is_written_starts(sample: Path, gateway_server: GatewayFactory, tmp_path: Path) -> None:
    main(["import", "litellm", str(sample), "-o", str(tmp_path / "imported.toml")])
    gateway_server((tmp_path / "imported.toml").read_text())
