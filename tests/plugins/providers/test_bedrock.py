"""The bedrock provider in a real gateway, in front of a scripted Bedrock that checks the signatures it is sent."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from multidict import CIMultiDict

from gateway import Runtime, Secret, Surface, Target
from gateway.body import parse_small
from gateway.config import Config
from gateway.dialects.eventstream import encode
from gateway.errors import UpstreamRefused
from gateway.testing import (
    Call,
    GatewayFactory,
    GatewayProcess,
    Received,
    ScriptedUpstream,
    fetch,
    fetch_chat,
    free_ports,
    stream,
    whole,
)
from gateway.upstream import Upstream
from gateway_plugins.providers import bedrock
from tests.contract.provider import ProviderContract
from tests.contract.spoken import Spoken
from tests.support.exchanges import make_exchange
from tests.support.recordings import Recordings

EVENTSTREAM = {"Content-Type": "application/vnd.amazon.eventstream", "Transfer-Encoding": "chunked"}
USAGE = {"inputTokens": 5, "outputTokens": 2, "totalTokens": 7}
ANSWER = {
    "output": {"message": {"role": "assistant", "content": [{"text": "Hello"}]}}, "stopReason": "end_turn",
    "usage": USAGE, "metrics": {"latencyMs": 1},
}  # fmt: skip
ACCESS, SECRET, TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "FwoGZXIvYXdzEXAMPLETOKEN"


def event(name: str, **content: Any) -> bytes:
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return encode(headers, json.dumps(content).encode())


def exception(kind: str, message: str) -> bytes:
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return encode(headers, json.dumps({"message": message}).encode())


def delta(text: str) -> bytes:
    return event("contentBlockDelta", contentBlockIndex=0, delta={"text": text})


def signature(call: Received, secret: str, region: str = "us-east-1") -> str:
    """The signature a request should have, worked out from what arrived (AWS, "Create a signed API request")."""
    told = dict(part.split("=", 1) for part in (call.header("authorization") or "").split(" ", 1)[1].split(", "))
    path, _, query = call.target.partition("?")
    names = told["SignedHeaders"].split(";")
    lines = [f"{name}:{(call.header(name) or '').strip()}" for name in names]
    canonical = [call.method, quote(path, safe="/~"), query, *lines, "", ";".join(names)]
    request = "\n".join([*canonical, hashlib.sha256(call.body).hexdigest()])
    moment = call.header("x-amz-date") or ""
    scope = f"{moment[:8]}/{region}/bedrock/aws4_request"
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    assert told["Credential"] == f"{ACCESS}/{scope}"
    assert {"host", "content-type", "x-amz-date"} <= set(names) or call.method == "GET"
    assert told["Signature"] == hmac.new(key, text.encode(), "sha256").hexdigest()
    return told["SignedHeaders"]


class TestContract(ProviderContract):
    """With an API key of Bedrock's."""

    type = "bedrock"
    spoken = Spoken(
        body=json.dumps(ANSWER).encode(),
        events=(
            event("messageStart", role="assistant", p="abcd"),
            delta("Hel"),
            delta("lo"),
            event("contentBlockStop", contentBlockIndex=0),
            event("messageStop", stopReason="end_turn") + event("metadata", usage=USAGE, metrics={"latencyMs": 1}),
        ),
        error=lambda status, message: {"message": message},
        failure=exception("modelStreamErrorException", "It broke."),
        text="Hello",
        first=b"Hel",
        headers=EVENTSTREAM,
    )
    refusal_headers = {"x-amzn-errortype": "SomeException:http://x/"}  # noqa: RUF012 - read only


class TestSignedContract(TestContract):
    """With keys to sign with."""

    settings = 'region = "us-east-1"\naccess_key = "env:AWS_KEY_ID"\nsecret_key = "env:PROVIDER_KEY"'
    secret = SECRET
    env = {"AWS_KEY_ID": ACCESS}  # noqa: RUF012 - read only

    def credential(self, call: Received) -> None:
        signature(call, self.secret)
        assert self.secret not in str(call.headers)


