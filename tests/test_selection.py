"""The order in which targets are called."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import Target
from gateway.selection import available, matcher, weighted
from gateway.targets import Targets

A, B, C = (Target(name) for name in "abc")


def test_a_weight_is_a_share() -> None:
    targets = (Target("a", weight=3), B)
    first = Counter(weighted(targets)[0].name for _ in range(4000))
    assert 2800 <= first["a"] <= 3200  # 3000 expected; outside of this once in 10**12 runs
    assert set(weighted(targets)) == set(targets)


def test_one_target_needs_no_draw() -> None:
    assert weighted((A,)) == (A,)


def test_those_that_may_not_be_called_come_last_the_soonest_first() -> None:
    registry = Targets()
    registry.of(A).cool(100.0, 9.0)
    registry.of(B).cool(100.0, 3.0)
    assert available((A, B, C), registry, 100.0) == ([C], [B, A])
    assert available((A, B, C), registry, 103.0) == ([B, C], [A])
    assert available((C, B, A), registry, 109.0) == ([C, B, A], [])


@pytest.mark.parametrize(
    ("globs", "model", "matches"),
    [
        (("*",), "gpt-4o", True), (("*",), None, True), ((), "gpt-4o", False), (("gpt-*",), "gpt-4o", True),
        (("gpt-*",), "GPT-4o", False), (("gpt-*",), None, False), (("a", "b?"), "bc", True), (("a", "b?"), "ab", False),
        (("a*",), "a\nb", True),
    ],
)  # fmt: skip
def test_a_model_matches_globs(globs: tuple[str, ...], model: str | None, matches: bool) -> None:
    assert matcher(globs)(model) is matches


@given(st.lists(st.text("ab*?[]!-", max_size=5), max_size=4), st.text("ab-", max_size=5))
def test_globs_are_those_of_model_names_elsewhere(globs: list[str], model: str) -> None:
    assert matcher(globs)(model) == any(fnmatchcase(model, glob) for glob in globs)
