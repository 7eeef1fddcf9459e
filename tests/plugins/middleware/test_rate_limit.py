"""Limits hold under a clock of the test's own; what was reserved comes back on every way out of an exchange."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway import Exchange, Principal, Reply, Surface, Target, Usage
from gateway.body import parse_small
from gateway.config import Config, Team
from gateway.errors import BudgetExceeded, RateLimited
from gateway.limits import Limit
from gateway.pricing.price import Price
from gateway.pricing.prices import Prices
from gateway.runtime import Services
from gateway.state.memory import Memory
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
from tests.support.keys import config, ring, stored

ALICE, BOB = Principal("alice"), Principal("bob")
ASKS = Surface("chat", "openai_chat", "/chat/completions", chat=True)


class Limiter:
    """The plugin with a clock that only the test moves."""

    def __init__(self, runtime: Any = None, **settings: Any) -> None:
        self.now = 1000.0
        self.plugin = rate_limit.Plugin(rate_limit.Settings(**settings), runtime or runtime_of())
        assert isinstance(self.plugin.store, Memory)
        self.plugin.store.clock = lambda: self.now

    def begin(self, principal: Principal | None = ALICE, **facts: Any) -> Exchange:
        exchange = make_exchange(principal=principal, **{"surface": ASKS} | facts)
        assert self.plugin.on_request(exchange) is None
        return exchange

    def end(self, exchange: Exchange, usage: Usage | None = None, **facts: Any) -> Reply:
        reply = Reply()
        self.plugin.on_reply(exchange, reply)
        exchange.usage = usage
        for name, value in facts.items():
            setattr(exchange, name, value)
        self.plugin.on_finish(exchange)
        return reply

    def run(self, principal: Principal | None = ALICE, usage: Usage | None = None, **facts: Any) -> Reply:
        return self.end(self.begin(principal), usage, **facts)

    def refused(self, principal: Principal | None = ALICE, **facts: Any) -> RateLimited:
        with pytest.raises(RateLimited) as caught:
            self.begin(principal, **facts)
        return caught.value

    def allowed(self, most: int = 100_000, principal: Principal | None = ALICE) -> int:
        """How many requests pass now."""
        for count in range(most):
            try:
                self.run(principal)
            except RateLimited:
                return count
        return most


def runtime_of(**parts: Any) -> Any:
    return make_runtime(**{"config": Config()} | parts)


def asks(tokens: int = 1, **body: Any) -> dict[str, Any]:
    """Facts of an exchange that asks for an answer to about so many tokens."""
    text = json.dumps({"model": "m", "input": ""} | body)
    more = "x " * (max(0, tokens * 4 - len(text) - 4) // 2)
    payload = parse_small(json.dumps({"model": "m", "input": more} | body).encode())
    return {"payload": payload, "model": "m"}


def test_r47_the_limit_at_once_and_again_when_it_is_out_of_the_window() -> None:
    limiter = Limiter(requests_per_minute=60)
    assert limiter.allowed() == 60
    for seconds, more in ((30, 0), (29, 0), (2, 60), (3600, 60)):
        limiter.now += seconds
        assert limiter.allowed() == more


def test_a_refused_request_uses_nothing_up() -> None:
    limiter = Limiter(requests_per_minute=60, max_concurrency=1)
    held = limiter.begin()
    for _ in range(100):
        limiter.refused()
    limiter.end(held)
    assert limiter.allowed() == 59


def test_refusals_are_counted_by_what_refused() -> None:
    runtime = runtime_of()
    limiter = Limiter(runtime, requests_per_minute=2)
    limiter.allowed()
    limiter.refused()
    assert runtime.registry.get_sample_value("hookgate_limited_total", {"unit": "requests", "whose": "key"}) == 2


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


def test_members_of_a_team_share_its_limits_besides() -> None:
    config = Config(teams={"red": Team(requests_per_minute=5)})
    limiter = Limiter(runtime_of(config=config), requests_per_minute=4)
    assert limiter.allowed(principal=Principal("alice", team="red")) == 4
    assert limiter.allowed(principal=Principal("bob", team="red")) == 1
    assert limiter.allowed(principal=Principal("eve", team="blue")) == 4


def test_all_share_what_is_limited_in_total() -> None:
    limiter = Limiter(requests_per_minute=4, total=(Limit(requests=5, per="hour"),))
    assert [limiter.allowed(principal=who) for who in (ALICE, BOB)] == [4, 1]


def test_a_limit_of_a_model_counts_its_requests_only() -> None:
    limit = Limit(requests=2, per="day", models=("m*",))
    limiter = Limiter(requests_per_minute=0, total=(limit,))
    for who in (ALICE, BOB):
        limiter.end(limiter.begin(who, **asks()))
    assert limiter.refused(**asks()).message == "All keys together have used the requests of this day: 2."
    limiter.end(limiter.begin(**asks(model="other") | {"model": "other"}))


def test_tokens_are_reserved_before_and_settled_after_the_call() -> None:
    limiter = Limiter(requests_per_minute=0, tokens_per_minute=1000, usual_output=100)
    reply = limiter.end(limiter.begin(**asks(300)), Usage(290, 10))
    assert 595 <= int(reply.headers["x-ratelimit-remaining-tokens"]) <= 605
    held = limiter.begin(**asks(300))
    more = limiter.begin(**asks(150))
    refusal = limiter.refused(**asks(100))
    assert refusal.headers["x-ratelimit-limit-tokens"] == "1000"
    assert refusal.retry_after == 61
    limiter.end(held, None)  # it failed: nothing was used
    limiter.end(limiter.begin(**asks(100)), Usage(10, 900))  # more than was reserved
    assert limiter.refused(**asks(1)).headers["x-ratelimit-remaining-tokens"] == "0"
    limiter.end(more, None)


def test_input_and_output_are_limited_each_for_itself() -> None:
    limits = (Limit(input_tokens=120, per="minute"), Limit(output_tokens=50, per="day"))
    limiter = Limiter(requests_per_minute=0, limits=limits)
    assert "alone is estimated at 1000 output tokens" in limiter.refused(**asks(5)).message
    limiter.end(limiter.begin(**asks(5, max_tokens=50)), Usage(90, 10))
    assert "used the input tokens of this minute" in limiter.refused(**asks(50, max_tokens=5)).message
    assert "used the output tokens of this day" in limiter.refused(**asks(5, max_tokens=41)).message


@pytest.mark.parametrize("cache", ["hit", "coalesced"])
def test_what_came_from_the_cache_costs_no_tokens(cache: str) -> None:
    limiter = Limiter(requests_per_minute=0, tokens_per_minute=100, usual_output=10)
    for _ in range(5):
        limiter.end(limiter.begin(**asks(80)), Usage(100, 100), cache=cache)


def test_calls_at_once() -> None:
    limiter = Limiter(requests_per_minute=0, max_concurrency=3)
    running = [limiter.begin() for _ in range(3)]
    refusal = limiter.refused()
    assert refusal.retry_after == 1
    limiter.begin(BOB)
    limiter.end(running.pop())
    running.append(limiter.begin())
    limiter.refused()


def test_r47_a_slot_is_returned_once_even_if_it_is_returned_twice() -> None:
    limiter = Limiter(requests_per_minute=0, max_concurrency=1)
    first = limiter.begin()
    limiter.end(first)
    limiter.end(first)
    limiter.end(make_exchange(principal=ALICE))  # refused before it came here
    limiter.begin()
    limiter.refused()


def test_headers_tell_the_callers_own_limits() -> None:
    limiter = Limiter(requests_per_minute=60, tokens_per_minute=120, usual_output=10)
    limiter.end(limiter.begin(**asks(20)), Usage(20, 10))
    headers = limiter.end(limiter.begin(**asks(20))).headers
    left = int(headers.pop("x-ratelimit-remaining-tokens"))
    assert 55 <= left <= 65
    assert dict(headers) == {
        "x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "58",
        "x-ratelimit-reset-requests": "60.000s", "x-ratelimit-limit-tokens": "120",
        "x-ratelimit-reset-tokens": "60.000s",
    }  # fmt: skip


def test_without_a_limit_there_is_nothing_to_tell() -> None:
    assert not Limiter(requests_per_minute=0).run().headers


# Principals of tokens: as many as there are users, with the limits their tokens say.


def test_a_token_that_says_another_limit_changes_it() -> None:
    limiter = Limiter(requests_per_minute=0)
    assert limiter.allowed(principal=Principal("u", requests_per_minute=6)) == 6
    more = Principal("u", requests_per_minute=60)
    assert limiter.allowed(principal=more) == 54
    assert limiter.refused(more).headers["x-ratelimit-limit-requests"] == "60"
    assert limiter.allowed(principal=Principal("u", requests_per_minute=6)) == 0
    assert limiter.allowed(1000, principal=Principal("u")) == 1000


def test_two_tokens_in_turns_get_no_more_than_the_better_one() -> None:
    limiter = Limiter(requests_per_minute=0)
    tokens = [Principal("u", requests_per_minute=limit) for limit in (6, 60)]
    passed = 0
    for turn in range(2000):
        passed += limiter.allowed(1, tokens[turn % 2])
        limiter.now += 0.01
    assert passed == 60


# Money.


class Fixed(Prices):
    """Ten nano-dollars for each token of output, and a cost of the test's own."""

    def __init__(self, cost: int | None) -> None:
        super().__init__(Config())
        self._cost = cost

    def of(self, target: Target, model: str | None) -> Price | None:
        return None if target.provider == "nobody-knows" else Price.listed({"output": Decimal("1e-8")}, {})

    def settle(self, exchange: Exchange) -> int | None:
        return self._cost


