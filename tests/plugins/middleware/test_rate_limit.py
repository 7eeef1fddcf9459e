"""Buckets are exact under a clock of the test's own; slots come back on every way out of an exchange."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import Exchange, Principal, Reply, Usage
from gateway.errors import RateLimited
from gateway.testing import (
    GatewayFactory,
    RawClient,
    ScriptedUpstream,
    Truncated,
    as_asked,
    chat_stream,
    error,
    fetch_chat,
    hang_up,
    silent,
)
from gateway_plugins.middleware import rate_limit
from tests.support.exchanges import make_exchange, make_runtime

ALICE, BOB = Principal("alice"), Principal("bob")


class Limiter:
    """The plugin with a clock that only the test moves."""

    def __init__(self, **settings: int) -> None:
        self.now = 1000.0
        self.plugin = rate_limit.Plugin(rate_limit.Settings(**settings), make_runtime())
        self.plugin.clock = lambda: self.now

    def begin(self, principal: Principal | None = ALICE) -> Exchange:
        exchange = make_exchange(principal=principal)
        self.plugin.on_request(exchange)
        return exchange

    def run(self, principal: Principal | None = ALICE, usage: Usage | None = None, **facts: object) -> Reply:
        exchange = self.begin(principal)
        for name, value in facts.items():
            setattr(exchange, name, value)
        reply = Reply()
        self.plugin.on_reply(exchange, reply)
        exchange.usage = usage
        self.plugin.on_finish(exchange)
        return reply

    def refused(self, principal: Principal | None = ALICE) -> RateLimited:
        with pytest.raises(RateLimited) as caught:
            self.begin(principal)
        return caught.value

    def allowed(self, most: int = 100_000, principal: Principal | None = ALICE) -> int:
        """How many requests pass now."""
        for count in range(most):
            try:
                self.run(principal)
            except RateLimited:
                return count
        return most


def test_r47_the_limit_at_once_and_then_as_it_refills() -> None:
    limiter = Limiter(requests_per_minute=60)
    assert limiter.allowed() == 60
    for seconds, more in ((0.5, 0), (0.5, 1), (3, 3), (0.25, 0), (0.75, 1), (30, 30), (3600, 60)):
        limiter.now += seconds
        assert limiter.allowed() == more


@given(st.integers(1, 500), st.lists(st.integers(0, 30), min_size=1, max_size=40))
def test_r47_no_minute_sees_more_than_twice_the_limit_and_no_more_than_its_share(limit: int, waits: list[int]) -> None:
    limiter = Limiter(requests_per_minute=limit)
    passed = 0
    for wait in waits:
        limiter.now += wait
        passed += limiter.allowed()
    elapsed = sum(waits)
    assert passed <= limit + limit * elapsed / 60 + 1e-6


@given(st.integers(1, 1000))
def test_r47_whoever_waits_as_told_gets_in(limit: int) -> None:
    limiter = Limiter(requests_per_minute=limit)
    limiter.allowed()
    refusal = limiter.refused()
    assert refusal.retry_after is not None and 1 <= refusal.retry_after <= 60
    limiter.now += refusal.retry_after
    limiter.run()


def test_a_wait_is_no_longer_than_needed() -> None:
    limiter = Limiter(requests_per_minute=6)  # one in 10 s
    assert limiter.allowed() == 6
    assert limiter.refused().retry_after == 10
    limiter.now += 4
    assert limiter.refused().retry_after == 6


def test_a_refused_request_uses_nothing_up() -> None:
    limiter = Limiter(requests_per_minute=60, max_concurrency=1)
    held = limiter.begin()
    for _ in range(100):
        limiter.refused()
    limiter.plugin.on_finish(held)
    assert limiter.allowed() == 59


def test_0_is_no_limit() -> None:
    assert Limiter(requests_per_minute=0).allowed(10_000) == 10_000
    own = Principal("p", requests_per_minute=0, tokens_per_minute=0, max_concurrency=0)
    limiter = Limiter(requests_per_minute=1, tokens_per_minute=1, max_concurrency=1)
    assert limiter.allowed(1000, own) == 1000


def test_principals_do_not_share() -> None:
    limiter = Limiter(requests_per_minute=5)
    assert limiter.allowed(principal=ALICE) == 5
    assert limiter.allowed(principal=BOB) == 5
    assert limiter.allowed(principal=None) == 5  # without keys all are one
    assert limiter.allowed(principal=Principal("eve", requests_per_minute=3)) == 3


def test_tokens_are_taken_when_they_are_known() -> None:
    limiter = Limiter(requests_per_minute=0, tokens_per_minute=600)  # ten a second
    limiter.run(usage=Usage(500, 99))
    limiter.run(usage=Usage(1000, 0))  # the last token lets one more in, whatever it takes
    refusal = limiter.refused()
    assert refusal.retry_after == 100  # 999 below zero, and one to begin with
    assert refusal.headers["x-ratelimit-remaining-tokens"] == "0"
    limiter.now += 99.8
    limiter.refused()
    limiter.now += 0.3
    limiter.run()


@pytest.mark.parametrize("cache", ["hit", "coalesced"])
def test_what_came_from_the_cache_costs_no_tokens(cache: str) -> None:
    limiter = Limiter(requests_per_minute=0, tokens_per_minute=10)
    for _ in range(5):
        limiter.run(usage=Usage(100, 100), cache=cache)


def test_unknown_usage_takes_no_tokens() -> None:
    limiter = Limiter(requests_per_minute=0, tokens_per_minute=10)
    limiter.run(usage=None)
    assert limiter.run().headers["x-ratelimit-remaining-tokens"] == "10"


def test_calls_at_once() -> None:
    limiter = Limiter(requests_per_minute=0, max_concurrency=3)
    running = [limiter.begin() for _ in range(3)]
    refusal = limiter.refused()
    assert refusal.retry_after == 1
    limiter.begin(BOB)
    limiter.plugin.on_finish(running.pop())
    running.append(limiter.begin())
    limiter.refused()


def test_r47_a_slot_is_returned_once_even_if_it_is_returned_twice() -> None:
    limiter = Limiter(requests_per_minute=0, max_concurrency=1)
    first = limiter.begin()
    limiter.plugin.on_finish(first)
    limiter.plugin.on_finish(first)
    limiter.plugin.on_finish(make_exchange(principal=ALICE))  # refused before it came here
    limiter.begin()
    limiter.refused()


def test_headers_tell_the_callers_own_limits() -> None:
    limiter = Limiter(requests_per_minute=60, tokens_per_minute=120)
    limiter.run(usage=Usage(20, 10))
    limiter.now += 0.5
    headers = limiter.run().headers
    assert {name: headers[name] for name in headers} == {
        "x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "58",
        "x-ratelimit-reset-requests": "1.500s", "x-ratelimit-limit-tokens": "120",
        "x-ratelimit-remaining-tokens": "91", "x-ratelimit-reset-tokens": "14.500s",
    }  # fmt: skip


def test_without_a_limit_there_is_nothing_to_tell() -> None:
    assert not Limiter(requests_per_minute=0).run().headers


# Principals of tokens: as many as there are users, with the limits their tokens say.


def test_a_token_that_says_another_limit_changes_it() -> None:
    limiter = Limiter(requests_per_minute=0)
    assert limiter.allowed(principal=Principal("u", requests_per_minute=6)) == 6
    more = Principal("u", requests_per_minute=60)
    assert limiter.allowed(principal=more) == 0  # not at once …
    assert limiter.refused(more).headers["x-ratelimit-limit-requests"] == "60"
    limiter.now += 10
    assert limiter.allowed(principal=more) == 10  # … but as it refills
    limiter.now += 3600
    assert limiter.allowed(principal=Principal("u", requests_per_minute=6)) == 6
    assert limiter.allowed(principal=Principal("u")) == 100_000


def test_two_tokens_in_turns_get_no_more_than_the_better_one() -> None:
    limiter = Limiter(requests_per_minute=0)
    tokens = [Principal("u", requests_per_minute=limit) for limit in (6, 60)]
    passed = 0
    for turn in range(2000):
        passed += limiter.allowed(1, tokens[turn % 2])
        limiter.now += 0.01
    assert passed <= 60 + 20


def test_limits_are_taken_over_once_while_they_are_the_same() -> None:
    limiter = Limiter(requests_per_minute=60)
    for _ in range(60):
        limiter.run(Principal("u", requests_per_minute=60))  # equal, and another object each time
    limiter.refused(Principal("u", requests_per_minute=60))


def test_meters_of_those_who_are_gone_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "_MANY", 10)
    limiter = Limiter(requests_per_minute=60, tokens_per_minute=60)
    held = limiter.begin(ALICE)
    limiter.run(BOB, usage=Usage(10_000_000, 0))
    for number in range(5000):
        limiter.run(Principal(f"u{number}"))
        limiter.now += 0.1
        assert len(limiter.plugin._known) <= 30  # twice the ten of the last second, and some to begin with
        assert set(limiter.plugin._meters) == set(limiter.plugin._known)
    assert {"alice", "bob"} < set(limiter.plugin._known)  # one still runs, the other has used up more than there is
    limiter.refused(BOB)
    limiter.plugin.on_finish(held)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 7),
        st.sampled_from(["run", "begin", "finish"]),
        st.integers(0, 30),
        st.sampled_from([0, 1, 5, 90]),
    ),
    max_size=60,
)


@given(STEPS, st.integers(2, 4))
def test_nobody_notices_that_a_meter_was_dropped(steps: list[tuple[int, str, int, int]], many: int) -> None:
    def told(limiter: Limiter) -> list[object]:
        found: list[object] = []
        running: list[Exchange] = []
        for who, what, tokens, seconds in steps:
            limiter.now += seconds
            if what == "finish":
                if running:
                    limiter.plugin.on_finish(running.pop(0))
                continue
            try:
                if what == "begin":
                    running.append(limiter.begin(Principal(f"u{who}")))
                else:
                    found.append(dict(limiter.run(Principal(f"u{who}"), usage=Usage(tokens, 0)).headers))
            except RateLimited as error:
                found.append((error.retry_after, dict(error.headers)))
        return found

    settings = {"requests_per_minute": 3, "tokens_per_minute": 40, "max_concurrency": 2}
    with pytest.MonkeyPatch.context() as patch:
        kept = told(Limiter(**settings))
        patch.setattr(rate_limit, "_MANY", many)
        assert told(Limiter(**settings)) == kept


# Through a running gateway: the ways out that a plugin cannot see by itself.

KEYS = {name: f"hg-limits-{name}" for name in ("alice", "bob", "tokens")}
CONFIG = f"""
[plugins.rate_limit]
requests_per_minute = 0
[keys.alice]
sha256 = "{hashlib.sha256(KEYS["alice"].encode()).hexdigest()}"
max_concurrency = 5
[keys.bob]
sha256 = "{hashlib.sha256(KEYS["bob"].encode()).hexdigest()}"
requests_per_minute = 3
[keys.tokens]
sha256 = "{hashlib.sha256(KEYS["tokens"].encode()).hexdigest()}"
tokens_per_minute = 10
[breaker]
failures = 0
error_rate = 0
[providers.stub]
type = "openai_compat"
base_url = "$upstream/v1"
timeouts = {{ first_token = "0.5s", idle = "0.5s" }}
[models.m]
targets = [{{ provider = "stub" }}]
"""


async def test_limits_are_told_and_kept(gateway_server: GatewayFactory) -> None:
    async with ScriptedUpstream(as_asked()) as upstream:
        gateway = gateway_server(CONFIG, upstream=upstream.url)
        replies = [await fetch_chat(gateway.url, key=KEYS["bob"]) for _ in range(5)]
        assert [reply.status for reply in replies] == [200, 200, 200, 429, 429]
        assert [reply.header("x-ratelimit-remaining-requests") for reply in replies] == ["2", "1", "0", "0", "0"]
        assert all(reply.header("x-ratelimit-limit-requests") == "3" for reply in replies)
        assert re.fullmatch(r"\d+\.\d{3}s", replies[4].header("x-ratelimit-reset-requests") or "")
        assert 1 <= int(replies[4].header("retry-after") or "") <= 20
        assert replies[4].json["error"]["code"] == "rate_limit_exceeded"
        assert len(upstream.calls) == 3
        assert (await fetch_chat(gateway.url, key=KEYS["alice"])).status == 200  # another's limit is not hers
        streams = [await fetch_chat(gateway.url, key=KEYS["tokens"], stream=True) for _ in range(2)]
        assert [reply.status for reply in streams] == [200, 200]  # 7 tokens each
        assert (await fetch_chat(gateway.url, key=KEYS["tokens"])).status == 429


async def test_r47_every_way_out_returns_its_slot(gateway_server: GatewayFactory) -> None:
    scripts = [
        as_asked(),
        hang_up,
        error(500),
        error(429, headers={"Retry-After": "0"}),
        silent,
        chat_stream(20, pause=0.02),
    ]
    scripts += [chat_stream(9, after=2, ending="reset"), chat_stream(9, after=2, ending="stall")]
    chance = random.Random(47)
    async with ScriptedUpstream(as_asked()) as upstream:
        gateway = gateway_server(CONFIG, upstream=upstream.url)

        async def one() -> None:
            upstream.script = chance.choice(scripts)
            async with RawClient(gateway.url) as client:
                await client.chat("m", key=KEYS["alice"], stream=chance.random() < 0.7)
                if chance.random() < 0.4:
                    await asyncio.sleep(chance.random() / 10)
                    (client.abort if chance.random() < 0.5 else client.leave)()
                    return
                try:
                    await client.read()
                except Truncated:
                    pass

        for _ in range(15):
            await asyncio.gather(*(one() for _ in range(12)))
        await asyncio.sleep(0.5)
        upstream.script = chat_stream(5, pause=0.1)
        replies = await asyncio.gather(*(fetch_chat(gateway.url, key=KEYS["alice"], stream=True) for _ in range(6)))
    assert sorted(reply.status for reply in replies) == [200] * 5 + [429]


class Generations:
    """One runtime's memory for several plugins, each as a reload makes it."""

    def __init__(self) -> None:
        self.kept: dict[str, object] = {}
        self.limiter = self.reload()

    def reload(self, **settings: int) -> Limiter:
        self.limiter = Limiter(**settings)
        runtime = make_runtime(keep=lambda key, make: self.kept.setdefault(key, make()))
        self.limiter.plugin = rate_limit.Plugin(rate_limit.Settings(**settings), runtime)
        self.limiter.plugin.clock = lambda: 1000.0
        return self.limiter


