"""The vocabulary: what a principal may use, what a target is called, how a body is read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.exchange import Exchange, Principal, Reply, Surface, Target, Usage
from tests.support.exchanges import make_exchange

CHAT = Surface("chat", "openai_chat", "/chat/completions")
FREE = Surface("chat", "openai_chat", "/chat/completions", repeatable=True)


@pytest.mark.parametrize(
    ("models", "model", "allowed"),
    [
        (("*",), "any/thing:at-all", True),
        (("gpt-*", "llama3"), "gpt-4o", True),
        (("gpt-*", "llama3"), "llama3", True),
        (("gpt-*", "llama3"), "llama3.1", False),
        (("gpt-*",), "GPT-4o", False),
        (("gpt-*",), "openai/gpt-4o", False),
        ((), "gpt-4o", False),
    ],
)
def test_a_principal_may_use_what_its_globs_name(models: tuple[str, ...], model: str, allowed: bool) -> None:
    assert Principal("alice", models).allows(model) is allowed


def test_a_target_is_named_as_clients_may_write_it() -> None:
    assert Target("openai", "gpt-4o").name == "openai/gpt-4o"
    assert Target("openai").name == "openai"


def test_unknown_counts_add_nothing_to_the_total() -> None:
    assert Usage(input_tokens=5).total_tokens == 5
    assert Usage(3, 4, cached_tokens=2, reasoning_tokens=1).total_tokens == 7
    assert Usage() != Usage(0, 0)


def test_what_an_exchange_cost_is_unknown_until_somebody_asks() -> None:
    assert make_exchange().cost is None


def test_a_replys_headers_are_its_own_and_ignore_case() -> None:
    given = {"Content-Type": "application/json"}
    reply = Reply(200, given, b"{}")
    reply.headers["content-type"] = "text/plain"
    assert given == {"Content-Type": "application/json"}
    assert reply.headers.getall("CONTENT-TYPE") == ["text/plain"]
    assert Reply(200).taps is not Reply(200).taps


RESPONSES = Surface("responses", "openai_responses", "/responses", repeatable=True, stores=True)


@pytest.mark.parametrize(
    ("surface", "body", "repeatable"),
    [
        (CHAT, {}, False), (FREE, {}, True), (FREE, None, True), (FREE, {"store": False}, True),
        (FREE, {"store": None}, True), (FREE, {"store": True}, False), (FREE, {"store": "yes"}, False),
        (RESPONSES, {}, False), (RESPONSES, None, False), (RESPONSES, {"store": None}, False),
        (RESPONSES, {"store": True}, False), (RESPONSES, {"store": False}, True),
        (RESPONSES, {"store": False, "conversation": "c"}, False), (CHAT, {"store": False}, False),
    ],
)  # fmt: skip
def test_r46_only_what_leaves_nothing_at_the_provider_is_repeatable(
    surface: Surface, body: dict[str, Any] | None, repeatable: bool
) -> None:
    made = exchange(None, surface)
    made.payload = body
    assert made.repeatable() is repeatable


def exchange(reader: Any, surface: Surface = CHAT) -> Exchange:
    url = SimpleNamespace(raw_path="/v1/a%2Fb", raw_query_string="q=%20")
    return Exchange(SimpleNamespace(method="POST", rel_url=url, headers={}), surface, reader)


async def test_a_body_is_read_once_and_only_when_asked_for() -> None:
    read: list[Exchange] = []

    async def reader(of: Exchange) -> str:
        read.append(of)
        return "payload"

    made = exchange(reader)
    assert made.payload is None
    assert [await made.read(), await made.read()] == ["payload", "payload"]
    assert read == [made]


async def test_a_body_that_was_refused_is_asked_for_again() -> None:
    async def reader(_: Exchange) -> Any:
        raise ValueError("no")

    made = exchange(reader)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await made.read()


def test_path_and_query_stay_as_the_client_sent_them() -> None:
    made = exchange(None)
    assert (made.path, made.query) == ("/v1/a%2Fb", "q=%20")


def test_plugins_keep_state_in_notes_and_nowhere_else() -> None:
    with pytest.raises(AttributeError):
        exchange(None).mine = 1  # type: ignore[attr-defined]  # that is the point
