"""Gates: who may call now, who waits, in which order, and that no place is ever lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import Duration, Exchange, Principal, Target
from gateway.admission import Admission, Gate, enter_all, leave_all, try_enter_all
from gateway.config import Config, Model, ProviderConfig
from gateway.errors import Overloaded
from gateway.watchdog import Guard, Watchdog
from tests.support.exchanges import make_exchange

KEYS = ("alice", "bob", None)
_ACTS = ("enter", "enter", "leave", "cancel", "late", "turn")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Caller:
    """One call: a task that enters, stays until told to leave, and leaves."""

    def __init__(self, gates: tuple[Gate, ...], key: str | None, entered: list[Caller]) -> None:
        self.key = key
        self.is_inside = False
        self.error: Overloaded | None = None
        self.exchange: Exchange = make_exchange(principal=None if key is None else Principal(key))
        self._gates = gates
        self._entered = entered
        self._done = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._run())
        self.exchange.guard = Guard(self.task)

    async def _run(self) -> None:
        try:
            if not try_enter_all(self._gates):
                await enter_all(self._gates, self.exchange)
        except Overloaded as error:
            self.error = error
            return
        self.is_inside = True
        self._entered.append(self)
        try:
            await self._done.wait()
        finally:
            self.is_inside = False
            leave_all(self._gates)

    def finish(self) -> None:
        self._done.set()


class Scene:
    """Gates with callers."""

    def __init__(self, *gates: Gate) -> None:
        self.gates = gates
        self.callers: list[Caller] = []
        self.entered: list[Caller] = []
        """In the order in which they came in."""

    def enter(self, key: str | None = None) -> Caller:
        self.callers.append(Caller(self.gates, key, self.entered))
        return self.callers[-1]

    @property
    def inside(self) -> list[Caller]:
        return [caller for caller in self.callers if caller.is_inside]

    @property
    def outside(self) -> list[Caller]:
        return [caller for caller in self.callers if not caller.is_inside and not caller.task.done()]

    async def settle(self) -> None:
        for _ in range(4 + 2 * len(self.gates)):
            await asyncio.sleep(0)

    async def clear(self) -> None:
        """Everybody leaves, some of them by cancellation; then no gate may hold anything."""
        for caller in self.callers[::2]:
            caller.task.cancel()
        while any(not caller.task.done() for caller in self.callers):
            for caller in self.callers:
                caller.finish()
            await asyncio.sleep(0)
        for gate in self.gates:
            assert (gate.running, gate.waiting, len(gate._lines)) == (0, 0, 0)


acts = st.lists(st.tuples(st.sampled_from(_ACTS), st.sampled_from(KEYS), st.integers(0, 7)), max_size=60)


@given(acts, st.lists(st.tuples(st.integers(1, 3), st.integers(0, 6)), min_size=1, max_size=2))
def test_no_schedule_loses_a_place_or_lets_too_many_in(
    schedule: list[tuple[str, str | None, int]], sizes: list[tuple[int, int]]
) -> None:
    """Only "turn" lets the loop run: whatever stands between two of them happens in one and the same instant."""

    async def play() -> None:
        scene = Scene(*(Gate(limit, queue, 0) for limit, queue in sizes))
        for act, key, number in schedule:
            someone = scene.callers[number % len(scene.callers)] if scene.callers else None
            if act == "enter":
                scene.enter(key)
            elif act == "turn":
                await asyncio.sleep(0)
            elif someone is None or someone.task.done():
                continue
            elif act == "cancel":
                someone.task.cancel()
            elif act == "late" and not someone.is_inside:
                someone.exchange.guard.fire(Overloaded("late"))
            elif act == "leave":
                someone.finish()
            for gate in scene.gates:
                assert len(scene.inside) <= gate.running <= gate.limit
                assert gate.waiting <= gate._queue
                assert not gate._lines or gate.running == gate.limit, "there is room, and somebody waits"
        await scene.settle()
        # A wake-up that got lost would leave somebody outside although every gate has room.
        assert not scene.outside or any(gate.running == gate.limit for gate in scene.gates)
        await scene.clear()

    asyncio.run(play())


class Told:
    """The order, told the plain way: lists of names."""

    def __init__(self, limit: int, queue: int) -> None:
        self.limit, self.queue = limit, queue
        self.inside: list[int] = []
        self.lines: OrderedDict[str | None, list[int]] = OrderedDict()
        self.entered: list[int] = []

    def enter(self, number: int, key: str | None) -> bool:
        if len(self.inside) < self.limit:
            self._let_in(number)
        elif sum(map(len, self.lines.values())) < self.queue:
            self.lines.setdefault(key, []).append(number)
        else:
            return False
        return True

    def _let_in(self, number: int) -> None:
        self.inside.append(number)
        self.entered.append(number)

    def go(self, number: int) -> None:
        if number in self.inside:
            self.inside.remove(number)
            if self.lines:
                key, line = self.lines.popitem(last=False)
                self._let_in(line.pop(0))
                if line:
                    self.lines[key] = line
        for key, line in list(self.lines.items()):
            if number in line:
                line.remove(number)
                if not line:
                    del self.lines[key]


@given(acts, st.integers(1, 3), st.integers(0, 6))
def test_callers_come_in_by_turns_of_keys(schedule: list[tuple[str, str | None, int]], limit: int, queue: int) -> None:
    async def play() -> None:
        scene, model = Scene(Gate(limit, queue, 0)), Told(limit, queue)
        for act, key, number in schedule:
            if act == "enter":
                let = model.enter(len(scene.callers), key)
                caller = scene.enter(key)
                await scene.settle()
                assert (caller.error is None) == let
            elif act != "turn" and scene.callers:
                number %= len(scene.callers)
                caller = scene.callers[number]
                caller.finish() if act == "leave" and caller.is_inside else caller.task.cancel()
                model.go(number)
                await scene.settle()
            assert [scene.callers.index(each) for each in scene.entered] == model.entered
            assert scene.gates[0].running == len(model.inside)
            assert scene.gates[0].waiting == sum(map(len, model.lines.values()))
        await scene.clear()

    asyncio.run(play())


async def test_a_key_with_many_waiting_delays_another_by_one_turn() -> None:
    scene = Scene(Gate(1, 1000, 0))
    for _ in range(500):
        scene.enter("greedy")
    await scene.settle()
    modest = scene.enter("modest")
    await scene.settle()
    for _ in range(2):
        assert not modest.is_inside
        scene.inside[0].finish()
        await scene.settle()
    assert modest.is_inside
    await scene.clear()


@pytest.mark.parametrize("who", ["client", "limit"])
@pytest.mark.parametrize("first", ["leave", "cancel"])
async def test_a_place_handed_over_in_the_very_moment_of_the_cancellation_goes_on_to_the_next(
    who: str, first: str
) -> None:
    gate = Gate(1, 10, 0)
    scene = Scene(gate)
    one, two, three = scene.enter(), scene.enter(), scene.enter()
    await scene.settle()

    def cancel() -> None:
        two.task.cancel() if who == "client" else two.exchange.guard.fire(Overloaded("late"))

    if first == "cancel":
        cancel()
    gate.leave()  # on behalf of the first, who stays: two would be inside if the place were given away twice
    if first == "leave":
        cancel()
    await scene.settle()
    assert scene.inside == [one, three]
    assert (two.error is not None) == (who == "limit")
    assert (gate.running, gate.waiting) == (1, 0)
    gate.running += 1  # the first one's own leaving
    await scene.clear()


async def test_a_full_queue_refuses_at_once_and_says_when() -> None:
    clock = Clock()
    gate = Gate(2, 10, 0, clock)
    scene = Scene(gate)
    for _ in range(12):
        scene.enter()
    await scene.settle()
    early = scene.enter()
    await scene.settle()
    assert early.error is not None and early.error.retry_after == 1, "nothing is known so far"
    for _ in range(5):
        clock.now += 1.5
        scene.inside[0].finish()
        await scene.settle()
        scene.enter()
        await scene.settle()
    late = scene.enter()
    await scene.settle()
    assert late.error is not None and late.error.http_status == 503
    assert late.error.retry_after == 15, "ten wait, and one was let in each 1.5 seconds"
    clock.now += 1e6
    stuck = scene.enter()
    await scene.settle()
    assert stuck.error is not None and stuck.error.retry_after == 60
    assert (gate.running, gate.waiting, gate.refused) == (2, 10, 3)
    await scene.clear()


async def test_the_advice_follows_a_change_of_pace() -> None:
    clock = Clock()
    scene = Scene(Gate(1, 5, 0, clock))
    for _ in range(6):
        scene.enter()
    await scene.settle()
    for pace in [10.0] * 100 + [0.1] * 500:
        clock.now += pace
        scene.inside[0].finish()
        scene.enter()
        await scene.settle()
    refused = scene.enter()
    await scene.settle()
    assert refused.error is not None and refused.error.retry_after is not None and refused.error.retry_after <= 2
    await scene.clear()


@contextlib.asynccontextmanager
async def watched(*callers: Caller) -> AsyncIterator[None]:
    watchdog = Watchdog()
    watchdog.guards.update(caller.exchange.guard for caller in callers)
    looking = asyncio.get_running_loop().create_task(watchdog.run())
    try:
        yield
    finally:
        looking.cancel()


async def test_waiting_too_long_is_refused() -> None:
    gate = Gate(1, 10, 0.05)
    scene = Scene(gate)
    inside, waiting = scene.enter(), scene.enter()
    await scene.settle()
    async with watched(inside, waiting):
        await asyncio.wait_for(asyncio.shield(waiting.task), 5)
    assert waiting.error is not None and waiting.error.retry_after is not None
    assert (gate.refused, gate.running, gate.waiting) == (1, 1, 0)
    assert sum(gate.waits.counts) == 1 and gate.waits.sum >= 0.05
    assert waiting.exchange.upstream_seconds == gate.waits.sum
    assert waiting.task.cancelling() == 0
    assert waiting.exchange.guard.error is None
    await scene.clear()


async def test_without_a_limit_of_time_it_waits_on() -> None:
    scene = Scene(Gate(1, 10, 0))
    inside, waiting = scene.enter(), scene.enter()
    await scene.settle()
    async with watched(inside, waiting):
        await asyncio.sleep(0.3)
    assert not waiting.task.done()
    inside.finish()
    await scene.settle()
    assert waiting.is_inside
    await scene.clear()


async def test_only_those_who_waited_are_in_the_histogram() -> None:
    clock = Clock()
    gate = Gate(1, 10, 0, clock)
    scene = Scene(gate)
    scene.enter()
    await scene.settle()
    assert sum(gate.waits.counts) == 0
    scene.enter()
    await scene.settle()
    clock.now += 0.7
    scene.inside[0].finish()
    await scene.settle()
    assert dict(zip(gate.waits.BOUNDS, gate.waits.counts, strict=False))[1.0] == 1
    assert gate.waits.sum == pytest.approx(0.7)
    await scene.clear()


async def test_who_is_refused_behind_a_gate_gives_its_place_back() -> None:
    wide, narrow = Gate(5, 10, 0), Gate(1, 0, 0)
    scene = Scene(wide, narrow)
    scene.enter(), scene.enter()
    await scene.settle()
    assert [caller.error is None for caller in scene.callers] == [True, False]
    assert (wide.running, narrow.running) == (1, 1)
    await scene.clear()


def admission(models: Mapping[str, tuple[Target, ...]] = {}, **limits: int) -> Admission:
    providers = {
        name: ProviderConfig(type="echo", max_concurrency=limit, queue=3, queue_timeout=Duration(7.0))
        for name, limit in limits.items()
    }
    return Admission(
        Config(providers=providers, models={name: Model(targets=targets) for name, targets in models.items()})
    )


# The ways on which a call reaches model "x" of provider "p".
WAYS = [(Target("p", "x"), "m"), (Target("p", "x", 9), "n"), (Target("p"), "x"), (Target("p", "x", 1, 4), "x")]


def test_where_nothing_is_limited_there_is_no_gate() -> None:
    made = admission({"m": (Target("p", "x"),)}, p=0)
    assert not made.limited and not made.gates
    assert made.of(Target("p", "x"), "m") == made.of(Target("p"), None) == made.of(Target("q"), "x") == ()


def test_a_provider_has_one_gate_for_all_its_models() -> None:
    made = admission(p=5, q=0)
    (gate,) = made.gates.values()
    assert made.limited and list(made.gates) == ["p"] and (gate.limit, gate._queue, gate._max_wait) == (5, 3, 7.0)
    for target, model in [*WAYS, (Target("p"), None), (Target("p", "y"), "y")]:
        assert made.of(target, model) == (gate,)
    assert made.of(Target("q"), "x") == ()


@pytest.mark.parametrize("limit", [0, 5])
def test_a_limited_target_has_its_gate_on_every_way_to_it(limit: int) -> None:
    made = admission({"m": (Target("p", "x", 1, 4), Target("p", "y"))}, p=limit)
    gates = [made.gates["p/x"], made.gates["p"]] if limit else [made.gates["p/x"]]
    assert (gates[0].limit, gates[0]._queue, gates[0]._max_wait) == (4, 3, 7.0)
    for target, model in WAYS:
        assert made.of(target, model) == tuple(gates)
    assert made.of(Target("p", "y"), "x") == tuple(gates[1:])
    assert made.of(Target("p"), None) == tuple(gates[1:])


def test_a_target_without_a_model_is_that_of_the_clients_name() -> None:
    made = admission({"m": (Target("p", None, 1, 4),)}, p=0)
    assert made.of(Target("p", None, 1, 4), "m") == made.of(Target("p", "m"), "other") == (made.gates["p/m"],)
    assert made.of(Target("p"), "other") == ()
