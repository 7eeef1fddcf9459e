"""The azure_openai provider in a real gateway: its paths, its ways to authenticate, its small differences."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from gateway.testing import (
    Call,
    GatewayFactory,
    GatewayProcess,
    Script,
    ScriptedUpstream,
    chat_events,
    fetch,
    fetch_chat,
    free_ports,
    stream,
    whole,
)
from gateway.testing.answers import JSON
from tests.contract.clients import CANARY, CLIENTS, fresh
from tests.contract.provider import ProviderContract
from tests.contract.spoken import OPENAI, TEXT, speaks
from tests.support.recordings import Recordings

GATEWAY = """
[retry]
attempts = 1
[providers.p]
type = "azure_openai"
base_url = "http://127.0.0.1:$port"
api_key = "env:KEY"
api_version = "2024-10-21"
[providers.v1]
type = "azure_openai"
base_url = "http://127.0.0.1:$port/"
api_key = "env:KEY"
api_version = "v1"
models = ["listed"]
[providers.free]
type = "azure_openai"
base_url = "http://127.0.0.1:$port"
token = "env:KEY"
[providers.old]
type = "azure_openai"
base_url = "http://127.0.0.1:$port"
api_version = "2024-02-01"
[models.gpt]
targets = [{ provider = "p", model = "my deployment" }]
"""
ENTRA = """
[retry]
attempts = 1
[providers.p]
type = "azure_openai"
base_url = "http://127.0.0.1:$port"
api_version = "v1"
timeouts = { connect = "1s" }
[providers.p.entra]
tenant = "contoso.example"
client_id = "app-1"
client_secret = "env:KEY"
authority = "http://127.0.0.1:$authority"
"""
FILTER = {"choices": [], "created": 0, "id": "", "model": "", "object": "",
          "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]}  # fmt: skip
FILTERED = b"data: " + json.dumps(FILTER).encode() + b"\n\n"


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, port: int) -> GatewayProcess:
    return shared_gateway_server(GATEWAY, env={"KEY": CANARY}, port=str(port))


@pytest.fixture
async def upstream(port: int) -> Any:
    async with ScriptedUpstream(speaks(OPENAI), port=port, models=()) as scripted:
        yield scripted


class TestContract(ProviderContract):
    type = "azure_openai"
    settings = 'api_key = "env:PROVIDER_KEY"\napi_version = "2024-10-21"'
    spoken = OPENAI
    sent = ("api-key", "{}")


class TestContractOfTheV1Api(TestContract):
    settings = 'api_key = "env:PROVIDER_KEY"\napi_version = "v1"\nresponses = false'


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat/completions", b'{"model":"%b","messages":[]}'),
        ("/completions", b'{"model":"%b","prompt":"x"}'),
        ("/embeddings", b'{"model":"%b","input":"x"}'),
        ("/images/generations", b'{"model":"%b","prompt":"x"}'),
        ("/audio/speech", b'{"model":"%b","input":"x","voice":"alloy"}'),
    ],
)
async def test_the_deployment_is_in_the_path_or_in_the_body(
    gateway: GatewayProcess, upstream: ScriptedUpstream, path: str, body: bytes
) -> None:
    await fetch(f"{gateway.url}/v1{path}", "POST", JSON, body % b"gpt")
    await fetch(f"{gateway.url}/v1{path}", "POST", JSON, body % b"v1/dep")
    of_deployment, of_v1 = upstream.calls
    assert of_deployment.target == f"/openai/deployments/my%20deployment{path}?api-version=2024-10-21"
    assert of_v1.target == f"/openai/v1{path}"
    assert of_deployment.body == body % b"my deployment" and of_v1.body == body % b"dep"


async def test_a_form_is_streamed_to_its_deployment(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    upstream.script = whole(200, {"text": "hello"})
    form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n--b--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    reply = await fetch(f"{gateway.url}/v1/audio/transcriptions", "POST", kind, form % b"gpt")
    assert reply.json == {"text": "hello"}
    (call,) = upstream.calls
    assert call.target == "/openai/deployments/my%20deployment/audio/transcriptions?api-version=2024-10-21"
    assert call.body == form % b"my deployment"


@pytest.mark.parametrize(
    ("provider", "query", "sent"),
    [
        ("p", "", "api-version=2024-10-21"),
        ("p", "api-version=2020-01-01", "api-version=2024-10-21"),
        ("p", "api%2Dversion=2020-01-01&x=a%20b", "x=a%20b&api-version=2024-10-21"),
        ("v1", "api-version=2020-01-01", ""),
        ("free", "api-version=2024-06-01", "api-version=2024-06-01"),
        ("free", "x=1", "x=1&api-version=2024-10-21"),
    ],
)
async def test_whose_version_counts(
    gateway: GatewayProcess, upstream: ScriptedUpstream, provider: str, query: str, sent: str
) -> None:
    body = b'{"model":"%b/d","messages":[]}' % provider.encode()
    await fetch(f"{gateway.url}/v1/chat/completions?{query}", "POST", JSON, body)
    assert upstream.calls[0].target.partition("?")[2] == sent


async def test_clients_of_azure_reach_any_deployment(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    for model, target, sent in (
        ("gpt", "/openai/deployments/my%20deployment/chat/completions?api-version=2024-10-21", b'"my deployment"'),
        ("v1%2Fd", "/openai/v1/chat/completions", b'"d"'),
    ):
        path = f"/openai/deployments/{model}/chat/completions?api-version=2023-05-15"
        reply = await fetch(gateway.url + path, "POST", JSON, b'{"messages":[]}')
        assert reply.status == 200
        assert upstream.calls[-1].target == target
        assert upstream.calls[-1].body == b'{"model":%b,"messages":[]}' % sent


async def test_what_belongs_to_the_resource_is_not_a_deployments(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    upstream.script = whole(200, {"data": []})
    await fetch(f"{gateway.url}/p/p/assistants?limit=3")
    await fetch(f"{gateway.url}/p/v1/evals/e_1")
    targets = [call.target for call in upstream.calls]
    assert targets == ["/openai/assistants?limit=3&api-version=2024-10-21", "/openai/v1/evals/e_1"]


async def test_responses_go_to_the_api_that_has_them(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    upstream.script = whole(200, {"id": "resp_1", "object": "response", "output": []})
    body = b'{"model":"v1/d","input":"hi","x":9007199254740993}'
    await fetch(f"{gateway.url}/v1/responses", "POST", JSON, body)
    assert upstream.calls[0].target == "/openai/v1/responses"
    assert upstream.calls[0].body == body.replace(b"v1/d", b"d")


@pytest.mark.parametrize(("provider", "asked"), [("p", True), ("v1", True), ("free", True), ("old", False)])
async def test_usage_of_streams_is_asked_for_where_the_version_has_it(
    gateway: GatewayProcess, upstream: ScriptedUpstream, provider: str, asked: bool
) -> None:
    for client in ("chat", "messages"):
        await CLIENTS[client].send(gateway, fresh(provider), True)
        assert ("stream_options" in upstream.calls[-1].json) is asked


async def test_the_judgement_of_the_prompt_passes_to_clients_of_openai(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    events = chat_events(3)
    upstream.script = stream([FILTERED, *events])
    reply = await fetch_chat(gateway.url, fresh(), stream=True)
    assert reply.body == FILTERED + b"".join(events)


@pytest.mark.parametrize("client", ["responses", "messages", "gemini"])
async def test_the_judgement_of_the_prompt_is_nothing_to_others(
    gateway: GatewayProcess, upstream: ScriptedUpstream, client: str
) -> None:
    upstream.script = stream([FILTERED, *OPENAI.events])
    reply = await CLIENTS[client].send(gateway, fresh(), True)
    assert CLIENTS[client].text(reply, True) == TEXT
    assert b'"id":""' not in reply.body


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}),
        (400, {"code": "content_filter", "message": "The response was filtered.", "param": "prompt", "type": None,
               "innererror": {"code": "ResponsibleAIPolicyViolation"}}),
    ],
)  # fmt: skip
async def test_its_own_errors_reach_every_client(
    gateway: GatewayProcess, upstream: ScriptedUpstream, client: str, status: int, error: dict[str, Any]
) -> None:
    upstream.script = whole(status, {"error": error})
    reply = await CLIENTS[client].send(gateway, fresh(), False)
    assert reply.status == status and error["message"] in reply.body.decode()
    if client == "chat":
        assert reply.json == {"error": error}


@pytest.mark.parametrize("name", ["azure-openai-chat-content-filter", "azure-openai-chat-stream"])
async def test_recorded_traffic_passes_byte_for_byte(
    gateway: GatewayProcess, upstream: ScriptedUpstream, test_data: Recordings, name: str
) -> None:
    for recorded in test_data.interactions(name):
        upstream.script = recorded.replay()
        body = json.dumps(recorded.request_json | {"model": "old/d"}).encode()
        reply = await fetch(f"{gateway.url}/v1/chat/completions", "POST", JSON, body)
        assert (reply.status, reply.body) == (recorded.status, recorded.response)


async def test_a_token_in_a_file_goes_out_as_bearer(gateway_server: GatewayFactory, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.touch(0o600)
    secret.write_text(CANARY)
    config = GATEWAY.replace('token = "env:KEY"', f'token = "file:{secret}"')
    async with ScriptedUpstream(speaks(OPENAI), models=()) as upstream:
        gateway = gateway_server(config, env={"KEY": "other"}, port=str(upstream.port))
        assert (await fetch_chat(gateway.url, "free/d")).status == 200
        assert upstream.calls[0].header("authorization") == f"Bearer {CANARY}"
        assert upstream.calls[0].header("api-key") is None


async def test_only_configured_models_are_listed(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    listed = (await fetch(f"{gateway.url}/v1/models")).json["data"]
    assert {model["id"] for model in listed} == {"gpt", "listed"}
    assert not upstream.calls


class Authority:
    """Entra's token endpoint: gives out ``token-1``, ``token-2``, …"""

    def __init__(self, lifetime: Any = 3599, pause: float = 0.0) -> None:
        self.lifetime = lifetime
        self.pause = pause
        self.given = 0

    async def __call__(self, call: Call) -> None:
        self.given += 1
        number = self.given
        await asyncio.sleep(self.pause)
        told = {"token_type": "Bearer", "expires_in": self.lifetime, "access_token": f"token-{number}-{CANARY}"}
        await whole(200, told)(call)


