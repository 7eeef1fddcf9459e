"""Which requests are cached, what clients may ask for by Cache-Control, and how a kept answer is given again."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from gateway import Exchange, Reply, Surface, Usage
from gateway.body import parse
from gateway_plugins.middleware import cache
from tests.support.caching import (
    ALICE,
    ASK,
    CHAT,
    DONE,
    EMBEDDINGS,
    EVENTS,
    JSON,
    Chain,
    asked,
    control,
    event,
    streamed,
    whole,
)
from tests.support.exchanges import make_exchange

RESPONSES = Surface("responses", "openai_responses", "/responses", "json", True)


# What is cached.


@pytest.mark.parametrize("temperature", [0, 0.0, -0.0])
async def test_temperature_zero_is_cached(temperature: float) -> None:
    chain = Chain()
    body = {**ASK, "temperature": temperature}
    assert [(await chain.ask(body)).cache for _ in range(2)] == ["miss", "hit"]


@pytest.mark.parametrize("temperature", [0.1, 1, None, False, "0", [0]])
async def test_another_temperature_is_not(temperature: Any) -> None:
    chain = Chain()
    body = {**ASK, "temperature": temperature}
    assert [(await chain.ask(body)).cache for _ in range(2)] == ["bypass", "bypass"]
    assert chain.calls == 2


async def test_embeddings_need_no_temperature() -> None:
    chain = Chain()
    body = {"model": "m", "input": "hello"}
    answer = Reply(200, JSON, b'{"data":[{"embedding":[0.5]}]}')
    seen = [await chain.ask(body, surface=EMBEDDINGS, answer=lambda: answer) for _ in range(2)]
    assert [one.cache for one in seen] == ["miss", "hit"]
    assert seen[1].body == answer.body


async def test_the_operator_can_have_everything_cached() -> None:
    chain = Chain(always=True)
    body = {**ASK, "temperature": 1}
    assert [(await chain.ask(body)).cache for _ in range(2)] == ["miss", "hit"]


@pytest.mark.parametrize(
    ("globs", "model", "state"),
    [
        (("*",), "gpt-4o", "miss"),
        (("gpt-*", "llama3"), "llama3", "miss"),
        (("gpt-*", "llama3"), "llama3.1", "bypass"),
        (("gpt-*",), "GPT-4o", "bypass"),
        (("[x]*",), "[x]", "bypass"),
        ((), "gpt-4o", "bypass"),
        (("*",), None, "miss"),
    ],
)
async def test_the_operator_chooses_the_models(globs: tuple[str, ...], model: str | None, state: str) -> None:
    body = {**ASK, "model": model} if model else {"temperature": 0}
    assert (await Chain(models=globs).ask(body)).cache == state


@pytest.mark.parametrize("more", [{"surface": RESPONSES}, {"method": "GET"}, {"method": "PUT"}])
async def test_what_is_no_question_to_a_model_has_nothing_to_do_with_the_cache(more: Any) -> None:
    chain = Chain(always=True)
    seen = await chain.ask(**more)
    assert seen.cache is None
    assert seen.exchange.payload is None, "the body was read for nothing"


async def test_a_request_too_long_to_hash_is_not_cached() -> None:
    chain = Chain()
    body = {**ASK, "messages": [{"role": "user", "content": "x" * cache.MAX_REQUEST}]}
    assert [(await chain.ask(body)).cache for _ in range(2)] == ["bypass", "bypass"]


async def test_a_body_nobody_holds_in_memory_is_not_cached() -> None:
    chain = Chain(always=True)
    exchange = make_exchange(surface=attrs.evolve(EMBEDDINGS, body="any"))

    async def read(exchange: Exchange) -> Any:
        return SimpleNamespace(raw=None)

    exchange._reader = read
    assert await asked(chain.plugin, exchange) is None
    assert exchange.cache == "bypass"


# What a client may ask for.


async def test_max_age_has_a_request_cached_whatever_its_temperature() -> None:
    chain = Chain()
    body = {**ASK, "temperature": 1}
    assert [(await chain.ask(body, control("max-age=60"))).cache for _ in range(2)] == ["miss", "hit"]
    assert (await chain.ask(body)).cache == "bypass", "another request did not ask for it"


async def test_max_age_bounds_the_age_of_the_answer() -> None:
    chain = Chain()
    first = await chain.ask()
    chain.clock.now += 60.5
    assert (await chain.ask(headers=control("max-age=61"))).body == first.body
    renewed = await chain.ask(headers=control("max-age=60"), answer=lambda: whole("newer"))
    assert renewed.cache == "miss"
    assert (await chain.ask()).body == renewed.body


async def test_no_store_leaves_the_cache_alone() -> None:
    chain = Chain()
    assert [(await chain.ask(headers=control("no-store"))).cache for _ in range(2)] == ["bypass", "bypass"]
    assert (await chain.ask()).cache == "miss"
    assert (await chain.ask(headers=control("max-age=9, no-store"))).cache == "bypass"


async def test_no_cache_asks_the_provider_and_keeps_the_newer_answer() -> None:
    chain = Chain()
    await chain.ask(answer=lambda: whole("old"))
    renewed = await chain.ask(headers=control("no-cache"), answer=lambda: whole("new"))
    assert renewed.cache == "miss"
    assert (await chain.ask()).body == renewed.body
    assert (await chain.ask({**ASK, "temperature": 1}, control("no-cache"))).cache == "bypass"


@pytest.mark.parametrize("value", ["only-if-cached", "only-if-cached, no-store", "only-if-cached, max-age=60"])
async def test_only_if_cached_never_calls_a_provider(value: str) -> None:
    chain = Chain()
    with pytest.raises(cache.NotCached) as caught:
        await chain.ask(headers=control(value))
    assert caught.value.http_status == 504
    assert chain.calls == 0


async def test_only_if_cached_gets_what_is_there() -> None:
    chain = Chain()
    body = {**ASK, "temperature": 1}
    await chain.ask(body, control("max-age=60"))
    assert (await chain.ask(body, control("only-if-cached"))).cache == "hit"
    chain.clock.now += 61
    with pytest.raises(cache.NotCached):
        await chain.ask(body, control("only-if-cached, max-age=60"))


async def test_two_header_lines_count_as_one() -> None:
    chain = Chain()
    assert (await chain.ask(headers=[("cache-control", "max-age=60"), ("Cache-Control", "no-store")])).cache == "bypass"


# How it is answered.


async def test_a_whole_answer_is_replayed_whole() -> None:
    chain = Chain()
    answer = whole()
    answer.headers.update({"openai-version": "2020-10-01", "x-ratelimit-remaining": "3", "set-cookie": "a=b"})
    first = await chain.ask(answer=lambda: answer)
    chain.clock.now += 41.9
    again = await chain.ask()
    assert (again.cache, chain.calls, again.body) == ("hit", 1, first.body)
    assert again.reply.stream is None
    assert {**again.reply.headers} == {**JSON, "openai-version": "2020-10-01", "age": "41"}
    assert again.exchange.target is None


async def test_a_stream_is_replayed_as_a_stream() -> None:
    chain = Chain()
    body = {**ASK, "stream": True}
    chunks = [event("hel"), event("lo"), event("", "stop") + DONE]
    first = await chain.ask(body, answer=lambda: streamed(*chunks))
    again = await chain.ask(body)
    assert again.cache == "hit"
    assert again.reply.body is None
    assert again.body == first.body == b"".join(chunks)
    assert again.reply.headers["content-type"] == EVENTS["content-type"]
    assert (await chain.ask()).cache == "miss", "the same asked for whole is another answer"


async def test_a_long_stream_is_replayed_piece_by_piece() -> None:
    chain = Chain()
    body = {**ASK, "stream": True}
    answer = event("x" * 300_000, "stop") + DONE
    await chain.ask(body, answer=lambda: streamed(answer))
    exchange = (await chain.ask(body)).exchange
    reply = await asked(chain.plugin, exchange)
    assert reply is not None
    assert reply.stream is not None
    pieces = [piece async for piece in reply.stream]
    assert b"".join(pieces) == answer
    assert max(map(len, pieces)) <= 1 << 16


async def test_a_replay_says_what_the_answer_had_cost_and_dropped() -> None:
    chain = Chain()
    await chain.ask(answer=whole, dropped=["seed"])
    again = await chain.ask()
    assert again.exchange.usage == Usage(3, 4)
    assert again.exchange.dropped == ["seed"]
    again.exchange.usage.input_tokens = 99
    assert (await chain.ask()).exchange.usage == Usage(3, 4), "one exchange's usage is not another's"


async def test_an_answer_without_usage_is_replayed_without() -> None:
    chain = Chain()
    await chain.ask(answer=lambda: Reply(200, JSON, whole().body))
    assert (await chain.ask()).exchange.usage is None


async def test_edits_of_later_hooks_are_not_made_twice() -> None:
    chain = Chain()

    def sign(reply: Reply) -> None:
        assert reply.body is not None
        reply.body += b"signed"

    first = await chain.ask(later=sign)
    again = await chain.ask(later=sign)
    assert again.cache == "hit"
    assert first.body.endswith(b"}signed")
    assert again.reply.body == first.reply.body


async def test_an_answer_made_while_the_body_was_on_its_way_is_found() -> None:
    chain = Chain()
    slow = make_exchange(JSON, principal=ALICE, surface=CHAT)

    async def read(exchange: Exchange) -> Any:
        chain.clock.now += 5
        await chain.ask()
        payload = await parse(json.dumps(ASK).encode())
        exchange.model, exchange.stream = payload.model, payload.stream
        return payload

    slow._reader = read
    reply = await asked(chain.plugin, slow)
    assert reply is not None
    assert (slow.cache, reply.headers["age"], chain.calls) == ("hit", "0", 1)
