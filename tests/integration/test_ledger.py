"""Whatever becomes of an exchange, of the gateway and of the database: one row for each, counted from outside."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import Any

import pytest

from gateway.testing import (
    Call,
    GatewayFactory,
    GatewayProcess,
    RawClient,
    ScriptedUpstream,
    as_asked,
    chat_stream,
    error,
    fetch_chat,
)
from gateway.testing.answers import USAGE
from tests.support.postgres import Postgres

KEY = "hg-ledger-alice"
CONFIG = f"""
[plugins]
chain = ["request_id", "metrics", "auth", "rate_limit", "cache", "ledger"]
[plugins.rate_limit]
requests_per_minute = 0
[keys.alice]
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
models = ["m"]
[breaker]
failures = 0
error_rate = 0
[retry]
attempts = 1
[providers.stub]
type = "openai_compat"
base_url = "$upstream/v1"
[models.m]
targets = [{{ provider = "stub" }}]
"""


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """Does what the last message says."""

    async def script(call: Call) -> None:
        asked = call.request.json["messages"][-1]["content"]
        if asked == "fail":
            await error(500)(call)
        elif asked == "slow":
            await chat_stream(50, pause=0.05)(call)
        else:
            await as_asked(usage=USAGE)(call)

    async with ScriptedUpstream(script) as scripted:
        yield scripted


def stored(gateway: GatewayProcess, what: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(gateway.folder / "gateway.db")) as database:
        return database.execute(f"SELECT {what} FROM hookgate_ledger ORDER BY started, id").fetchall()


async def eventually(condition: Callable[[], Any], within: float = 20.0) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  # a test's wait
            await asyncio.sleep(0.02)


async def test_every_way_an_exchange_can_end_makes_one_row(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream
) -> None:
    gateway = gateway_server(CONFIG, upstream=upstream.url)
    ids = []

    async def ask(content: str = "hi", model: str = "m", key: str | None = KEY, **fields: Any) -> None:
        reply = await fetch_chat(gateway.url, model, content, key=key, **fields)
        ids.append(reply.header("x-request-id"))

    await ask()
    await ask(stream=True)
    await ask("same", temperature=0)
    await ask("same", temperature=0)
    await ask("fail")
    await ask(key=None)
    await ask(key="hg-wrong")
    await ask(model="other")
    async with RawClient(gateway.url) as client:
        await client.chat("m", "slow", stream=True, key=KEY)
        ids.append((await client.read_head()).get("x-request-id"))
        await anext(client.events())
        client.abort()
    await eventually(lambda: len(stored(gateway, "id")) >= len(ids))
    await gateway.stop()
    assert [row[0] for row in stored(gateway, "request_id")] == ids
    *rows, left = stored(gateway, "principal, outcome, status, cache, input_tokens, tried, stream")
    assert rows == [
        ("alice", "ok", 200, "bypass", 5, 1, 0),
        ("alice", "ok", 200, "bypass", 5, 1, 1),
        ("alice", "ok", 200, "miss", 5, 1, 0),
        ("alice", "ok", 200, "hit", 5, 0, 0),
        ("alice", "upstream_failed", 500, "bypass", None, 1, 0),
        (None, "refused", 401, None, None, 0, 0),
        (None, "refused", 401, None, None, 0, 0),
        ("alice", "refused", 403, None, None, 0, 0),
    ]
    assert (left[:4], left[5:]) == (("alice", "client_gone", 200, "bypass"), (1, 1))


async def test_a_gateway_that_is_killed_loses_only_what_has_just_come(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream
) -> None:
    gateway = gateway_server(CONFIG, upstream=upstream.url)
    gateway.checked = False
    ids = [(await fetch_chat(gateway.url, key=KEY)).header("x-request-id") for _ in range(20)]
    await eventually(lambda: len(stored(gateway, "id")) == len(ids), within=5)  # the interval is half a second
    await fetch_chat(gateway.url, key=KEY)
    gateway.kill()
    assert [row[0] for row in stored(gateway, "request_id")][: len(ids)] == ids
    gateway.start()  # the file is whole
    last = (await fetch_chat(gateway.url, key=KEY)).header("x-request-id")
    gateway.checked = True
    await gateway.stop()
    assert stored(gateway, "request_id")[-1] == (last,)


async def test_a_database_that_is_killed_costs_neither_an_answer_nor_a_row(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream, postgres: Postgres, postgres_url: str
) -> None:
    state = '[state]\nledger = "env:LEDGER"\n[plugins.ledger]\ninterval = "20ms"\n'
    gateway = gateway_server(CONFIG + state, env={"LEDGER": postgres_url}, upstream=upstream.url)
    ids: list[str | None] = []
    asking = True

    async def ask() -> None:
        while asking:
            reply = await fetch_chat(gateway.url, key=KEY)
            assert reply.status == 200
            ids.append(reply.header("x-request-id"))

    async with asyncio.TaskGroup() as clients:
        for _ in range(4):
            clients.create_task(ask())
        await asyncio.sleep(0.3)
        await asyncio.to_thread(postgres.kill)
        await eventually(lambda: "its rows wait in memory" in gateway.stderr)
        await asyncio.to_thread(postgres.start)
        await eventually(lambda: "is written again; 0 rows are lost" in gateway.stderr)
        asking = False
    await gateway.stop()
    found = (await asyncio.to_thread(postgres.query, "SELECT request_id FROM hookgate_ledger")).split()
    assert Counter(found) == Counter(ids)
    assert gateway.stderr.count("WARNING hookgate: ledger") == 1
