"""How many calls run at once at a provider or target; the others wait, each key's in turn, or are refused.

A ``Gate`` is passed before a call and left behind it. Its whole state changes between two awaits, so nothing is locked.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import ceil
from time import monotonic

from gateway.config import Config, ProviderConfig
from gateway.errors import Overloaded
from gateway.exchange import Exchange, Target

_LONGEST_ADVICE = 60  # seconds of Retry-After; SDKs ignore longer ones
_REMEMBERED = 64  # hand-overs after which the older half of them counts no more

_Line = OrderedDict["asyncio.Future[None]", None]


class Waits:
    """How long calls waited: counts per bucket and the sum, without locks. Calls that found room are not among them."""

    BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0)
    """Upper bounds of the buckets, seconds."""
    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(self.BOUNDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.BOUNDS, seconds)] += 1
        self.sum += seconds


class Gate:
    """Lets ``limit`` calls in at once; up to ``queue`` more wait, ``max_wait`` seconds at most (0: no limit).

    Those waiting are let in key by key, and first come, first served within a key: one with five hundred calls waiting
    delays another's first by one turn. There is room only while nobody waits: who leaves hands over to the next.
    """

    __slots__ = (
        "_clock", "_lines", "_max_wait", "_queue", "_since", "_turns",
        "limit", "refused", "running", "waiting", "waits",
    )  # fmt: skip

    def __init__(self, limit: int, queue: int, max_wait: float, clock: Callable[[], float] = monotonic) -> None:
        self.limit = limit
        self.running = 0
        self.waiting = 0
        self.refused = 0
        """Calls that found the queue full or waited too long."""
        self.waits = Waits()
        self._queue = queue
        self._max_wait = max_wait
        self._clock = clock
        self._lines: OrderedDict[str | None, _Line] = OrderedDict()
        # Hand-overs and the time they took, since somebody has been waiting.
        self._turns = 0.0
        self._since = 0.0

    def try_enter(self) -> bool:
        """Enter if there is room."""
        if self.running < self.limit:
            self.running += 1
            return True
        return False

    async def enter(self, exchange: Exchange) -> None:
        """Enter, now or when it is this exchange's turn.

        Raises ``Overloaded`` when the queue is full or the wait too long. Who is cancelled is not inside.
        """
        if self.try_enter():
            return
        if self.waiting >= self._queue:
            raise self._refusal("Too many requests are waiting for this provider.")
        key = exchange.principal.name if exchange.principal is not None else None
        place = asyncio.get_running_loop().create_future()
        began = self._clock()
        if not self.waiting:
            self._turns, self._since = 0.0, began
        self._lines.setdefault(key, OrderedDict())[place] = None
        self.waiting += 1
        guard = exchange.guard
        guard.arm(self._max_wait, self._late)
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                self._withdraw(key, place)
            else:
                self.leave()  # it was this one's turn in the very moment
            if (error := guard.caught()) is None:
                raise
            raise error from None
        finally:
            guard.disarm()
            waited = self._clock() - began
            self.waits.add(waited)
            exchange.upstream_seconds += waited

    def leave(self) -> None:
        """Make room, or hand over to the next in turn."""
        lines = self._lines
        while lines:
            key, line = lines.popitem(last=False)
            while line:
                place, _ = line.popitem(last=False)
                self.waiting -= 1
                if place.done():
                    continue  # its exchange was cancelled and has not run since
                if line:
                    lines[key] = line  # behind all others
                place.set_result(None)
                self._count_turn()
                return
        self.running -= 1

    def _withdraw(self, key: str | None, place: asyncio.Future[None]) -> None:
        line = self._lines.get(key)
        if line is None or place not in line:
            return  # somebody who left has passed it over
        del line[place]
        self.waiting -= 1
        if not line:
            del self._lines[key]

    def _count_turn(self) -> None:
        self._turns += 1
        if self._turns >= _REMEMBERED:
            self._turns /= 2
            self._since = (self._since + self._clock()) / 2

    def _refusal(self, message: str) -> Overloaded:
        self.refused += 1
        return Overloaded(message, retry_after=self._drained_in())

    def _late(self) -> Overloaded:
        return self._refusal("This request has waited too long for this provider.")

    def _drained_in(self) -> int:
        """Whole seconds until those waiting now will have been let in, at the pace seen while they waited."""
        if not self.waiting:
            return 1
        seconds = self.waiting * (self._clock() - self._since) / max(self._turns, 1.0)
        return min(max(1, ceil(seconds)), _LONGEST_ADVICE)


class Admission:
    """The gates of one configuration."""

    def __init__(self, config: Config) -> None:
        self.gates: dict[str, Gate] = {}
        """By the name of the provider, or of the target as ``provider/model``; for metrics."""
        self._of_provider: dict[str, tuple[Gate, ...]] = {}
        self._of_model: dict[tuple[str, str | None], tuple[Gate, ...]] = {}
        for name, provider in config.providers.items():
            if provider.max_concurrency:
                self.gates[name] = _gate(provider.max_concurrency, provider)
                self._of_provider[name] = (self.gates[name],)
        for client_name, model in config.models.items():
            for target in model.targets:
                if target.max_concurrency and target.provider in config.providers:
                    self._limit(target.provider, target.model or client_name, target, config)
        self.limited = bool(self.gates)
        """Anything is. While nothing is, nobody need ask."""

    def _limit(self, provider: str, model: str, target: Target, config: Config) -> None:
        name = f"{provider}/{model}"
        if name not in self.gates:
            self.gates[name] = _gate(target.max_concurrency, config.providers[provider])
            # The narrower gate first: who waits there keeps no place that another model of the provider could have.
            self._of_model[provider, model] = (self.gates[name], *self._of_provider.get(provider, ()))

    def of(self, target: Target, model: str | None) -> tuple[Gate, ...]:
        """The gates to pass, in order, for a call to ``target``; ``model`` is the client's, for targets without one."""
        gates = self._of_model.get((target.provider, target.model or model))
        return self._of_provider.get(target.provider, ()) if gates is None else gates


def _gate(limit: int, provider: ProviderConfig) -> Gate:
    return Gate(limit, provider.queue, provider.queue_timeout)


def try_enter_all(gates: Sequence[Gate]) -> bool:
    """Pass every gate if each has room, else none."""
    for passed, gate in enumerate(gates):
        if not gate.try_enter():
            leave_all(gates[:passed])
            return False
    return True


async def enter_all(gates: Sequence[Gate], exchange: Exchange) -> None:
    """Pass every gate, or none: whatever is raised (see ``Gate.enter``), nothing is left to leave."""
    for passed, gate in enumerate(gates):
        try:
            await gate.enter(exchange)
        except BaseException:
            leave_all(gates[:passed])
            raise


def leave_all(gates: Sequence[Gate]) -> None:
    for gate in gates:
        gate.leave()
