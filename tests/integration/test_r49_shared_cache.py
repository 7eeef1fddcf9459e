"""R48, R49: gateways that share cached answers through Redis give nobody another's, and can do without Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest

from gateway.testing import Call, LocalGateway, Metrics, Response, ScriptedUpstream, chat_body, fetch
from tests.support.linked import BACK, DOWN, impatient, told, until
from tests.support.redis import Redis, redis

__all__ = ["impatient", "redis"]

pytestmark = pytest.mark.usefixtures("impatient")

JSON = {"Content-Type": "application/json"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
TEAMS = {"ann": "red", "ben": "red", "a:b": "c", "a": "b:c", "é": "e\u0301", "e\u0301": "é"}


def key(name: str) -> str:
    return f"sk-{list(TEAMS).index(name)}"


CONFIG = """
[plugins]
chain = ["metrics", "auth", "cache"]
[plugins.cache]
SETTINGS
[state]
redis = "REDIS"
redis_timeout = "TIMEOUT"
[providers.up]
type = "openai_compat"
base_url = "UPSTREAM/v1"
models = ["m"]
""" + "".join(
    f'[keys."{name}"]\nsha256 = "{sha256(key(name).encode()).hexdigest()}"\nteam = "{team}"\n'
    for name, team in TEAMS.items()
)
CONFIG += "".join(f'[teams."{team}"]\n' for team in dict.fromkeys(TEAMS.values()))


@contextlib.asynccontextmanager
async def gateways(
    tmp_path: Path, redis: Redis, settings: str, number: int = 2, patience: str = "2s"
) -> AsyncIterator[list[LocalGateway]]:
    """In front of a provider whose every answer is another one."""
    numbers = count()

    async def answer(call: Call) -> None:
        await call.answer(200, chat_body(f"answer {next(numbers)}", usage=USAGE), JSON)

    async with ScriptedUpstream(answer) as upstream, contextlib.AsyncExitStack() as stack:
        text = CONFIG.replace("SETTINGS", settings).replace("TIMEOUT", patience)
        text = text.replace("UPSTREAM", upstream.url).replace("REDIS", redis.url)
        running = []
        for index in range(number):
            folder = tmp_path / str(index)
            folder.mkdir()
            running.append(await stack.enter_async_context(LocalGateway(folder, text)))
        yield running


async def ask(gateway: LocalGateway, name: str, prompt: str = "hello") -> Response:
    body = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": prompt}]}
    headers = [*JSON.items(), ("Authorization", f"Bearer {key(name)}")]
    raw = json.dumps(body, ensure_ascii=False).encode()
    reply = await fetch(f"{gateway.url}/v1/chat/completions", "POST", headers, raw)
    assert reply.status == 200, reply.body
    return reply


async def written(redis: Redis, answers: int) -> None:
    await until(lambda: len(redis.ask("KEYS", "hookgate:cache:*")) == answers)


async def value(gateway: LocalGateway, name: str, **labels: str) -> float:
    return Metrics((await fetch(f"{gateway.admin_url}/metrics")).body.decode()).value(name, **labels)


PROMPTS = ("hello", "é", "e\u0301", "a:b", "b:c")


async def test_r49_an_answer_made_by_one_gateway_is_a_hit_at_the_other_for_the_same_key_alone(
    tmp_path: Path, redis: Redis
) -> None:
    async with gateways(tmp_path, redis, "memory = 0") as (one, two):
        first = {(name, prompt): await ask(one, name, prompt) for name in TEAMS for prompt in PROMPTS}
        assert {reply.header("x-gateway-cache") for reply in first.values()} == {"miss"}
        await written(redis, len(first))
        for (name, prompt), reply in first.items():
            again = await ask(two, name, prompt)
            assert (again.header("x-gateway-cache"), again.body) == ("hit", reply.body)


async def test_r49_a_team_shares_and_nobody_else_gets_its_answers(tmp_path: Path, redis: Redis) -> None:
    async with gateways(tmp_path, redis, 'memory = 0\nscope = "team"') as (one, two):
        assert (await ask(one, "ann")).header("x-gateway-cache") == "miss"
        await written(redis, 1)
        assert (await ask(two, "ben")).header("x-gateway-cache") == "hit"
        others = [await ask(two, name) for name in TEAMS if TEAMS[name] != "red"]
        assert [reply.header("x-gateway-cache") for reply in others] == ["miss"] * 4
        assert len({reply.body for reply in others}) == 4


async def test_a_shared_answer_expires_at_all_of_them(tmp_path: Path, redis: Redis) -> None:
    async with gateways(tmp_path, redis, 'ttl = "2s"') as (one, two):
        first = await ask(one, "ann")
        await written(redis, 1)
        assert (await ask(two, "ann")).body == first.body
        await written(redis, 0)
        assert (await ask(two, "ann")).header("x-gateway-cache") == "miss"
        assert (await ask(one, "ann")).body != first.body


@pytest.mark.parametrize("trouble", ["killed", "hangs", "is paused", "is full"])
async def test_r48_requests_go_on_while_redis_does_not(
    tmp_path: Path, redis: Redis, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    caplog.set_level(logging.INFO, logger="hookgate")
    numbers = count()

    async def several(gateway: LocalGateway) -> set[str | None]:
        replies = [await ask(gateway, "ann", f"question {next(numbers)}") for _ in range(10)]
        return {reply.header("x-gateway-cache") for reply in replies}

    async with gateways(tmp_path, redis, "", 1, "100ms") as (gateway,):
        await ask(gateway, "ann")
        await written(redis, 1)
        match trouble:
            case "killed":
                redis.kill()
            case "hangs":
                redis.stop()
            case "is paused":
                redis.ask("CLIENT", "PAUSE", 30_000)
            case _:
                redis.ask("CONFIG", "SET", "maxmemory", 1)
        for states in await asyncio.gather(*(several(gateway) for _ in range(4))):
            assert states == {"miss"}
        assert (await ask(gateway, "ann")).header("x-gateway-cache") == "hit", "memory still serves"
        await until(lambda: told(caplog) == [DOWN])
        assert await value(gateway, "hookgate_redis_up") == 0
        assert await value(gateway, "hookgate_redis_failures_total", why="timeout") <= 10
        assert await value(gateway, "hookgate_cache_dropped_total") > 10
        redis.restart()
        await until(lambda: told(caplog) == [DOWN, BACK])
        await ask(gateway, "ann", "and now")
        await written(redis, 1)
