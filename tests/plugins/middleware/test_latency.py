"""The target whose first byte is likely to come soonest."""

from __future__ import annotations

import random
from collections import Counter

from gateway import Target
from gateway.targets import DECAY
from gateway_plugins.middleware import latency
from tests.support.exchanges import make_exchange
from tests.support.selecting import Selecting, check_limits

TARGETS = [Target("quick"), Target("slow"), Target("wide", weight=4)]


def told(**seconds: float) -> Selecting:
    chosen = Selecting(latency, TARGETS)
    for name, each in seconds.items():
        state = chosen.registry.of(Target(name))
        state.succeeded(state.begin(chosen.now), chosen.now, each)
    return chosen


def test_limits() -> None:
    check_limits(latency, make_exchange(model="m"))


def test_the_quickest_comes_first_relative_to_its_weight() -> None:
    assert told(quick=1.0, slow=3.0, wide=5.0).names() == ["quick", "wide", "slow"]  # 1, 1.25, 3
    assert told(quick=1.5, slow=3.0, wide=5.0).names() == ["wide", "quick", "slow"]


def test_calls_under_way_count_as_if_each_waited_for_the_others() -> None:
    chosen = told(quick=1.0, slow=3.5, wide=400.0)
    counted = Counter[str]()
    for _ in range(9):
        name = chosen.first()
        counted[name] += 1
        chosen.registry.of(Target(name)).begin(chosen.now)
    assert counted == {"quick": 7, "slow": 2}


def test_a_target_nobody_knows_gets_one_call_to_show_itself() -> None:
    chosen = told(quick=1.0, wide=4.0)
    assert chosen.first() == "slow"
    state = chosen.of(1)
    turn = state.begin(chosen.now)
    assert chosen.names()[2] == "slow"
    state.succeeded(turn, chosen.now, 9.0)
    assert chosen.names()[2] == "slow"


def test_a_slow_target_is_tried_again_in_time() -> None:
    chosen = told(slow=30.0)
    for _ in range(200):
        chosen.now += DECAY / 10
        for index in (0, 2):
            state = chosen.of(index)
            state.succeeded(state.begin(chosen.now), chosen.now, 2.0 if index == 0 else 8.0)
        if chosen.first() == "slow":
            break
    assert chosen.first() == "slow"
    assert chosen.of(1).latency(chosen.now) < 2.0


def test_with_nothing_known_the_weights_decide() -> None:
    first = Counter(told().first() for _ in range(100))
    assert first["wide"] == 100  # its load with one call is the least


def test_the_quicker_target_gets_more_and_the_slower_one_is_not_starved() -> None:
    chance = random.Random(45)
    chosen = Selecting(latency, TARGETS[:2])
    ends: list[tuple[float, float, int, str]] = []
    counted: Counter[str] = Counter()
    for _ in range(2000):
        chosen.now += 0.1
        while ends and ends[0][0] <= chosen.now:
            _, seconds, turn, name = ends.pop(0)
            chosen.registry.of(Target(name)).succeeded(turn, chosen.now, seconds)
        name = chosen.first()
        counted[name] += 1
        seconds = (1.0 if name == "quick" else 4.0) * chance.uniform(0.8, 1.2)
        ends.append((chosen.now + seconds, seconds, chosen.registry.of(Target(name)).begin(chosen.now), name))
        ends.sort()
    assert counted["quick"] > 2 * counted["slow"] > 200
