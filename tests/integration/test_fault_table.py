"""Every way a provider fails, at every moment: who answers, what the official SDK makes of it, what was called.

The table below is the expectation; the ledgers of both providers are the oracle. Nothing of it is computed by us.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from gateway.testing import (
    Call,
    GatewayFactory,
    GatewayProcess,
    RawClient,
    Received,
    ScriptedUpstream,
    Truncated,
    as_asked,
    chat_body,
    chat_events,
    event,
    free_ports,
)
from gateway.testing.answers import JSON, SSE
from gateway.testing.wire import encode_head
from tests.integration.conftest import Door
from tests.support.nginx import HOST, Nginx

Outcome = Literal["spare", "raises", "refused"]
"""``spare``: the fallback's answer, and nothing of the primary's. ``raises``: the primary's beginning, then an error;
the fallback is not called. ``refused``: the primary's own refusal, and the fallback is not called."""

# A stream's moments: before any byte of its body; behind a role alone, which says nothing yet; behind some words; with
# all but the marker sent, the finish_reason too.
STREAM: dict[str, dict[str, Outcome]] = {
    "connection refused":   {"before": "spare"},
    "accept and silence":   {"before": "spare"},
    "429 and Retry-After":  {"before": "spare"},
    "500":                  {"before": "spare"},
    "529":                  {"before": "spare"},
    "400":                  {"before": "refused"},
    "head, then silence":   {"before": "spare"},
    "cut":                  {"before": "spare", "role": "spare", "mid": "raises", "last": "raises"},
    "clean end":            {"before": "spare", "role": "spare", "mid": "raises", "last": "raises"},
    "clean chunked end":    {"before": "spare", "role": "spare", "mid": "raises", "last": "raises"},
    "stall":                {"before": "spare", "role": "spare", "mid": "raises", "last": "raises"},
    "pings, then nothing":  {"before": "spare", "role": "spare", "mid": "raises", "last": "raises"},
    "malformed":            {"before": "spare", "role": "spare", "mid": "raises", "last": "raises"},
    "bad chunk":            {"before": "spare", "role": "spare", "mid": "raises", "last": "raises"},
    "half an event":        {"before": "spare", "role": "spare", "mid": "raises", "last": "raises"},
    "error event":          {"before": "spare", "role": "spare", "mid": "raises", "last": "raises"},
}  # fmt: skip
# A whole answer's: before any byte of its body, behind half of it, behind all but its last byte.
WHOLE: dict[str, dict[str, Outcome]] = {
    "connection refused":   {"before": "spare"},
    "accept and silence":   {"before": "spare"},
    "429 and Retry-After":  {"before": "spare"},
    "500":                  {"before": "spare"},
    "529":                  {"before": "spare"},
    "400":                  {"before": "refused"},
    "head, then silence":   {"before": "spare"},
    "cut":                  {"before": "spare", "mid": "spare", "last": "spare"},
    "clean end":            {"before": "spare", "mid": "spare", "last": "spare"},
    "clean chunked end":    {"before": "spare", "mid": "spare", "last": "spare"},
    "end of connection":    {"before": "spare", "mid": "spare", "last": "spare"},
    "stall":                {"mid": "spare", "last": "spare"},
    "malformed":            {"before": "spare", "mid": "spare", "last": "spare"},
    "bad chunk":            {"before": "spare", "mid": "spare", "last": "spare"},
    "error in a 200":       {"before": "spare"},
    "large, cut":           {"mid": "raises", "last": "raises"},
}  # fmt: skip
CASES = [
    (form, fault, moment, outcome)
    for form, table in (("stream", STREAM), ("whole", WHOLE))
    for fault, row in table.items()
    for moment, outcome in row.items()
]

EVENTS = chat_events(4)
SENT = {"before": 0, "role": 1, "mid": 3, "last": 6}
BODY = chat_body("primary " * 40)
LARGE = chat_body("primary " * (1 << 18))
ERROR = {"error": {"message": "no", "type": "server_error", "param": None, "code": 529}}
STATUSES = {"429 and Retry-After": 429, "500": 500, "529": 529, "400": 400}
FINISHED = (b"[DONE]", b'"finish_reason":"stop"')
# Every case has a target of its own, so that what one teaches its breaker and its cooldown tells nothing of another.
WAYS = [f"{door} {client}" for door in ("direct", "nginx") for client in ("raw", "sdk")]


