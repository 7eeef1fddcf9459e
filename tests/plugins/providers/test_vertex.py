"""The vertex provider in a real gateway, with a service account's key whose tokens come from loopback."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from gateway.testing import Call, GatewayFactory, GatewayProcess, ScriptedUpstream, fetch, fetch_chat, free_ports, whole
from gateway.testing.answers import JSON
from tests.contract.clients import CANARY, CLIENTS, THEIRS, fresh
from tests.contract.provider import ProviderContract
from tests.contract.spoken import ANTHROPIC, GEMINI, speaks
from tests.support.recordings import Recordings

GATEWAY = """
[retry]
attempts = 1
[providers.p]
type = "vertex"
base_url = "http://127.0.0.1:$port/v1"
api_key = "env:KEY"
project = "proj"
models = ["gemini-listed"]
[providers.claude]
type = "vertex"
base_url = "http://127.0.0.1:$port/v1"
api_key = "env:KEY"
project = "proj"
location = "europe-west1"
publisher = "anthropic"
[providers.express]
type = "vertex"
base_url = "http://127.0.0.1:$port/v1"
api_key = "env:KEY"
"""
ACCOUNT = """
[retry]
attempts = 1
[providers.p]
type = "vertex"
base_url = "http://127.0.0.1:$port/v1"
project = "proj"
credentials = "file:$key"
"""
HELLO = b'{"contents":[{"role":"user","parts":[{"text":"hi"}]}],"x":9007199254740993}'
GOOGLE = "/v1/projects/proj/locations/global/publishers/google/models"
CLAUDE = "/v1/projects/proj/locations/europe-west1/publishers/anthropic/models"


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, port: int) -> GatewayProcess:
    return shared_gateway_server(GATEWAY, env={"KEY": CANARY}, port=str(port))


async def speak(call: Call) -> None:
    """As the publisher of the model does."""
    is_anthropics = "/publishers/anthropic/" in call.request.target
    await (CLAUDE_SAYS if is_anthropics else speaks(GEMINI))(call)


CLAUDE_SAYS = speaks(ANTHROPIC)


@pytest.fixture
async def upstream(port: int) -> Any:
    async with ScriptedUpstream(speak, port=port, models=()) as scripted:
        yield scripted


class TestContractOfGooglesModels(ProviderContract):
    type = "vertex"
    path = "/v1"
    settings = 'api_key = "env:PROVIDER_KEY"\nproject = "proj"'
    spoken = GEMINI
    sent = ("x-goog-api-key", "{}")


class TestContractOfAnthropicsModels(TestContractOfGooglesModels):
    settings = 'api_key = "env:PROVIDER_KEY"\nproject = "proj"\nlocation = "europe-west1"\npublisher = "anthropic"'
    spoken = ANTHROPIC


@pytest.mark.parametrize("action", ["generateContent", "streamGenerateContent?alt=sse", "countTokens"])
async def test_clients_of_gemini_pass_byte_for_byte(
    gateway: GatewayProcess, upstream: ScriptedUpstream, action: str
) -> None:
    query = f"{'&' if '?' in action else '?'}key={THEIRS}"
    reply = await fetch(f"{gateway.url}/v1beta/models/p/gemini-x:{action}{query}", "POST", JSON, HELLO)
    (call,) = upstream.calls
    assert (call.target, bytes(call.body)) == (f"{GOOGLE}/gemini-x:{action}", HELLO)
    assert reply.body == (b"".join(GEMINI.events) if "stream" in action else GEMINI.body)


async def test_an_api_key_needs_no_project(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    assert (await fetch_chat(gateway.url, "express/gemini-x")).status == 200
    assert upstream.calls[0].target == "/v1/publishers/google/models/gemini-x:generateContent"


@pytest.mark.parametrize("name", ["vertex-400-temperature", "vertex-logprobs"])
async def test_recorded_traffic_passes_byte_for_byte(
    gateway: GatewayProcess, upstream: ScriptedUpstream, test_data: Recordings, name: str
) -> None:
    for recorded in test_data.interactions(name):
        upstream.script = recorded.replay()
        model = recorded.path.partition("?")[0].rpartition("/")[2]
        reply = await fetch(f"{gateway.url}/v1beta/models/p/{model}", "POST", JSON, recorded.request)
        call = upstream.calls[-1]
        assert (call.target, bytes(call.body)) == (f"{GOOGLE}/{model}", recorded.request)
        assert (reply.status, reply.body) == (recorded.status, recorded.response)


@pytest.mark.parametrize(
    "name", ["anthropic-stream-text", "anthropic-stream-tool-use", "anthropic-parallel-tool-calls"]
)
async def test_clients_of_anthropic_get_recorded_bytes(
    gateway: GatewayProcess, upstream: ScriptedUpstream, test_data: Recordings, name: str
) -> None:
    for recorded in test_data.interactions(name):
        upstream.script = recorded.replay()
        body = json.dumps(recorded.request_json | {"model": "claude/claude-x@20250514"}).encode()
        reply = await fetch(f"{gateway.url}/v1/messages?beta=true", "POST", JSON, body)
        assert (reply.status, reply.body) == (recorded.status, recorded.response)
        call = upstream.calls[-1]
        action = "streamRawPredict" if recorded.streamed else "rawPredict"
        assert call.target == f"{CLAUDE}/claude-x@20250514:{action}"
        sent = {name: value for name, value in recorded.request_json.items() if name != "model"}
        assert call.json == {"anthropic_version": "vertex-2023-10-16", **sent}


@pytest.mark.parametrize(
    ("raw", "sent"),
    [
        (
            b'{ "model":"claude/c", "max_tokens":5 ,"messages":[], "n":9007199254740993}',
            b'{"anthropic_version":"vertex-2023-10-16",  "max_tokens":5 ,"messages":[], "n":9007199254740993}',
        ),
        (
            b'{"messages":[{"content":"\\"model\\":1,"}],"stream":true, "model" : "claude/c" }',
            b'{"anthropic_version":"vertex-2023-10-16","messages":[{"content":"\\"model\\":1,"}],"stream":true }',
        ),
        (
            b'{"anthropic_version":"vertex-own","model":"claude/c","messages":[]}',
            b'{"anthropic_version":"vertex-own","messages":[]}',
        ),
    ],
    ids=["first", "last", "their own version"],
)
async def test_only_model_and_version_are_touched(
    gateway: GatewayProcess, upstream: ScriptedUpstream, raw: bytes, sent: bytes
) -> None:
    headers = JSON | {"anthropic-beta": "a-2026-01-01"}
    reply = await fetch(f"{gateway.url}/v1/messages", "POST", headers, raw)
    assert reply.status == 200
    (call,) = upstream.calls
    assert bytes(call.body) == sent
    assert call.header("anthropic-beta") == "a-2026-01-01"


async def test_translated_requests_have_googles_envelope(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    for client in ("chat", "responses", "gemini"):
        await CLIENTS[client].send(gateway, "claude/c", True)
        call = upstream.calls[-1]
        assert call.target == f"{CLAUDE}/c:streamRawPredict"
        assert call.json["anthropic_version"] == "vertex-2023-10-16" and call.json["stream"] is True
        assert "model" not in call.json


async def test_tokens_are_counted_with_the_model_in_the_body(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    upstream.script = whole(200, {"input_tokens": 321})
    body = b'{"model":"claude/c","messages":[{"role":"user","content":"hi"}]}'
    reply = await fetch(f"{gateway.url}/v1/messages/count_tokens?beta=true", "POST", JSON, body)
    assert reply.json == {"input_tokens": 321}
    (call,) = upstream.calls
    assert call.target == f"{CLAUDE}/count-tokens:rawPredict"
    assert call.json == {"anthropic_version": "vertex-2023-10-16", **json.loads(body), "model": "c"}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("in_a_list", [False, True])
async def test_googles_own_refusals_of_anthropics_models_are_told_in_the_clients_dialect(
    gateway: GatewayProcess, upstream: ScriptedUpstream, client: str, in_a_list: bool
) -> None:
    error = GEMINI.error(404, "Publisher Model was not found.")
    upstream.script = whole(404, [error] if in_a_list else error)
    reply = await CLIENTS[client].send(gateway, fresh("claude"), False)
    assert reply.status == 404 and "Publisher Model was not found." in reply.json["error"]["message"]
    if client == "messages":
        assert (reply.json["type"], reply.json["error"]["type"]) == ("error", "not_found_error")


async def test_other_projects_are_out_of_reach(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    upstream.script = whole(200, {})
    await fetch(f"{gateway.url}/p/p/cachedContents?pageSize=1&key={THEIRS}")
    await fetch(f"{gateway.url}/p/p/projects/other/locations/global/cachedContents")
    prefix = "/v1/projects/proj/locations/global"
    assert [call.target for call in upstream.calls] == [
        f"{prefix}/cachedContents?pageSize=1",
        f"{prefix}/projects/other/locations/global/cachedContents",
    ]


async def test_only_configured_models_are_listed(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    listed = (await fetch(f"{gateway.url}/v1/models")).json["data"]
    assert [model["id"] for model in listed] == ["gemini-listed"] and not upstream.calls


class Account:
    """A service account with a key made for one test, and Google's token endpoint in front of it."""

    def __init__(self, file: Path, token_uri: str, lifetime: int = 3599) -> None:
        serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        plain = serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        self.public = key.public_key()
        self.pem = pem.decode()
        self.lifetime = lifetime
        self.given = 0
        file.touch(0o600)
        file.write_text(json.dumps({
            "type": "service_account", "project_id": "proj", "private_key_id": "k1", "private_key": self.pem,
            "client_email": "robot@proj.example", "client_id": "1", "token_uri": token_uri,
        }))  # fmt: skip

    async def __call__(self, call: Call) -> None:
        self.given += 1
        token = f"ya29.token-{self.given}-{CANARY}"
        await asyncio.sleep(0.2)
        await whole(200, {"access_token": token, "expires_in": self.lifetime, "token_type": "Bearer"})(call)

    def claims(self, call: Any) -> dict[str, Any]:
        """What the gateway asserted, once its signature holds."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        (assertion,) = parse_qs(call.body.decode())["assertion"]
        signed, _, signature = assertion.rpartition(".")
        self.public.verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        claims: dict[str, Any] = json.loads(_decoded(signed.split(".")[1]))
        return claims


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@pytest.fixture
async def authority() -> Any:
    pytest.importorskip("google.auth", reason="google-auth is not installed")
    pytest.importorskip("requests", reason="requests is not installed")
    async with ScriptedUpstream(whole(500, b""), models=()) as scripted:
        yield scripted


def start(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream, key: Path, config: str = ACCOUNT, **env: str
) -> GatewayProcess:
    return gateway_server(config, env=env, port=str(upstream.port), key=str(key))


async def test_a_token_is_fetched_once_for_all_who_wait_and_then_kept(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream, authority: ScriptedUpstream, tmp_path: Path
) -> None:
    account = Account(tmp_path / "key.json", f"{authority.url}/token")
    authority.script = account
    gateway = start(gateway_server, upstream, tmp_path / "key.json")
    replies = await asyncio.gather(*[fetch_chat(gateway.url, "p/gemini-x") for _ in range(8)])
    replies.append(await CLIENTS["gemini"].send(gateway, "p/gemini-x", True))
    assert {reply.status for reply in replies} == {200}
    assert {call.header("authorization") for call in upstream.calls} == {f"Bearer ya29.token-1-{CANARY}"}
    (asked,) = authority.calls
    claims = account.claims(asked)
    assert claims["iss"] == "robot@proj.example"
    assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"


async def test_application_default_credentials_are_found(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream, authority: ScriptedUpstream, tmp_path: Path
) -> None:
    key = tmp_path / "key.json"
    authority.script = Account(key, f"{authority.url}/token")
    config = ACCOUNT.replace('credentials = "file:$key"', "")
    gateway = start(gateway_server, upstream, key, config, GOOGLE_APPLICATION_CREDENTIALS=str(key))
    assert (await fetch_chat(gateway.url, "p/gemini-x")).status == 200
    assert upstream.calls[0].header("authorization") == f"Bearer ya29.token-1-{CANARY}"


async def test_without_a_token_nothing_is_sent_and_no_secret_is_told(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream, authority: ScriptedUpstream, tmp_path: Path
) -> None:
    account = Account(tmp_path / "key.json", f"{authority.url}/token")
    authority.script = whole(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
    gateway = start(gateway_server, upstream, tmp_path / "key.json")
    reply = await fetch_chat(gateway.url, "p/gemini-x")
    assert reply.status == 502 and not upstream.calls
    output = gateway.stdout + gateway.stderr + reply.body.decode()
    assert "RefreshError invalid_grant" in gateway.stderr
    assert account.pem.splitlines()[3] not in output and "robot@" not in output
    authority.script = account
    assert (await fetch_chat(gateway.url, fresh())).status == 200
