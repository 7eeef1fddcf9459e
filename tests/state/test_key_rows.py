"""What a row means is what its table in ``gateway.toml`` would mean, or nothing at all."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import attrs
import pytest

from gateway.exchange import Principal
from gateway.limits import Limit
from gateway.settings import Key, Team
from gateway.state.key_rows import Invalid, KeyRow, TeamRow

TEAM = TeamRow("red", "{}", 1, 1, 1)
NEW, OLD = "a" * 64, "b" * 64
TABLE: dict[str, Any] = {
    "models": ["gpt-*"], "requests_per_minute": 5, "tokens_per_minute": 6, "max_concurrency": 7,
    "budget": {"usd": 20, "per": "month"}, "limits": [{"tokens": 9, "per": "day", "models": ["m"]}],
    "on_disconnect": "drain",
}  # fmt: skip


def key_row(**facts: Any) -> KeyRow:
    given: dict[str, Any] = {
        "name": "alice", "allowance": "{}", "created": 1, "updated": 2, "change": 3, "sha256": NEW,
    }  # fmt: skip
    return KeyRow(**given | facts)


def test_a_key_may_do_what_its_table_would_let_it() -> None:
    ((digest, principal, ends),) = key_row(allowance=json.dumps(TABLE), team="red").read()
    assert (digest.hex(), ends) == (NEW, inf)
    budget, limit = Limit(usd=20, per="month"), Limit(tokens=9, per="day", models=("m",))
    inline = Key(
        sha256=NEW, models=("gpt-*",), requests_per_minute=5, tokens_per_minute=6, max_concurrency=7, budget=budget,
        limits=(limit,), team="red", on_disconnect="drain",
    )  # fmt: skip
    assert principal == inline.principal("alice")
    assert key_row().read()[0][1] == Principal("alice")


def test_a_table_comes_out_as_it_went_in() -> None:
    table = TABLE | {"team": "red", "blocked": True, "expires": 99}
    row = key_row().written(table)
    assert row.table() == table
    assert (row.team, row.blocked, row.expires) == ("red", True, 99)
    assert row.key().team == "red"
    assert key_row(blocked=0, team=None).table() == {}
    team = TEAM.written({"budget": {"usd": 1, "per": "day"}})
    assert team.table() == {"budget": {"usd": 1, "per": "day"}}
    assert team.read() == Team(budget=Limit(usd=1, per="day"))


def test_models_of_a_team_would_be_looked_at_by_nobody() -> None:
    for call in (TeamRow("red", '{"models": ["m"]}', 1, 1, 1).read, lambda: TEAM.written({"models": ["m"]})):
        with pytest.raises(Invalid, match="models: unknown key"):
            call()


def test_a_key_that_ended_long_ago_stays_ended() -> None:
    row = key_row(expires=0)
    assert row.table() == {"expires": 0}
    assert row.written({**row.table(), "models": ["m"]}).read()[0][2] == 0


def test_the_key_before_is_good_for_its_time() -> None:
    row = key_row(previous=OLD, previous_until=50)
    assert [(digest.hex(), ends) for digest, _, ends in row.read()] == [(NEW, inf), (OLD, 50)]
    assert [ends for _, _, ends in attrs.evolve(row, expires=40).read()] == [40, 40]
    assert [ends for _, _, ends in attrs.evolve(row, expires=60, previous_until=None).read()] == [60, 0]


def test_r11_a_row_that_is_shown_has_no_digest() -> None:
    assert NEW not in repr(key_row(previous=OLD)) and OLD not in repr(key_row(previous=OLD))
    assert "sha256" not in key_row().table()


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"modles": ["m"]}, "modles: unknown key. Did you mean 'models'?"),
        ({"models": "m"}, "models: expected a list, not a string."),
        ({"requests_per_minute": -1}, "requests_per_minute: 'requests_per_minute' must be >= 0"),
        ({"limits": [{"tokens": 1}]}, "limits[0].per: 'per': of tokens expected one of minute, hour, day."),
        ({"budget": {"usd": float("nan"), "per": "day"}}, "budget.usd: expected a number."),
        ({"expires": "soon"}, "expires: expected a whole number, not a string."),
        ({"expires": 1 << 60}, "expires: 'expires' must be <="),
        ({"blocked": "yes"}, "blocked: expected true or false, not a string."),
        ({"sha256": NEW}, "sha256: unknown key."),
        ({"models": "m", "team": ""}, "models: expected a list, not a string. team: "),
        ({"x\ny\u202e": 1}, "\ufffdy\ufffd\": unknown key."),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_told(table: dict[str, Any], problem: str) -> None:
    with pytest.raises(Invalid) as refused:
        key_row().written(table)
    assert problem in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", ["alice", "Zoë B.", "a@example.com", "x", "team-a_1+2", "é" * 128])
def test_names(name: str) -> None:
    assert key_row(name=name).read()[0][1].name == name


@pytest.mark.parametrize("name", ["", " a", "a ", "jwt:a", "a/b", "..", "a\n", "a\0", "x" * 129, "<a>", "'; --"])
def test_what_is_no_name(name: str) -> None:
    for row in (key_row(name=name), TeamRow(name, "{}", 1, 1, 1)):
        with pytest.raises(Invalid, match="name: expected"):
            row.read()


@pytest.mark.parametrize(
    "facts",
    [
        {"allowance": "{"}, {"allowance": "[]"}, {"allowance": "[" * 100_000}, {"allowance": '{"models": 1}'},
        {"sha256": ""}, {"sha256": "canary"}, {"sha256": NEW.upper()}, {"previous": "canary"}, {"expires": "canary"},
        {"team": b"canary"}, {"allowance": '{"blocked": 7}'},
    ],
    ids=str,
)  # fmt: skip
def test_a_row_that_somebody_spoilt_opens_nothing(facts: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        key_row(**facts).read()
    assert "canary" not in str(refused.value)