async def bearers(upstream: ScriptedUpstream) -> list[str]:
    return [(call.header("authorization") or "").removesuffix(f"-{CANARY}") for call in upstream.calls]


SECRET = "client-secret-77f0&=+"


def start(gateway_server: GatewayFactory, upstream: ScriptedUpstream, authority: ScriptedUpstream) -> GatewayProcess:
    return gateway_server(ENTRA, env={"KEY": SECRET}, port=str(upstream.port), authority=str(authority.port))


async def test_a_token_is_fetched_once_for_all_who_wait_and_then_kept(gateway_server: GatewayFactory) -> None:
    tokens = Authority(pause=0.2)
    async with ScriptedUpstream(speaks(OPENAI), models=()) as upstream, ScriptedUpstream(tokens) as authority:
        gateway = start(gateway_server, upstream, authority)
        replies = await asyncio.gather(*[fetch_chat(gateway.url, "p/d") for _ in range(8)])
        replies.append(await CLIENTS["messages"].send(gateway, "p/d", True))
        assert {reply.status for reply in replies} == {200}
        assert await bearers(upstream) == ["Bearer token-1"] * 9
        (asked,) = authority.calls
        assert asked.target == "/contoso.example/oauth2/v2.0/token"
        assert parse_qs(asked.body.decode()) == {
            "grant_type": ["client_credentials"], "client_id": ["app-1"], "client_secret": [SECRET],
            "scope": ["https://cognitiveservices.azure.com/.default"],
        }  # fmt: skip
        assert asked.header("authorization") is None


