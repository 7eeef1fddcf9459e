"""What is counted, and what a request takes of it: the words that every store of limits understands.

A request holds a ``Ticket``: before its call it reserves an amount of each of its meters, all of them or none; after it
the amounts are settled, once, for what was really used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, Protocol

import attrs

from gateway.limits import Unit

_DAY = 86_400
Kind = Literal["rate", "gauge", "purse"]
SLOTS = 60
"""Parts of a window. What was used is forgotten when its whole part is out of the window, so a limit of 60 seconds
holds in any 60 seconds, and what was used counts for 61 at most."""


@attrs.frozen(eq=False)
class Meter:
    """One counter with its limit."""

    key: str
    """Names the counter; different things never have one name."""
    kind: Kind
    """``rate``: used within a sliding window; ``gauge``: in use at this moment; ``purse``: money of a period."""
    limit: int
    unit: Unit
    """Money counts in nano-dollars."""
    whose: Literal["key", "team", "all"]
    """``key``, ``team`` or ``all``: what to call it to whom it refuses."""
    owner: str
    """Name of the key or team; empty for all."""
    per: str | None = None
    seconds: float = 0
    """Length of a rate's window."""
    models: tuple[str, ...] = ("*",)
    """Globs of the models it is about."""


@attrs.frozen
class Period:
    """A day, week or month of the calendar, in UTC; or all time."""

    id: str
    start: float
    """Unix time."""
    end: float | None
    """``None``: never."""


class Ticket:
    """What one request takes of its meters."""

    __slots__ = ("after", "amounts", "at", "home", "id", "meters", "places", "refused", "used", "wait")

    def __init__(self, meters: Sequence[Meter], amounts: Sequence[int], after: Sequence[int] | None = None) -> None:
        self.meters = meters
        self.amounts = amounts
        """Reserved of each meter."""
        self.after = after
        """What will have been used of each, where that is known before the call."""
        self.id = ""
        """The store's own name for it."""
        self.used: Sequence[int] = ()
        """Of each meter, this ticket's amount included, unless it was refused."""
        self.refused = -1
        """Place of the meter that had too little left; -1: it was granted."""
        self.wait = 0.0
        """Seconds until the refusing meter will have enough, if nobody else takes it; 0 is not known."""
        self.at = 0.0
        """When it was granted, by the store's clock."""
        self.places: Any = ()
        """Where its amounts are counted, in the store's own way."""
        self.home: Store | None = None
        """Who granted it."""


class Store(Protocol):
    """Counts. Exact: of all tickets together no meter ever grants more than its limit."""

    def reserve(self, ticket: Ticket) -> Awaitable[None] | None:
        """Take its amounts of all meters, or none of any (``ticket.refused``)."""

    def settle(self, ticket: Ticket, amounts: Sequence[int]) -> None:
        """Put what was used in the place of what was reserved; once, and only if it was granted. Waits for nothing."""


Spent = Callable[[Meter, Period], Awaitable[int]]
"""What is known, from a ledger, to have been spent in a period that a store knows nothing of."""


def period(per: str | None, now: float) -> Period:
    """The one around ``now``, a Unix time."""
    return _period(per, int(now // _DAY))


@lru_cache(maxsize=16)
def _period(per: str | None, number: int) -> Period:
    if per == "total":
        return Period("total", 0.0, None)
    day = datetime.fromtimestamp(number * _DAY, UTC).date()
    if per == "month":
        start = day.replace(day=1)
        end = (start + timedelta(days=31)).replace(day=1)
    elif per == "week":
        start = day - timedelta(days=day.weekday())
        end = start + timedelta(days=7)
    else:
        start, end = day, day + timedelta(days=1)
    return Period(start.isoformat(), _unix(start), _unix(end))


def _unix(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
