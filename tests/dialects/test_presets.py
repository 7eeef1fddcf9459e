"""Presets: what each of them never sends, what it renames, how its streams may end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.dialects.presets import PRESETS, Preset
from gateway.testing import GatewayFactory, GatewayProcess, ScriptedUpstream, chat_stream, free_ports
from tests.contract.clients import CLIENTS
from tests.contract.spoken import TEXT

ALL = {
    "model": "m", "messages": [{"role": "developer", "content": "be short"}, {"role": "user", "content": "hi"}],
    "metadata": {"a": "b"}, "prompt_cache_key": "k", "prompt_cache_options": {}, "prompt_cache_retention": "24h",
    "safety_identifier": "s", "service_tier": "auto", "store": True, "verbosity": "low", "web_search_options": {},
    "prediction": {"type": "content", "content": "x"}, "moderation": {}, "user": "u", "logprobs": True,
    "top_logprobs": 2, "logit_bias": {"1": 1}, "seed": 7, "temperature": 0.5, "n": 1, "stream": True,
    "stream_options": {"include_usage": True}, "tools": [], "response_format": {"type": "json_object"},
}  # fmt: skip
EVERY = pytest.mark.parametrize("name", sorted(PRESETS))


@EVERY
def test_a_field_it_refuses_is_never_sent_and_always_named(name: str) -> None:
    preset = PRESETS[name]
    fitted, dropped = preset.fit(dict(ALL))
    assert not preset.refuses & set(fitted)
    assert set(dropped) == (preset.refuses & set(ALL)) - {"stream_options"}
    kept = {preset.names.get(field, field) for field in ALL if field not in preset.refuses}
    assert set(fitted) == kept


@EVERY
def test_a_renamed_field_keeps_its_value(name: str) -> None:
    fitted, _ = PRESETS[name].fit(dict(ALL))
    for field, own in PRESETS[name].names.items():
        assert fitted[own] == ALL[field] and field not in fitted


@EVERY
def test_developer_messages_reach_every_server(name: str) -> None:
    fitted, _ = PRESETS[name].fit(dict(ALL))
    roles = [message["role"] for message in fitted["messages"]]
    assert roles == (["developer", "user"] if PRESETS[name].developer else ["system", "user"])
    assert ALL["messages"][0]["role"] == "developer"  # type: ignore[index]


@EVERY
def test_each_knows_its_address(name: str) -> None:
    address = PRESETS[name].base_url
    assert address.startswith("https://" if name not in LOCAL else "http://127.0.0.1:")


LOCAL = {"vllm", "llama_cpp", "lmstudio", "sglang", "ollama"}


def test_without_a_preset_nothing_is_held_back() -> None:
    assert Preset().fit(dict(ALL)) == (ALL, [])


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, port: int) -> GatewayProcess:
    table = '[providers.{0}]\ntype = "openai_compat"\npreset = "{0}"\nbase_url = "http://127.0.0.1:$port/v1"\n'
    config = "[retry]\nattempts = 1\n" + "".join(table.format(name) for name in sorted(PRESETS))
    config += table.format("groq").replace("[providers.groq]", "[providers.unmarked]") + "done_marker = false\n"
    return shared_gateway_server(config, port=str(port))


@pytest.fixture
async def upstream(port: int) -> Any:
    async with ScriptedUpstream(chat_stream(3), port=port, models=()) as scripted:
        yield scripted


@EVERY
async def test_what_is_sent_for_clients_of_anthropic(
    gateway: GatewayProcess, upstream: ScriptedUpstream, name: str
) -> None:
    preset = PRESETS[name]
    for stream in (False, True):
        await CLIENTS["messages"].send(gateway, f"{name}/m", stream)
        call = upstream.calls[-1]
        if preset.messages:
            assert call.target == "/v1/messages"
            continue
        assert call.target == "/v1/chat/completions"
        assert not preset.refuses & set(call.json)
        assert ("stream_options" in call.json) is (stream and preset.stream_usage)
        limit = "max_tokens" if preset.capabilities.get("max_completion_tokens") is False else "max_completion_tokens"
        assert call.json[limit] == 50


@pytest.mark.parametrize("done", [True, False], ids=["DONE", "no DONE"])
@pytest.mark.parametrize("client", ["chat", "messages"])
async def test_a_stream_may_lack_its_marker_where_the_server_is_known_for_it(
    gateway: GatewayProcess, upstream: ScriptedUpstream, client: str, done: bool
) -> None:
    upstream.script = chat_stream(3, done=done)
    reply = await CLIENTS[client].send(gateway, "unmarked/m", True)
    assert CLIENTS[client].text(reply, True) == TEXT


def test_a_misspelt_preset_is_told_with_the_right_name(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text('[providers.p]\ntype = "openai_compat"\npreset = "mistrel"\n')
    config.chmod(0o600)
    ended = subprocess.run(
        [sys.executable, "-m", "gateway", "check", "--config", str(config)],
        capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert ended.returncode == 1
    assert f"{config}:3: providers.p.preset" in ended.stderr and "Did you mean 'mistral'?" in ended.stderr
