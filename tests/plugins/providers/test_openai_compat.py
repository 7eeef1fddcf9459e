"""A provider that speaks OpenAI: what is changed on the way there, withheld on the way back, and counted."""

from __future__ import annotations

import asyncio
import hashlib
from itertools import count
from typing import Any

import pytest

from gateway.testing import (
    Call,
    GatewayFactory,
    GatewayProcess,
    RawClient,
    Script,
    ScriptedUpstream,
    Truncated,
    chat,
    chat_body,
    chat_events,
    chat_stream,
    error,
    event,
    fetch,
    fetch_chat,
    free_ports,
    raw,
    stream,
    whole,
)
from gateway.testing.answers import JSON, SSE, USAGE
from gateway.testing.wire import encode_head, json_bytes
from tests.contract.provider import ProviderContract
from tests.contract.spoken import Spoken

KEY = "sk-canary-of-the-provider"
OTHER = "azure-style-canary-key"
CONFIG = """
[retry]
attempts = 1
[breaker]
failures = 0
error_rate = 0
[providers.stub]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
api_key = "env:STUB_KEY"
headers = { api-key = "env:OTHER_KEY", x-plain = "plain" }
[providers.quiet]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
stream_usage = false
models = ["one", "two"]
[models.m]
targets = [{ provider = "stub" }]
[models.alias]
targets = [{ provider = "stub", model = "real-name" }]
[models.quiet]
targets = [{ provider = "quiet" }]
"""
STREAM: dict[str, Any] = {"stream": True}


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


class TestContract(ProviderContract):
    type = "openai_compat"
    path = "/v1"
    settings = 'api_key = "env:PROVIDER_KEY"\nresponses = false'
    spoken = Spoken(
        body=chat_body("Hello", usage=USAGE),
        events=(
            _chunk({"role": "assistant", "content": "Hel"}),
            _chunk({"content": "lo"}),
            _chunk({}, "stop"),
            event({"choices": [], "usage": USAGE}),
            event(b"[DONE]"),
        ),
        error=lambda status, message: {"error": {"message": message, "type": "t", "param": None, "code": "c"}},
        failure=event({"error": {"message": "It broke."}}),
        text="Hello",
        first=b"Hel",
    )


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, port: int) -> GatewayProcess:
    return shared_gateway_server(CONFIG, env={"STUB_KEY": KEY, "OTHER_KEY": OTHER}, port=str(port))


@pytest.fixture
async def upstream(port: int) -> Any:
    async with ScriptedUpstream(chat(), port=port) as scripted:
        yield scripted


_numbers = count()


def fresh() -> str:
    """A model that is a target of its own: what a provider's wait keeps away must not be the next test's calls."""
    return f"stub/{next(_numbers)}"


async def logged(gateway: GatewayProcess, reply: Any) -> dict[str, Any]:
    (line,) = await gateway.wait_log(id=reply.header("x-request-id"))
    return line


def tokens(line: dict[str, Any]) -> tuple[Any, Any]:
    """As the provider reported them."""
    usage = line.get("usage") or {}
    if usage.get("provenance") == "estimated":
        return None, None
    return usage.get("input"), usage.get("output")


