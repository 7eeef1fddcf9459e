"""The client's id where it is fit for a log line, and one of ours that is unique in any case."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import Exchange, Reply
from gateway_plugins.middleware import request_id
from tests.support.exchanges import make_exchange, make_runtime

FIT = r"[A-Za-z0-9._-]{1,128}"


def make(**settings: object) -> request_id.Plugin:
    return request_id.Plugin(request_id.Settings(**settings), make_runtime())


def identified(plugin: request_id.Plugin, sent: str | None, header: str = "X-Request-ID") -> Exchange:
    exchange = make_exchange({} if sent is None else {header: sent})
    plugin.on_request(exchange)
    return exchange


@given(st.from_regex(FIT, fullmatch=True).filter(str.isascii))
def test_r60_an_id_that_is_fit_is_taken(sent: str) -> None:
    assert identified(make(), sent).id == sent


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=200).filter(lambda t: not re.fullmatch(FIT, t)))
def test_r60_any_other_id_is_replaced(sent: str) -> None:
    exchange = identified(make(), sent)
    assert exchange.id != sent
    assert re.fullmatch(FIT, exchange.id)


@pytest.mark.parametrize("sent", ["", "a" * 129, "abc\n", "abc ", "a b", "ä", "a/b", '{"x":1}', "abc\u2028"])
def test_r60_ids_at_the_edge_are_replaced(sent: str) -> None:
    assert identified(make(), sent).id != sent


def test_r60_our_own_id_is_unique_even_when_the_client_repeats_its_own() -> None:
    first, second = make(), make()
    exchanges = [identified(plugin, "same") for plugin in (first, second) for _ in range(1000)]
    assert {exchange.id for exchange in exchanges} == {"same"}
    assert len({exchange.notes[request_id.NOTE] for exchange in exchanges}) == 2000


def test_without_a_client_id_the_exchange_carries_ours() -> None:
    exchange = identified(make(), None)
    assert exchange.id == exchange.notes[request_id.NOTE]


def test_a_client_that_is_not_trusted_gets_ours() -> None:
    assert identified(make(trust_client=False), "mine").id != "mine"


def test_the_reply_carries_the_id_instead_of_the_upstreams() -> None:
    plugin = make()
    exchange = identified(plugin, "mine")
    reply = Reply(headers={"X-Request-Id": "the-upstreams"})
    plugin.on_reply(exchange, reply)
    assert reply.headers.getall("x-request-id") == ["mine"]


def test_another_header_is_read_and_answered_beside_the_usual_one() -> None:
    plugin = make(header="X-Correlation-ID")
    exchange = identified(plugin, "mine", "x-correlation-id")
    reply = Reply()
    plugin.on_reply(exchange, reply)
    assert {**reply.headers} == {"x-correlation-id": "mine"}, "the core answers x-request-id"


@pytest.mark.parametrize("name", ["", "x request", "x:y", "x\r\ny", "x" * 65])
def test_a_header_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="header"):
        request_id.Settings(header=name)