class Routes:
    def __init__(self, *providers: str) -> None:
        self.targets = [Target(name) for name in providers]

    async def candidates(self, exchange: Exchange) -> list[Target]:
        return self.targets


def with_money(cost: int | None, *providers: str, **settings: Any) -> rate_limit.Plugin:
    limiter = Limiter(runtime_of(prices=Fixed(cost), router=Routes(*(providers or ("p",)))), **settings)
    return limiter.plugin


async def begin(plugin: rate_limit.Plugin, usd: float = 1e-6, **facts: Any) -> Exchange:
    principal = Principal("alice", requests_per_minute=0, limits=(Limit(usd=usd, per="day"),))
    exchange = make_exchange(principal=principal, **{"surface": ASKS} | facts)
    waiting = plugin.on_request(exchange)
    if waiting is not None:
        await waiting
    return exchange


async def test_money_is_reserved_at_its_worst_and_settled_at_its_cost() -> None:
    plugin = with_money(150)
    first = await begin(plugin, **asks(max_tokens=60))
    with pytest.raises(BudgetExceeded) as refused:
        await begin(plugin, **asks(max_tokens=60))
    assert "may cost up to $0.0000006, and $0.0000004 of this key's budget, $0.000001 per day" in refused.value.message
    first.usage = Usage(1, 1)
    plugin.on_finish(first)
    await begin(plugin, **asks(max_tokens=85))  # 150 were spent, 850 are left
    with pytest.raises(BudgetExceeded):
        await begin(plugin, **asks(max_tokens=1))