async def test_the_request_goes_byte_for_byte(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    body = b'{ "model":"m",\n "messages" : [] , "temperature":1.0, "seed":9007199254740993, "x":"\\u00e9" }'
    reply = await fetch(f"{gateway.url}/v1/chat/completions", "POST", JSON, body)
    assert reply.status == 200
    (call,) = upstream.calls
    assert (call.target, bytes(call.body)) == ("/v1/chat/completions", body)
    assert call.header("authorization") == f"Bearer {KEY}"
    assert (call.header("api-key"), call.header("x-plain")) == (OTHER, "plain")


async def test_only_the_models_name_is_replaced(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    body = b'{ "messages" : [{"role":"user","content":"\\"model\\":\\"alias\\""}], "model" : "alias", "n":1.50 }'
    reply = await fetch(f"{gateway.url}/v1/chat/completions", "POST", JSON, body)
    assert reply.header("x-gateway-target") == "stub/real-name"
    assert upstream.calls[0].body == body.replace(b'"model" : "alias"', b'"model" : "real-name"')


@pytest.mark.parametrize(
    "options",
    [None, {}, {"include_usage": False}, {"include_obfuscation": False}],
    ids=["none", "empty", "no", "other"],
)
async def test_usage_is_asked_for_and_taken_out_again(
    gateway: GatewayProcess, upstream: ScriptedUpstream, options: Any
) -> None:
    upstream.script = chat_stream(3, usage=USAGE)
    given = {} if options is None else {"stream_options": options}
    reply = await fetch_chat(gateway.url, "m", **STREAM, **given)
    assert upstream.calls[0].json["stream_options"] == {**(options or {}), "include_usage": True}
    events = chat_events(3, usage=USAGE)
    assert reply.body == b"".join([*events[:-2], events[-1]])
    assert tokens(await logged(gateway, reply)) == (5, 2)


async def test_usage_the_client_asked_for_is_the_clients(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    upstream.script = chat_stream(3, usage=USAGE)
    reply = await fetch_chat(gateway.url, "m", **STREAM, stream_options={"include_usage": True})
    assert reply.body == b"".join(chat_events(3, usage=USAGE))
    assert tokens(await logged(gateway, reply)) == (5, 2)


async def test_a_server_that_refuses_the_field_is_not_asked(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    upstream.script = chat_stream(3, usage=USAGE)
    reply = await fetch_chat(gateway.url, "quiet", **STREAM)
    assert "stream_options" not in upstream.calls[0].json
    assert reply.body == b"".join(chat_events(3))
    assert tokens(await logged(gateway, reply)) == (None, None)


async def test_stream_options_of_another_kind_are_refused(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    reply = await fetch_chat(gateway.url, "m", **STREAM, stream_options=[1])
    assert reply.status == 400 and not upstream.calls


_DELTA = {"index": 0, "delta": {"content": "x"}, "finish_reason": None}
_LAST = {"index": 0, "delta": {}, "finish_reason": "stop"}
PLACES: dict[str, tuple[list[dict[str, Any]], tuple[Any, Any]]] = {
    "groq": ([{"choices": [_LAST], "x_groq": {"id": "r", "usage": USAGE}}], (5, 2)),
    "with choices": ([{"choices": [_LAST], "usage": USAGE}], (5, 2)),
    "every chunk": (
        [
            {"choices": [_DELTA], "usage": USAGE | {"completion_tokens": 1}},
            {"choices": [_LAST], "usage": USAGE},
        ],
        (5, 2),
    ),
    "none": ([{"choices": [_LAST]}], (None, None)),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
async def test_usage_is_found_where_providers_put_it(
    gateway: GatewayProcess, upstream: ScriptedUpstream, place: str
) -> None:
    chunks, counted = PLACES[place]
    events = [event({"choices": [_DELTA]}), *map(event, chunks), event(b"[DONE]")]
    upstream.script = stream(events)
    reply = await fetch_chat(gateway.url, "m", **STREAM)
    assert reply.body == b"".join(events)
    assert tokens(await logged(gateway, reply)) == counted


async def test_a_length_given_for_events_that_are_taken_out(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    events = chat_events(3, usage=USAGE)
    head = encode_head(
        "HTTP/1.1 200 OK", {"Content-Type": SSE["Content-Type"], "Content-Length": str(len(b"".join(events)))}
    )
    upstream.script = raw(head + b"".join(events), "keep")
    reply = await fetch_chat(gateway.url, "m", **STREAM)
    assert reply.body == b"".join([*events[:-2], events[-1]])


async def test_usage_of_a_whole_reply(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    reply = await fetch_chat(gateway.url, "m")
    assert reply.body == chat_body()
    assert tokens(await logged(gateway, reply)) == (5, 2)


@pytest.mark.parametrize("status", [400, 404, 405, 408, 409, 413, 415, 422, 429, 500, 502, 503, 504, 529])
async def test_a_refusal_is_passed_on(gateway: GatewayProcess, upstream: ScriptedUpstream, status: int) -> None:
    fields = {"x-should-retry": "true", "retry-after-ms": "1500", "Retry-After": "2", "openai-version": "v"}
    upstream.script = error(status, "Said by the provider.", code="their_code", headers=fields)
    reply = await fetch_chat(gateway.url, fresh())
    assert reply.status == status
    assert reply.json == {
        "error": {"message": "Said by the provider.", "type": "test_error", "param": None, "code": "their_code"}
    }
    # One wait is told: that of the target, in whole seconds.
    assert {name: reply.header(name) for name in fields} == fields | {"retry-after-ms": None}
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("status", [401, 403, 407])
async def test_a_refusal_of_our_own_key_is_our_own_affair(
    gateway: GatewayProcess, upstream: ScriptedUpstream, status: int
) -> None:
    upstream.script = error(status, f"Incorrect API key provided: {KEY[:8]}***. See https://provider.test/account")
    reply = await fetch_chat(gateway.url, "m")
    assert reply.status == 502
    assert reply.json["error"]["code"] == "upstream_refused"
    assert b"provider.test" not in reply.body and KEY[:8].encode() not in reply.body
    assert reply.header("x-should-retry") == "false"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"<html><h1>502 Bad Gateway</h1>nginx/1.2 at 10.1.2.3</html>"),
        ("text/plain", b"upstream connect error at 10.1.2.3"),
        ("application/json", b'{"error":{"message":"key ' + KEY.encode() + b' is out of quota at 10.1.2.3"}}'),
        ("application/json", b'{"error":{"message":"key ' + OTHER.encode() + b' is out of quota at 10.1.2.3"}}'),
    ],
)
@pytest.mark.parametrize("status", [400, 500, 503])
async def test_what_no_client_should_see_is_withheld(
    gateway: GatewayProcess, upstream: ScriptedUpstream, kind: str, body: bytes, status: int
) -> None:
    upstream.script = whole(status, body, {"Content-Type": kind, "Retry-After": "7", "X-Echo": "10.1.2.3"})
    reply = await fetch_chat(gateway.url, fresh())
    assert reply.status == status
    assert reply.json["error"]["code"] == "upstream_refused"
    assert b"10.1.2.3" not in reply.body + reply.head.raw
    assert reply.header("retry-after") == "7"


async def test_r45_a_wait_asked_for_in_the_body_reaches_the_client_in_the_head(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}
    upstream.script = whole(429, [{"error": {"code": 429, "details": [detail]}}])
    reply = await fetch_chat(gateway.url, fresh())
    assert (reply.status, reply.header("retry-after")) == (429, "35")


async def test_an_endless_error_body_is_not_read_to_its_end(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    async def script(call: Call) -> None:
        await call.head(500, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"})
        while True:
            await call.chunk(b" " * 65536)

    upstream.script = script
    assert (await fetch_chat(gateway.url, "m")).status == 502
    assert (await upstream.wait_aborted()).written < 32 << 20


SOUND = bytes(range(256)) * 40_000


async def speak(gateway: GatewayProcess, client: RawClient) -> None:
    body = json_bytes({"model": "m", "input": "x", "voice": "alloy"})
    await client.request("POST", "/v1/audio/speech", JSON, body)


async def test_a_download_is_streamed_as_it_comes(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    more = asyncio.Event()

    async def script(call: Call) -> None:
        await call.head(200, {"Content-Type": "audio/mpeg", "Content-Length": str(len(SOUND))})
        await call.send(SOUND[:50_000])
        await more.wait()
        await call.send(SOUND[50_000:])

    upstream.script = script
    async with RawClient(gateway.url) as client:
        await speak(gateway, client)
        head = await client.read_head()
        assert head.get("content-length") == str(len(SOUND))
        digest, size = hashlib.sha256(), 0
        async for piece in client.body():
            digest.update(piece)
            size += len(piece)
            if size >= 50_000:
                more.set()
        assert digest.digest() == hashlib.sha256(SOUND).digest()


async def length_cut(call: Call) -> None:
    await call.head(200, {"Content-Type": "audio/mpeg", "Content-Length": str(len(SOUND))})
    await call.send(SOUND[: len(SOUND) // 2])
    call.close()


CHUNKED = {"Content-Type": "audio/mpeg", "Transfer-Encoding": "chunked"}
CUTS: dict[str, Script] = {
    "with a length": length_cut,
    "chunked": stream([SOUND[:100_000]] * 3, headers=CHUNKED, ending="close"),
    "chunked, reset": stream([SOUND[:100_000]], headers=CHUNKED, ending="reset"),
}  # fmt: skip


@pytest.mark.parametrize("cut", CUTS)
async def test_a_download_that_is_cut_looks_cut(gateway: GatewayProcess, upstream: ScriptedUpstream, cut: str) -> None:
    upstream.script = CUTS[cut]
    async with RawClient(gateway.url) as client:
        await speak(gateway, client)
        with pytest.raises(Truncated) as seen:
            await client.read()
    assert b"error" not in seen.value.received, "sound is no place for an error event"
    await gateway.wait_log(outcome="upstream_failed", path="/v1/audio/speech")


async def test_models_come_from_the_provider_or_from_the_settings(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    reply = await fetch(f"{gateway.url}/v1/models")
    names = {model["id"] for model in reply.json["data"]}
    assert {"m", "alias", "quiet", "one", "two"} <= names
    assert all(call.header("authorization") == f"Bearer {KEY}" for call in upstream.requests)


async def test_health_asks_the_provider(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    reply = await fetch(f"{gateway.url}/health")
    assert reply.status == 200
    assert reply.json["providers"]["stub"]["status"] == "ok"