def name_of(form: str, fault: str, moment: str, way: str) -> str:
    return f"{form}|{fault}|{moment}|{way}"


def models() -> str:
    tables = []
    for form, fault, moment, _ in CASES:
        provider = "nobody" if fault == "connection refused" else "primary"
        for way in WAYS:
            name = name_of(form, fault, moment, way)
            target = f'{{ provider = "{provider}", model = "{name}" }}'
            tables.append(f'[models."{name}"]\ntargets = [{target}]\nfallbacks = ["spare"]\n')
    return "".join(tables)


LIMITS = '{ connect = "2s", first_token = "300ms", idle = "300ms" }'
CONFIG = f"""
[providers.primary]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
timeouts = {LIMITS}
[providers.nobody]
type = "openai_compat"
base_url = "http://127.0.0.1:$nobody/v1"
timeouts = {LIMITS}
[providers.spare]
type = "openai_compat"
base_url = "http://127.0.0.1:$spare/v1"
[models.spare]
targets = [{{ provider = "spare", model = "spare" }}]
{models()}
"""


@pytest.fixture(scope="module")
def spare_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, provider_port: int, spare_port: int) -> GatewayProcess:
    nobody = str(free_ports(1)[0])
    return shared_gateway_server(CONFIG, port=str(provider_port), spare=str(spare_port), nobody=nobody)


@pytest.fixture
def doors(gateway: GatewayProcess, nginx: Nginx) -> list[Door]:
    return [Door("direct", gateway.url), Door("nginx", nginx.url, HOST)]


@pytest.fixture
async def upstream(provider_port: int) -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(primary, port=provider_port) as scripted:
        yield scripted


@pytest.fixture
async def spare(spare_port: int) -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(as_asked(2), port=spare_port) as scripted:
        yield scripted


async def primary(call: Call) -> None:
    """Fail as the model's name says."""
    form, fault, moment, _ = call.request.json["model"].split("|")
    if fault == "accept and silence":
        await call.stall()
    if fault in STATUSES:
        after = [("Retry-After", "30")] if fault == "429 and Retry-After" else []
        await call.answer(STATUSES[fault], json.dumps(ERROR).encode(), [*JSON.items(), *after])
    elif form == "stream":
        await call.head(200, SSE)
        for each in EVENTS[: SENT[moment]]:
            await call.chunk(each)
        # What comes together with an error counts for nothing: here it is the words that came before it.
        await asyncio.sleep(0.1)
        await broken_stream(call, fault)
    else:
        await broken_whole(call, fault, moment)


async def broken_stream(call: Call, fault: str) -> None:
    last = {
        "clean chunked end": b"",
        "malformed": event(b"{oops"),
        "error event": event(ERROR),
        "half an event": b'data: {"id":"chatcmpl-1","cho',
    }
    if fault in last:
        await call.chunk(last[fault])
    if fault == "bad chunk":
        await call.send(b"xyz\r\n")
    if fault == "pings, then nothing":
        for _ in range(4):
            await call.chunk(b": ping\n\n")
            await asyncio.sleep(0.1)
    if fault in ("stall", "head, then silence", "bad chunk", "pings, then nothing"):
        await call.stall()
    if fault == "cut":
        call.reset()
    elif fault in ("clean end", "half an event"):
        call.close()
    elif fault == "malformed":
        await call.chunk(EVENTS[-1])  # a marker behind it makes it no better


