"""What is learnt of a target, under a clock that only the test moves."""

from __future__ import annotations

from math import exp
from timeit import repeat

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway import Duration, Target
from gateway.settings import Breaker, Retry
from gateway.targets import DECAY, MOST_SAVED, QUIET, RESERVE, UNNAMED, Targets, TargetState

GPT = Target("openai", "gpt-4o")
BREAKER = Breaker()
START = 1000.0


def make(retry: Retry = Retry(), breaker: Breaker = BREAKER) -> TargetState:  # noqa: B008 - they are immutable
    return TargetState(retry, breaker)


def fail(state: TargetState, now: float, times: int = 1) -> None:
    for _ in range(times):
        state.failed(state.begin(now), now)


def succeed(state: TargetState, now: float, seconds: float = 0.1, times: int = 1) -> None:
    for _ in range(times):
        state.succeeded(state.begin(now), now, seconds)


def opened(now: float = START) -> TargetState:
    state = make()
    fail(state, now, BREAKER.failures)
    assert state.state(now) == "open"
    return state


# Calls under way.


def test_calls_under_way_are_counted_until_they_end() -> None:
    state = make()
    turns = [state.begin(START) for _ in range(4)]
    assert state.in_flight == 4
    state.answered(turns[0], START, 0.1)
    assert state.in_flight == 4  # its stream is still running
    state.succeeded(turns[0], START)
    state.failed(turns[1], START)
    state.abandoned(turns[2], START)
    assert state.in_flight == 1


# Latency.


def test_a_worse_latency_counts_at_once_and_a_better_one_bit_by_bit() -> None:
    state = make()
    assert state.latency(START) == 0.0
    succeed(state, START, 1.0)
    succeed(state, START, 5.0)
    assert state.latency(START) == 5.0
    succeed(state, START, 1.0)
    assert state.latency(START) == 5.0  # no time has passed
    succeed(state, START + DECAY, 1.0)
    assert state.latency(START + DECAY) == pytest.approx(1.0 + 4.0 * exp(-1))


def test_a_latency_fades_while_nothing_is_called() -> None:
    state = make()
    succeed(state, START, 8.0)
    assert state.latency(START + DECAY) == pytest.approx(8.0 * exp(-1))
    assert state.latency(START + 100 * DECAY) < 1e-9
    assert state.latency(START) == 8.0  # looking changes nothing


def test_a_failure_makes_a_target_look_slower_and_never_quicker() -> None:
    state = make()
    succeed(state, START, 2.0)
    state.failed(state.begin(START), START, 0.001)
    assert state.latency(START) == 2.0
    state.failed(state.begin(START), START, 60.0)
    assert state.latency(START) == 60.0


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 60)), min_size=1, max_size=50))
def test_a_latency_stays_between_nothing_and_the_worst_sample(samples: list[tuple[float, float]]) -> None:
    state, now = make(), START
    for wait, seconds in samples:
        now += wait
        succeed(state, now, seconds)
        assert seconds * (1 - 1e-9) <= state.latency(now) <= max(each for _, each in samples) * (1 + 1e-9)


# The breaker.


def test_failures_in_a_row_open_the_breaker() -> None:
    state = make()
    fail(state, START, 4)
    succeed(state, START)
    fail(state, START, 4)
    assert state.admits(START)
    fail(state, START)
    assert not state.admits(START)
    assert (state.state(START), state.wait(START), state.opened) == ("open", 5.0, 1)
    assert (state.state(START + 5), state.wait(START + 5), state.admits(START + 5)) == ("half_open", 0.0, True)


def test_a_share_of_failures_opens_the_breaker_from_the_least_number_of_calls_on() -> None:
    state = make(breaker=Breaker(failures=0, min_calls=20, error_rate=0.5))
    fail(state, START, 19)
    assert state.admits(START)
    fail(state, START)
    assert not state.admits(START)

    state = make(breaker=Breaker(failures=0))
    for _ in range(30):
        succeed(state, START, times=2)
        fail(state, START)
    assert state.admits(START)
    fail(state, START, 29)
    assert state.admits(START)
    fail(state, START)
    assert not state.admits(START)  # 60 of 120


def test_failures_of_long_ago_are_forgotten() -> None:
    state = make(breaker=Breaker(failures=0))
    fail(state, START, 19)
    assert state.snapshot(START + 26)["failures"] == 19
    succeed(state, START + 31, times=10)
    fail(state, START + 31, 9)
    assert state.admits(START + 31)
    assert state.snapshot(START + 31)["calls"] == 19
    assert state.snapshot(START + 1000)["calls"] == 0


