"""R01: ambiguous framing is refused and the connection closed; the provider never hears of it."""

from __future__ import annotations

import asyncio
import re

import pytest

from gateway.testing import Call, GatewayProcess, RawClient, ScriptedUpstream, Truncated, chat
from tests.integration.conftest import KEY, Door
from tests.integration.corpus import ACCEPTED, BODY, CORPUS, REFUSED, Payload

ERRORS = ([b"400"], [b"405"], [b"421"], [b"501"], [b"505"])
CANARIES = 13  # per payload and way in: over the corpus more than 1,000 each


async def parrot(call: Call) -> None:
    """Answers with what it was asked, so that every answer shows whose it is."""
    await chat(call.request.json["messages"][0]["content"])(call)


async def _check_canaries(door: Door, name: str) -> None:
    """Requests after the payload get their own answers: no byte of it is left on a connection they share."""
    for number in range(CANARIES):
        reply = await door.chat(f"canary {number} after {name}")
        assert reply.status == 200
        assert reply.json["choices"][0]["message"]["content"] == f"canary {number} after {name}"


async def _refusal(door: Door, client: RawClient) -> bytes:
    """All the other side says until it closes."""
    answer = await client.read_some()
    if door.name == "nginx":
        client.finish()  # it lingers until it has seen our FIN
    return answer + await client.wait_closed()


def _is_error(answer: bytes) -> bool:
    """One error, in JSON and without a version number where it is ours; or nothing at all."""
    statuses = re.findall(rb"HTTP/\d\.\d (\d\d\d) ", answer)
    # nginx answers what it takes for HTTP/0.9 without a head.
    bare = answer == b"" or answer.startswith(b'{"error":')
    return (bare or statuses in ERRORS) and b"aiohttp" not in answer


@pytest.mark.parametrize("payload", CORPUS, ids=lambda payload: payload.name)
async def test_r01_framing_is_clear_or_refused(door: Door, upstream: ScriptedUpstream, payload: Payload) -> None:
    upstream.script = parrot
    accepted = (payload.direct if door.name == "direct" else payload.nginx) == "accepted"
    async with door.client() as client:
        await client.send(payload.bytes_for(client.host, KEY))
        if accepted:
            assert (await client.read()).status == 200
            (call,) = upstream.calls
            assert call.target == "/base/v1/chat/completions"
            assert bytes(call.body) == BODY
        else:
            answer = await _refusal(door, client)
            assert _is_error(answer), answer
            assert upstream.calls == []
    await _check_canaries(door, payload.name)
    assert len(upstream.calls) == CANARIES + accepted


async def test_r01_a_refusal_ends_pipelining(door: Door, upstream: ScriptedUpstream) -> None:
    upstream.script = parrot
    bad, good = REFUSED[0], ACCEPTED[0]
    async with door.client() as client:
        await client.send(bad.bytes_for(client.host, KEY) + good.bytes_for(client.host, KEY))
        assert _is_error(await _refusal(door, client))
    await asyncio.sleep(0.1)
    assert upstream.calls == []


async def test_r01_pipelined_requests_get_their_own_answers(door: Door, upstream: ScriptedUpstream) -> None:
    upstream.script = parrot
    async with door.client() as client:
        request = ACCEPTED[0].bytes_for(client.host, KEY)
        await client.send(b"".join(request.replace(b"payload", b"%07d" % number) for number in range(20)))
        for number in range(20):
            reply = await client.read()
            assert reply.json["choices"][0]["message"]["content"] == f"{number:07}"


async def test_r01_a_body_cut_short_is_not_forwarded(door: Door, upstream: ScriptedUpstream) -> None:
    async with door.client() as client:
        await client.send(ACCEPTED[0].bytes_for(client.host, KEY)[:-1])
        client.leave()
        with pytest.raises(Truncated):
            await client.read()
    await asyncio.sleep(0.1)
    assert upstream.calls == []


async def test_r01_expect_is_answered_when_the_body_is_wanted(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    async with RawClient(gateway.url) as client:
        head = [("Authorization", f"Bearer {KEY}"), ("Content-Length", str(len(BODY))), ("Expect", "100-continue")]
        await client.request("POST", "/v1/chat/completions", head)
        assert await client.read_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(BODY)
        assert (await client.read()).status == 200
    assert bytes(upstream.calls[0].body) == BODY


async def test_r01_expect_without_a_key_is_refused_at_once(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    async with RawClient(gateway.url) as client:
        head = [("Authorization", "Bearer wrong"), ("Content-Length", str(len(BODY))), ("Expect", "100-continue")]
        await client.request("POST", "/v1/chat/completions", head)
        answer = await client.read_some()
        assert answer.startswith(b"HTTP/1.1 401 "), answer
        # The body may still come; it must not be taken for a request.
        await client.send(ACCEPTED[0].bytes_for(client.host, KEY))
        await client.wait_closed()
    assert upstream.calls == []


@pytest.mark.parametrize("expectation", ["200-ok", "100-continue, x", "", "junk"])
async def test_r01_other_expectations_are_not_met(door: Door, upstream: ScriptedUpstream, expectation: str) -> None:
    async with door.client() as client:
        head = [("Authorization", f"Bearer {KEY}"), ("Content-Length", str(len(BODY))), ("Expect", expectation)]
        await client.request("POST", "/v1/chat/completions", head, BODY)
        answer = await client.read_some()
    status = answer.split(b" ", 2)[1]
    assert status in (b"200", b"417", b"400"), answer
    assert len(upstream.calls) == (status == b"200")
