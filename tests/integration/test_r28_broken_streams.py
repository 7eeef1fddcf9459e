"""R28 to R30: what breaks off looks broken to every client; what is whole but odd still arrives."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from gateway.testing import (
    Call,
    Ending,
    GatewayFactory,
    GatewayProcess,
    RawClient,
    Response,
    ScriptedUpstream,
    Truncated,
    chat_events,
    error,
    event,
    fetch_chat,
    raw,
    stream,
)
from gateway.testing.answers import SSE
from gateway.testing.wire import encode_head, json_bytes

CONFIG = """
[retry]
attempts = 2
budget = 1.0
backoff = "10ms"
[breaker]
failures = 0
error_rate = 0
[providers.stub]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
timeouts = { first_token = "500ms", idle = "500ms" }
[providers.omits]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
timeouts = { first_token = "500ms", idle = "500ms" }
done_marker = false
[providers.spare]
type = "echo"
[models.m]
targets = [{ provider = "stub" }]
[models.omits]
targets = [{ provider = "omits" }]
[models.limited]
targets = [{ provider = "stub", model = "limited" }]
[models.safe]
targets = [{ provider = "stub" }]
fallbacks = ["spare"]
[models.spare]
targets = [{ provider = "spare" }]
"""
CHAT = chat_events(3)


def completion(text: str, reason: str | None = None) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}
    return event({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]})


COMPLETIONS = [completion("a"), completion("b"), completion("", "stop"), event(b"[DONE]")]


def named(kind: str, number: int, **fields: Any) -> bytes:
    data = {"type": kind, "sequence_number": number, **fields}
    return b"event: " + kind.encode() + b"\ndata: " + json.dumps(data).encode() + b"\n\n"


_RESPONSE: dict[str, Any] = {
    "id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "in_progress", "output": [],
    "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
}  # fmt: skip
RESPONSES = [
    named("response.created", 0, response=_RESPONSE),
    named("response.output_text.delta", 1, item_id="i", output_index=0, content_index=0, delta="a", logprobs=[]),
    named("response.output_text.delta", 2, item_id="i", output_index=0, content_index=0, delta="b", logprobs=[]),
    named("response.completed", 3, response=_RESPONSE | {"status": "completed"}),
]
DIALECTS = {"chat/completions": CHAT, "completions": COMPLETIONS, "responses": RESPONSES}
BODIES: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "x"}]},
    "completions": {"prompt": "x"},
    "responses": {"input": "x"},
}
SUCCESS = (b"[DONE]", b'"finish_reason": "stop"', b'"finish_reason":"stop"', b"response.completed")
ENDINGS: list[Ending] = ["end", "close", "reset", "stall", "half"]


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, provider_port: int) -> GatewayProcess:
    return shared_gateway_server(CONFIG, port=str(provider_port))


async def ask(gateway: GatewayProcess, surface: str, model: str = "m") -> Response:
    async with RawClient(gateway.url) as client:
        body = json_bytes({"model": model, "stream": True, **BODIES[surface]})
        await client.request("POST", f"/v1/{surface}", {"Content-Type": "application/json"}, body)
        return await client.read()


OPENING = {"chat/completions": 1, "completions": 0, "responses": 1}
"""Events of each surface that say nothing yet: they are held, and a break behind them is tried again."""
CALLS = {"chat/completions": 2, "completions": 2, "responses": 1}
"""A response is stored unless the request says otherwise: a second one would be kept there, too."""
CASES = [(surface, count) for surface, events in DIALECTS.items() for count in range(len(events))]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("surface", "count"), CASES)
async def test_r28_r29_a_stream_that_breaks_says_so(
    gateway: GatewayProcess, upstream: ScriptedUpstream, surface: str, count: int, ending: Ending
) -> None:
    events = DIALECTS[surface][:count]
    upstream.script = stream(events, ending=ending)
    if count <= OPENING[surface]:
        reply = await ask(gateway, surface)
        assert reply.status == (504 if ending == "stall" else 502)
        assert reply.header("content-type") == "application/json"
        assert reply.json["error"]["code"].startswith("upstream_")
        assert reply.header("x-should-retry") == "false"
        assert len(upstream.calls) == CALLS[surface]
        return
    with pytest.raises(Truncated) as cut:
        await ask(gateway, surface)
    sent = b"".join(events)
    assert cut.value.received.startswith(sent)
    last = cut.value.received[len(sent) :]
    assert not any(marker in last for marker in SUCCESS)
    assert last.endswith(b"\n\n")
    *named_lines, data = last[:-2].split(b"\n")
    told = json.loads(data.removeprefix(b"data: "))
    if surface == "responses":
        assert named_lines == [b"event: error"]
        assert told["type"] == "error" and told["code"] == "stream_interrupted"
    else:
        assert not named_lines
        assert told["error"]["code"] == "stream_interrupted"
    assert len(upstream.calls) == 1


async def _read_chat(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="m", stream=True, messages=[{"role": "user", "content": "x"}])
    async for _ in answer:
        pass


async def _read_completions(client: AsyncOpenAI) -> None:
    async for _ in await client.completions.create(model="m", stream=True, prompt="x"):
        pass


async def _read_responses(client: AsyncOpenAI) -> None:
    async for _ in await client.responses.create(model="m", stream=True, input="x"):
        pass


READERS: dict[str, Callable[[AsyncOpenAI], Any]] = {
    "chat/completions": _read_chat, "completions": _read_completions, "responses": _read_responses,
}  # fmt: skip


@pytest.mark.parametrize("ending", ["end", "reset", "half"])
@pytest.mark.parametrize("surface", DIALECTS)
async def test_r28_the_sdk_raises(
    gateway: GatewayProcess, upstream: ScriptedUpstream, surface: str, ending: Ending
) -> None:
    events = DIALECTS[surface]
    web = DefaultAsyncHttpxClient(trust_env=False)
    async with AsyncOpenAI(api_key="k", base_url=f"{gateway.url}/v1", max_retries=0, http_client=web) as client:
        upstream.script = stream(events)
        await READERS[surface](client)
        for count in range(len(events)):
            upstream.script = stream(events[:count], ending=ending)
            with pytest.raises(openai.APIError):
                await READERS[surface](client)


async def test_r28_a_break_is_logged_and_counted(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    before = (await gateway.metrics()).value("hookgate_errors_total")
    upstream.script = stream(CHAT[:2], ending="reset")
    with pytest.raises(Truncated):
        await fetch_chat(gateway.url, "m", stream=True, headers={"X-Request-Id": "the-broken-one"})
    (line,) = await gateway.wait_log(id="the-broken-one")
    assert (line["outcome"], line["status"]) == ("upstream_failed", 200)
    assert (await gateway.metrics()).value("hookgate_errors_total") == before + 1


async def test_r29_a_provider_known_to_omit_the_marker(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    upstream.script = stream(CHAT[:-1])
    reply = await ask(gateway, "chat/completions", "omits")
    assert reply.body == b"".join(CHAT[:-1])
    upstream.script = stream(CHAT[:-2])
    with pytest.raises(Truncated):
        await ask(gateway, "chat/completions", "omits")
    upstream.script = stream(CHAT)
    assert (await ask(gateway, "chat/completions", "omits")).body == b"".join(CHAT)


BODY = b"".join(CHAT)
EVENTS = [("Content-Type", "text/event-stream")]
HEADS = {
    "9 KB header": [*EVENTS, ("X-Policy", "p" * 9000), ("Content-Length", str(len(BODY)))],
    "100 headers": [*EVENTS, *((f"X-H{i}", "v" * 50) for i in range(100)), ("Content-Length", str(len(BODY)))],
    "two content types": [*EVENTS, *EVENTS, ("Content-Length", str(len(BODY)))],
    "capitals": [("CONTENT-TYPE", "Text/Event-Stream; Charset=UTF-8"), ("CONTENT-LENGTH", str(len(BODY)))],
    "own length": [*EVENTS, ("Content-Length", str(len(BODY)))],
}


@pytest.mark.parametrize("name", HEADS)
async def test_r29_odd_heads_are_read(gateway: GatewayProcess, upstream: ScriptedUpstream, name: str) -> None:
    upstream.script = raw(encode_head("HTTP/1.1 200 OK", HEADS[name]) + BODY, "close")
    reply = await ask(gateway, "chat/completions")
    assert (reply.status, reply.body) == (200, BODY)
    assert reply.header("x-accel-buffering") == "no"


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
async def test_r29_a_body_that_ends_with_its_connection(
    gateway: GatewayProcess, upstream: ScriptedUpstream, version: str
) -> None:
    head = encode_head(f"{version} 200 OK", EVENTS)
    upstream.script = raw(head + BODY)
    assert (await ask(gateway, "chat/completions")).body == BODY
    upstream.script = raw(head + b"".join(CHAT[:3]))
    with pytest.raises(Truncated):
        await ask(gateway, "chat/completions")


@pytest.mark.parametrize(
    "head",
    [
        encode_head("HTTP/1.1 200 OK", [*EVENTS, ("X-Huge", "h" * 70_000)]),
        encode_head("HTTP/1.1 200 OK", [*EVENTS, *((f"X-{i}", "v") for i in range(5000))]),
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"200\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
    ],
    ids=["70 KB header", "5000 headers", "version", "no version", "TLS"],
)
async def test_r29_heads_beyond_reason_are_bad_gateways(
    gateway: GatewayProcess, upstream: ScriptedUpstream, head: bytes
) -> None:
    upstream.script = raw(head + BODY)
    reply = await ask(gateway, "chat/completions")
    assert reply.status == 502
    assert reply.json["error"]["code"] in ("upstream_protocol_error", "upstream_unreachable")


IN_BAND = event({"error": {"message": "overloaded", "code": 529}})


async def test_r30_an_error_first_is_a_whole_error(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    upstream.script = stream([IN_BAND, event(b"[DONE]")])
    reply = await ask(gateway, "chat/completions")
    assert (reply.status, reply.header("content-type")) == (529, "application/json")
    assert reply.json["error"] == {"message": "overloaded", "type": None, "param": None, "code": 529}
    assert len(upstream.calls) == 2


@pytest.mark.parametrize(
    "chunks", [[IN_BAND], [CHAT[0] + IN_BAND], [b"data: {oops\n\n"]], ids=["alone", "joined", "bad"]
)
async def test_r30_an_error_first_falls_back(
    gateway: GatewayProcess, upstream: ScriptedUpstream, chunks: list[bytes]
) -> None:
    upstream.script = stream(chunks)
    reply = await ask(gateway, "chat/completions", "safe")
    assert (reply.status, reply.header("x-gateway-target")) == (200, "spare/spare")
    assert b"overloaded" not in reply.body and reply.body.endswith(b"[DONE]\n\n")
    assert len(upstream.calls) == 1


@pytest.mark.parametrize(
    "chunks", [[*CHAT[:2], IN_BAND, CHAT[-1]], [CHAT[0] + CHAT[1] + IN_BAND]], ids=["apart", "in one read"]
)
async def test_r30_an_error_behind_content_is_forwarded_and_cut(
    gateway: GatewayProcess, upstream: ScriptedUpstream, chunks: list[bytes]
) -> None:
    upstream.script = stream(chunks)
    with pytest.raises(Truncated) as cut:
        await ask(gateway, "chat/completions", "safe")
    assert cut.value.received == b"".join([*CHAT[:2], IN_BAND])
    assert len(upstream.calls) == 1


async def test_r30_a_failed_response_arrives_whole(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    failed = named("response.failed", 2, response=_RESPONSE | {"status": "failed"})
    upstream.script = stream([*RESPONSES[:2], failed], pause=0.1)
    reply = await ask(gateway, "responses")
    assert reply.body == b"".join([*RESPONSES[:2], failed])
    (line,) = await gateway.wait_log(id=reply.header("x-request-id"))
    assert line["outcome"] == "upstream_failed"


async def test_r30_a_refusal_of_a_stream_is_no_stream(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    upstream.script = error(429, "slow down", headers={"Retry-After": "6"})
    reply = await ask(gateway, "chat/completions", "limited")
    assert (reply.status, reply.header("content-type"), reply.header("retry-after")) == (429, "application/json", "6")
    assert reply.json["error"]["message"] == "slow down"
    assert len(upstream.calls) == 1  # six seconds are too long to let a client wait


async def test_r34_nothing_is_repeated_once_content_was_sent(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    upstream.script = stream(CHAT[:3], ending="reset")
    with pytest.raises(Truncated) as cut:
        await ask(gateway, "chat/completions", "safe")
    assert cut.value.received.count(b'"role":') == 1
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_a_connection_that_dies_behind_the_marker_harms_nobody(
    gateway: GatewayProcess, upstream: ScriptedUpstream, ending: Ending
) -> None:
    upstream.script = stream(CHAT, ending=ending)
    assert (await ask(gateway, "chat/completions")).body == BODY


async def odd_events(call: Call) -> None:
    await call.head(200, SSE)
    for piece in (b": hello\r\n\r\n", b"id: 1\nretry: 5\n" + CHAT[0], CHAT[1].replace(b"\n", b"\r\n"), *CHAT[2:], b""):
        await call.chunk(piece)


async def test_r33_peculiar_events_arrive_as_they_are(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    upstream.script = odd_events
    expected = (
        b": hello\r\n\r\n" + b"id: 1\nretry: 5\n" + CHAT[0] + CHAT[1].replace(b"\n", b"\r\n") + b"".join(CHAT[2:])
    )
    assert (await ask(gateway, "chat/completions")).body == expected