@given(st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=80))
def test_the_window_counts_what_is_younger_than_it_and_nothing_much_older(calls: list[tuple[float, bool]]) -> None:
    state, now = make(breaker=Breaker(failures=0, error_rate=0.0)), START
    told: list[tuple[float, bool]] = []
    for wait, good in calls:
        now += wait
        (succeed if good else fail)(state, now)
        told.append((now, good))
    seen = state.snapshot(now)
    for key, counted in (("calls", [at for at, _ in told]), ("failures", [at for at, good in told if not good])):
        assert sum(at > now - 27 + 1e-6 for at in counted) <= seen[key] <= sum(at > now - 30 - 1e-6 for at in counted)


def test_a_rule_can_be_switched_off() -> None:
    state = make(breaker=Breaker(failures=0, error_rate=0.0))
    fail(state, START, 1000)
    assert state.admits(START)


def test_a_half_open_breaker_lets_one_probe_through_at_a_time() -> None:
    state = opened()
    now = START + 5
    state.begin(now)
    assert not state.admits(now)
    assert state.state(now) == "half_open"
    assert 0 < state.wait(now) <= 1


def test_a_probe_that_succeeds_closes_the_breaker_and_forgets_the_failures() -> None:
    state = opened()
    succeed(state, START + 5)
    assert state.state(START + 5) == "closed"
    fail(state, START + 5, 4)
    assert state.admits(START + 5)


def test_a_streamed_probe_closes_the_breaker_with_its_first_event() -> None:
    state = opened()
    turn = state.begin(START + 5)
    state.answered(turn, START + 6, 1.0)
    assert state.admits(START + 6)
    assert state.in_flight == 1
    state.succeeded(turn, START + 600)
    assert state.in_flight == 0


def test_a_probe_that_fails_opens_the_breaker_for_twice_as_long_up_to_the_limit() -> None:
    state, now = make(breaker=Breaker(max_open=Duration(60.0))), START
    fail(state, now, 5)
    for seconds in (5, 10, 20, 40, 60, 60):
        assert state.wait(now) == seconds
        now += seconds
        fail(state, now)
    succeed(state, now + 60)
    fail(state, now + 60, 5)
    assert state.wait(now + 60) == 5


def test_a_probe_whose_client_left_makes_room_for_the_next() -> None:
    state = opened()
    now = START + 5
    turn = state.begin(now)
    state.abandoned(turn, now + 1)
    assert state.admits(now + 1)
    assert state.state(now + 1) == "half_open"


def test_a_probe_that_hangs_is_given_up_and_its_failure_is_no_news() -> None:
    state = opened()
    hanging = state.begin(START + 5)
    assert not state.admits(START + 12)
    assert state.admits(START + 13)
    second = state.begin(START + 13)
    state.failed(hanging, START + 14)
    assert state.state(START + 14) == "half_open"
    state.abandoned(second, START + 15)
    assert state.in_flight == 0


def test_calls_of_before_neither_close_nor_lengthen_an_open_breaker() -> None:
    state = make()
    old = [state.begin(START) for _ in range(4)]
    fail(state, START, 5)
    state.failed(old[0], START + 1)
    assert state.wait(START + 1) == 4
    state.succeeded(old[1], START + 2, 2.0)
    assert state.state(START + 2) == "open"
    probe = state.begin(START + 5)
    state.abandoned(old[2], START + 6)
    assert not state.admits(START + 6)
    state.failed(old[3], START + 6)
    state.succeeded(probe, START + 7, 2.0)
    assert state.state(START + 7) == "closed"
    assert state.in_flight == 0


def test_a_limited_or_abandoned_call_is_neither_success_nor_failure() -> None:
    state = make()
    fail(state, START, 4)
    for _ in range(100):
        state.abandoned(state.begin(START), START)
    assert state.admits(START)
    fail(state, START)
    assert not state.admits(START)


# The cooldown.


def test_r45_a_cooldown_is_a_floor_that_only_grows() -> None:
    state = make()
    state.cool(START, 3.0)
    state.cool(START + 1, 0.5)
    assert (state.admits(START + 2.9), state.wait(START + 2)) == (False, 1.0)
    state.cool(START + 2, 4.0)
    assert not state.admits(START + 5.9)
    assert state.admits(START + 6)
    assert state.state(START + 2) == "closed"


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 30)), min_size=1), st.floats(0, 60))
def test_r45_no_call_before_any_floor_told(told: list[tuple[float, float]], later: float) -> None:
    state, now, floor = make(), START, 0.0
    for wait, seconds in told:
        now += wait
        state.cool(now, seconds)
        floor = max(floor, now + seconds)
    assert state.admits(now + later) == (now + later >= floor)


