"""The cohere provider in a real gateway, in front of a scripted Cohere; called with raw bytes."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.testing import (
    GatewayFactory,
    GatewayProcess,
    ScriptedUpstream,
    fetch,
    fetch_chat,
    free_ports,
    stream,
    whole,
)
from gateway.testing.answers import JSON
from tests.contract.provider import ProviderContract
from tests.contract.spoken import Spoken
from tests.support.recordings import Recordings

USAGE = {"billed_units": {"input_tokens": 5, "output_tokens": 2}, "tokens": {"input_tokens": 99, "output_tokens": 2}}
ANSWER = {
    "id": "1", "finish_reason": "COMPLETE", "usage": USAGE,
    "message": {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
}  # fmt: skip


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def message(**fields: Any) -> dict[str, Any]:
    return {"message": fields}


class TestContract(ProviderContract):
    type = "cohere"
    spoken = Spoken(
        body=json.dumps(ANSWER).encode(),
        events=(
            event("message-start", id="1", delta=message(role="assistant")),
            event("content-delta", index=0, delta=message(content={"text": "Hel"})),
            event("content-delta", index=0, delta=message(content={"text": "lo"})),
            event("content-end", index=0),
            event("message-end", delta={"finish_reason": "COMPLETE", "usage": USAGE}),
        ),
        error=lambda status, message: {"id": "1", "message": message},
        failure=event("message-end", delta={"finish_reason": "ERROR", "error": "It broke."}),
        text="Hello",
        first=b"Hel",
    )


CONFIG = """
[retry]
attempts = 1
[breaker]
failures = 0
error_rate = 0
[providers.cohere]
type = "cohere"
base_url = "http://127.0.0.1:$port"
api_key = "env:COHERE_KEY"
input_type = "search_query"
[providers.listed]
type = "cohere"
base_url = "http://127.0.0.1:$port"
models = ["command-x"]
"""


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, port: int) -> GatewayProcess:
    return shared_gateway_server(CONFIG, env={"COHERE_KEY": "canary-of-cohere"}, port=str(port))


@pytest.fixture
async def upstream(port: int) -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(whole(200, ANSWER), port=port, models=()) as scripted:
        yield scripted


async def post(gateway: GatewayProcess, path: str, **body: Any) -> Any:
    raw = json.dumps({"model": "cohere/m", **body}).encode()
    return await fetch(gateway.url + path, "POST", JSON, raw)


async def test_what_is_asked_and_what_is_left_out(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    reply = await fetch_chat(gateway.url, "cohere/command-r", temperature=0.5, top_p=0.9, n=2)
    assert reply.header("x-gateway-dropped") == "n"
    (call,) = upstream.calls
    assert (call.method, call.target) == ("POST", "/v2/chat")
    sent = {"model": "command-r", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5, "p": 0.9}
    assert call.json == sent


async def test_a_key_that_is_not_valid_is_ours(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    upstream.script = whole(498, {"message": "invalid token"})
    reply = await fetch_chat(gateway.url, "cohere/m")
    assert reply.status == 502 and b"invalid token" not in reply.body


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", json.dumps({**ANSWER, "finish_reason": "ERROR"}).encode()],
    ids=["nothing", "list", "object", "failed"],
)
async def test_an_answer_that_is_none_is_a_502(
    gateway: GatewayProcess, upstream: ScriptedUpstream, body: bytes
) -> None:
    upstream.script = whole(200, body)
    assert (await fetch_chat(gateway.url, "cohere/m")).status == 502


async def test_embeddings(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    vectors = [[0.5, -1.25], [3.0, 0.0]]
    upstream.script = whole(200, {"embeddings": {"float": vectors}, "meta": {"billed_units": {"input_tokens": 8}}})
    reply = await post(gateway, "/v1/embeddings", input=["a", "b"], encoding_format="base64", dimensions=2)
    packed = [base64.b64decode(item["embedding"]) for item in reply.json["data"]]
    assert [list(struct.unpack("<2f", each)) for each in packed] == vectors
    assert reply.json["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    (call,) = upstream.calls
    assert call.target == "/v2/embed"
    assert (call.json["texts"], call.json["input_type"], call.json["output_dimension"]) == (
        ["a", "b"],
        "search_query",
        2,
    )
    (line,) = await gateway.wait_log(id=reply.header("x-request-id"))
    assert line["usage"]["input"] == 8


async def test_rerank(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    upstream.script = whole(200, {"id": "1", "results": [{"index": 1, "relevance_score": 0.9}], "meta": {}})
    documents = [{"text": "a"}, {"text": "b"}]
    reply = await post(gateway, "/v1/rerank", query="q", documents=documents, top_n=1, return_documents=True)
    assert reply.json["results"] == [{"index": 1, "relevance_score": 0.9, "document": {"text": "b"}}]
    (call,) = upstream.calls
    assert call.target == "/v2/rerank"
    assert call.json == {"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 1}


async def test_models_and_health(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    listed = [{"name": "command-r", "endpoints": ["chat"]}, {"name": "old", "endpoints": ["classify"]}, {"name": "any"}]
    upstream.script = whole(200, {"models": listed})
    names = {model["id"] for model in (await fetch(f"{gateway.url}/v1/models")).json["data"]}
    assert {"command-r", "any", "command-x"} <= names and "old" not in names
    health = (await fetch(f"{gateway.url}/health")).json["providers"]
    assert health["cohere"]["status"] == "ok"
    assert {request.target.split("?")[0] for request in upstream.requests} == {"/v1/models"}


async def test_the_recorded_stream_reaches_the_client(
    gateway: GatewayProcess, upstream: ScriptedUpstream, test_data: Recordings
) -> None:
    (recorded,) = test_data.interactions("cohere-v2-chat-stream-tools")
    upstream.script = recorded.replay(700)
    reply = await fetch_chat(gateway.url, "cohere/m", stream=True)
    assert reply.body.endswith(b"data: [DONE]\n\n") and b'"finish_reason":"tool_calls"' in reply.body


async def test_a_failure_before_any_content_is_a_plain_error(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    start = event("message-start", id="1", delta=message(role="assistant"))
    upstream.script = stream([start, event("message-end", delta={"finish_reason": "TIMEOUT"})], pause=0.05)
    reply = await fetch_chat(gateway.url, "cohere/m", stream=True)
    assert (reply.status, reply.json["error"]["code"]) == (504, "timeout")
