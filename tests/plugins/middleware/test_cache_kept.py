"""R50: only complete successes are kept; how long, how many, and where."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway import Reply, Usage
from gateway.state.cache import Recording
from gateway_plugins.middleware import cache
from tests.support.caching import (
    ALICE,
    ASK,
    DONE,
    EVENTS,
    JSON,
    STREAM,
    Chain,
    control,
    event,
    running,
    streamed,
    whole,
)
from tests.support.linked import linked
from tests.support.redis import Redis, redis

__all__ = ["redis"]


async def is_kept(chain: Chain, body: Mapping[str, Any] = ASK, **first: Any) -> bool:
    """Whether the answer of a first call is given to a second, equal one."""
    await chain.ask(body, **first)
    calls = chain.calls
    stream = bool(body.get("stream"))
    await chain.ask(body, answer=lambda: streamed(event("hi", "stop"), DONE) if stream else whole())
    return chain.calls == calls


async def test_complete_answers_are_kept() -> None:
    assert await is_kept(Chain())
    assert await is_kept(Chain(), STREAM, answer=lambda: streamed(event("hi", "stop"), DONE))


@pytest.mark.parametrize("outcome", ["upstream_failed", "failed", "client_gone", "refused"])
async def test_r50_an_exchange_that_did_not_end_well_leaves_nothing(outcome: str) -> None:
    assert not await is_kept(Chain(), outcome=outcome)
    complete = [event("hi", "stop"), DONE, b": never sent\n\n"]
    assert not await is_kept(Chain(), STREAM, answer=lambda: streamed(*complete), outcome=outcome)


@pytest.mark.parametrize("status", [201, 202, 204, 206, 301, 400, 401, 404, 429, 500, 503])
async def test_r50_only_200_is_kept(status: int) -> None:
    assert not await is_kept(Chain(), answer=lambda: Reply(status, JSON, whole().body))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda: whole(reason=None), id="no finish_reason"),
        pytest.param(lambda: whole(reason="content_filter"), id="withheld"),
        pytest.param(lambda: whole(error={"message": "overloaded"}), id="an error beside the answer"),
        pytest.param(lambda: Reply(200, JSON, b'{"error":{"message":"overloaded"}}'), id="an error alone"),
        pytest.param(lambda: Reply(200, JSON, (whole().body or b"")[:-2]), id="cut"),
        pytest.param(lambda: Reply(200, JSON, b""), id="empty"),
        pytest.param(lambda: Reply(200, {**JSON, "content-encoding": "gzip"}, whole().body), id="encoded"),
        pytest.param(lambda: streamed(event("hi", "stop"), DONE), id="a stream nobody asked for"),
    ],
)
async def test_r50_a_whole_answer_that_is_no_complete_success_is_not_kept(answer: Callable[[], Reply]) -> None:
    assert not await is_kept(Chain(), answer=answer)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda: streamed(event("hi")), id="cut behind an event"),
        pytest.param(lambda: streamed(event("hi"), DONE), id="no finish_reason"),
        pytest.param(lambda: streamed(event("hi", "stop"), b'data: {"error":{"code":1}}\n\n'), id="an error event"),
        pytest.param(lambda: streamed(event("hi", "stop")[:-20]), id="cut in an event"),
        pytest.param(lambda: streamed(event("hi", "stop"), DONE, headers=EVENTS | {"content-encoding": "br"}), id="br"),
        pytest.param(lambda: streamed(headers=EVENTS), id="empty"),
        pytest.param(whole, id="no stream"),
    ],
)
async def test_r50_a_stream_that_is_no_complete_success_is_not_kept(answer: Callable[[], Reply]) -> None:
    assert not await is_kept(Chain(), STREAM, answer=answer)


async def test_r50_an_answer_that_a_later_hook_refused_is_not_kept() -> None:
    def refuse(reply: Reply) -> None:
        reply.status = 403

    assert not await is_kept(Chain(), later=refuse)


async def test_a_whole_answer_that_flows_through_is_kept_too() -> None:
    body = whole().body or b""
    answer = streamed(body[:10], body[10:], headers=JSON)
    chain = Chain()
    await chain.ask(answer=lambda: answer)
    again = await chain.ask()
    assert (again.cache, again.reply.body) == ("hit", body)


async def test_an_answer_too_large_is_not_kept_and_its_memory_given_back() -> None:
    recording = Recording("k", 100, True)
    for _ in range(100):
        recording.add(b"x" * 10)
    assert recording.body is None
    assert recording._parts == []
    assert not await is_kept(Chain(max_entry=1000), answer=lambda: whole("x" * 1000))
    assert not await is_kept(Chain(max_entry=1000), STREAM, answer=lambda: streamed(event("x" * 2000, "stop"), DONE))
    assert await is_kept(Chain(max_entry=1000), answer=lambda: whole("x" * 800))


async def test_r50_an_answer_that_cannot_be_kept_leaves_the_older_one() -> None:
    chain = Chain()
    first = await chain.ask()
    await chain.ask(headers=control("no-cache"), answer=lambda: Reply(500, JSON, b"{}"))
    assert (await chain.ask()).body == first.body


# How long, how much.


async def test_answers_expire() -> None:
    chain = Chain(ttl=100.0)
    await chain.ask()
    chain.clock.now += 99.9
    hit = await chain.ask()
    assert (hit.cache, hit.reply.headers["age"]) == ("hit", "99")
    chain.clock.now += 0.1
    assert (await chain.ask()).cache == "miss", "a hit must not have made it younger"


async def test_memory_is_bounded_by_bytes() -> None:
    chain = Chain(memory=100_000)
    for number in range(50):
        await chain.ask({**ASK, "seed": number}, answer=lambda: whole("x" * 9000))
    assert chain.plugin._memory.used <= 100_000
    kept = [(await chain.ask({**ASK, "seed": number}, control("only-if-cached"))).cache for number in range(42, 50)]
    assert kept == ["hit"] * 8
    with pytest.raises(cache.NotCached):
        await chain.ask({**ASK, "seed": 0}, control("only-if-cached"))


@pytest.mark.parametrize(
    "wrong",
    [{"ttl": 0.0}, {"scope": "tenant"}, {"memory": -1}, {"max_entry": 0}, {"max_entry": 9 << 20}, {"disk": 1000}],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        cache.Settings(**wrong)


# With a file.


async def test_answers_outlive_the_process_until_they_expire(tmp_path: Path) -> None:
    path = str(tmp_path / "cache.db")
    body = {**ASK, "stream": True}
    async with running(Chain(path=path)) as chain:
        first = [await chain.ask(), await chain.ask(body, answer=lambda: streamed(event("hi", "stop"), DONE))]
    async with running(Chain(path=path)) as chain:
        chain.clock.now += 3599
        again = [await chain.ask(), await chain.ask(body)]
        assert [(one.cache, one.body) for one in again] == [("hit", one.body) for one in first]
        assert again[0].exchange.usage == Usage(3, 4)
        assert again[1].reply.headers["age"] == "3599"
        assert len(chain.plugin._memory) == 2, "a second look-up needs no file"
    async with running(Chain(path=path)) as chain:
        chain.clock.now += 3600
        assert (await chain.ask()).cache == "miss"


async def test_memory_only_starts_no_thread_and_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = threading.active_count()
    async with running(Chain()) as chain:
        assert [(await chain.ask()).cache for _ in range(2)] == ["miss", "hit"]
        assert threading.active_count() == before
        assert chain.tasks == []
    assert os.listdir(tmp_path) == []


async def test_a_file_that_cannot_be_used_is_one_warning_and_memory_still_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache.db"
    path.write_bytes(b"no database " * 500)
    async with running(Chain(path=str(path))) as chain:
        for number in range(10):
            seen = [(await chain.ask({**ASK, "seed": number})).cache for _ in range(2)]
            assert seen == ["miss", "hit"]
            await asyncio.sleep(0.01)
    assert len(caplog.records) == 1


async def test_no_prompt_and_no_key_is_in_the_file(tmp_path: Path) -> None:
    files = [tmp_path / "cache.db", tmp_path / "cache.db-wal"]
    async with running(Chain(path=str(files[0]))) as chain:
        await chain.ask(
            {**ASK, "user": "the-prompt-canary"}, {**JSON, "authorization": "Bearer the-key-canary"}, principal=ALICE
        )
    raw = b"".join(file.read_bytes() for file in files if file.exists())
    assert b"assistant" in raw, "the answer itself is there"
    assert not any(canary in raw for canary in (b"the-prompt-canary", b"the-key-canary", b"alice"))


# With Redis.


async def test_an_answer_made_by_one_is_a_hit_at_the_other(redis: Redis) -> None:
    body = {**ASK, "stream": True}
    async with linked(redis.url) as here, linked(redis.url) as there:
        async with running(Chain(link=here)) as chain:
            first = [await chain.ask(), await chain.ask(body, answer=lambda: streamed(event("hi", "stop"), DONE))]
        async with running(Chain(link=there)) as chain:
            again = [await chain.ask(), await chain.ask(body)]
            assert [(one.cache, one.body) for one in again] == [("hit", one.body) for one in first]
            assert again[0].exchange.usage == Usage(3, 4)
            redis.kill()
            assert (await chain.ask()).cache == "hit", "a second look-up needs no Redis"
            assert [(await chain.ask({**ASK, "seed": 1})).cache for _ in range(2)] == ["miss", "hit"]


async def test_answers_are_in_redis_where_the_operator_has_them(redis: Redis, tmp_path: Path) -> None:
    async with linked(redis.url) as link:
        wanted: list[tuple[dict[str, Any], int]] = [({"redis": False}, 0), ({"path": str(tmp_path / "c")}, 0), ({}, 1)]
        for settings, kept in wanted:
            async with running(Chain(link=link, **settings)) as chain:
                assert (await chain.ask()).cache == "miss"
            assert len(redis.ask("KEYS", "hookgate:cache:*")) == kept


def test_redis_and_a_file_exclude_each_other_and_redis_must_be_somewhere() -> None:
    with pytest.raises(ValueError, match="not in both"):
        cache.Settings(path="cache.db", redis=True)
    with pytest.raises(ValueError, match=r"\[state\] redis"):
        Chain(redis=True)


async def test_no_prompt_and_no_key_is_in_redis(redis: Redis) -> None:
    async with linked(redis.url) as link, running(Chain(link=link)) as chain:
        await chain.ask(
            {**ASK, "user": "the-prompt-canary"}, {**JSON, "authorization": "Bearer the-key-canary"}, principal=ALICE
        )
    (key,) = redis.ask("KEYS", "hookgate:cache:*")
    raw = key + redis.ask("GET", key)
    assert b"assistant" in raw, "the answer itself is there"
    assert not any(canary in raw for canary in (b"the-prompt-canary", b"the-key-canary", b"alice"))
