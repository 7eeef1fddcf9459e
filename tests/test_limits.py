from __future__ import annotations

from typing import Any

import pytest

from gateway.limits import Limit
from gateway.structure import make_converter, mistakes


def structure(table: dict[str, Any]) -> Limit:
    return make_converter().structure(table, Limit)


@pytest.mark.parametrize(
    ("table", "unit", "amount"),
    [
        ({"requests": 60, "per": "minute"}, "requests", 60),
        ({"tokens": 0, "per": "day"}, "tokens", 0),
        ({"input_tokens": 5, "per": "hour"}, "input_tokens", 5),
        ({"output_tokens": 6, "per": "minute"}, "output_tokens", 6),
        ({"concurrency": 3}, "concurrency", 3),
        ({"usd": 0.05, "per": "total"}, "usd", 50_000_000),
        ({"usd": 20, "per": "month"}, "usd", 20_000_000_000),
    ],
)
def test_a_limit_is_of_one_thing(table: dict[str, Any], unit: str, amount: int) -> None:
    limit = structure(table)
    assert (limit.unit, limit.amount) == (unit, amount)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"per": "minute"}, "expected one of requests"),
        ({"requests": 1, "tokens": 1, "per": "minute"}, "expected one of requests"),
        ({"requests": 1}, "of requests expected one of minute, hour, day"),
        ({"tokens": 1, "per": "month"}, "of tokens expected one of minute, hour, day"),
        ({"usd": 1, "per": "minute"}, "of usd expected one of day, week, month, total"),
        ({"usd": 0, "per": "day"}, "must be > 0"),
        ({"concurrency": 1, "per": "minute"}, "counted at each moment"),
        ({"requests": -1, "per": "minute"}, "must be >= 0"),
        ({"request": 1, "per": "minute"}, "Did you mean 'requests'?"),
    ],
)
def test_anything_else_is_a_mistake(table: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception) as raised:
        structure(table)
    assert message in " ".join(text for _, text in mistakes(raised.value))


def test_globs_say_which_models_count() -> None:
    limit = structure({"requests": 1, "per": "minute", "models": ["gpt-*"]})
    assert limit.concerns("gpt-4o")
    assert not limit.concerns("llama3")
    assert not limit.concerns(None)
    assert structure({"requests": 1, "per": "minute"}).concerns(None)
