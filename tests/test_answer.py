"""An answer on its way: which time limit counts when, what is held, what is left in good order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.testing import (
    Call,
    LocalGateway,
    Script,
    ScriptedUpstream,
    Truncated,
    chat_events,
    error,
    fetch_chat,
    stream,
    whole,
)
from gateway.testing.answers import JSON, SSE

CHAT = chat_events(2)
PING = b": ping\n\n"


def gateway(folder: Path, upstream: ScriptedUpstream, timeouts: str) -> LocalGateway:
    return LocalGateway(
        folder,
        f"""
default_provider = "up"
plugins = {{ chain = [] }}
[retry]
attempts = 1
[providers.up]
type = "openai_compat"
base_url = "{upstream.url}/v1"
timeouts = {{ {timeouts} }}
""",
    )


def drip(opening: list[bytes], piece: bytes) -> Script:
    """``opening``, then ``piece`` for ever, twenty times a second."""

    async def script(call: Call) -> None:
        await call.head(200, SSE)
        for each in opening:
            await call.chunk(each)
        while True:
            await call.chunk(piece)
            await asyncio.sleep(0.05)

    return script


@pytest.mark.parametrize(
    "script",
    [drip([], PING), drip([CHAT[0]], PING), drip([], CHAT[0]), stream(CHAT[:1], ending="stall")],
    ids=["pings", "a role and pings", "roles", "a role and nothing"],
)
async def test_until_something_is_said_the_limit_of_the_first_token_counts(tmp_path: Path, script: Script) -> None:
    async with ScriptedUpstream(script) as upstream:
        async with gateway(tmp_path, upstream, 'first_token = "400ms", idle = "60s"') as local:
            reply = await fetch_chat(local.url, stream=True)
            assert (reply.status, reply.json["error"]["code"]) == (504, "upstream_timeout")
            assert "did not answer in time" in reply.json["error"]["message"]
            await upstream.wait_aborted()


async def test_behind_the_first_token_its_limit_is_over(tmp_path: Path) -> None:
    async with ScriptedUpstream(stream(CHAT, pause=0.4)) as upstream:
        async with gateway(tmp_path, upstream, 'first_token = "900ms", idle = "10s"') as local:
            reply = await fetch_chat(local.url, stream=True)
            assert (reply.status, reply.body) == (200, b"".join(CHAT))
            received = upstream.calls[0]
            assert received.finished and received.read and received.finished - received.read > 1.1


async def test_behind_the_first_token_the_pause_counts(tmp_path: Path) -> None:
    async with ScriptedUpstream(stream(CHAT[:2], ending="stall")) as upstream:
        async with gateway(tmp_path, upstream, 'first_token = "60s", idle = "300ms"') as local:
            with pytest.raises(Truncated) as cut:
                await fetch_chat(local.url, stream=True)
            assert cut.value.received.startswith(b"".join(CHAT[:2]))
            assert b"The provider stopped sending." in cut.value.received
            await upstream.wait_aborted()


@pytest.mark.parametrize("idle", ["60s", "0s"])
async def test_an_answer_that_never_stalls_may_be_too_long(tmp_path: Path, idle: str) -> None:
    async with ScriptedUpstream(drip([], CHAT[1])) as upstream:
        async with gateway(tmp_path, upstream, f'idle = "{idle}", total = "500ms"') as local:
            with pytest.raises(Truncated) as cut:
                await fetch_chat(local.url, stream=True)
            assert b"The provider's answer took too long." in cut.value.received
            await upstream.wait_aborted()


async def test_the_limit_of_a_head_is_one_of_its_own(tmp_path: Path) -> None:
    async def late(call: Call) -> None:
        await asyncio.sleep(8)
        await call.answer(200, b"{}", JSON)

    async with ScriptedUpstream(late) as upstream:
        async with gateway(tmp_path, upstream, 'head = "300ms", first_token = "60s"') as local:
            reply = await fetch_chat(local.url, stream=True)
            assert (reply.status, reply.json["error"]["code"]) == (504, "upstream_timeout")


async def test_a_whole_answer_that_stalls_is_late(tmp_path: Path) -> None:
    async def half(call: Call) -> None:
        await call.head(200, {**JSON, "Content-Length": "100"})
        await call.send(b'{"id":')
        await call.stall()

    async with ScriptedUpstream(half) as upstream:
        async with gateway(tmp_path, upstream, 'first_token = "60s", idle = "300ms"') as local:
            reply = await fetch_chat(local.url)
            assert (reply.status, reply.json["error"]["code"]) == (504, "upstream_timeout")
            await upstream.wait_aborted()


@pytest.mark.parametrize("sizes", [[200], [100, 100]], ids=["with its head", "in two reads"])
async def test_a_whole_answer_gives_its_connection_back(tmp_path: Path, sizes: list[int]) -> None:
    body = b'{"text":"' + b"x" * 189 + b'"}'

    async def script(call: Call) -> None:
        await call.head(200, {**JSON, "Content-Length": str(len(body))})
        at = 0
        for size in sizes:
            await call.send(body[at : at + size])
            at += size
            await asyncio.sleep(0.05)

    async with ScriptedUpstream(script) as upstream:
        async with gateway(tmp_path, upstream, 'idle = "5s"') as local:
            for _ in range(3):
                assert (await fetch_chat(local.url)).body == body
            assert len(upstream.connections) == 1


async def test_an_error_body_beyond_a_mebibyte_is_not_held(tmp_path: Path) -> None:
    script = whole(400, b'{"error":"' + b"x" * (1 << 20) + b'"}')
    async with ScriptedUpstream(script) as upstream:
        async with gateway(tmp_path, upstream, 'idle = "5s"') as local:
            reply = await fetch_chat(local.url)
            assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_protocol_error")
            assert local.exchanges[0].target is not None and str(local.exchanges[0].error).endswith("bytes long.")
            upstream.script = error(400)
            assert (await fetch_chat(local.url)).status == 400