async def test_a_failed_call_gets_its_money_back() -> None:
    plugin = with_money(150)
    failed = await begin(plugin, **asks(max_tokens=100))
    plugin.on_finish(failed)
    await begin(plugin, **asks(max_tokens=100))


async def test_an_answer_whose_price_nobody_knows_costs_what_was_reserved() -> None:
    plugin = with_money(None)
    first = await begin(plugin, **asks(max_tokens=60))
    first.usage = Usage(1, 1)
    plugin.on_finish(first)
    with pytest.raises(BudgetExceeded):
        await begin(plugin, **asks(max_tokens=60))


async def test_the_dearest_place_a_request_may_go_to_counts() -> None:
    plugin = with_money(0, "p", "nobody-knows")
    with pytest.raises(BudgetExceeded) as refused:
        await begin(plugin, **asks(max_tokens=1))
    assert refused.value.message == "The price of this is not known, and this key has a budget."
    allowing = with_money(0, "p", "nobody-knows", unknown_price="allow")
    await begin(allowing, **asks(max_tokens=1))


async def test_what_is_not_paid_by_the_token_is_refused_unless_it_only_reads() -> None:
    plugin = with_money(0)
    images = Surface("images", "openai_chat", "/images/generations", "any")
    with pytest.raises(BudgetExceeded):
        await begin(plugin, surface=images)
    await begin(plugin, surface=Surface("models", "openai_chat", "/models", "any"), method="GET")


