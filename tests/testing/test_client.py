from __future__ import annotations

import pytest

from gateway.testing import RawClient, ScriptedUpstream, Truncated, chat, fetch, fetch_chat, raw, stream


async def test_a_request_carries_what_it_needs_and_no_more() -> None:
    async with ScriptedUpstream(chat()) as upstream, RawClient(upstream.url) as client:
        await client.request("POST", "//x?y", {"Host": "h#"}, b"{}")
        await client.read()
    assert upstream.calls[0].headers == [("Host", "h#"), ("Content-Length", "2")]
    assert upstream.calls[0].target == "//x?y"


async def test_chat_sends_key_and_fields() -> None:
    async with ScriptedUpstream(chat()) as upstream:
        reply = await fetch_chat(upstream.url, "gpt", "hey", key="k", temperature=0)
    assert reply.status == 200
    (call,) = upstream.calls
    assert call.target == "/v1/chat/completions"
    assert call.header("authorization") == "Bearer k"
    assert call.json == {"model": "gpt", "messages": [{"role": "user", "content": "hey"}], "temperature": 0}


async def test_interim_heads_are_skipped() -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with ScriptedUpstream(raw(answer)) as upstream:
        assert (await fetch(upstream.url)).body == b"ok"


async def test_a_reply_without_content_has_no_body() -> None:
    async with ScriptedUpstream(raw(b"HTTP/1.1 204 No Content\r\n\r\n", "keep")) as upstream:
        async with RawClient(upstream.url) as client:
            for _ in range(2):
                await client.request("GET", "/")
                assert (await client.read()).body == b""


async def test_events_are_cut_at_blank_lines_whatever_the_chunks() -> None:
    pieces = [b"data: a\r\n\r", b"\ndata: b\n", b"\ndata: half"]
    async with ScriptedUpstream(stream(pieces)) as upstream, RawClient(upstream.url) as client:
        await client.request("GET", "/")
        await client.read_head()
        events = [event async for event in client.events()]
    assert events == [b"data: a\n\n", b"data: b\n\n", b"data: half"]


async def test_a_cut_answer_shows_what_had_come() -> None:
    async with ScriptedUpstream(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")) as upstream:
        with pytest.raises(Truncated) as caught:
            await fetch(upstream.url)
    assert caught.value.received == b"half"


async def test_a_silent_server_is_a_timeout() -> None:
    async with ScriptedUpstream(raw(b"", "keep")) as upstream, RawClient(upstream.url, timeout=0.05) as client:
        await client.request("GET", "/")
        with pytest.raises(TimeoutError):
            await client.read()


async def test_wait_closed_returns_the_rest() -> None:
    async with ScriptedUpstream(raw(b"bye")) as upstream, RawClient(upstream.url) as client:
        await client.request("GET", "/")
        assert await client.wait_closed() == b"bye"
