"""An explanation in words."""

from __future__ import annotations

from typing import Any

import attrs

from gateway.config import Breaker, Retry
from gateway.explain import Access, Cache, Explanation, Fallback, Hop, Policy, Resolution
from gateway.explain_limits import Limit
from gateway.explain_text import text

HOP = Hop(
    target="a/x", type="echo", model="x", weight=3, share=0.75, at_once={"a/x": 2, "a": 4}, queue=7, queue_timeout=30.0,
    timeouts={"connect": 5.0, "total": 0.0}, retry_ambiguous=True,
    price={"input": "2.5", "output": "10", "source": "a list"},
)  # fmt: skip
PLAIN = Hop(
    target="b", type="echo", model="m", weight=1, share=0.25, at_once={}, queue=7, queue_timeout=0.0, timeouts=None,
    retry_ambiguous=False,
)  # fmt: skip
NOW = {"state": "open", "wait": 4.26, "in_flight": 3, "latency": 0.5, "failures": 5, "calls": 9, "opened": 2}
GATE = {"running": 2, "limit": 2, "waiting": 1, "refused": 6}
TOLD = Explanation(
    key="alice",
    model="m",
    answer="forwarded",
    status=None,
    access=Access(True, "'*' matches"),
    limits=(Limit("requests_per_minute", 60, "keys.alice"), Limit("max_concurrency", 0, "default")),
    resolution=Resolution("exact", "[models.m]"),
    policies=(Policy("sticky", True, "Sends."), Policy("priority", False, "Sorts.")),
    targets=(HOP, PLAIN),
    fallbacks=(Fallback("n", "", (PLAIN,)), Fallback("o", "none matches")),
    retry=attrs.asdict(Retry()),
    breaker=attrs.asdict(Breaker()),
    cache=Cache(True, "what has temperature 0"),
    running=None,
)


def lines(**changes: Any) -> list[str]:
    return text(attrs.evolve(TOLD, **changes)).split("\n")


def test_everything_is_said_once_and_in_order() -> None:
    assert lines() == [
        "key 'alice', model 'm': forwarded to a/x, b",
        "",
        "access      '*' matches",
        "limit       60 requests a minute, keys.alice",
        "limit       no limit of requests at once, default",
        "resolution  exact: [models.m]",
        "order       sticky: Sends.",
        "order       priority: not asked: its setting 'models' leaves this one out",
        "order       where none of these decides: drawn by weight",
        "target      a/x (echo), asked for 'x', weight 3: 75%",
        "              at once   2 for a/x, 4 for a; 7 may wait, 30 s at most",
        "              price     $2.5 for a million tokens in, $10 out (a list)",
        "              timeouts  connect 5 s, total no limit",
        "              lost      on a reused connection: repeated once",
        "target      b (echo), asked for 'm', weight 1: 25%",
        "              at once   no limit",
        "              price     not known: its cost is not counted ([prices])",
        "fallback    'n', when all targets before have failed",
        "  target    b (echo), asked for 'm', weight 1: 25%",
        "              at once   no limit",
        "              price     not known: its cost is not counted ([prices])",
        "fallback    'o' is skipped: none matches",
        "retry       3 calls for one request at most, fallbacks among them; further calls up to 20% of the first ones; "
        "waits before the same target is called again grow from 0.25 s at most to 4 s",
        "breaker     5 failures in a row or 50% of at least 20 calls within 30 s failed: left alone for 5 s, up to 8 s",
        "cache       yes: what has temperature 0",
    ]


def test_a_refusal_says_its_status_first() -> None:
    found = lines(answer="refused", status=404, key=None, targets=(), fallbacks=(), limits=())
    assert found[0] == "anybody, model 'm': refused with 404"
    assert not [line for line in found if line.startswith(("order", "retry", "breaker"))]
    assert "limit       none: 'rate_limit' is not in the chain" in found
    assert lines(answer="undecided", targets=())[0].endswith("the configuration alone does not decide")


def test_one_target_needs_no_order() -> None:
    found = [line for line in lines(targets=(HOP,)) if line.startswith("order")]
    assert found == ["order       one target, nothing to choose"]
    found = [line for line in lines(policies=()) if line.startswith("order")]
    assert found == ["order       drawn by weight"]


def test_the_running_gateways_state_is_said_of_each_target() -> None:
    hop = attrs.evolve(HOP, now=NOW, gates={"a/x": GATE})
    found = [line.strip() for line in lines(targets=(hop, PLAIN), fallbacks=(), running="http://there")]
    assert [line for line in found if line.startswith("now")] == [
        "now       open, to be called in 4.3 s; 3 in flight, 0.500 s to the first byte, 5 of 9 calls failed lately, "
        "opened 2 times",
        "now       at a/x: 2 of 2 running, 1 waiting, 6 refused",
        "now       never called",
        "now         as the gateway at http://there tells",
    ]


def test_a_breaker_that_looks_at_nothing_never_opens() -> None:
    never = attrs.asdict(Breaker(failures=0, error_rate=0.0))
    assert "breaker     never opens" in lines(breaker=never)


def test_what_is_lost_is_repeated_or_not() -> None:
    hop = attrs.evolve(HOP, retry_ambiguous=False)
    lost = "              lost      on a reused connection: never repeated (retry_ambiguous = false)"
    assert lost in lines(targets=(hop,)) and lost not in lines()


def test_a_queue_without_a_limit_of_time_says_so() -> None:
    unbounded = attrs.evolve(HOP, queue_timeout=0.0)
    assert any(line.endswith("7 may wait, as long as it takes") for line in lines(targets=(unbounded,)))
