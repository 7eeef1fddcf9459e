"""What a caller is told of its limits: the ``x-ratelimit-*`` headers, and why it is refused."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil

from multidict import istr

from gateway.errors import BudgetExceeded, GatewayError, RateLimited
from gateway.limits import NANO
from gateway.state.meters import Meter, Ticket, period

# Named as OpenAI does; of several windows the one with the least left is told.
_NAMES = {
    kind: (
        istr(f"x-ratelimit-limit-{kind}"),
        istr(f"x-ratelimit-remaining-{kind}"),
        istr(f"x-ratelimit-reset-{kind}"),
    )
    for kind in ("requests", "tokens")
}
_WHOSE = {"key": "This key has", "team": "This key's team has", "all": "All keys together have"}
_BUDGETS = {"key": "this key's budget", "team": "the budget of this key's team", "all": "the budget of all keys"}
_WORDS = {"input_tokens": "input tokens", "output_tokens": "output tokens"}
_AGAIN = 1.0  # seconds after which one of the calls at once may have ended


def headers(ticket: Ticket) -> list[tuple[str, str]]:
    """The caller's limits on requests and tokens; resets are Go durations, as OpenAI writes them."""
    found: list[tuple[str, str]] = []
    meters, used = ticket.meters, ticket.used
    for limit, remaining, reset, places in _places(tuple(meters)):
        place = places[0]
        meter = meters[place]
        for other in places[1:]:
            if (meters[other].limit - used[other]) * meter.limit < (meter.limit - used[place]) * meters[other].limit:
                place, meter = other, meters[other]
        left = meter.limit - used[place]
        # What this request used counts for the whole window.
        wait = _resets(meter.seconds) if place != ticket.refused else f"{ticket.wait:.3f}s"
        found += ((limit, str(meter.limit)), (remaining, str(left) if left > 0 else "0"), (reset, wait))
    return found


@lru_cache(maxsize=1024)
def _places(meters: tuple[Meter, ...]) -> Sequence[tuple[str, str, str, list[int]]]:
    """For each kind of headers, their names and which of the meters they can tell of."""
    found = []
    for unit, names in _NAMES.items():
        if places := [place for place, meter in enumerate(meters) if meter.unit == unit]:
            found.append((*names, places))
    return found


@lru_cache(maxsize=64)
def _resets(seconds: float) -> str:
    return f"{seconds:.3f}s"


def refusal(ticket: Ticket) -> GatewayError:
    """Why the ticket was not granted."""
    meter = ticket.meters[ticket.refused]
    if meter.unit == "usd":
        return BudgetExceeded(_spent(meter, ticket.used[ticket.refused], ticket.amounts[ticket.refused]))
    told = dict(headers(ticket))
    if meter.unit == "concurrency":
        calls = f"{meter.limit} call{'s' if meter.limit > 1 else ''}"
        return RateLimited(
            f"{_WHOSE[meter.whose]} {calls} running, as many as allowed.", retry_after=_AGAIN, headers=told
        )
    amount, words = ticket.amounts[ticket.refused], _WORDS.get(meter.unit, meter.unit)
    if amount > meter.limit:
        message = f"This request alone is estimated at {amount} {words}; the limit is {meter.limit} per {meter.per}."
        return RateLimited(message, headers=told | {"x-should-retry": "false"})
    message = f"{_WHOSE[meter.whose]} used the {words} of this {meter.per}: {meter.limit}."
    return RateLimited(message, retry_after=ceil(ticket.wait), headers=told)


def _spent(meter: Meter, used: int, wanted: int) -> str:
    left = max(0, meter.limit - used)
    when = ""
    if (end := period(meter.per, time.time()).end) is not None:
        when = f" It begins anew on {datetime.fromtimestamp(end, UTC):%Y-%m-%d}."
    per = "in all" if meter.per == "total" else f"per {meter.per}"
    return (
        f"This request may cost up to {dollars(wanted)}, and {dollars(left)} of {_BUDGETS[meter.whose]}, "
        f"{dollars(meter.limit)} {per}, is left.{when} A smaller max_tokens reserves less."
    )


def dollars(nano: int) -> str:
    """``$0.0015``: at least cents, and what is behind them if it is not zero."""
    whole, rest = divmod(nano, NANO)
    digits = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"${whole}.{digits}"
