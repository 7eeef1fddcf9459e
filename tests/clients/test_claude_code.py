"""Claude Code without a terminal, at work in a folder on the word of a provider that is not Anthropic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.testing import GatewayProcess, ScriptedUpstream
from tests.clients.clients import KEY, NODE_MODULES, PROVIDERS, node, run
from tests.support.vendors import INPUT, OUTPUT, Step, Vendors

QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_AUTOUPDATER": "1",
    "CLAUDE_CODE_MAX_RETRIES": "0",
}


class ClaudeCode:
    """Its runs in ``folder``; skips the test where it is not installed."""

    def __init__(self, url: str, outside: str, home: Path) -> None:
        # Without the install script of the package its wrapper finds the program.
        self.command = [*node(), str(NODE_MODULES / "@anthropic-ai/claude-code/cli-wrapper.cjs")]
        self.folder = home / "work"
        self.folder.mkdir()
        self._outside = outside
        self._env = {
            **QUIET,
            "HOME": str(home),
            "CLAUDE_CONFIG_DIR": str(home / "claude"),
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": KEY,
        }

    def ask(self, question: str, model: str, **env: str) -> list[dict[str, Any]]:
        """The events of a run, of which the last one is its result."""
        arguments = ["-p", question, "--model", model, "--allowedTools", "Bash,Read,Write"]
        arguments += ["--output-format", "stream-json", "--verbose"]
        done = run([*self.command, *arguments], self.folder, self._outside, {**self._env, **env})
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert events, done.stderr
        return events


@pytest.fixture
def claude(gateway: GatewayProcess, outside: ScriptedUpstream, tmp_path: Path) -> ClaudeCode:
    return ClaudeCode(gateway.url, outside.url, tmp_path)


def results(events: list[dict[str, Any]]) -> list[Any]:
    """What its tools gave, in the order it said so."""
    messages = [event["message"]["content"] for event in events if event["type"] == "user"]
    return [block for blocks in messages for block in blocks if block["type"] == "tool_result"]


@pytest.mark.parametrize("provider_name", PROVIDERS)
def test_a_tool_loop(claude: ClaudeCode, vendors: Vendors, provider_name: str) -> None:
    path = str(claude.folder / "poem.txt")
    vendors.plan = (
        (Step({"file_path": path, "content": "roses\nviolets\n"}, "Write"),),
        (Step({"file_path": path}, "Read"), Step({"command": "wc -l < poem.txt", "description": "Count"}, "Bash")),
        (Step({"command": "cat missing.txt", "description": "Fail"}, "Bash"),),
        (Step({"command": "sed -i s/roses/tulips/ poem.txt; head -1 poem.txt", "description": "Edit"}, "Bash"),),
    )
    events = claude.ask("Write a poem", f"by-{provider_name}")
    final = events[-1]
    assert (final["subtype"], final["is_error"], final["stop_reason"]) == ("success", False, "end_turn")
    assert final["result"].startswith("The tools said: ") and "tulips" in final["result"]
    assert (claude.folder / "poem.txt").read_text() == "tulips\nviolets\n"
    written, read, counted, failed, edited = results(events)
    assert "violets" in read["content"] and counted["content"] == "2" and edited["content"] == "tulips"
    assert not written.get("is_error") and failed["is_error"]
    usage = final["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (5 * INPUT, 5 * OUTPUT)
    assert all(asked.stream and asked.model == f"by-{provider_name}" for asked in vendors.asked)


@pytest.mark.parametrize(
    ("model", "env", "status"),
    [
        ("by-openai", {"ANTHROPIC_API_KEY": "hg-nobody"}, 401),
        ("nobody", {}, 404),
        ("openai/status-429-claude", {}, 429),
        ("openai/status-529-claude", {}, 529),
    ],
    ids=["key", "model", "limit", "overloaded"],
)
def test_a_refusal_is_told(claude: ClaudeCode, vendors: Vendors, model: str, env: dict[str, str], status: int) -> None:
    final = claude.ask("Write a poem", model, **env)[-1]
    assert final["is_error"] and final["api_error_status"] == status, final
