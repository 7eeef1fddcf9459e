from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.key_entries import date, entry, moment, wanted
from gateway.state.key_rows import Invalid, KeyRow, TeamRow

NOW = 1_800_000_000.0


def key_row(**facts: Any) -> KeyRow:
    given: dict[str, Any] = {
        "name": "alice", "allowance": '{"models": ["m"]}', "created": 0, "updated": 1, "change": 3, "sha256": "a" * 64,
    }  # fmt: skip
    return KeyRow(**given | facts)


@pytest.mark.parametrize(
    ("facts", "problem", "state"),
    [
        ({}, "", "ok"), ({"blocked": True}, "", "blocked"), ({"expires": int(NOW)}, "", "expired"),
        ({"expires": int(NOW) + 1}, "", "ok"), ({}, "no team", "refused"), ({"blocked": True}, "no team", "blocked"),
    ],
)  # fmt: skip
def test_how_a_key_is(facts: dict[str, Any], problem: str, state: str) -> None:
    shown = entry(key_row(**facts), problem, NOW)
    assert (shown["state"], shown.get("problem", "")) == (state, problem)


def test_a_key_is_shown_as_its_table_with_dates() -> None:
    shown = entry(key_row(team="red", expires=1_900_000_000, previous="b" * 64, previous_until=int(NOW) + 9), "", NOW)
    assert shown == {
        "name": "alice", "state": "ok", "models": ["m"], "team": "red", "expires": "2030-03-17T17:46:40Z",
        "created": "1970-01-01T00:00:00Z", "updated": "1970-01-01T00:00:01Z", "previous_until": date(int(NOW) + 9),
    }  # fmt: skip
    assert "previous_until" not in entry(key_row(previous="b" * 64, previous_until=int(NOW)), "", NOW)


def test_r11_no_digest_is_shown() -> None:
    shown = json.dumps(entry(key_row(previous="b" * 64, previous_until=int(NOW) + 9), "x", NOW))
    assert "a" * 64 not in shown and "b" * 64 not in shown


def test_a_team_and_what_makes_no_sense_are_shown_too() -> None:
    assert entry(TeamRow("red", '{"max_concurrency": 3}', 0, 0, 1), "", NOW)["max_concurrency"] == 3
    assert entry(key_row(allowance="spoilt"), "allowance: …", NOW)["state"] == "refused"


@pytest.mark.parametrize(
    ("text", "unix"),
    [
        ("30d", NOW + 30 * 86400), ("0s", NOW), ("2026-12-31", 1_798_675_200), ("2026-12-31T12:00Z", 1_798_718_400),
        ("2026-12-31T12:00+02:00", 1_798_711_200), ("2026-12-31 12:00", 1_798_718_400),
    ],
)  # fmt: skip
def test_when_a_key_ends(text: str, unix: float) -> None:
    assert moment(text, NOW) == unix
    assert wanted({"expires": text, "models": ["m"]}, NOW) == {"expires": unix, "models": ["m"]}
    assert moment(date(int(unix)), NOW) == unix


@pytest.mark.parametrize("text", ["", "soon", "31.12.2026", "-1d", "2026-13-01", "9" * 400])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(Invalid, match="expires: expected a date such as"):
        moment(text, NOW)


def test_what_is_no_text_is_left_to_others() -> None:
    assert wanted({"expires": None}, NOW) == {"expires": None}
    assert wanted({"expires": 5}, NOW) == {"expires": 5}
    assert wanted({}, NOW) == {}
