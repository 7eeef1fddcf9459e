"""The order of the configuration."""

from __future__ import annotations

from gateway import Target
from gateway_plugins.middleware import priority
from tests.support.exchanges import make_exchange
from tests.support.selecting import Selecting, check_limits

TARGETS = [Target("first"), Target("second", weight=1000), Target("third")]


def test_limits() -> None:
    check_limits(priority, make_exchange(model="m"))


def test_targets_come_as_they_are_configured_whatever_their_weight() -> None:
    chosen = Selecting(priority, TARGETS)
    for _ in range(50):
        assert chosen.names() == ["first", "second", "third"]


def test_one_that_is_down_comes_last_until_it_is_back() -> None:
    chosen = Selecting(priority, TARGETS)
    state = chosen.of(0)
    for _ in range(5):
        state.failed(state.begin(chosen.now), chosen.now)
    assert chosen.names() == ["second", "third", "first"]
    chosen.now += 5
    assert chosen.names() == ["first", "second", "third"]
    state.begin(chosen.now)  # one probe at a time; the others go to the next
    assert chosen.first() == "second"
