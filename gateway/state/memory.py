"""Limits of one process, kept in its memory. Exact: nothing is awaited between looking and taking."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Sequence

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

    def add(self, amount: int, part: int) -> None:
        if self.parts and self.parts[-1][0] == part:
            self.parts[-1][1] += amount
        else:
            self.parts.append([part, amount])
        self.used += amount

    def correct(self, amount: int, then: int, now: float) -> None:
        """Add to what was used in part ``then``: less at that time, more from now on."""
        part = self.refresh(now)
        if amount > 0:
            self.add(amount, part)
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

    __slots__ = ("end", "reserved", "spent")

    def __init__(self, spent: int, end: float | None) -> None:
        self.spent = spent
        self.reserved = 0
        self.end = end

    @property
    def used(self) -> int:
        return self.spent + self.reserved

    def tells_nothing(self, now: float) -> bool:
        return self.end is not None and self.end < now and not self.reserved


_Counter = _Rate | _Gauge | _Purse


class Memory:
    """A ``Store`` for one process."""

    def __init__(self, spent: Spent | None = None) -> None:
        self.spent = spent
        """Asked for each period that begins here: what is in the ledger of it was spent before this process began."""
        self.clock = time.monotonic
        self.calendar = time.time
        self._counters: OrderedDict[str, _Counter] = OrderedDict()

    def used(self, meter: Meter) -> int:
        """Now; for tests and reports."""
        now = self.clock()
        counter = self._counters.get(self._name(meter))
        if isinstance(counter, _Rate):
            counter.refresh(now)
        return counter.used if counter is not None else 0

    def reserve(self, ticket: Ticket) -> Awaitable[None] | None:
        now = self.clock()
        try:
            counters = [self._counter(meter, now) for meter in ticket.meters]
        except LookupError:
            return self._look_up(ticket)
        used = []
        for place, (meter, amount) in enumerate(zip(ticket.meters, ticket.amounts, strict=True)):
            counter = counters[place]
            if type(counter) is _Rate:
                counter.refresh(now)
            after = counter.used + amount
            if after > meter.limit and amount:
                ticket.used = [each.used for each in counters]
                ticket.refused = place
                ticket.wait = counter.wait(after - meter.limit, now) if type(counter) is _Rate else 0.0
                return None
            used.append(after)
        self._take(ticket, counters, now)
        ticket.used = used
        return None

    def _take(self, ticket: Ticket, counters: Sequence[_Counter], now: float) -> None:
        ticket.home = self
        ticket.at = now
        for amount, counter in zip(ticket.amounts, counters, strict=True):
            if type(counter) is _Rate:
                counter.add(amount, int(now / counter.width))
            elif type(counter) is _Gauge:
                counter.used += amount
            elif type(counter) is _Purse:
                counter.reserved += amount
                ticket.periods = tuple(self._name(meter) for meter in ticket.meters)

    def settle(self, ticket: Ticket, amounts: Sequence[int]) -> None:
        if ticket.home is not self:
            return
        ticket.home = None
        now = self.clock()
        for place, meter in enumerate(ticket.meters):
            counter = self._counters.get(ticket.periods[place] if ticket.periods else meter.key)
            reserved, actual = ticket.amounts[place], amounts[place]
            if type(counter) is _Rate:
                if actual != reserved:
                    counter.correct(actual - reserved, int(ticket.at / counter.width), now)
            elif type(counter) is _Gauge:
                counter.used -= reserved
            elif type(counter) is _Purse:
                counter.reserved -= reserved
                counter.spent += actual

    def _counter(self, meter: Meter, now: float) -> _Counter:
        """Raises ``LookupError`` for a purse that the ledger must be asked about."""
        name = self._name(meter)
        counter = self._counters.get(name)
        if counter is None:
            if meter.kind == "purse" and self.spent is not None:
                raise LookupError
            counter = self._add(name, meter, now, 0)
        return counter

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
        return f"{meter.key}{period(meter.per, self.calendar()).id}" if meter.kind == "purse" else meter.key