async def test_a_token_that_has_ended_is_replaced(gateway_server: GatewayFactory) -> None:
    tokens = Authority(lifetime="1")
    async with ScriptedUpstream(speaks(OPENAI), models=()) as upstream, ScriptedUpstream(tokens) as authority:
        gateway = start(gateway_server, upstream, authority)
        await fetch_chat(gateway.url, "p/d")
        await asyncio.sleep(1.1)
        await fetch_chat(gateway.url, "p/d")
        assert await bearers(upstream) == ["Bearer token-1", "Bearer token-2"]


REFUSED = {"error": "invalid_client", "error_description": f"AADSTS7000215: Invalid secret {SECRET}.",
           "error_codes": [7000215]}  # fmt: skip


@pytest.mark.parametrize(
    ("script", "logged"),
    [
        (whole(401, REFUSED), "invalid_client AADSTS7000215"),
        (whole(200, {"token_type": "Bearer"}), "answered 200"),
        (whole(503, b"<html>"), "answered 503"),
        (whole(302, b"", {"Location": "http://127.0.0.1:9/"}), "redirect"),
    ],
    ids=["refused", "no token", "broken", "redirect"],
)
@pytest.mark.parametrize("client", ["chat", "messages"])
async def test_without_a_token_nothing_is_sent_and_no_secret_is_told(
    gateway_server: GatewayFactory, script: Script, logged: str, client: str
) -> None:
    async with ScriptedUpstream(speaks(OPENAI), models=()) as upstream, ScriptedUpstream(script) as authority:
        gateway = start(gateway_server, upstream, authority)
        reply = await CLIENTS[client].send(gateway, "p/d", False)
        assert reply.status == 502 and not upstream.calls
        output = gateway.stdout + gateway.stderr + reply.body.decode() + str(reply.head.raw)
        assert SECRET not in output and "app-1" not in output
        assert logged in gateway.stderr
        # It comes back without a restart.
        authority.script = Authority()
        assert (await CLIENTS[client].send(gateway, fresh(), False)).status == 200


async def test_an_answer_that_shows_the_token_is_withheld(gateway_server: GatewayFactory) -> None:
    async with ScriptedUpstream(speaks(OPENAI), models=()) as upstream, ScriptedUpstream(Authority()) as authority:
        gateway = start(gateway_server, upstream, authority)
        upstream.script = whole(400, OPENAI.error(400, f"token-1-{CANARY} is odd"))
        reply = await fetch_chat(gateway.url, "p/d")
        assert reply.status == 400 and CANARY.encode() not in reply.body