CONFIG = """
[retry]
attempts = 1
[breaker]
failures = 0
error_rate = 0
[providers.chain]
type = "bedrock"
region = "us-east-1"
base_url = "http://127.0.0.1:$port"
control_url = "http://127.0.0.1:$port/control"
[providers.listed]
type = "bedrock"
base_url = "http://127.0.0.1:$port"
api_key = "env:BEARER"
models = ["one"]
"""


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def gateway(
    shared_gateway_server: GatewayFactory, port: int, tmp_path_factory: pytest.TempPathFactory
) -> GatewayProcess:
    nowhere = str(tmp_path_factory.mktemp("aws") / "none")
    env = {
        "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN, "BEARER": "b",
        "AWS_CONFIG_FILE": nowhere, "AWS_SHARED_CREDENTIALS_FILE": nowhere, "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    return shared_gateway_server(CONFIG, env=env, port=str(port))


@pytest.fixture
async def upstream(port: int) -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(whole(200, ANSWER), port=port, models=()) as scripted:
        yield scripted


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("anthropic.claude-3-haiku-20240307-v1:0", "/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse"),
        ("arn:aws:bedrock:us-east-1:123:inference-profile/a.b",
         "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123%3Ainference-profile%2Fa.b/converse"),
    ],
)  # fmt: skip
async def test_credentials_of_the_environment_sign_what_is_sent(
    gateway: GatewayProcess, upstream: ScriptedUpstream, model: str, path: str
) -> None:
    reply = await fetch_chat(gateway.url, f"chain/{model}", n=2, headers={"traceparent": "00-1-2-01"})
    assert (reply.status, reply.header("x-gateway-dropped")) == (200, "n")
    (call,) = upstream.calls
    assert call.target == path
    assert signature(call, SECRET) == "content-type;host;x-amz-date;x-amz-security-token"
    assert call.header("x-amz-security-token") == TOKEN
    assert call.json == {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}


async def test_a_large_body_is_signed_as_well(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    reply = await fetch_chat(gateway.url, "chain/m", "x" * (3 << 20), stream=True)
    assert reply.status == 502, "the answer is no event stream"
    (call,) = upstream.calls
    assert call.target == "/model/m/converse-stream"
    signature(call, SECRET)


@pytest.mark.parametrize(
    ("kind", "status"),
    [("throttlingException", 429), ("modelStreamErrorException", 502), ("serviceUnavailableException", 503),
     ("validationException", 400)],
)  # fmt: skip
async def test_an_exception_before_any_content_is_a_plain_error(
    gateway: GatewayProcess, upstream: ScriptedUpstream, kind: str, status: int
) -> None:
    pieces = [event("messageStart", role="assistant"), exception(kind, "Not now.")]
    upstream.script = stream(pieces, headers=EVENTSTREAM, pause=0.05)
    # Each its own target: one that says it is throttled is left alone for a second.
    reply = await fetch_chat(gateway.url, f"listed/{kind}", stream=True)
    assert (reply.status, reply.json["error"]["message"]) == (
        status,
        f"Not now. (request id: {reply.header('x-request-id')})",
    )


@pytest.mark.parametrize(
    ("status", "kind", "told"), [(424, "ModelErrorException", 502), (408, "ModelTimeoutException", 504)]
)
async def test_a_model_s_failure_is_the_provider_s(
    gateway: GatewayProcess, upstream: ScriptedUpstream, status: int, kind: str, told: int
) -> None:
    upstream.script = whole(status, {"message": "x"}, {"Content-Type": "application/json", "x-amzn-errortype": kind})
    assert (await fetch_chat(gateway.url, "listed/m")).status == told


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", json.dumps({**ANSWER, "stopReason": "malformed_tool_use"}).encode()],
    ids=["nothing", "list", "object", "malformed"],
)
async def test_an_answer_that_is_none_is_a_502(
    gateway: GatewayProcess, upstream: ScriptedUpstream, body: bytes
) -> None:
    upstream.script = whole(200, body)
    assert (await fetch_chat(gateway.url, "listed/m")).status == 502


