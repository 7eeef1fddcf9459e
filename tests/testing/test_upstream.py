"""The scripted upstream is an oracle, so it is judged with raw sockets only."""

from __future__ import annotations

import asyncio

import pytest

from gateway.testing import Call, RawClient, ScriptedUpstream, Truncated, chat, error, fetch, hang_up, silent
from gateway.testing.wire import encode_head


async def test_the_ledger_has_target_headers_and_body_as_sent() -> None:
    async with ScriptedUpstream(chat("hello")) as upstream, RawClient(upstream.url) as client:
        await client.request("POST", "/v1/a%2Fb?x=%20", [("X-One", "1"), ("x-one", "2")], b'{"model":"m"}')
        reply = await client.read()
    assert reply.json["choices"][0]["message"]["content"] == "hello"
    (call,) = upstream.calls
    assert (call.method, call.target, call.json) == ("POST", "/v1/a%2Fb?x=%20", {"model": "m"})
    assert [pair for pair in call.headers if pair[0].lower() == "x-one"] == [("X-One", "1"), ("x-one", "2")]
    assert call.finished is not None and call.aborted is None
    assert call.written > len(reply.body)


async def test_a_chunked_request_body_is_joined() -> None:
    async with ScriptedUpstream(chat()) as upstream, RawClient(upstream.url) as client:
        await client.request(
            "POST", "/", {"Transfer-Encoding": "chunked"}, b"3;x=1\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n"
        )
        await client.read()
    assert upstream.calls[0].body == b"abcde"


async def test_a_sequence_answers_in_order_and_its_last_repeats() -> None:
    async with ScriptedUpstream([error(500), chat()]) as upstream, RawClient(upstream.url) as client:
        statuses = []
        for _ in range(3):
            await client.request("POST", "/", (), b"{}")
            statuses.append((await client.read()).status)
    assert statuses == [500, 200, 200]
    assert len(upstream.connections) == 1
    assert upstream.connections[0].requests == upstream.requests


async def test_model_lists_are_answered_beside_the_script() -> None:
    async with ScriptedUpstream(hang_up, models=("a", "b")) as upstream:
        reply = await fetch(f"{upstream.url}/v1/models")
    assert [model["id"] for model in reply.json["data"]] == ["a", "b"]
    assert len(upstream.requests) == 1
    assert upstream.calls == []


@pytest.mark.parametrize("leave", [RawClient.leave, RawClient.abort])
async def test_a_client_that_leaves_is_noticed_while_the_script_is_silent(leave: object) -> None:
    async with ScriptedUpstream(silent) as upstream, RawClient(upstream.url) as client:
        await client.request("POST", "/", (), b"{}")
        await upstream.wait_calls()
        assert callable(leave)
        leave(client)
        call = await upstream.wait_aborted()
        await upstream.until(lambda: upstream.open_connections == 0)
    assert call.aborted is not None and call.finished is None
    assert call.connection.left is not None


async def test_a_client_that_leaves_inside_its_body_counts_as_aborted() -> None:
    async with ScriptedUpstream(chat()) as upstream, RawClient(upstream.url) as client:
        await client.send(encode_head("POST / HTTP/1.1", {"Content-Length": "10"}) + b"half")
        await upstream.until(lambda: bool(upstream.requests))
        client.abort()
        call = await upstream.wait_aborted()
    assert call.body == b"half"
    assert call.read is None


async def test_a_script_that_closes_is_not_taken_for_a_client_that_left() -> None:
    async with ScriptedUpstream(hang_up) as upstream, RawClient(upstream.url) as client:
        await client.request("POST", "/", (), b"{}")
        with pytest.raises(Truncated):
            await client.read_head()
    assert upstream.calls[0].aborted is None
    assert upstream.connections[0].left is None


async def test_a_script_feels_back_pressure() -> None:
    written = []

    async def fire_hose(call: Call) -> None:
        await call.head(200, {"Content-Length": str(1 << 40)})
        while True:
            await call.send(bytes(65536))
            written.append(call.request.written)

    async with ScriptedUpstream(fire_hose) as upstream, RawClient(upstream.url) as client:
        await client.request("GET", "/")
        await client.read_head()
        await asyncio.sleep(0.2)
        before = len(written)
        await asyncio.sleep(0.2)
        assert len(written) == before
        client.abort()
        await upstream.wait_aborted()


async def test_a_script_that_fails_fails_the_test() -> None:
    async def wrong(call: Call) -> None:
        assert call.request.json == "never"

    with pytest.raises(AssertionError):
        async with ScriptedUpstream(wrong) as upstream, RawClient(upstream.url) as client:
            await client.request("POST", "/", (), b"{}")
            await client.wait_closed()


async def test_waiting_for_what_does_not_come_times_out() -> None:
    async with ScriptedUpstream(chat()) as upstream:
        with pytest.raises(TimeoutError):
            await upstream.wait_calls(within=0.05)
