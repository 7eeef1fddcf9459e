"""What real providers sent, through the gateway: the same bytes, and the usage they reported."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.testing import GatewayFactory, GatewayProcess, ScriptedUpstream, fetch
from gateway.testing.client import RawClient
from gateway.testing.wire import Truncated, json_bytes
from tests.support.programs import recorded_data
from tests.support.recordings import Interaction, Recordings

PREFIXES = ("openai-", "groq-", "mistral-", "deepseek-", "openrouter-", "azure-openai-", "cerebras-", "huggingface-")
CONFIG = """
default_provider = "stub"
[providers.stub]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
"""


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, provider_port: int) -> GatewayProcess:
    return shared_gateway_server(CONFIG, port=str(provider_port))


def surface(interaction: Interaction) -> str | None:
    """The path below /v1 that this recording is a request to; ``None`` if it is to something else."""
    path = interaction.path.partition("?")[0]
    for known in ("/chat/completions", "/responses", "/completions", "/embeddings", "/images/generations"):
        if path.endswith(known):
            return known
    return None


def reported(interaction: Interaction) -> dict[str, Any] | None:
    """The last usage the provider told, read without the gateway's code."""
    found: dict[str, Any] | None = None
    text = interaction.response.decode().replace("\r\n", "\n")
    lines = [line[5:] for line in text.split("\n") if line.startswith("data:")] if interaction.streamed else [text]
    for line in lines:
        if line.strip() in ("", "[DONE]"):
            continue
        body = orjson.loads(line)
        body = body.get("response") or body
        found = body.get("usage") or (body.get("x_groq") or {}).get("usage") or found
    return found


def counted(usage: dict[str, Any] | None) -> tuple[Any, Any]:
    usage = usage or {}
    return (
        usage.get("prompt_tokens", usage.get("input_tokens")),
        usage.get("completion_tokens", usage.get("output_tokens")),
    )


def _recordings() -> list[str]:
    try:
        data = recorded_data()
    except pytest.skip.Exception:
        return []
    return [name for prefix in PREFIXES for name in Recordings(data).names(prefix)]


@pytest.mark.parametrize("piece", [7, 1000, 1 << 20])
@pytest.mark.parametrize("name", _recordings())
async def test_a_recording_passes_unchanged(
    test_data: Recordings, gateway: GatewayProcess, upstream: ScriptedUpstream, name: str, piece: int
) -> None:
    replayed = 0
    for interaction in test_data.interactions(name):
        path = surface(interaction)
        if path is None:
            continue
        replayed += 1
        request = interaction.request_json
        request.setdefault("model", "m")  # Azure has it in the path
        if interaction.streamed and path != "/responses":
            # Recorded as asked: with or without usage. What the gateway adds itself has tests of its own.
            request["stream_options"] = (request.get("stream_options") or {}) | {"include_usage": True}
        upstream.script = interaction.replay(piece)
        headers = {"Content-Type": "application/json"}
        if interaction.streamed and b'"error":{' in interaction.response:
            await breaks(gateway, path, request, interaction)
            continue
        reply = await fetch(f"{gateway.url}/v1{path}", "POST", headers, json_bytes(request))
        assert reply.status == {401: 502, 403: 502}.get(interaction.status, interaction.status)
        assert reply.body == interaction.response
        (line,) = await gateway.wait_log(id=reply.header("x-request-id"))
        if interaction.status == 200 and path != "/images/generations":
            usage = line.get("usage") or {}
            assert (usage.get("input"), usage.get("output")) == counted(reported(interaction))
            assert line["outcome"] == "ok"
    if not replayed:
        pytest.skip("recorded on a surface that is not served")


async def breaks(gateway: GatewayProcess, path: str, request: dict[str, Any], interaction: Interaction) -> None:
    """The provider's own error ends it: inside the stream behind content, as a whole 502 before any."""
    async with RawClient(gateway.url) as client:
        await client.request("POST", f"/v1{path}", {"Content-Type": "application/json"}, json_bytes(request))
        try:
            reply = await client.read()
        except Truncated as cut:
            assert cut.received and interaction.response.startswith(cut.received)
            assert b'"error"' in cut.received and b"[DONE]" not in cut.received
        else:
            assert reply.status == 502
            assert b"overload" not in reply.body
