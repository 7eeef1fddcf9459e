from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.testing import (
    WHOLE_FAULTS,
    RawClient,
    Script,
    ScriptedUpstream,
    Truncated,
    as_asked,
    chat_events,
    chat_stream,
    delayed,
    fetch,
    stream_faults,
)


async def _events(script: Script, **fields: Any) -> tuple[list[bytes], str | None]:
    """The events a client of ``script`` sees, and how it broke off (``None``: it did not)."""
    seen = []
    async with ScriptedUpstream(script) as upstream, RawClient(upstream.url, timeout=2) as client:
        await client.chat(stream=True, **fields)
        try:
            await client.read_head()
            async for event in client.events():
                seen.append(event)
        except Truncated as cut:
            return seen, cut.how
    return seen, None


async def test_a_stream_has_the_shape_of_openai() -> None:
    seen, cut = await _events(chat_stream(3, usage={"total_tokens": 7}), stream_options={"include_usage": True})
    assert cut is None
    assert seen[-1] == b"data: [DONE]\n\n"
    chunks = [json.loads(event[6:]) for event in seen[:-1]]
    assert [choice["delta"] for chunk in chunks for choice in chunk["choices"]] == [
        {"role": "assistant", "content": ""},
        {"content": "w0 "},
        {"content": "w1 "},
        {"content": "w2 "},
        {},
    ]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == {"total_tokens": 7}


async def test_usage_comes_only_when_asked_for() -> None:
    seen, _ = await _events(chat_stream(1, usage={"total_tokens": 7}))
    assert seen == chat_events(1)


@pytest.mark.parametrize("name", stream_faults(2))
async def test_a_broken_stream_shows_its_first_events_and_never_its_marker(name: str) -> None:
    seen, cut = await _events(stream_faults(2)[name])
    assert seen[:2] == chat_events(11)[:2]
    assert b"data: [DONE]\n\n" not in seen
    assert cut == {"end": None, "close": "closed", "half": "closed", "reset": "reset"}[name.split()[0]]


@pytest.mark.parametrize("name", WHOLE_FAULTS)
async def test_no_fault_looks_like_a_success(name: str) -> None:
    async with ScriptedUpstream(WHOLE_FAULTS[name]) as upstream, RawClient(upstream.url) as client:
        await client.chat()
        try:
            status = (await client.read()).status
        except (Truncated, IndexError):  # IndexError: a start line without a status
            return
    assert status != 200


async def test_as_asked_follows_the_request() -> None:
    async with ScriptedUpstream(as_asked()) as upstream, RawClient(upstream.url) as client:
        await client.chat()
        assert (await client.read()).header("content-type") == "application/json"
        await client.chat(stream=True)
        assert (await client.read()).header("content-type") == "text/event-stream; charset=utf-8"


async def test_a_delayed_answer_comes_later() -> None:
    async with ScriptedUpstream(delayed(0.1, as_asked())) as upstream:
        assert (await fetch(f"{upstream.url}/v1/x", "POST", (), b"{}")).status == 200
    (call,) = upstream.calls
    assert call.read is not None and call.finished is not None
    assert call.finished - call.read >= 0.1
