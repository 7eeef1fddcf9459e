"""The anthropic provider in a real gateway: its own clients' bytes pass unchanged, all others are translated."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.testing import (
    GatewayFactory,
    GatewayProcess,
    Script,
    ScriptedUpstream,
    fetch,
    free_ports,
    whole,
)
from gateway.testing.answers import JSON
from tests.contract.clients import CANARY, CLIENTS, fresh
from tests.contract.provider import ProviderContract
from tests.contract.recorded import check_byte_for_byte
from tests.contract.spoken import ANTHROPIC, TEXT, speaks
from tests.support.recordings import Recordings

GATEWAY = """
[retry]
attempts = 1
[providers.p]
type = "anthropic"
base_url = "http://127.0.0.1:$port/v1"
api_key = "env:KEY"
[providers.bearer]
type = "anthropic"
base_url = "http://127.0.0.1:$port/v1"
api_key = "env:KEY"
auth = "bearer"
version = "2026-10-21"
models = ["claude-listed"]
"""
RECORDED = (
    "anthropic-400-effort", "anthropic-404-model", "anthropic-mid-conversation-system-role",
    "anthropic-parallel-tool-calls", "anthropic-prompt-cache-read-write", "anthropic-stream-image",
    "anthropic-stream-output-config-json-schema", "anthropic-stream-redacted-thinking",
    "anthropic-stream-server-web-search", "anthropic-stream-text", "anthropic-stream-tool-use",
    "anthropic-count-tokens-404",
)  # fmt: skip


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, port: int) -> GatewayProcess:
    return shared_gateway_server('default_provider = "p"\n' + GATEWAY, env={"KEY": CANARY}, port=str(port))


@pytest.fixture
async def upstream(port: int) -> Any:
    async with ScriptedUpstream(speaks(ANTHROPIC), port=port, models=()) as scripted:
        yield scripted


class TestContract(ProviderContract):
    type = "anthropic"
    path = "/v1"
    spoken = ANTHROPIC
    sent = ("x-api-key", "{}")


@pytest.mark.parametrize("name", RECORDED)
async def test_recorded_traffic_passes_byte_for_byte(
    gateway: GatewayProcess, upstream: ScriptedUpstream, test_data: Recordings, name: str
) -> None:
    await check_byte_for_byte(gateway, upstream, test_data.interactions(name))


async def test_only_the_models_name_is_replaced(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    raw = b'{ "max_tokens":50,"messages":[ ],\n"model" : "p/claude-x" , "n":9007199254740993 }'
    await fetch(f"{gateway.url}/v1/messages", "POST", JSON, raw)
    assert upstream.calls[0].body == raw.replace(b"p/claude-x", b"claude-x")


async def test_a_client_that_names_no_version_gets_ours(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    for provider in ("p", "bearer"):
        assert (await CLIENTS["messages"].send(gateway, fresh(provider), False)).status == 200
    versions = [call.header("anthropic-version") for call in upstream.calls]
    assert versions == ["2023-06-01", "2026-10-21"]


async def test_a_clients_own_version_and_betas_are_kept(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    own = {"anthropic-version": "2099-01-01", "anthropic-beta": "a-2026-01-01,b-2026-01-01"}
    for streams in (False, True):
        await CLIENTS["messages"].send(gateway, fresh(), streams, own)
        call = upstream.calls[-1]
        assert {name: call.header(name) for name in own} == own
        assert sum(name.lower() == "anthropic-version" for name, _ in call.headers) == 1


async def test_translated_requests_name_a_version(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    for client in ("chat", "responses", "gemini"):
        await CLIENTS[client].send(gateway, fresh("bearer"), False)
        call = upstream.calls[-1]
        assert (call.target, call.header("anthropic-version")) == ("/v1/messages", "2026-10-21")
        assert call.header("authorization") == f"Bearer {CANARY}" and call.header("x-api-key") is None


async def test_what_was_cached_is_part_of_the_input(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    usage = {"input_tokens": 3, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20, "output_tokens": 4}
    upstream.script = whole(200, {**json.loads(ANTHROPIC.body), "usage": usage})
    for client in ("messages", "chat"):
        reply = await CLIENTS[client].send(gateway, fresh(), False)
        (line,) = await gateway.wait_log(id=reply.header("x-request-id"))
        assert (line["usage"]["input"], line["usage"]["output"]) == (123, 4)


async def test_what_a_translation_cannot_carry_is_listed(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    body = (
        b'{"model":"%b","messages":[{"role":"user","content":"hi"}],"seed":1,"logit_bias":{"1":1}}' % fresh().encode()
    )
    reply = await fetch(f"{gateway.url}/v1/chat/completions", "POST", JSON, body)
    assert {"seed", "logit_bias"} <= set((reply.header("x-gateway-dropped") or "").split(", "))
    assert not {"seed", "logit_bias"} & set(upstream.calls[0].json)


async def test_tokens_are_counted_by_the_provider_for_its_own_clients(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    upstream.script = whole(200, {"input_tokens": 321})
    body = b'{"model":"claude-x","messages":[{"role":"user","content":"hi"}]}'
    reply = await fetch(f"{gateway.url}/v1/messages/count_tokens?beta=true", "POST", JSON, body)
    assert reply.json == {"input_tokens": 321}
    call = upstream.calls[-1]  # before it, the list of models was asked for
    assert (call.target, bytes(call.body)) == ("/v1/messages/count_tokens?beta=true", body)


async def test_tokens_are_estimated_for_others(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    body = b'{"contents":[{"role":"user","parts":[{"text":"How many words are these?"}]}]}'
    reply = await fetch(f"{gateway.url}/v1beta/models/p/claude-x:countTokens", "POST", JSON, body)
    assert 3 < reply.json["totalTokens"] < 50
    assert reply.header("x-gateway-dropped") == "exact_count" and not upstream.calls


def models(*ids: str) -> Script:
    data = [{"type": "model", "id": each, "display_name": each.title()} for each in ids]
    return whole(200, {"data": data, "has_more": False})


async def test_models_are_listed(gateway_server: GatewayFactory) -> None:
    async with ScriptedUpstream(models("claude-a", "claude-b"), models=()) as upstream:
        gateway = gateway_server(GATEWAY, env={"KEY": CANARY}, port=str(upstream.port))
        listed = (await fetch(f"{gateway.url}/v1/models")).json["data"]
        assert {"claude-a", "claude-b", "claude-listed"} <= {model["id"] for model in listed}
        asked = [call for call in upstream.calls if call.method == "GET"]
        assert [call.target for call in asked] == ["/v1/models?limit=1000"]
        assert asked[0].header("anthropic-version") == "2023-06-01" and asked[0].header("x-api-key") == CANARY
        # A model only the list knows finds its provider.
        upstream.script = speaks(ANTHROPIC)
        reply = await CLIENTS["chat"].send(gateway, "claude-b", False)
        assert CLIENTS["chat"].text(reply, False) == TEXT


async def test_an_operation_it_does_not_have_is_not_found(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    body = b'{"model":"p/claude-x","input":"hi"}'
    reply = await fetch(f"{gateway.url}/v1/embeddings", "POST", JSON, body)
    assert reply.status == 404 and not upstream.calls
