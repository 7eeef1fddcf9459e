"""R49: nobody gets the answer to another request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as checks
from hypothesis import strategies as st

from gateway import Exchange, Principal, config
from gateway.errors import Forbidden
from tests.support.caching import (
    ALICE,
    ASK,
    BOB,
    CHAT,
    DONE,
    EMBEDDINGS,
    JSON,
    Chain,
    asked,
    event,
    running,
    streamed,
    whole,
)
from tests.support.exchanges import make_exchange

REQUESTS = st.fixed_dictionaries(
    {
        "principal": st.sampled_from([None, Principal(""), Principal("a"), Principal("a:b"), Principal("b")]),
        "path": st.sampled_from(["/v1/chat/completions", "/v1/chat/completions/"]),
        "query": st.sampled_from(["", "a=b", "a:b"]),
        "surface": st.sampled_from([CHAT, EMBEDDINGS]),
        "body": st.fixed_dictionaries(
            {"model": st.sampled_from(["m", "b:c", "c"]), "temperature": st.just(0)},
            optional={
                "stream": st.booleans(), "seed": st.integers(0, 1),
                "tools": st.sampled_from([[], [{"type": "function"}]]),
                "messages": st.sampled_from(["c", "b:c", "é", "e\u0301", "data:image/png;base64,AA=="]),
            },
        ).map(lambda body: json.dumps(body, ensure_ascii=False).encode()),
        "headers": st.lists(
            st.tuples(st.sampled_from(["anthropic-beta", "openai-beta", "anthropic-version"]), st.sampled_from("ab")),
            max_size=3,
        ),
    }
)  # fmt: skip


def identity(request: dict[str, Any]) -> tuple[object, ...]:
    """What makes two requests the same: the order of headers with different names means nothing."""
    headers = sorted(request["headers"], key=lambda pair: str(pair[0]))
    return (*(request[name] for name in ("principal", "path", "query", "surface", "body")), *headers)


@checks(max_examples=400)
@given(st.lists(REQUESTS, min_size=2, max_size=8))
async def test_r49_only_an_equal_request_gets_a_kept_answer(requests: list[dict[str, Any]]) -> None:
    chain = Chain()
    kept: dict[tuple[object, ...], bytes] = {}
    for number, request in enumerate(requests):
        is_stream = json.loads(request["body"]).get("stream", False)
        text = str(number)
        answer = streamed(event(text, "stop"), DONE) if is_stream else whole(text, data=[number])
        seen = await chain.ask(**request, answer=[answer].pop)
        if identity(request) in kept:
            assert seen.body == kept[identity(request)]
        else:
            assert seen.cache == "miss"
            if not (is_stream and request["surface"] is EMBEDDINGS):  # no such stream exists: it is not kept
                kept[identity(request)] = seen.body


async def test_r49_two_keys_asking_the_same_are_two_calls() -> None:
    chain = Chain()
    assert [(await chain.ask(principal=who)).cache for who in (ALICE, BOB, ALICE, BOB, None)] == [
        "miss", "miss", "hit", "hit", "miss",
    ]  # fmt: skip
    assert chain.calls == 3


async def test_keys_share_where_the_operator_says_so() -> None:
    chain = Chain(scope="global")
    assert [(await chain.ask(principal=who)).cache for who in (ALICE, BOB, None)] == ["miss", "hit", "hit"]


async def test_members_of_a_team_share_where_the_operator_says_so() -> None:
    chain = Chain(scope="team")
    ann, ben = Principal("ann", team="red"), Principal("ben", team="red")
    others = Principal("ann"), Principal("red"), Principal("eve", team="blue"), Principal("", team=""), None
    assert [(await chain.ask(principal=who)).cache for who in (ann, ben, *others)] == [
        "miss", "hit", "miss", "miss", "miss", "miss", "miss",
    ]  # fmt: skip
    assert [(await chain.ask(principal=who)).cache for who in (ann, ben, *others)] == ["hit"] * 7


@pytest.mark.parametrize("arrived", [True, False])
async def test_r49_what_a_key_may_not_use_it_does_not_get_from_the_cache_either(arrived: bool) -> None:
    chain = Chain(scope="global")
    await chain.ask()
    exchange = make_exchange(JSON, surface=CHAT, principal=Principal("carol", models=("other",)))

    async def refuse(exchange: Exchange) -> Any:
        raise Forbidden("no")

    exchange._reader = refuse
    exchange._arrived = json.dumps(ASK).encode() if arrived else None
    with pytest.raises(Forbidden):
        await asked(chain.plugin, exchange)


async def test_r49_other_routes_are_other_keys(tmp_path: Path) -> None:
    text = """
        [providers.stub]
        type = "{kind}"
        base_url = "http://127.0.0.1:1/v1"
        [models.m]
        targets = [{{ provider = "stub", model = "{model}" }}]
    """

    def load(kind: str, model: str) -> Any:
        file = tmp_path / "gateway.toml"
        file.write_text(text.format(kind=kind, model=model))
        loaded, document = config.load(file, {})
        document.raise_problems()
        return loaded

    path = str(tmp_path / "cache.db")
    seen = []
    for kind, model in [("ollama", "a"), ("ollama", "a"), ("openai_compat", "a"), ("ollama", "b"), ("ollama", "a")]:
        async with running(Chain(load(kind, model), path=path)) as chain:
            seen.append((await chain.ask()).cache)
    assert seen == ["miss", "hit", "miss", "miss", "hit"]


async def test_a_header_that_cannot_change_the_answer_does_not_change_the_key() -> None:
    chain = Chain()
    await chain.ask(headers={**JSON, "authorization": "Bearer one", "x-request-id": "1", "user-agent": "a"})
    again = await chain.ask(headers={**JSON, "authorization": "Bearer two", "x-request-id": "2", "traceparent": "b"})
    assert again.cache == "hit"
