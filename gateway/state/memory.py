"""Limits of one process, kept in its memory. Exact: nothing is awaited between looking and taking."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Sequence
from math import inf

from gateway.state.meters import SLOTS, Meter, Spent, Ticket, period

_MANY = (
    1024  # counters; from here on those that tell nothing are dropped: principals of tokens are as many as users are
)


class _Rate:
    """What was used within a sliding window, by the parts of it."""

    __slots__ = ("parts", "used", "width")

    def __init__(self, meter: Meter) -> None:
        self.width = meter.seconds / SLOTS
        self.parts: deque[list[int]] = deque()  # [part, amount]
        self.used = 0

    def refresh(self, now: float) -> int:
        """Forget what is out of the window; the part that ``now`` is in."""
        part = int(now / self.width)
        while self.parts and self.parts[0][0] < part - SLOTS:
            self.used -= self.parts.popleft()[1]
        return part

    def note(self, amount: int, part: int) -> None:
        """``amount`` more is used, and that in ``part``."""
        if self.parts and self.parts[-1][0] == part:
            self.parts[-1][1] += amount
        else:
            self.parts.append([part, amount])

    def correct(self, amount: int, then: int, now: float) -> None:
        """Add to what was used in part ``then``: less at that time, more from now on."""
        part = self.refresh(now)
        if amount > 0:
            self.used += amount
            self.note(amount, part)
            return
        for entry in reversed(self.parts):
            if entry[0] == then:
                entry[1] += amount
                self.used += amount
                return

    def wait(self, excess: int, now: float) -> float:
        """Seconds until so much of what was used is out of the window; 0: that will never be enough."""
        for part, amount in self.parts:
            excess -= amount
            if excess <= 0:
                return (part + SLOTS + 1) * self.width - now
        return 0.0

    def tells_nothing(self, now: float) -> bool:
        self.refresh(now)
        return not self.used


class _Gauge:
    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = 0

    def tells_nothing(self, now: float) -> bool:
        return not self.used


class _Purse:
    """What was spent in one period, and what is reserved."""

    __slots__ = ("end", "running", "used")

    def __init__(self, spent: int, end: float | None) -> None:
        self.used = spent
        self.running = 0
        """Tickets that are not settled."""
        self.end = end

    def tells_nothing(self, now: float) -> bool:
        return self.end is not None and self.end < now and not self.running


_Counter = _Rate | _Gauge | _Purse


class Memory:
    """A ``Store`` for one process."""

    def __init__(self, spent: Spent | None = None) -> None:
        self.spent = spent
        """Asked for each period that begins here: what is in the ledger of it was spent before this process began."""
        self.clock = time.monotonic
        self.calendar = time.time
        self._counters: OrderedDict[str, _Counter] = OrderedDict()
        self._names: dict[str, tuple[float, str]] = {}  # of purses now, and until when

    def used(self, meter: Meter) -> int:
        """Now; for tests and reports."""
        now = self.clock()
        counter = self._counters.get(self._name(meter))
        if isinstance(counter, _Rate):
            counter.refresh(now)
        return counter.used if counter is not None else 0

    def reserve(self, ticket: Ticket) -> Awaitable[None] | None:
        # On every request's path: one pass to look, one to take.
        now, known = self.clock(), self._counters
        counters: list[_Counter] = []
        used: list[int] = []
        for meter, amount in zip(ticket.meters, ticket.amounts):  # noqa: B905 - as long as each other, and strict costs
            counter = known.get(meter.key if meter.kind != "purse" else self._name(meter))
            if counter is None:
                if meter.kind == "purse" and self.spent is not None:
                    return self._look_up(ticket)
                counter = self._add(self._name(meter), meter, now, 0)
            if type(counter) is _Rate and counter.parts and counter.parts[0][0] < int(now / counter.width) - SLOTS:
                counter.refresh(now)
            after = counter.used + amount
            if after > meter.limit and amount:
                self._refuse(ticket, len(used), after - meter.limit, now)
                return None
            counters.append(counter)
            used.append(after)
        ticket.used, ticket.home, ticket.at, ticket.places = used, self, now, counters
        for counter, amount in zip(counters, ticket.amounts):  # noqa: B905
            counter.used += amount
            if type(counter) is _Rate:
                counter.note(amount, int(now / counter.width))
            elif type(counter) is _Purse:
                counter.running += 1
        return None

    def _refuse(self, ticket: Ticket, place: int, excess: int, now: float) -> None:
        ticket.refused = place
        ticket.used = [self.used(meter) for meter in ticket.meters]
        counter = self._counters[self._name(ticket.meters[place])]
        ticket.wait = counter.wait(excess, now) if type(counter) is _Rate else 0.0

    def settle(self, ticket: Ticket, amounts: Sequence[int]) -> None:
        if ticket.home is not self:
            return
        ticket.home = None
        for counter, reserved, actual in zip(ticket.places, ticket.amounts, amounts):  # noqa: B905
            if type(counter) is _Gauge:
                counter.used -= reserved
            elif type(counter) is _Purse:
                counter.used += actual - reserved
                counter.running -= 1
            elif actual != reserved:
                counter.correct(actual - reserved, int(ticket.at / counter.width), self.clock())

    def _add(self, name: str, meter: Meter, now: float, spent: int) -> _Counter:
        if len(self._counters) >= _MANY:
            self._drop(now)
        counter: _Counter
        if meter.kind == "rate":
            counter = _Rate(meter)
        elif meter.kind == "gauge":
            counter = _Gauge()
        else:
            counter = _Purse(spent, period(meter.per, self.calendar()).end)
        return self._counters.setdefault(name, counter)

    def _drop(self, now: float) -> None:
        """Each newcomer makes room of the two oldest: no sweep, and no more counters than twice those that count."""
        for _ in range(2):
            name, counter = next(iter(self._counters.items()))
            if counter.tells_nothing(self.calendar() if type(counter) is _Purse else now):
                del self._counters[name]
            else:
                self._counters.move_to_end(name)

    async def _look_up(self, ticket: Ticket) -> None:
        assert self.spent is not None
        for meter in ticket.meters:
            if meter.kind == "purse" and self._name(meter) not in self._counters:
                name, now = self._name(meter), self.calendar()
                spent = await self.spent(meter, period(meter.per, now))
                self._add(name, meter, self.clock(), spent)
        if (again := self.reserve(ticket)) is not None:  # only where a period began meanwhile
            await again

    def _name(self, meter: Meter) -> str:
        if meter.kind != "purse":
            return meter.key
        end, name = self._names.get(meter.key, _NO_NAME)
        now = self.calendar()
        if now < end:
            return name
        around = period(meter.per, now)
        name = f"{meter.key}{around.id}"
        if len(self._names) >= _MANY:
            self._names.clear()
        self._names[meter.key] = (inf if around.end is None else around.end), name
        return name


_NO_NAME = (0.0, "")