async def test_a_damaged_stream_is_noticed(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    broken = bytearray(delta("Hello"))
    broken[-6] ^= 1
    upstream.script = stream([bytes(broken)], headers=EVENTSTREAM)
    reply = await fetch_chat(gateway.url, "listed/m", stream=True)
    assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_protocol_error")


async def test_models_and_health(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    lists = {
        "/control/foundation-models": {"modelSummaries": [{"modelId": "amazon.nova-micro-v1:0"}, {"x": 1}]},
        "/control/inference-profiles": {"inferenceProfileSummaries": [{"inferenceProfileId": "us.anthropic.claude"}]},
    }

    async def script(call: Call) -> None:
        path = call.request.target.partition("?")[0]
        await whole(200 if path in lists else 404, lists.get(path, {"message": "?"}))(call)

    upstream.script = script
    names = {model["id"] for model in (await fetch(f"{gateway.url}/v1/models")).json["data"]}
    assert {"amazon.nova-micro-v1:0", "us.anthropic.claude", "one"} <= names
    for call in upstream.requests:
        signature(call, SECRET)
    assert (await fetch(f"{gateway.url}/health")).json["providers"]["chain"]["status"] == "ok"
    upstream.script = whole(500, b"")
    assert (await fetch(f"{gateway.url}/health")).status == 503


async def test_a_recorded_stream_reaches_the_client(
    gateway: GatewayProcess, upstream: ScriptedUpstream, test_data: Recordings
) -> None:
    recorded = test_data.interactions("bedrock-converse-stream-tool-call")[0]
    pieces = [recorded.response[at : at + 700] for at in range(0, len(recorded.response), 700)]
    upstream.script = stream(pieces, headers=EVENTSTREAM)
    reply = await fetch_chat(gateway.url, "listed/m", stream=True)
    assert reply.body.endswith(b"data: [DONE]\n\n") and reply.body.count(b'"name":"get_current_weather"') == 2


# Anthropic's own API on Bedrock.

MESSAGES = Surface("messages", "anthropic_messages", "/messages")
ASKED = {"model": "alias", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


def chunk(content: Any) -> bytes:
    payload = json.dumps({"bytes": b64encode(json.dumps(content).encode()).decode()}).encode()
    return encode({":event-type": "chunk", ":message-type": "event"}, payload)


async def invoke(url: str, **asked: Any) -> tuple[Any, bytes]:
    """The reply to one Messages request, and its body."""
    upstream = Upstream(Config().pool)
    try:
        settings = bedrock.Settings(base_url=url, api_key=Secret("b"), api="anthropic")
        plugin = bedrock.Plugin(settings, Runtime(Config(), upstream, name="bedrock"))
        exchange = make_exchange(surface=MESSAGES, stream=bool(asked.get("stream")))
        exchange.payload = parse_small(json.dumps({**ASKED, **asked}).encode())
        exchange.headers = CIMultiDict({"anthropic-beta": "a, b"})
        reply = await plugin.forward(exchange, Target("bedrock", "anthropic.claude-v2"))
        body = reply.body if reply.stream is None else b"".join([block async for block in reply.stream])
        return reply, body or b""
    finally:
        await upstream.close()


async def test_anthropic_s_messages_go_as_they_are() -> None:
    answer = {"type": "message", "content": [{"type": "text", "text": "Hello"}]}
    async with ScriptedUpstream(whole(200, answer)) as upstream:
        _, body = await invoke(upstream.url, system="Be brief.")
        assert json.loads(body) == answer
        (call,) = upstream.calls
        assert call.target == "/model/anthropic.claude-v2/invoke"
        sent = {name: value for name, value in ASKED.items() if name != "model"}
        more = {"system": "Be brief.", "anthropic_version": "bedrock-2023-05-31", "anthropic_beta": ["a", "b"]}
        assert call.json == {**sent, **more}


async def test_anthropic_s_stream_comes_as_it_is() -> None:
    events = [{"type": "ping"}, {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 1}}]
    pieces = [chunk(each) for each in events]
    async with ScriptedUpstream(stream(pieces, headers=EVENTSTREAM)) as upstream:
        reply, body = await invoke(upstream.url, stream=True, anthropic_version="bedrock-2026-10-21")
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert body == (
            b'event: ping\ndata: {"type": "ping"}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
        )
        (call,) = upstream.calls
        assert call.target.endswith("/invoke-with-response-stream")
        assert "stream" not in call.json and call.json["anthropic_version"] == "bedrock-2026-10-21"


async def test_an_exception_inside_anthropic_s_stream() -> None:
    pieces = [chunk({"type": "ping"}), exception("throttlingException", "Slow down.")]
    async with ScriptedUpstream(stream(pieces, headers=EVENTSTREAM, pause=0.05)) as upstream:
        with pytest.raises(UpstreamRefused) as caught:
            await invoke(upstream.url, stream=True)
        assert caught.value.upstream_status == 429


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({}, "region is needed"),
        ({"base_url": "http://127.0.0.1"}, "region is needed"),
        ({"region": "r", "access_key": Secret("a")}, "given together"),
        ({"region": "r", "session_token": Secret("a")}, "belongs to an access_key"),
    ],
)
def test_settings_that_do_not_hold(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        bedrock.Settings(**settings)


def test_the_addresses_of_a_region() -> None:
    settings = bedrock.Settings(region="eu-central-1")
    assert settings.service("bedrock-runtime") == "https://bedrock-runtime.eu-central-1.amazonaws.com"
    settings = bedrock.Settings(region="cn-north-1")
    assert settings.service("bedrock") == "https://bedrock.cn-north-1.amazonaws.com.cn"


@pytest.mark.parametrize("signs", [False, True])
def test_botocore_is_imported_by_who_signs_and_nobody_else(tmp_path: Path, signs: bool) -> None:
    key = "" if signs else 'api_key = "env:PATH"\n'
    (tmp_path / "gateway.toml").write_text(f'[providers.e]\ntype = "bedrock"\nregion = "us-east-1"\n{key}')
    code = """
import asyncio, os, sys
from pathlib import Path
from gateway import config, plugins
from gateway.upstream import Upstream
async def main():
    settings, document = config.load(Path(sys.argv[1]), os.environ)
    upstream = Upstream(settings.pool)
    plugins.load(settings, document, plugins.Runtime(settings, upstream))
    document.raise_problems()
    await upstream.close()
asyncio.run(main())
assert ("botocore" in sys.modules) is (sys.argv[2] == "True")
"""
    command = [sys.executable, "-c", code, str(tmp_path / "gateway.toml"), str(signs)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
