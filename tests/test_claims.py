"""Claims: where one is, whether it is what is demanded, and what cannot be read out of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.claims import LONGEST_NAME, as_globs, as_limit, as_name, find, holds

CLAIMS: dict[str, Any] = {
    "sub": "alice",
    "realm_access": {"roles": ["llm", "user"], "": 1},
    "a": {"b": {"c": 1}, "b.c": 2},
    "a.b": {"d": 3},
    "a.b.e": 4,
    "https://example.com/roles": ["x"],
    "https://example.com/claims": {"team": "red"},
    "scope": "openid chat",
    "nothing": None,
    "number": 1,
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("sub", "alice"),
        ("realm_access.roles", ["llm", "user"]),
        ("realm_access.", 1),
        ("a.b.e", 4),  # the claim of this name before any that lies in a table …
        ("a.b.d", 3),  # … and the longest name before a shorter one
        ("a.b.c", None),
        ("a.b", {"d": 3}),
        ("https://example.com/roles", ["x"]),
        ("https://example.com/claims.team", "red"),
        ("absent", None), ("absent.x", None), ("realm_access.absent", None), ("nothing", None), ("nothing.x", None),
        ("", None), (".", None), ("..", None), (".sub", None), (None, None),
    ],
)  # fmt: skip
def test_where_a_claim_is(path: str | None, value: Any) -> None:
    assert find(CLAIMS, path) == value


@pytest.mark.parametrize("path", ["sub.x", "number.x", "realm_access.roles.0", "https://example.com/roles.x"])
def test_what_is_no_table_has_no_claims_in_it(path: str) -> None:
    with pytest.raises(ValueError, match="no table"):
        find(CLAIMS, path)


@given(st.dictionaries(st.text(alphabet="ab.", max_size=5), st.integers(), max_size=5), st.text("ab.", max_size=5))
def test_a_name_with_dots_is_a_name_first(claims: dict[str, int], path: str) -> None:
    assert find(claims | {path: 7}, path) == 7
    assert find({"outer.x": claims | {path: 7}}, f"outer.x.{path}") == 7


@pytest.mark.parametrize(
    ("path", "wanted", "held"),
    [
        ("sub", ["alice"], True), ("sub", ["bob", "alice"], True), ("sub", ["ali"], False), ("sub", [], False),
        ("realm_access.roles", ["llm"], True), ("realm_access.roles", ["admin"], False),
        ("realm_access.roles", [["llm", "user"]], False), ("scope", ["chat"], True), ("scope", ["cha"], False),
        ("scope", ["openid chat"], False), ("number", [1], True), ("number", [True], False), ("number", ["1"], False),
        ("number", [1.0], False), ("absent", ["x"], False), ("nothing", [""], False),
        ("realm_access", ["roles"], False),
    ],
)  # fmt: skip
def test_what_is_demanded(path: str, wanted: list[Any], held: bool) -> None:
    assert holds(CLAIMS, path, wanted) is held


def test_only_scopes_are_words_with_spaces_between() -> None:
    assert not holds({"tier": "gold plated"}, "tier", ["gold"])
    assert holds({"scp": "a b"}, "scp", ["b"]) and holds({"scp": ["a", "b"]}, "scp", ["b"])


@pytest.mark.parametrize("value", [None, "", 7, ["a"], "a\n", "\ud800", "a" * (LONGEST_NAME + 1)], ids=ascii)
def test_what_is_no_name(value: Any) -> None:
    with pytest.raises(ValueError, match="no name"):
        as_name(value)


def test_what_is_a_name() -> None:
    assert as_name("a" * LONGEST_NAME) == "a" * LONGEST_NAME
    assert as_name("Ärztin 7") == "Ärztin 7"


@pytest.mark.parametrize("value", [None, 7, {"a": 1}, ["a", 1], ("a",)], ids=str)
def test_what_are_no_globs(value: Any) -> None:
    with pytest.raises(ValueError, match="no globs"):
        as_globs(value)


def test_what_are_globs() -> None:
    assert as_globs("gpt-* llama3 ") == as_globs(["gpt-*", "llama3"]) == ("gpt-*", "llama3")
    assert as_globs([]) == as_globs("") == ()


@pytest.mark.parametrize("value", [None, -1, "7", 1.0, True, [1]], ids=str)
def test_what_is_no_limit(value: Any) -> None:
    with pytest.raises(ValueError, match="no limit"):
        as_limit(value)


def test_what_is_a_limit() -> None:
    assert (as_limit(0), as_limit(10**12)) == (0, 10**12)
