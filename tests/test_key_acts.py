"""What ``gateway keys`` and ``gateway teams`` do, and what ``check`` and ``explain`` know of keys in the database."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from tests.support.keys import digest, ring

CONFIG = """
[state]
keys = true
[providers.echo]
type = "echo"
[models.m]
targets = [{ provider = "echo" }]
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "gateway.toml"
    path.touch(mode=0o600)
    path.write_text(CONFIG)
    return path


class Command:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, line: str, status: int = 0) -> str:
        """All that it prints."""
        assert main(line.split()) == status
        printed = self._capsys.readouterr()
        return printed.out + printed.err

    def key(self, line: str) -> str:
        (key,) = re.findall(r"^  (hg-\S{43})$", self(line), re.MULTILINE)
        return str(key)

    def show(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self(f"keys show {name}"))
        return {field: found[field] for field in found if field not in ("created", "updated")}


@pytest.fixture
def command(config: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def opens() -> dict[bytes, float]:
    """Digests in the database, and when they end."""

    async def read() -> dict[bytes, float]:
        async with ring("sqlite:///gateway.db") as keyring:
            return {digest: ends for digest, _, ends in keyring.holders.values()}

    return asyncio.run(read())


def spoil(sql: str) -> None:
    with sqlite3.connect("gateway.db") as connection:
        connection.execute(sql)
    connection.close()


def test_a_key_has_a_life(command: Command) -> None:
    key = command.key("keys create alice --models m,n --max-concurrency 3 --expires 30d")
    assert command.show("alice") | {"expires": ""} == {
        "name": "alice", "state": "ok", "models": ["m", "n"], "max_concurrency": 3, "expires": "",
    }  # fmt: skip
    assert list(opens()) == [digest(key)]
    assert command("keys update alice --models m --unset expires --unset max_concurrency").startswith("key 'alice' ")
    assert command.show("alice") == {"name": "alice", "state": "ok", "models": ["m"]}
    new = command.key("keys rotate alice --grace 1h")
    ends = opens()
    assert set(ends) == {digest(key), digest(new)}
    assert 3500 < ends[digest(key)] - time.time() <= 3600
    assert "blocked" in command("keys block alice")
    assert command.show("alice")["state"] == "blocked" and not opens()
    command("keys unblock alice")
    command("keys expire alice 2026-01-01")
    assert command.show("alice")["state"] == "expired"
    command("keys expire alice")
    assert max(opens().values()) <= time.time()
    assert "removed" in command("keys delete alice")
    assert not opens()
    command("keys show alice", 1)


def test_a_team_has_one_too(command: Command) -> None:
    command("teams create red --budget 20/month")
    command("keys create alice --team red")
    assert json.loads(command("teams show red"))["budget"] == {"usd": 20, "per": "month"}
    command("teams update red --unset budget --requests-per-minute 5")
    (team,) = json.loads(command("teams list --json"))
    assert (team["name"], team["state"], team["requests_per_minute"], "budget" in team) == ("red", "ok", 5, False)
    assert command("teams delete red", 1) == "Team 'red' has members: alice\n"
    command("keys update alice --unset team")
    command("teams delete red")
    assert json.loads(command("teams list --json")) == []


def test_r11_a_key_is_printed_once(command: Command) -> None:
    key = command.key("keys create alice")
    for line in ("keys list", "keys list --json", "keys show alice", "keys block alice", "keys delete alice"):
        printed = command(line)
        assert key not in printed and digest(key).hex() not in printed


def test_the_list_says_which_count(command: Command, config: Path) -> None:
    for name in ("alice", "bob", "carl", "dora"):
        command(f"keys create {name}")
    command("keys block bob")
    config.write_text(f'{CONFIG}[keys.carl]\nsha256 = "{"c" * 64}"\n[keys.zoe]\nsha256 = "{"d" * 64}"\nteam = "x"\n')
    spoil("UPDATE hookgate_keys SET allowance = '[]' WHERE name = 'dora'")
    rows = [re.split(" {2,}", line) for line in command("keys list").splitlines()]
    assert rows == [
        ["name", "state", "team", "expires", "models", "problem"],
        ["alice", "ok", "-", "-", "*"],
        ["bob", "blocked", "-", "-", "*"],
        ["carl", "gateway.toml", "-", "-", "*"],
        ["carl", "refused", "-", "-", "*", "gateway.toml has one of this name, which counts instead."],
        ["dora", "refused", "-", "-", "*", "allowance: expected a JSON object."],
        ["zoe", "gateway.toml", "x", "-", "*", "team: there is no team 'x'."],
    ]


def test_check_says_which_do_not_count(command: Command, config: Path) -> None:
    assert command("check") == "gateway.toml: no problems\n", "no database yet is no problem"
    command("keys create alice")
    assert command("check") == "gateway.toml: no problems\n"
    config.write_text(f'{CONFIG}[keys.alice]\nsha256 = "{"c" * 64}"\n')
    assert command("check") == (
        "warning: gateway.toml:8: key 'alice' is not accepted: gateway.toml has one of this name, which counts instead."
        "\ngateway.toml: no problems\n"
    )
    Path("gateway.db").write_bytes(b"no database, but longer than its header would be" * 99)
    assert "warning: gateway.toml:2: state.ledger: sqlite:///" in command("check")


def test_explain_knows_them(command: Command, config: Path) -> None:
    command("teams create red --max-concurrency 9")
    command("keys create alice --models m --requests-per-minute 7 --team red")
    said = command("explain --key alice --model m")
    assert "'m' matches, keys.alice.models (the database)" in said
    assert "keys.alice.requests_per_minute (the database)" in said
    assert "teams.red.max_concurrency (the database)" in said
    assert "none of 'm' matches" in command("explain --key alice --model other", 1)
    assert command("explain --key nobody --model m", 1) == "there is no key 'nobody'.\n"
    assert command("explain --model m", 1) == (
        "401: this gateway asks for a key; name one with --key: one of gateway keys list.\n"
    )
    command("keys block alice")
    assert command("explain --key alice --model m", 1) == "401: key 'alice' is blocked.\n"
    command("keys unblock alice")
    spoil("UPDATE hookgate_keys SET allowance = '[]'")
    assert command("explain --key alice --model m", 1) == (
        "401: key 'alice' is refused. allowance: expected a JSON object.\n"
    )


def test_explain_knows_the_teams_of_keys_in_gateway_toml(command: Command, config: Path) -> None:
    config.write_text(f'{CONFIG}[keys.alice]\nsha256 = "{"c" * 64}"\nteam = "red"\n[keys.bob]\nsha256 = "{"d" * 64}"\n')
    assert "keys.bob" in command("explain --key bob --model m"), "nothing of it is in the database"
    assert "No such file" in command("explain --key alice --model m", 1)
    command("teams create blue")
    assert command("explain --key alice --model m", 1) == (
        "401: key 'alice' is not accepted: team: there is no team 'red'.\n"
    )
    command("teams create red --max-concurrency 9")
    assert "teams.red.max_concurrency (the database)" in command("explain --key alice --model m")
