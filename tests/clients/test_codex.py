"""Codex without a terminal, at work in a folder on the word of a provider that is not OpenAI."""

from __future__ import annotations

import json
from pathlib import Path
from string import Template
from typing import Any

import pytest

from gateway.testing import GatewayProcess, ScriptedUpstream
from tests.clients.clients import KEY, NODE_MODULES, PROVIDERS, node, run
from tests.support.vendors import INPUT, OUTPUT, Step, Vendors

CONFIG = Template("""
model_provider = "gateway"
check_for_update_on_startup = false
[analytics]
enabled = false
[features]
plugins = false  # it would fetch their list from GitHub
[model_providers.gateway]
name = "gateway"
base_url = "$url/v1"
env_key = "GATEWAY_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
""")
Events = list[dict[str, Any]]


class Codex:
    """Its runs in ``folder``; skips the test where it is not installed."""

    def __init__(self, url: str, outside: str, home: Path) -> None:
        self.command = [*node(), str(NODE_MODULES / "@openai/codex/bin/codex.js"), "exec", "--json"]
        self.command += ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
        self.folder = home / "work"
        self.folder.mkdir()
        self._outside = outside
        self._env = {"HOME": str(home), "CODEX_HOME": str(home / "codex"), "GATEWAY_KEY": KEY}
        (home / "codex").mkdir()
        (home / "codex/config.toml").write_text(CONFIG.substitute(url=url))

    def ask(self, question: str, model: str, *arguments: str, **env: str) -> Events:
        command = [*self.command, "--model", model, *arguments, question]
        done = run(command, self.folder, self._outside, {**self._env, **env})
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert events, done.stderr
        return events


@pytest.fixture
def codex(gateway: GatewayProcess, outside: ScriptedUpstream, tmp_path: Path) -> Codex:
    return Codex(gateway.url, outside.url, tmp_path)


def items(events: Events, kind: str) -> Events:
    done = [event["item"] for event in events if event["type"] == "item.completed"]
    return [item for item in done if item["type"] == kind]


@pytest.mark.parametrize("provider_name", PROVIDERS)
def test_a_tool_loop(codex: Codex, vendors: Vendors, provider_name: str) -> None:
    vendors.plan = (
        (Step({"cmd": "printf 'roses\\nviolets\\n' > poem.txt"}, "exec_command"),),
        (Step({"cmd": "cat poem.txt"}, "exec_command"), Step({"cmd": "wc -l < poem.txt"}, "exec_command")),
        (Step({"target": "nobody"}, "multi_agent_v1__close_agent"),),  # a tool of a namespace
        (Step({"cmd": "sed -i s/roses/tulips/ poem.txt; head -1 poem.txt; exit 3"}, "exec_command"),),
    )
    events = codex.ask("Write a poem", f"by-{provider_name}")
    assert (codex.folder / "poem.txt").read_text() == "tulips\nviolets\n"
    commands = items(events, "command_execution")
    assert [item["exit_code"] for item in commands] == [0, 0, 0, 3]
    assert {item["aggregated_output"] for item in commands} == {"", "roses\nviolets\n", "2\n", "tulips\n"}
    (message,) = items(events, "agent_message")
    assert message["text"].startswith("The tools said: ") and "tulips" in message["text"]
    final = events[-1]
    assert final["type"] == "turn.completed", final
    assert (final["usage"]["input_tokens"], final["usage"]["output_tokens"]) == (5 * INPUT, 5 * OUTPUT)
    # Codex's own words for an agent it does not know: the call came back under its namespace.
    assert "unsupported call" not in (answer := vendors.asked[3].results[-1]) and "nobody" in answer, answer


@pytest.mark.parametrize(
    ("model", "env", "told"),
    [
        ("by-openai", {"GATEWAY_KEY": "hg-nobody"}, "401"),
        ("nobody", {}, "does not exist"),
        ("anthropic/status-429-codex", {}, "429"),
        ("anthropic/status-529-codex", {}, "529"),
    ],
    ids=["key", "model", "limit", "overloaded"],
)
def test_a_refusal_is_told(codex: Codex, vendors: Vendors, model: str, env: dict[str, str], told: str) -> None:
    final = codex.ask("Write a poem", model, **env)[-1]
    assert final["type"] == "turn.failed" and told in final["error"]["message"], final


def test_its_built_in_provider_falls_back_from_websockets_at_once(
    codex: Codex, gateway: GatewayProcess, vendors: Vendors
) -> None:
    vendors.plan = ((Step({"cmd": "echo roses"}, "exec_command"),),)
    more = ["-c", 'model_provider="openai"', "-c", f'openai_base_url="{gateway.url}/v1"']
    events = codex.ask("Write a poem", "by-anthropic", *more, OPENAI_API_KEY=KEY, CODEX_API_KEY=KEY)
    assert events[-1]["type"] == "turn.completed", events
    assert "roses" in items(events, "agent_message")[0]["text"]
