"""One target for a session, while it may be called; only a target's own sessions move with it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import Exchange, Principal, Target
from gateway_plugins.middleware import sticky
from tests.support.exchanges import make_exchange
from tests.support.selecting import Selecting, check_limits

TARGETS = [Target("a"), Target("b"), Target("c", weight=2)]


def session(name: str, header: str = "session-id", principal: str | None = None) -> Exchange:
    return make_exchange({header: name}, model="m", principal=Principal(principal) if principal else None)


def test_limits() -> None:
    check_limits(sticky, session("one"))


def test_without_a_session_somebody_else_decides() -> None:
    chosen = Selecting(sticky, TARGETS)
    assert chosen.select(make_exchange(model="m")) is None
    assert chosen.select(session("")) is None


@pytest.mark.parametrize(
    "header", ["Session-Id", "x-session-id", "thread-id", "X-Claude-Code-Session-Id", "session_id"]
)
def test_clients_name_their_session_in_several_ways(header: str) -> None:
    assert Selecting(sticky, TARGETS).names(session("s", header)) == Selecting(sticky, TARGETS).names(session("s"))


def test_the_headers_can_be_chosen() -> None:
    chosen = Selecting(sticky, TARGETS, headers=("x-mine",))
    assert chosen.select(session("s")) is None
    assert chosen.select(session("s", "X-Mine")) is not None


@given(st.text(st.characters(exclude_categories=()), min_size=1))
def test_a_session_stays_where_it_is_whatever_is_going_on(name: str) -> None:
    chosen = Selecting(sticky, TARGETS)
    first = chosen.first(session(name))
    for _ in range(3):
        chosen.registry.of(Target(first)).begin(chosen.now)
        assert chosen.first(session(name)) == first
    assert Selecting(sticky, TARGETS[::-1]).names(session(name)) == chosen.names(session(name))


def test_a_session_comes_back_when_its_target_does() -> None:
    chosen = Selecting(sticky, TARGETS)
    order = chosen.names(session("s"))
    chosen.registry.of(Target(order[0])).cool(chosen.now, 3.0)
    assert chosen.names(session("s")) == [order[1], order[2], order[0]]
    chosen.now += 3
    assert chosen.names(session("s")) == order


def test_sessions_are_spread_by_weight() -> None:
    chosen = Selecting(sticky, TARGETS)
    first = Counter(chosen.first(session(f"session-{number}")) for number in range(4000))
    assert 1850 <= first["c"] <= 2150  # the same on every machine: it is a hash
    assert min(first.values()) > 900


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.integers(1, 9))
def test_a_new_target_takes_its_share_and_moves_nothing_else(weights: list[int], weight: int) -> None:
    before = [Target(f"t{index}", weight=each) for index, each in enumerate(weights)]
    old, new = Selecting(sticky, before), Selecting(sticky, [*before, Target("new", weight=weight)])
    for number in range(50):
        name = f"session-{number}"
        assert [each for each in new.names(session(name)) if each != "new"] == old.names(session(name))


@given(st.integers(1, 50), st.integers(1, 50))
def test_a_greater_weight_only_wins_sessions(weight: int, more: int) -> None:
    light, heavy = (
        Selecting(sticky, [Target("a", weight=3), Target("b", weight=each)]) for each in (weight, weight + more)
    )
    for number in range(50):
        name = f"session-{number}"
        assert heavy.first(session(name)) == "b" or light.first(session(name)) == "a"


def test_principals_have_sessions_of_their_own() -> None:
    chosen = Selecting(sticky, TARGETS)
    orders = {tuple(chosen.names(session("s", principal=f"p{number}"))) for number in range(100)}
    assert len(orders) == 6
    one = [chosen.names(session(f"bc{number}", principal="a")) for number in range(20)]
    assert one != [chosen.names(session(f"c{number}", principal="ab")) for number in range(20)]