def test_a_cooling_target_may_be_open_as_well() -> None:
    state = opened()
    state.cool(START, 2.0)
    assert state.wait(START) == 5.0
    state.cool(START, 7.0)
    assert state.wait(START) == 7.0
    assert not state.admits(START + 6)


# The budget.


def test_r44_the_first_failures_of_a_quiet_gateway_can_be_retried() -> None:
    state = make()
    state.begin(START)
    assert [state.withdraw(START) for _ in range(5)] == [True, True, True, False, False]


def test_r44_the_reserve_comes_back_when_nothing_was_wished_for_a_while() -> None:
    state = make()
    for _ in range(4):
        state.withdraw(START)
    assert not state.withdraw(START + QUIET - 1)
    assert not state.withdraw(START + QUIET + 1)  # it was asked for meanwhile
    now = START + 2 * QUIET + 1
    assert [state.withdraw(now) for _ in range(4)] == [True, True, True, False]


def test_r44_first_calls_pay_and_further_ones_do_not() -> None:
    state = make()
    while state.withdraw(START):
        pass
    for _ in range(5):
        state.abandoned(state.begin(START), START)
        state.abandoned(state.begin(START, first=False), START)
    assert [state.withdraw(START) for _ in range(2)] == [True, False]


def test_r44_what_is_saved_is_bounded() -> None:
    state = make()
    for _ in range(10_000):
        state.begin(START)
    spent = 0
    while state.withdraw(START):
        spent += 1
    assert spent == MOST_SAVED


def test_r44_a_budget_of_0_allows_no_further_call() -> None:
    state = make(Retry(budget=0.0))
    state.begin(START)
    assert not state.withdraw(START)
    assert not state.withdraw(START + 1000)


@given(
    st.floats(0.0, 1.0),
    st.lists(st.tuples(st.floats(0.0, QUIET - 0.01), st.integers(1, 9)), min_size=1, max_size=400),
)
def test_r44_a_long_run_of_failures_costs_no_more_than_the_budget(
    budget: float, bursts: list[tuple[float, int]]
) -> None:
    state, now, first, calls = make(Retry(budget=budget)), START, 0, 0
    for wait, requests in bursts:
        now += wait
        for _ in range(requests):
            first += 1
            calls += 1
            state.begin(now)
            while state.withdraw(now):
                calls += 1
                state.begin(now, first=False)
    assert calls <= (1 + budget) * first + RESERVE + 1e-6


def test_r44_nor_where_requests_are_rare() -> None:
    state, calls = make(), 0
    for minute in range(1000):
        now = START + minute * (QUIET - 1)
        calls += 1
        state.begin(now)
        while state.withdraw(now):
            calls += 1
    assert 1190 <= calls <= 1203


# All of it together: whatever happens in whatever order.


