"""One table: variables, secrets, numbers, and what nobody asked for."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.importing.fields import Fields, Secrets
from gateway.importing.notes import Notes
from gateway.importing.source import Source
from gateway.toml_lines import KeyPath


def fields(values: dict[str, Any], notes: Notes, secrets: Secrets | None = None, **environ: str) -> Fields:
    lines: dict[KeyPath, int] = {("t", name): number for number, name in enumerate(values, 2)}
    return Fields(Source({"t": values}, lines), ("t",), values, environ, notes, secrets or Secrets())


def test_a_variable_is_written_as_it_is_now_where_no_reference_can_stand() -> None:
    notes = Notes()
    read = fields({"a": "os.environ/SET", "b": "os.environ/UNSET", "c": 3}, notes, SET="there", ELSE="by default")
    assert [read.text(name) for name in "abc"] == ["there", None, "3"]
    assert read.text("d", "NOT", "ELSE") == "by default"
    told = notes.told("x")
    assert "ELSE" in told[0] and "SET has it now" in told[1] and "UNSET is not set here" in told[2]


def test_secrets_become_optional_references_and_never_text() -> None:
    notes, secrets = Notes(), Secrets()
    read = fields(
        {"a": "os.environ/KEY", "b": "sk-1", "c": "sk-2", "d": "sk-1", "e": "os.environ/sk 3"}, notes, secrets
    )
    names = [read.secret(name, "x_key", "DEFAULT") for name in "abcdef"]
    assert names == [
        "env:KEY?", "env:HOOKGATE_X_KEY?", "env:HOOKGATE_X_KEY_2?", "env:HOOKGATE_X_KEY?", "env:HOOKGATE_X_KEY_3?",
        "env:DEFAULT?",
    ]  # fmt: skip
    assert read.secret("g", "x") is None
    assert not any("sk" in line for line in notes.told("x"))


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3), ("2.5", 2.5), (4.0, 4), (-1, None), ("many", None), (float("inf"), None), (True, None), ([], None)],
)
def test_numbers_or_a_note(value: object, number: float | None) -> None:
    notes = Notes()
    assert fields({"n": value}, notes).number("n") == number
    assert (notes.told("x") == ["x:2: n: expected a number; left out."]) is (number is None)


def test_what_nobody_asked_for_is_told_with_its_reason() -> None:
    notes = Notes()
    read = fields({"asked": 1, "why": 1, "other": 1, "empty": None}, notes)
    read.get("asked")
    read.left({"why": "because."})
    assert notes.told("x") == [
        "x:3: why: not carried over: because.",
        "x:4: other: not carried over: it has no counterpart.",
    ]


def test_a_table_inside_has_its_own_lines_and_what_is_left_of_it() -> None:
    notes = Notes()
    inner = fields({"a": {"b": "os.environ/NAME", "c": 1}, "d": 2}, notes).inner("a")
    assert inner.names() == ["b", "c"]
    assert (inner.variable("b"), inner.variable("c")) == ("NAME", None)
    inner.note(None, "here")
    assert notes.told("x") == ["x:2: here"]
    assert fields({"a": [1]}, notes).inner("a").names() == []