async def test_without_a_bound_the_longest_answer_is_reserved() -> None:
    plugin = with_money(0, longest_output=1000)
    with pytest.raises(BudgetExceeded):
        await begin(plugin, **asks())
    await begin(with_money(0, longest_output=100), **asks())


# Through a running gateway: the ways out that a plugin cannot see by itself.

KEYS = {name: f"hg-limits-{name}" for name in ("alice", "bob", "tokens")}
CONFIG = f"""
[plugins.rate_limit]
requests_per_minute = 0
usual_output = 10
[keys.alice]
sha256 = "{hashlib.sha256(KEYS["alice"].encode()).hexdigest()}"
max_concurrency = 5
[keys.bob]
sha256 = "{hashlib.sha256(KEYS["bob"].encode()).hexdigest()}"
requests_per_minute = 3
[keys.tokens]
sha256 = "{hashlib.sha256(KEYS["tokens"].encode()).hexdigest()}"
limits = [{{ tokens = 35, per = "minute" }}]
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
        assert 55 <= int(replies[4].header("retry-after") or "") <= 61
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
        self.limiter = Limiter(runtime_of(keep=lambda key, make: self.kept.setdefault(key, make())), **settings)
        return self.limiter


def test_what_is_used_stays_used_over_a_reload() -> None:
    generations = Generations()
    limiter = generations.reload(requests_per_minute=3)
    limiter.run()
    limiter.run()
    reply = generations.reload(requests_per_minute=3).run()
    assert reply.headers["x-ratelimit-remaining-requests"] == "0"
    generations.limiter.refused()


@pytest.mark.parametrize(("limit", "left"), [(10, 7), (5, 2), (4, 1), (3, 0)])
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
    old.end(running)
    new.run()
    assert generations.reload(requests_per_minute=0).run().headers == {}


async def test_teams_of_the_database_count_and_follow_their_changes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/gateway.db"
    red = Principal("alice", requests_per_minute=0, team="red")
    async with stored(url) as store, ring(url) as keyring:
        await store.teams.create("red", {"max_concurrency": 1})
        await keyring.read()
        known = config(url, teams={"blue": Team(max_concurrency=2)})
        runtime = runtime_of(keys=keyring, prices=Fixed(0), services=Services(), config=known)
        limiter = Limiter(runtime)
        await limiter.plugin.on_startup(runtime)
        held = limiter.begin(red)
        limiter.refused(red)
        await store.teams.update("red", {"max_concurrency": 2})
        await keyring.read()
        limiter.end(limiter.begin(red))
        limiter.end(held)
        blue = Principal("bob", requests_per_minute=0, team="blue")
        limiter.begin(blue)
        limiter.begin(blue)
        limiter.refused(blue)
        limiter.plugin.on_shutdown()
        limiter.plugin.on_shutdown()
        assert keyring.on_teams == []