class Life(RuleBasedStateMachine):
    """Calls that begin when they are admitted and end anyhow, in any order, while time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.state = make(breaker=Breaker(failures=3, min_calls=5))
        self.now = START
        self.running: list[tuple[int, bool]] = []
        """Turn of each call under way, and whether it began while the breaker was half open."""

    @initialize(seconds=st.floats(0, 1e6))
    def start(self, seconds: float) -> None:
        self.now = seconds

    @rule(seconds=st.floats(0, 50))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.state.admits(self.now))
    @rule()
    def call(self) -> None:
        probing = self.state.state(self.now) == "half_open"
        self.running.append((self.state.begin(self.now), probing))
        assert not probing or not self.state.admits(self.now)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0), how=st.sampled_from(["succeeded", "failed", "abandoned"]))
    def end(self, which: int, how: str) -> None:
        turn, _ = self.running.pop(which % len(self.running))
        getattr(self.state, how)(turn, self.now)

    @rule(seconds=st.floats(0, 20))
    def cool(self, seconds: float) -> None:
        self.state.cool(self.now, seconds)

    @invariant()
    def calls_are_counted(self) -> None:
        assert self.state.in_flight == len(self.running)

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        wait = self.state.wait(self.now)
        assert self.state.admits(self.now) == (wait == 0.0)
        assert wait <= 60.0
        assert self.state.admits(self.now + 60.0 + 1e-6)

    @invariant()
    def without_failures_it_is_closed(self) -> None:
        if not self.state.opened:
            assert self.state.state(self.now) == "closed"


TestLife = Life.TestCase


# The registry.


def test_a_state_goes_by_the_name_of_its_target() -> None:
    targets = Targets()
    assert targets.of(GPT) is targets.of(Target("openai", "gpt-4o", weight=7))
    assert targets.of(GPT) is not targets.of(Target("openai"))


def test_a_reload_changes_settings_and_forgets_nothing() -> None:
    targets = Targets()
    state = targets.of(GPT)
    turn = state.begin(START)
    fail(state, START, 4)
    targets.configure(Retry(budget=0.0), Breaker(failures=6))
    targets.prune({"openai", "other"})
    assert targets.of(GPT) is state
    fail(state, START)
    assert state.admits(START)
    state.failed(turn, START)
    assert not state.admits(START)
    assert not state.withdraw(START)
    assert not targets.of(Target("new")).withdraw(START)


def test_the_targets_of_a_provider_that_is_another_now_are_forgotten() -> None:
    targets = Targets()
    state = targets.of(GPT)
    turn = state.begin(START)
    targets.prune(())
    assert targets.of(GPT) is not state
    state.succeeded(turn, START, 1.0)  # a call that was under way still ends


def test_names_that_clients_choose_do_not_fill_the_memory() -> None:
    targets = Targets()
    targets.keep([GPT.name])
    named, busy = targets.of(GPT), targets.of(Target("openai", "busy"))
    turn = busy.begin(START)
    for number in range(3 * UNNAMED):
        targets.of(Target("openai", f"made-up-{number}"))
    assert len(targets.snapshot(START)) == UNNAMED + 1
    assert targets.of(GPT) is named
    assert targets.of(Target("openai", "busy")) is busy
    busy.succeeded(turn, START)


def test_the_snapshot_tells_people_how_a_target_is() -> None:
    targets = Targets()
    state = targets.of(GPT)
    succeed(state, START, 2.0)
    state.begin(START)
    fail(state, START)
    assert targets.snapshot(START) == {
        "openai/gpt-4o": {
            "state": "closed", "in_flight": 1, "latency": 2.0, "wait": 0.0, "calls": 2, "failures": 1, "opened": 0,
            "budget": pytest.approx(RESERVE + 0.6),
        },
    }  # fmt: skip


def test_a_call_that_goes_well_costs_next_to_nothing() -> None:
    state = make()

    def call() -> None:
        state.succeeded(state.begin(START), START, 0.5)

    def nothing() -> None:
        for _ in range(30):
            pass

    # Against the machine's own speed: a call is 0.25 µs where thirty turns of an empty loop are 0.3 µs.
    assert min(repeat(call, number=2000, repeat=20)) < 5 * min(repeat(nothing, number=2000, repeat=20))
    assert not attrs.has(TargetState) and not hasattr(state, "__dict__")


def test_a_window_may_change_while_it_is_counted() -> None:
    state = make()
    fail(state, START, 2)
    state.configure(Retry(), attrs.evolve(BREAKER, window=Duration(1.0)))
    succeed(state, START + 10)
    assert state.snapshot(START + 10)["calls"] == 1


def test_the_states_handed_out_do_not_grow_while_somebody_walks_them() -> None:
    targets = Targets()
    first = targets.of(Target("a"))
    states = targets.states()
    targets.of(Target("b"))
    assert states == {"a": first}


# The figures together.


@pytest.mark.parametrize("outage", [0.5, 4.9, 5.1, 12.0, 14.9, 60.0, 600.0])
def test_r44_a_target_well_again_is_found_within_ten_seconds(outage: float) -> None:
    state, now, calls = make(), START, 0
    while now < START + outage:
        if state.admits(now):
            fail(state, now)
            calls += 1
        now += 0.005  # 200 calls a second want to go there
    while not state.admits(now):
        now += 0.005
    assert now - START - outage <= 10
    assert calls <= BREAKER.failures + 2 + outage / BREAKER.open_for


def test_a_probe_that_takes_longer_than_it_is_waited_for_closes_the_breaker_all_the_same() -> None:
    state = opened()
    begun = START + BREAKER.open_for
    slow = state.begin(begun)
    later = begun + BREAKER.max_open
    assert state.admits(later)
    state.begin(later)
    state.succeeded(slow, later + 1, 9.0)
    assert state.state(later + 1) == "closed"