def test_what_is_used_stays_used_over_a_reload() -> None:
    generations = Generations()
    limiter = generations.reload(requests_per_minute=3, tokens_per_minute=100)
    limiter.run(usage=Usage(50, 20))
    limiter.run()
    reply = generations.reload(requests_per_minute=3, tokens_per_minute=100).run()
    assert reply.headers["x-ratelimit-remaining-requests"] == "0"
    assert reply.headers["x-ratelimit-remaining-tokens"] == "30"
    generations.limiter.refused()


@pytest.mark.parametrize(("limit", "left"), [(10, 7), (5, 2), (4, 1), (2, 1), (1, 0)])
def test_a_changed_limit_counts_at_once(limit: int, left: int) -> None:
    generations = Generations()
    limiter = generations.reload(requests_per_minute=4)
    for _ in range(2):
        limiter.run()
    reply = generations.reload(requests_per_minute=limit).run()
    assert reply.headers["x-ratelimit-remaining-requests"] == str(left)


def test_a_call_that_began_before_a_reload_holds_its_place() -> None:
    generations = Generations()
    old = generations.reload(max_concurrency=1)
    running = old.begin()
    new = generations.reload(max_concurrency=1)
    new.refused()
    old.plugin.on_finish(running)
    new.run()
    assert generations.reload(requests_per_minute=0).run().headers == {}
