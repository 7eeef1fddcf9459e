from __future__ import annotations

import time

from gateway.state.redis_scripts import CHARGE, RESERVE, SEED, SETTLE
from tests.support.redis import Redis, redis

__all__ = ["redis"]


def told(redis: Redis, key: str) -> dict[bytes, bytes]:
    flat = redis.ask("HGETALL", key)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def test_parts_that_left_the_window_are_forgotten(redis: Redis) -> None:
    part = int(time.time() * 1000) // 1000
    for age, amount in ((70, 5), (61, 7), (59, 11), (0, 13)):
        redis.ask("HSET", "m", part - age, amount)
    redis.ask("HSET", "m", "s", 36, "o", part - 70)
    reply = redis.ask("EVAL", RESERVE, 2, "m", "lease", "1", "", "rate", 100, 1, 1000)
    assert (reply[0], reply[3]) in ((0, 25), (0, 14))  # the second, should the clock have moved on by two parts
    assert str(part - 70).encode() not in told(redis, "m")


def test_a_refund_goes_to_its_own_part_alone(redis: Redis) -> None:
    part = int(time.time())
    redis.ask("HSET", "m", part, 50, "s", 50, "o", part)
    redis.ask("EVAL", SETTLE, 2, "m", "lease", "", "rate", 30, 10, 1000, part * 1000)
    assert told(redis, "m")[b"s"] == b"30"
    redis.ask("EVAL", SETTLE, 2, "m", "lease", "", "rate", 30, 10, 1000, (part - 90) * 1000)
    assert told(redis, "m")[b"s"] == b"30"


def test_money_of_an_unknown_period_is_asked_for_and_seeded_once(redis: Redis) -> None:
    ask = ("EVAL", RESERVE, 3, "g", "p", "lease", "1", "held", "gauge", 5, 1, 0, "purse", 100, 10, 0)
    assert redis.ask(*ask)[:2] == [-1, 2]
    assert redis.ask("GET", "g") is None
    for spent in (70, 99):
        redis.ask("EVAL", SEED, 1, "p", spent, 0)
    assert redis.ask(*ask)[3:] == [1, 80]
    assert redis.ask("HGETALL", "lease") == [b"1", b"held"]


def test_a_charge_to_a_period_redis_has_forgotten_is_left_to_the_ledger(redis: Redis) -> None:
    redis.ask("EVAL", CHARGE, 1, "p", "purse", 5, 0)
    assert redis.ask("EXISTS", "p") == 0
