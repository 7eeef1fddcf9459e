"""Budgets: reserved and spent money together never exceed them, and the ledger has what the provider issued."""

from __future__ import annotations

import asyncio
import hashlib
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from typing import Any

import pytest

from gateway.testing import (
    Call,
    GatewayFactory,
    GatewayProcess,
    RawClient,
    Response,
    ScriptedUpstream,
    Truncated,
    error,
    fetch_chat,
    hang_up,
    whole,
)
from gateway.testing.wire import json_bytes
from tests.support.redis import redis

__all__ = ["redis"]

KEYS = {name: f"hg-budget-{name}" for name in ("alice", "bob")}
# A call of 1,000 tokens of input and 1,000 of output costs 0.05 USD.
CONFIG = f"""
$state
[plugins]
chain = ["request_id", "logging", "metrics", "auth", "rate_limit", "cache", "ledger"]
[plugins.rate_limit]
requests_per_minute = 0
[prices.models.m]
input = 10
output = 40
[keys.alice]
sha256 = "{hashlib.sha256(KEYS["alice"].encode()).hexdigest()}"
budget = {{ usd = 1, per = "day" }}
[keys.bob]
sha256 = "{hashlib.sha256(KEYS["bob"].encode()).hexdigest()}"
team = "red"
[teams.red]
budget = {{ usd = 0.2, per = "total" }}
[retry]
attempts = 1
[breaker]
failures = 0
error_rate = 0
[providers.stub]
type = "openai_compat"
base_url = "$upstream/v1"
[models.m]
targets = [{{ provider = "stub" }}]
"""
REPLY = {
    "id": "x", "object": "chat.completion", "model": "m", "created": 1,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000},
}  # fmt: skip
TEXT = "word " * 380  # reserved as two bytes a token: close to a thousand


class Provider:
    """Issues a thousand tokens each way, and knows how often."""

    def __init__(self) -> None:
        self.issued = 0
        self.chance = random.Random(3)
        self.faults = 0.0

    async def __call__(self, call: Call) -> None:
        await asyncio.sleep(self.chance.random() / 20)
        if self.chance.random() < self.faults:
            await self.chance.choice([error(500), hang_up])(call)
            return
        self.issued += 1
        await whole(200, REPLY)(call)


async def ask(gateway: GatewayProcess, who: str = "alice") -> Response:
    return await fetch_chat(gateway.url, "m", TEXT, key=KEYS[who], max_tokens=1000)


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
async def upstream(provider: Provider) -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(provider) as upstream:
        yield upstream


async def rows(gateway: GatewayProcess, count: int) -> list[Any]:
    """Of the ledger, when there are so many."""
    sql = "SELECT principal, team, model, target, outcome, status, input_tokens, output_tokens, cost_nano, provenance"
    async with asyncio.timeout(10):
        while True:
            with closing(sqlite3.connect(gateway.folder / "gateway.db")) as database:
                found = database.execute(f"{sql} FROM hookgate_ledger ORDER BY started").fetchall()
            if len(found) >= count:
                return found
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("where", ["memory", "redis"])
async def test_a_budget_is_never_exceeded(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream, provider: Provider, where: str,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    state = (
        f'[state]\nredis = "{request.getfixturevalue("redis").url}"\nredis_timeout = "1s"' if where == "redis" else ""
    )
    gateway = gateway_server(CONFIG, upstream=upstream.url, state=state)
    provider.faults = 0.3
    refused = 0
    for _ in range(10):
        replies = await asyncio.gather(*(ask(gateway) for _ in range(40)))
        assert {reply.status for reply in replies} <= {200, 402, 500, 502}
        assert provider.issued <= 20  # 20 of 0.05 USD
        refused += sum(reply.status == 402 for reply in replies)
    assert provider.issued == 20 and refused > 300
    reply = await ask(gateway)
    assert reply.status == 402
    assert reply.json["error"]["code"] == "insufficient_quota"
    assert "$0.00 of this key's budget, $1.00 per day, is left. It begins anew on 20" in reply.json["error"]["message"]
    found = await rows(gateway, 401)
    assert len(found) == 401
    paid = [row for row in found if row[8]]
    assert len(paid) == 20 and sum(row[8] for row in paid) == 10**9
    assert sum(row[6] for row in paid) == sum(row[7] for row in paid) == 20_000
    assert {row[9] for row in paid} == {"reported"}


async def test_a_restart_remembers_what_was_spent(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream, provider: Provider
) -> None:
    first = gateway_server(CONFIG, upstream=upstream.url, state="")
    for _ in range(12):
        assert (await ask(first)).status == 200
    ledger = (first.folder / "gateway.db").as_posix()
    await first.stop()
    second = gateway_server(CONFIG, upstream=upstream.url, state=f'[state]\nledger = "sqlite:///{ledger}"')
    statuses = [(await ask(second)).status for _ in range(10)]
    assert statuses == [200] * 8 + [402] * 2


async def test_a_team_pays_together(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream, provider: Provider
) -> None:
    gateway = gateway_server(CONFIG, upstream=upstream.url, state="")
    assert [(await ask(gateway, "bob")).status for _ in range(5)] == [200] * 4 + [402]
    reply = await ask(gateway, "bob")
    assert "the budget of this key's team, $0.20 in all, is left." in reply.json["error"]["message"]
    named = await rows(gateway, 6)
    assert {(row[0], row[1]) for row in named} == {("bob", "red")}


async def test_what_a_provider_named_in_the_path_costs_is_counted(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream
) -> None:
    gateway = gateway_server(CONFIG, upstream=upstream.url, state="")
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
    headers = [("Content-Type", "application/json"), ("Authorization", f"Bearer {KEYS['alice']}")]
    async with RawClient(gateway.url) as client:
        for _ in range(3):
            await client.request("POST", "/p/stub/chat/completions", headers, json_bytes(body))
            assert (await client.read()).status == 200
        # What is on another path nobody knows, nor what it costs.
        await client.request("POST", "/p/stub/chat/completions/", headers, json_bytes(body))
        assert (await client.read()).status == 402
    assert [row[8] for row in await rows(gateway, 4)] == [50_000_000] * 3 + [0]


async def test_r35_who_walks_out_pays_what_was_estimated(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream, provider: Provider
) -> None:
    gateway = gateway_server(CONFIG, upstream=upstream.url, state="")

    async def leave() -> None:
        with suppress(Truncated):
            async with RawClient(gateway.url) as client:
                await client.chat("m", TEXT, key=KEYS["alice"], max_tokens=1000)
                await asyncio.sleep(0.3)
                client.leave()

    upstream.script = _slow
    await asyncio.gather(*(leave() for _ in range(10)))
    found = await rows(gateway, 10)
    assert {(row[4], row[9]) for row in found} == {("client_gone", "estimated")}
    assert all(300 < row[6] < 1000 and row[7] == 0 and 0 < row[8] < 10_000_000 for row in found)


async def _slow(call: Call) -> None:
    await asyncio.sleep(5)
