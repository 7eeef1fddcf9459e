"""R33: an event as large as an image passes unchanged; one beyond the limit ends the stream as broken."""

from __future__ import annotations

import pytest

from gateway.testing import Call, ScriptedUpstream, Truncated, event, fetch_chat, stream
from gateway.testing.answers import SSE
from tests.integration.conftest import KEY, Door

DONE = event(b"[DONE]")
FIRST = event({"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]})
SAID = event({"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]})


def large(size: int) -> bytes:
    return event({"choices": [], "image": "é" + "x" * size})


@pytest.mark.parametrize("size", [600_000, 3_000_000, 15_000_000])
async def test_r33_a_large_event_arrives_unchanged(door: Door, upstream: ScriptedUpstream, size: int) -> None:
    whole = FIRST + large(size) + DONE
    upstream.script = stream([whole[at : at + 100_001] for at in range(0, len(whole), 100_001)])
    reply = await door.chat(stream=True)
    assert reply.status == 200
    assert reply.body == whole


async def test_r33_an_event_beyond_the_limit_breaks_the_stream(door: Door, upstream: ScriptedUpstream) -> None:
    async def script(call: Call) -> None:
        await call.head(200, SSE)
        await call.chunk(SAID + b"data: ")
        while True:
            await call.chunk(b"x" * 100_000)

    upstream.script = script
    with pytest.raises(Truncated) as cut:
        await fetch_chat(door.url, "m", host=door.host, key=KEY, stream=True)
    assert cut.value.received.startswith(SAID + b'data: {"error":')
    assert b"too large" in cut.value.received
    call = await upstream.wait_aborted()
    assert call.written < 40 << 20


@pytest.mark.parametrize("piece", [1, 2, 7, 64])
async def test_r33_a_stream_in_crumbs_arrives_unchanged(door: Door, upstream: ScriptedUpstream, piece: int) -> None:
    whole = b": hi\n\n" + FIRST + event({"choices": [], "text": "größer 漢字 🎈"}) + DONE
    upstream.script = stream([whole[at : at + piece] for at in range(0, len(whole), piece)])
    assert (await door.chat(stream=True)).body == whole
