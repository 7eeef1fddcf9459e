"""Two gateways behind one nginx, with one Redis and one PostgreSQL, under load, and one of them is killed: no limit is
exceeded, and the ledger has what the provider issued."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from gateway.testing import Call, GatewayFactory, RawClient, ScriptedUpstream, Truncated, whole
from gateway.testing.wire import json_bytes
from tests.support.nginx import HOST, Nginx
from tests.support.postgres import Postgres
from tests.support.redis import Redis, redis

__all__ = ["redis"]

KEYS = {name: f"hg-two-{name}" for name in ("rich", "poor", "busy")}
BUDGET = 25  # calls of 0.01 USD
PER_MINUTE = 60
AT_ONCE = 4
CONFIG = f"""
[state]
redis = "$redis"
redis_timeout = "1s"
ledger = "$postgres"
[plugins]
chain = ["request_id", "logging", "metrics", "auth", "rate_limit", "cache", "ledger"]
[plugins.rate_limit]
requests_per_minute = 0
[prices.models.m]
input = 10
output = 90
[keys.rich]
sha256 = "{hashlib.sha256(KEYS["rich"].encode()).hexdigest()}"
limits = [{{ requests = {PER_MINUTE}, per = "hour", models = ["no-*"] }}]
[keys.poor]
sha256 = "{hashlib.sha256(KEYS["poor"].encode()).hexdigest()}"
budget = {{ usd = {BUDGET / 100}, per = "month" }}
[keys.busy]
sha256 = "{hashlib.sha256(KEYS["busy"].encode()).hexdigest()}"
max_concurrency = {AT_ONCE}
limits = [{{ requests = {PER_MINUTE}, per = "hour" }}]
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


class Ledger:
    """The provider's: what it issued, by the id of the call, and to whom."""

    def __init__(self) -> None:
        self.issued: dict[str, tuple[str, int, int]] = {}
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.begun: Counter[str] = Counter()
        self.chance = random.Random(1)

    async def __call__(self, call: Call) -> None:
        asked = json.loads(call.request.body)
        who, number = asked["user"].split(":")
        self.begun[who] += 1
        self.running[who] += 1
        self.most[who] = max(self.most[who], self.running[who])
        try:
            await asyncio.sleep(self.chance.random() / 5)
            given, made = 100, 100
            self.issued[number] = who, given, made
            usage = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
            choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
            reply = {"id": "x", "object": "chat.completion", "model": "m", "created": 1, "choices": [choice]}
            await whole(200, reply | {"usage": usage})(call)
        finally:
            self.running[who] -= 1


class Load:
    def __init__(self, url: str) -> None:
        self.url = url
        self.statuses: dict[str, Counter[int]] = {name: Counter() for name in KEYS}
        self._number = 0
        self.stopped = False

    async def _ask(self, who: str) -> None:
        self._number += 1
        body: dict[str, Any] = {"model": "m", "user": f"{who}:{self._number}", "max_tokens": 100}
        body["messages"] = [{"role": "user", "content": "hi " * 20}]
        headers = [("Content-Type", "application/json"), ("Authorization", f"Bearer {KEYS[who]}")]
        status = 0
        with suppress(OSError, Truncated, TimeoutError):
            async with RawClient(self.url, host=HOST) as client:
                await client.request("POST", "/v1/chat/completions", headers, json_bytes(body))
                status = (await client.read()).status
        self.statuses[who][status] += 1

    async def _go_on(self, who: str) -> None:
        while not self.stopped:
            await self._ask(who)
            await asyncio.sleep(0.01)

    async def run(self, at_once: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            for who in KEYS:
                for _ in range(at_once):
                    tasks.create_task(self._go_on(who))


async def test_r47_a_killed_gateway_costs_neither_a_limit_nor_a_row(
    gateway_server: GatewayFactory, redis: Redis, postgres: Postgres, tmp_path: Path
) -> None:
    database = postgres.empty()
    provider = Ledger()
    async with ScriptedUpstream(provider) as upstream:
        first, second = (
            gateway_server(CONFIG, upstream=upstream.url, redis=redis.url, postgres=database) for _ in range(2)
        )
        (tmp_path / "nginx").mkdir()
        nginx = Nginx(tmp_path / "nginx", first.port)
        one = f"server 127.0.0.1:{first.port};"
        assert one in nginx.config
        nginx.config = nginx.config.replace(one, f"{one} server 127.0.0.1:{second.port};")
        nginx.start()
        try:
            load = Load(nginx.url)
            running = asyncio.ensure_future(load.run(10))
            await asyncio.sleep(3)
            first.checked = False
            first.process.kill()
            await asyncio.sleep(3)
            load.stopped = True
            await running
        finally:
            nginx.stop()
        rows = await settled(postgres, sum(provider.begun.values()))
    # No limit was exceeded, by either of them or both.
    assert provider.begun["poor"] <= BUDGET
    assert provider.begun["busy"] <= PER_MINUTE
    assert provider.most["busy"] <= AT_ONCE
    assert provider.begun["busy"] == PER_MINUTE and provider.begun["poor"] >= BUDGET - 10
    for statuses in load.statuses.values():
        assert set(statuses) <= {0, 200, 402, 429, 502}
        assert statuses[0] + statuses[502] <= 10  # those the dead one had; nginx did not repeat them
    # The ledger has a row for every call, and every token that was reported to a gateway that lived to hear of it.
    ok = [row for row in rows if row["outcome"] == "ok"]
    lost = [row for row in rows if row["outcome"] == "lost"]
    assert len(ok) + len(lost) == sum(provider.begun.values())
    assert len(lost) <= 24  # at most as many as it could have had
    for who in KEYS:
        told = sum(row["principal"] == who for row in ok)
        gone = sum(row["principal"] == who for row in lost)
        issued = sum(name == who for name, _, _ in provider.issued.values())
        assert told <= issued <= told + gone
        assert told + gone >= load.statuses[who][200]
    assert all((row["input_tokens"], row["output_tokens"], row["cost_nano"]) == (100, 100, 10_000_000) for row in ok)


async def settled(postgres: Postgres, calls: int) -> list[dict[str, Any]]:
    """The calls in the ledger, once the dead gateway's have been taken over."""
    sql = "SELECT json_agg(t) FROM hookgate_ledger t WHERE outcome IN ('ok', 'lost', 'client_gone')"
    until = monotonic() + 25
    while True:
        rows: list[dict[str, Any]] = json.loads(postgres.query(sql) or "[]") or []
        if len(rows) >= calls:
            return rows
        told = Counter(postgres.query("SELECT outcome FROM hookgate_ledger").split())
        assert monotonic() < until, f"{len(rows)} rows of {calls} calls; all rows: {told}"
        await asyncio.sleep(0.5)