async def broken_whole(call: Call, fault: str, moment: str) -> None:
    body = LARGE if fault == "large, cut" else BODY
    part = body[: {"before": 0, "mid": len(body) // 2, "last": len(body) - 1}[moment]]
    if fault == "error in a 200":
        await call.answer(200, json.dumps(ERROR).encode(), JSON)
    elif fault == "malformed":  # complete for HTTP
        await call.answer(200, part, JSON)
    elif fault in ("clean chunked end", "bad chunk"):
        await call.head(200, {**JSON, "Transfer-Encoding": "chunked"})
        if part:
            await call.chunk(part)
        await call.send(b"xyz\r\n" if fault == "bad chunk" else b"0\r\n\r\n")
    elif fault == "end of connection":
        await call.send(encode_head("HTTP/1.1 200 OK", JSON) + part)
        call.close()
    else:
        await call.head(200, {**JSON, "Content-Length": str(len(body))})
        await call.send(part)
        if fault in ("stall", "head, then silence"):
            await call.stall()
        await asyncio.sleep(0.05)
        if fault == "clean end":
            call.close()
        else:
            call.reset()


async def heard_by_sdk(door: Door, name: str, streamed: bool) -> tuple[str, Exception | None]:
    """The text the SDK's user has seen, and what it raised."""
    headers = {"Host": door.host} if door.host else {}
    http = DefaultAsyncHttpxClient(trust_env=False)
    messages: Any = [{"role": "user", "content": "hi"}]
    text = ""
    async with AsyncOpenAI(
        api_key="k", base_url=f"{door.url}/v1", max_retries=0, http_client=http, default_headers=headers
    ) as client:
        try:
            if not streamed:
                whole = await client.chat.completions.create(model=name, messages=messages)
                return whole.choices[0].message.content or "", None
            async for chunk in await client.chat.completions.create(model=name, messages=messages, stream=True):
                text += "".join(choice.delta.content or "" for choice in chunk.choices)
        except openai.APIError as error:
            return text, error
        return text, None


async def heard_raw(door: Door, name: str, streamed: bool) -> tuple[int, bytes, bool]:
    """Status, bytes of the body, and whether it was complete."""
    async with RawClient(door.url, host=door.host) as client:
        await client.chat(name, stream=streamed)
        try:
            reply = await client.read()
        except Truncated as cut:
            return 200, cut.received, False
        return reply.status, reply.body, True


@pytest.mark.parametrize(
    ("form", "fault", "moment", "outcome"), CASES, ids=[" - ".join(case[:3]).replace(" ", "_") for case in CASES]
)
async def test_a_fault_has_the_outcome_of_the_table(
    doors: list[Door],
    upstream: ScriptedUpstream,
    spare: ScriptedUpstream,
    form: str,
    fault: str,
    moment: str,
    outcome: Outcome,
) -> None:
    streamed = form == "stream"
    names = [name_of(form, fault, moment, way) for way in WAYS]
    replies, heard = await asyncio.gather(
        asyncio.gather(
            *(heard_raw(door, name_of(form, fault, moment, f"{door.name} raw"), streamed) for door in doors)
        ),
        asyncio.gather(
            *(heard_by_sdk(door, name_of(form, fault, moment, f"{door.name} sdk"), streamed) for door in doors)
        ),
    )
    for reply, (text, error) in zip(replies, heard, strict=True):
        if outcome == "spare":
            assert_spare(reply, text, error, streamed)
        elif outcome == "refused":
            status, body, complete = reply
            assert (status, complete, json.loads(body)) == (400, True, ERROR)
            assert isinstance(error, openai.BadRequestError)
        else:
            assert_broken(reply, text, EVENTS[: SENT[moment]] if streamed else [])
            assert isinstance(error, openai.APIError)

    called = sorted(call.json["model"] for call in upstream.calls)
    assert called == ([] if fault == "connection refused" else names), "each target is called once"
    assert [call.json["model"] for call in spare.calls] == (["spare"] * len(WAYS) if outcome == "spare" else [])
    # Whatever the primary still had to say is not waited for.
    await upstream.until(lambda: not any(is_running(call) for call in upstream.calls))


def assert_spare(reply: tuple[int, bytes, bool], text: str, error: Exception | None, streamed: bool) -> None:
    """The fallback's answer, whole, and nothing of the primary's."""
    status, body, complete = reply
    assert (status, complete, error) == (200, True, None)
    assert text == ("w0 w1 " if streamed else "Hello")
    assert body.count(b'"role":"assistant"') == 1 and b"primary" not in body
    assert not streamed or body.endswith(b"data: [DONE]\n\n")


def assert_broken(reply: tuple[int, bytes, bool], text: str, events: list[bytes]) -> None:
    """The primary's beginning as it was, and no end. ``events``: of a stream, what the primary had sent."""
    status, body, complete = reply
    assert (status, complete) == (200, False)
    if not events:
        assert LARGE.startswith(body) and len(body) < len(LARGE) and text == ""
        return
    sent = b"".join(events)
    assert body.startswith(sent)
    rest = body.removeprefix(sent)
    assert not any(marker in rest for marker in FINISHED)
    assert b'"error"' in rest and rest.endswith(b"\n\n")
    assert text == "".join(f"w{at} " for at in range(min(len(events) - 1, 4)))


def is_running(call: Received) -> bool:
    return call.finished is None and call.aborted is None and call.connection.closed is None
