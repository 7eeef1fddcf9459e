"""The gemini provider in a real gateway: its own clients' bytes pass unchanged, all others are translated."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.testing import GatewayFactory, GatewayProcess, ScriptedUpstream, fetch, free_ports, whole
from gateway.testing.answers import JSON
from tests.contract.clients import CANARY, CLIENTS, THEIRS, fresh
from tests.contract.provider import ProviderContract
from tests.contract.recorded import check_byte_for_byte
from tests.contract.spoken import GEMINI, TEXT, speaks
from tests.support.recordings import Recordings

GATEWAY = """
[retry]
attempts = 1
[providers.p]
type = "gemini"
base_url = "http://127.0.0.1:$port/v1beta"
api_key = "env:KEY"
[providers.fixed]
type = "gemini"
base_url = "http://127.0.0.1:$port/v1beta"
models = ["gemini-listed"]
"""
RECORDED = (
    "gemini-3-thought-signatures-tools", "gemini-404", "gemini-native-output-function-tools-stream",
    "gemini-stream-sse", "gemini-stream-text", "gemini-stream-tool-call-thought-signature", "gemini-embeddings",
)  # fmt: skip
HELLO = b'{"contents":[{"role":"user","parts":[{"text":"How many words are these?"}]}]}'


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, port: int) -> GatewayProcess:
    return shared_gateway_server('default_provider = "p"\n' + GATEWAY, env={"KEY": CANARY}, port=str(port))


@pytest.fixture
async def upstream(port: int) -> Any:
    async with ScriptedUpstream(speaks(GEMINI), port=port, models=()) as scripted:
        yield scripted


class TestContract(ProviderContract):
    type = "gemini"
    path = "/v1beta"
    spoken = GEMINI
    sent = ("x-goog-api-key", "{}")


@pytest.mark.parametrize("name", RECORDED)
async def test_recorded_traffic_passes_byte_for_byte(
    gateway: GatewayProcess, upstream: ScriptedUpstream, test_data: Recordings, name: str
) -> None:
    await check_byte_for_byte(gateway, upstream, test_data.interactions(name))


async def test_the_model_goes_into_the_path_and_nothing_into_the_body(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    reply = await fetch(f"{gateway.url}/v1beta/models/p/tuned%20one:generateContent", "POST", JSON, HELLO)
    assert reply.status == 200
    (call,) = upstream.calls
    assert (call.target, bytes(call.body)) == ("/v1beta/models/tuned%20one:generateContent", HELLO)


@pytest.mark.parametrize("version", ["v1", "v1beta"])
async def test_both_versions_of_the_path_are_taken(
    gateway: GatewayProcess, upstream: ScriptedUpstream, version: str
) -> None:
    reply = await fetch(f"{gateway.url}/{version}/models/{fresh()}:generateContent", "POST", JSON, HELLO)
    assert CLIENTS["gemini"].text(reply, False) == TEXT
    assert upstream.calls[0].target.startswith("/v1beta/models/m")


@pytest.mark.parametrize("query", ["key={}", "alt=sse&key={}", "key={}&alt=sse", "k%65y={}&alt=sse"])
async def test_a_key_in_the_query_is_never_forwarded(
    gateway: GatewayProcess, upstream: ScriptedUpstream, query: str
) -> None:
    path = f"/v1beta/models/{fresh()}:streamGenerateContent?{query.format(THEIRS)}"
    reply = await fetch(gateway.url + path, "POST", JSON, HELLO)
    assert reply.status == 200
    (call,) = upstream.calls
    assert THEIRS not in call.target
    assert ("alt=sse" in call.target) == ("alt=sse" in query)


async def test_tokens_are_counted_by_the_provider_for_its_own_clients(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    upstream.script = whole(200, {"totalTokens": 321})
    reply = await fetch(f"{gateway.url}/v1beta/models/p/x:countTokens", "POST", JSON, HELLO)
    assert reply.json == {"totalTokens": 321}
    assert (upstream.calls[0].target, bytes(upstream.calls[0].body)) == ("/v1beta/models/x:countTokens", HELLO)


async def test_tokens_are_estimated_for_others(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    body = b'{"model":"p/x","messages":[{"role":"user","content":"How many words are these?"}]}'
    reply = await fetch(f"{gateway.url}/v1/messages/count_tokens", "POST", JSON, body)
    assert 3 < reply.json["input_tokens"] < 50 and reply.header("x-gateway-dropped") == "exact_count"
    assert not upstream.calls


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_wait_told_in_the_body_reaches_every_client(
    gateway: GatewayProcess, upstream: ScriptedUpstream, client: str
) -> None:
    detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}
    error = {"code": 429, "message": "Slowly.", "status": "RESOURCE_EXHAUSTED", "details": [detail]}
    upstream.script = whole(429, {"error": error})
    reply = await CLIENTS[client].send(gateway, fresh(), False)
    assert (reply.status, reply.header("retry-after")) == (429, "35")


async def test_a_streamed_refusal_in_a_list_is_read(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    error = {"code": 400, "message": "Said in a list.", "status": "INVALID_ARGUMENT"}
    upstream.script = whole(400, [{"error": error}])
    reply = await CLIENTS["chat"].send(gateway, fresh(), True)
    assert reply.status == 400 and reply.json["error"]["message"].startswith("Said in a list.")


async def test_models_are_listed(gateway_server: GatewayFactory) -> None:
    listed = [{"name": f"models/{name}", "supportedGenerationMethods": ["generateContent"]} for name in ("g-a", "g-b")]
    async with ScriptedUpstream(whole(200, {"models": listed}), models=()) as upstream:
        gateway = gateway_server(GATEWAY, env={"KEY": CANARY}, port=str(upstream.port))
        found = (await fetch(f"{gateway.url}/v1/models")).json["data"]
        assert {"g-a", "g-b", "gemini-listed"} <= {model["id"] for model in found}
        (call,) = upstream.calls
        assert (call.target, call.header("x-goog-api-key")) == ("/v1beta/models?pageSize=1000", CANARY)
        upstream.script = speaks(GEMINI)
        reply = await CLIENTS["messages"].send(gateway, "g-b", False)
        assert CLIENTS["messages"].text(reply, False) == TEXT
