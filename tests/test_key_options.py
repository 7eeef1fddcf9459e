from __future__ import annotations

import argparse
from typing import Any

import pytest

from gateway import key_options


def parse(kind: str, act: str, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    key_options.add(parser, kind, act)
    return parser.parse_args(arguments)


def table(kind: str, act: str, *arguments: str) -> dict[str, Any]:
    return key_options.table(parse(kind, act, "alice", *arguments))


def test_what_is_not_said_is_not_there() -> None:
    for kind in ("keys", "teams"):
        assert table(kind, "create") == table(kind, "update") == {}


def test_options_are_the_table_of_gateway_toml() -> None:
    given = (
        "--requests-per-minute", "0", "--tokens-per-minute", "6", "--max-concurrency", "7",
        "--budget", "20.5/month", "--limit", "tokens=1_000_000/day", "--limit", "concurrency=5",
    )  # fmt: skip
    wanted = {
        "requests_per_minute": 0, "tokens_per_minute": 6, "max_concurrency": 7,
        "budget": {"usd": 20.5, "per": "month"}, "limits": [{"tokens": 1_000_000, "per": "day"}, {"concurrency": 5}],
    }  # fmt: skip
    assert table("teams", "create", *given) == wanted
    own = ("--models", "gpt-*, llama3", "--team", "red", "--expires", "30d", "--on-disconnect", "drain")
    assert table("keys", "create", *given, *own) == wanted | {
        "models": ["gpt-*", "llama3"], "team": "red", "expires": "30d", "on_disconnect": "drain",
    }  # fmt: skip


def test_unset_takes_away() -> None:
    changed = table("keys", "update", "--unset", "limits", "--unset", "team", "--max-concurrency", "1")
    assert changed == {"limits": None, "team": None, "max_concurrency": 1}


@pytest.mark.parametrize(
    ("kind", "act", "arguments"),
    [
        ("keys", "create", ["--budget", "20"]), ("keys", "create", ["--budget", "1_0/day"]),
        ("keys", "create", ["--limit", "tokens"]), ("keys", "create", ["--limit", "tokens=_/day"]),
        ("keys", "create", ["--requests-per-minute", "many"]), ("teams", "update", ["--unset", "team"]),
        ("keys", "rotate", ["--grace", "long"]), ("keys", "create", ["--on-disconnect", "stay"]),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_value_is_told(kind: str, act: str, arguments: list[str]) -> None:
    with pytest.raises(argparse.ArgumentError):
        parse(kind, act, "alice", *arguments)


def test_what_else_there_is() -> None:
    assert parse("keys", "list").json is False and parse("teams", "list", "--json").json is True
    assert parse("keys", "rotate", "alice", "--grace", "1h").grace == 3600.0
    assert parse("keys", "rotate", "alice").grace == 0.0
    assert parse("keys", "expire", "alice").when == "0s"
    assert parse("keys", "expire", "alice", "2026-12-31").when == "2026-12-31"
