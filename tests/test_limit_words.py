from __future__ import annotations

import pytest

from gateway.errors import BudgetExceeded, RateLimited
from gateway.limit_words import dollars, headers, refusal
from gateway.state.meters import Meter, Ticket


def meter(unit: str, limit: int, per: str | None, seconds: float = 60, whose: str = "key") -> Meter:
    kind = {"concurrency": "gauge", "usd": "purse"}.get(unit, "rate")
    return Meter(unit, kind, limit, unit, whose, "alice", per, seconds)  # type: ignore[arg-type]


def ticket(*told: tuple[Meter, int, int], refused: int = -1, wait: float = 0.0) -> Ticket:
    made = Ticket([meter for meter, _, _ in told], [amount for _, amount, _ in told])
    made.used, made.refused, made.wait = [used for _, _, used in told], refused, wait
    return made


def test_of_several_windows_the_tightest_is_told() -> None:
    minute, day = meter("requests", 60, "minute"), meter("requests", 100, "day", 86400)
    told = dict(headers(ticket((minute, 1, 10), (day, 1, 90))))
    assert told == {
        "x-ratelimit-limit-requests": "100", "x-ratelimit-remaining-requests": "10",
        "x-ratelimit-reset-requests": "86400.000s",
    }  # fmt: skip


def test_less_than_nothing_is_left_of_nothing() -> None:
    told = dict(headers(ticket((meter("tokens", 60, "minute"), 1, 99))))
    assert told["x-ratelimit-remaining-tokens"] == "0"


@pytest.mark.parametrize(
    ("refused", "message", "wait"),
    [
        ((meter("requests", 3, "minute"), 1, 3), "This key has used the requests of this minute: 3.", 13),
        ((meter("input_tokens", 9, "day", whose="team"), 5, 8),
         "This key's team has used the input tokens of this day: 9.", 13),
        ((meter("concurrency", 2, None, whose="all"), 1, 2),
         "All keys together have 2 calls running, as many as allowed.", 1),
        ((meter("tokens", 9, "minute"), 10, 0),
         "This request alone is estimated at 10 tokens; the limit is 9 per minute.", None),
    ],
)  # fmt: skip
def test_a_refusal_says_what_is_used_up(refused: tuple[Meter, int, int], message: str, wait: float | None) -> None:
    error = refusal(ticket(refused, refused=0, wait=12.3))
    assert isinstance(error, RateLimited)
    assert (error.message, error.retry_after) == (message, wait)


def test_a_budget_says_what_is_left_and_when_it_begins_anew() -> None:
    error = refusal(ticket((meter("usd", 20 * 10**9, "month"), 31 * 10**7, 19_880_000_000), refused=0))
    assert isinstance(error, BudgetExceeded)
    assert error.message.startswith(
        "This request may cost up to $0.31, and $0.12 of this key's budget, $20.00 per month,"
    )
    assert "begins anew on 20" in error.message
    assert error.retry_after is None
    total = refusal(ticket((meter("usd", 10**9, "total", whose="team"), 1, 10**9), refused=0))
    assert "$0.00 of the budget of this key's team, $1.00 in all, is left. A smaller" in total.message


@pytest.mark.parametrize(
    ("nano", "text"), [(0, "$0.00"), (1, "$0.000000001"), (1_500_000, "$0.0015"), (20 * 10**9, "$20.00")]
)
def test_money_is_exact(nano: int, text: str) -> None:
    assert dollars(nano) == text
