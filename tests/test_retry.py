"""What failures allow, and how long they ask to wait."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway import Duration, errors
from gateway.retry import LONGEST, PAUSE, Verdict, backoff, judge, retry_after
from gateway.settings import Retry

WALL = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110's examples
GEMINI = {
    "error": {
        "code": 429, "message": "Please retry in 34.4s.", "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "x"}]},
            {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"},
        ],
    }
}  # fmt: skip


def told(headers: Mapping[str, str] = {}, body: Any = b"") -> float | None:
    return retry_after(CIMultiDict(headers), body if isinstance(body, bytes) else json.dumps(body).encode(), WALL)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3.0), ({"retry-after": "0"}, 0.0), ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": " 20 "}, 20.0), ({"Retry-After": "86400"}, 86400.0),
        ({"retry-after-ms": "1234"}, 1.234), ({"Retry-After-Ms": "88.5"}, 0.0885),
        ({"retry-after-ms": "1500", "Retry-After": "2"}, 1.5), ({"retry-after-ms": "soon", "Retry-After": "2"}, 2.0),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:47 GMT"}, 10.0),
        ({"Retry-After": "Sunday, 06-Nov-94 08:49:47 GMT"}, 10.0), ({"Retry-After": "Sun Nov  6 08:49:47 1994"}, 10.0),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0.0),
    ],
    ids=str,
)  # fmt: skip
def test_r45_what_headers_say(headers: dict[str, str], seconds: float) -> None:
    assert told(headers) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "-1", "-0.5", "soon", "inf", "nan", "1e3", "0x10", "1_000", "\u0661", "\u00b2", "1.", ".5", "3s",
        "3 5", "86401", "1700000000", "9" * 400, "Sun, 06 Nov 1994 08:49:36 GMT", "Tue, 08 Nov 1994 08:49:37 GMT",
        "Sun, 99 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 99999 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:47 +9999999999",
    ],
)  # fmt: skip
def test_r45_what_cannot_be_meant_is_not_believed(value: str) -> None:
    assert told({"Retry-After": value}) is None
    if value != "86401":
        assert told({"retry-after-ms": value}) is None


@given(st.text(max_size=60), st.binary(max_size=60))
def test_r45_nothing_an_upstream_says_breaks_anything(value: str, body: bytes) -> None:
    for seconds in (
        told({"Retry-After": value, "retry-after-ms": value[::-1]}),
        told({"Retry-After": f"Sun, 06 Nov {value}"}),
        told(body=b'{"retryDelay"' + body),
        told(body={"error": {"details": [{"@type": "x", "retryDelay": value}]}}),
    ):
        assert seconds is None or 0 <= seconds <= LONGEST


@given(st.integers(0, int(LONGEST)))
def test_r45_a_date_is_as_good_as_its_seconds(seconds: int) -> None:
    assert told({"Retry-After": formatdate(WALL + seconds, usegmt=True)}) == seconds


@pytest.mark.parametrize("body", [GEMINI, [GEMINI]], ids=["object", "list"])
def test_r45_geminis_retry_info_is_read(body: Any) -> None:
    assert told(body=body) == 34.4
    assert told({"Retry-After": "1"}, body) == 1.0


RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        ("0s", 0.0), ("7s", 7.0), ("0.002899s", 0.002899), ("7", None), ("-1s", None), (8, None), (None, None),
        ("s", None), ("99999s", None), ({"seconds": 7}, None),
    ],
)  # fmt: skip
def test_r45_a_delay_is_a_duration_of_protobufs(delay: Any, seconds: float | None) -> None:
    assert told(body={"error": {"details": [{"@type": RETRY_INFO, "retryDelay": delay}]}}) == seconds


@pytest.mark.parametrize(
    "body",
    [
        [], [[]], {}, {"error": "retryDelay"}, {"error": None}, {"error": {"details": None}},
        {"error": {"details": [1]}}, {"error": {"details": {"retryDelay": "1s"}}},
        {"error": {"details": [{"retryDelay": "1s"}]}},
        {"details": [{"@type": RETRY_INFO, "retryDelay": "1s"}]}, "retryDelay", 1,
        b'{"retryDelay"', b"[" * 100_000 + b'"retryDelay"', b'\xff"retryDelay"',
    ],
)  # fmt: skip
def test_r45_bodies_of_another_shape_say_nothing(body: Any) -> None:
    assert told(body=body) is None


# Backoff.


@given(st.integers(0, 2000), st.floats(0, 1, exclude_max=True))
def test_r44_waits_are_drawn_evenly_up_to_a_limit_that_doubles(attempt: int, chance: float) -> None:
    settings = Retry()
    wait = backoff(attempt, settings, lambda: chance)
    assert wait == chance * (4.0 if attempt >= 4 else 0.25 * 2**attempt)


def test_r44_jitter_is_full() -> None:
    chance = random.Random(44)
    waits = sorted(backoff(2, Retry(), chance.random) for _ in range(1000))
    assert waits[0] < 0.01 and waits[-1] > 0.99 and 0.45 < waits[500] < 0.55


def test_r44_there_may_be_no_wait_at_all() -> None:
    assert backoff(5, Retry(backoff=Duration(0.0), max_backoff=Duration(0.0))) == 0.0


# The verdict.


def refused(status: int, after: float | None = None) -> errors.UpstreamRefused:
    return errors.UpstreamRefused(status, b"", {}, retry_after=after)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 413, 415, 418, 422, 424, 451, 499])
@pytest.mark.parametrize("repeatable", [True, False])
def test_r44_the_requests_own_fault_is_not_tried_again(status: int, repeatable: bool) -> None:
    assert judge(refused(status, 3.0), repeatable) == Verdict(fallback=False, again=False)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 507, 520, 529, 599])
def test_r44_a_providers_failure_is_tried_again_where_that_only_costs_tokens(status: int) -> None:
    assert judge(refused(status), True) == Verdict(True, True, failure=True)
    assert judge(refused(status), False) == Verdict(False, False, failure=True)


def test_r45_a_failure_that_says_how_long_cools_too() -> None:
    assert judge(refused(503, 7.0), True) == Verdict(True, True, failure=True, cooldown=7.0)


@pytest.mark.parametrize("repeatable", [True, False])
def test_r45_a_limit_cools_and_is_no_failure_and_was_not_carried_out(repeatable: bool) -> None:
    assert judge(refused(429, 3.0), repeatable) == Verdict(True, True, cooldown=3.0)
    assert judge(refused(429), repeatable) == Verdict(True, True, cooldown=PAUSE)
    assert judge(refused(429, 0.0), repeatable).cooldown == 0.0


@pytest.mark.parametrize(("status", "again"), [(402, False), (408, True), (501, False)])
def test_some_refusals_tell_nothing_of_the_target(status: int, again: bool) -> None:
    assert judge(refused(status), True) == Verdict(True, again)
    assert judge(refused(status), False) == Verdict(False, False)


@pytest.mark.parametrize(
    "kind", [errors.UpstreamUnreachable, errors.UpstreamTimeout, errors.UpstreamProtocolError, errors.UpstreamError]
)
def test_r46_what_may_have_been_carried_out_is_repeated_only_where_that_does_no_harm(
    kind: type[errors.UpstreamError],
) -> None:
    assert judge(kind("x"), True) == Verdict(True, True, failure=True)
    assert judge(kind("x"), False) == Verdict(False, False, failure=True)
    assert judge(kind("x", sent=False), False) == Verdict(True, True, failure=True)


@pytest.mark.parametrize("repeatable", [True, False])
def test_r34_after_the_first_byte_nothing_is_tried_again(repeatable: bool) -> None:
    assert judge(errors.StreamInterrupted("x"), repeatable) == Verdict(False, False, failure=True)
    late = errors.UpstreamRefused(500, b"", {}, fallback=False)
    assert judge(late, repeatable) == Verdict(False, False, failure=True)
