"""Limits of all gateways that use one Redis; exact while it is there, a share each while it is not."""

from __future__ import annotations

import json
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Sequence
from functools import partial
from itertools import count
from typing import Any, Literal

import attrs

from gateway.errors import Overloaded
from gateway.state.memory import Memory
from gateway.state.meters import SLOTS, Meter, Spent, Ticket, period
from gateway.state.redis_link import Link, RedisUnavailable
from gateway.state.redis_scripts import CHARGE, RESERVE, SEED, SETTLE

log = logging.getLogger("hookgate")

Without = Literal["share", "open", "closed"]
_LATE = 65_536  # settlements kept while Redis is away
_REMEMBERED = 4096  # purses whose last level is
_AFTER = 2 * 86_400_000  # milliseconds a period's money is kept behind its end, for calls that end then
_UNLIMITED = 1 << 53

Settlement = tuple[list[str], list[Any]]


class Shared:
    """A ``Store`` in Redis: one round trip to reserve; to settle, none that a request waits for."""

    def __init__(self, link: Link, without: Without, spent: Spent | None = None) -> None:
        self.spent = spent
        """As of ``Memory``."""
        self.without: Without = without
        self._link = link
        self._reserve, self._settle = link.script(RESERVE), link.script(SETTLE)
        self._charge, self._seed = link.script(CHARGE), link.script(SEED)
        self._ids = count(1)
        self._alone: Memory | None = None  # counts while Redis is away
        self._levels: OrderedDict[str, int] = OrderedDict()
        self._late: deque[Settlement] = deque(maxlen=_LATE)
        self._owed: dict[str, tuple[Meter, int]] = {}
        link.on_back.append(self.resume)

    def reserve(self, ticket: Ticket) -> Awaitable[None]:
        ticket.home = self
        ticket.id = str(next(self._ids))
        return self._reserved(ticket)

    async def _reserved(self, ticket: Ticket) -> None:
        try:
            reply = await self._asked(ticket)
            while reply[0] == -1:  # a period nobody has counted in yet, or that Redis has forgotten
                await self._begin(ticket.meters[reply[1] - 1])
                reply = await self._asked(ticket)
        except RedisUnavailable:
            if _lease(ticket):
                # It may be held there: given back as soon as that can be told.
                self.settle(ticket, [0] * len(ticket.meters))
            await self._do_without(ticket)
            return
        ticket.refused, ticket.wait, ticket.at = reply[0] - 1, reply[1] / 1000, reply[2] / 1000
        ticket.used = reply[3:]
        if ticket.refused >= 0:
            ticket.home = None
        self._remember(ticket)

    def _asked(self, ticket: Ticket) -> Awaitable[Any]:
        """Raises ``RedisUnavailable``."""
        now = time.time()
        ticket.places = tuple(self._key(meter, now) for meter in ticket.meters)
        values: list[Any] = [ticket.id, _lease(ticket)]
        for meter, amount in zip(ticket.meters, ticket.amounts, strict=True):
            values += (meter.kind, meter.limit, amount, _milliseconds(meter, now))
        return self._reserve.call([*ticket.places, self._own_lease()], *values)

    async def _begin(self, purse: Meter) -> None:
        now = time.time()
        spent = await self.spent(purse, period(purse.per, now)) if self.spent is not None else 0
        await self._seed.call([self._key(purse, now)], spent, _milliseconds(purse, now))

    def _remember(self, ticket: Ticket) -> None:
        for meter, used in zip(ticket.meters, ticket.used, strict=True):
            if meter.kind == "purse":
                self._levels[meter.key] = used
                self._levels.move_to_end(meter.key)
                if len(self._levels) > _REMEMBERED:
                    self._levels.popitem(last=False)

    def settle(self, ticket: Ticket, amounts: Sequence[int]) -> None:
        home, ticket.home = ticket.home, None
        if home is self:
            self._send(self._settlement(ticket, amounts))
        elif home is not None:
            ticket.home = home
            home.settle(ticket, amounts)
            for meter, amount in zip(ticket.meters, amounts, strict=True):
                if meter.kind != "gauge" and amount:
                    self._owe(meter, amount)

    def _settlement(self, ticket: Ticket, amounts: Sequence[int]) -> Settlement | None:
        """``None``: there is nothing to tell."""
        lease = _lease(ticket)
        if not lease and list(amounts) == list(ticket.amounts):
            return None
        values: list[Any] = [ticket.id if lease else ""]
        for meter, reserved, used in zip(ticket.meters, ticket.amounts, amounts, strict=True):
            values += (meter.kind, reserved, used, _milliseconds(meter, 0.0), round(ticket.at * 1000))
        return [*ticket.places, self._own_lease()], values

    def _send(self, settlement: Settlement | None) -> None:
        if settlement is None:
            return
        try:
            self._settle.call(settlement[0], *settlement[1]).add_done_callback(partial(self._sent, settlement))
        except RedisUnavailable:
            self._late.append(settlement)

    def _sent(self, settlement: Settlement, answer: Any) -> None:
        # Its lease tells whether it was carried out; without one, once must do.
        if _failed(answer) and settlement[1][0]:
            self._late.append(settlement)

    def _owe(self, meter: Meter, amount: int) -> None:
        """Tell Redis of what was used without it, now or when it is back; rather twice than never."""
        now = time.time()
        try:
            told = self._charge.call([self._key(meter, now)], meter.kind, amount, _milliseconds(meter, now))
            told.add_done_callback(partial(self._told, meter, amount))
        except RedisUnavailable:
            _, before = self._owed.get(meter.key, (meter, 0))
            self._owed[meter.key] = meter, before + amount

    def _told(self, meter: Meter, amount: int, answer: Any) -> None:
        if _failed(answer):
            self._owe(meter, amount)

    def resume(self) -> None:
        """Redis is back: tell it what was settled and used meanwhile."""
        self._alone = None
        late, self._late = self._late, deque(maxlen=_LATE)
        for settlement in late:
            self._send(settlement)
        owed, self._owed = self._owed, {}
        for meter, amount in owed.values():
            self._owe(meter, amount)

    async def _do_without(self, ticket: Ticket) -> None:
        if self.without == "closed":
            raise Overloaded("Limits cannot be checked at the moment.", retry_after=1)
        ticket.meters = [await self._share(meter) for meter in ticket.meters]
        self._alone = self._alone or Memory()
        self._alone.reserve(ticket)

    async def _share(self, meter: Meter) -> Meter:
        """What this process may use of a meter while nobody counts for all."""
        if self.without == "open":
            return attrs.evolve(meter, limit=_UNLIMITED)
        left = meter.limit
        if meter.kind == "purse":
            level = self._levels.get(meter.key)
            if level is None and self.spent is not None:
                level = await self.spent(meter, period(meter.per, time.time()))
            return attrs.evolve(meter, limit=max(0, left - (level or 0)) // self._link.processes.alive)
        return attrs.evolve(meter, limit=max(1, left // self._link.processes.alive))

    def _key(self, meter: Meter, now: float) -> str:
        name = f"{self._link.prefix}:{meter.kind}:{meter.key}"
        return name + period(meter.per, now).id if meter.kind == "purse" else name

    def _own_lease(self) -> str:
        return self._link.processes.lease(self._link.processes.name)


def _failed(answer: Any) -> bool:
    """Redis did not carry it out, or has not said so."""
    error = None if answer.cancelled() else answer.exception()
    if error is not None and not isinstance(error, RedisUnavailable):
        log.error("Redis refused a command of ours: %s", error)
    return isinstance(error, RedisUnavailable)


def _lease(ticket: Ticket) -> str:
    """What others must give back for it if this process dies; empty where that is nothing."""
    held = [
        (meter.kind, key, amount)
        for meter, key, amount in zip(ticket.meters, ticket.places, ticket.amounts, strict=False)
        if meter.kind != "rate" and amount
    ]
    return json.dumps(held, separators=(",", ":")) if held else ""


def _milliseconds(meter: Meter, now: float) -> int:
    """Of a part of a rate's window; until when a purse is kept, 0 is for ever."""
    if meter.kind == "rate":
        return int(meter.seconds * 1000 / SLOTS)
    if meter.kind == "purse" and now and (end := period(meter.per, now).end) is not None:
        return int(end * 1000) + _AFTER
    return 0
