"""R16, R17: the model that was authorised is the one the provider reads; no request says where it goes or as whom."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.body import STEERING
from gateway.testing import GatewayFactory, GatewayProcess, RawClient, Response, ScriptedUpstream, as_asked, error
from gateway.testing.wire import Headers, pairs
from tests.integration.conftest import KEY

CONFIG = f"""
default_provider = "stub"
[retry]
attempts = 2
[breaker]
failures = 0
error_rate = 0
[plugins.rate_limit]
requests_per_minute = 0
[keys.alice]
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
models = ["small", "small-*"]
[providers.stub]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
api_key = "env:STUB_KEY"
[models.small]
targets = [{{ provider = "stub" }}]
fallbacks = ["small-alias", "large"]
[models.small-alias]
targets = [{{ provider = "stub", model = "real-small" }}]
[models.large]
targets = [{{ provider = "stub" }}]
"""
PERMITTED = {"small", "small-x", "real-small"}
PATHS = ("/v1/chat/completions", "/v1/embeddings", "/v1/moderations", "/v1/images/generations", "/v1/new/thing")


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, provider_port: int) -> GatewayProcess:
    return shared_gateway_server(CONFIG, port=str(provider_port), env={"STUB_KEY": "sk-stub"})


@pytest.fixture
async def upstream(provider_port: int) -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(as_asked(), port=provider_port) as scripted:
        yield scripted


async def ask(gateway: GatewayProcess, body: bytes, path: str = PATHS[0], headers: Headers = ()) -> Response:
    async with RawClient(gateway.url) as client:
        fields = [("Authorization", f"Bearer {KEY}"), *pairs(headers)]
        if not any(name.lower() == "content-type" for name, _ in fields):
            fields.append(("Content-Type", "application/json"))
        await client.request("POST", path, fields, body)
        return await client.read()


def read_by(body: bytes) -> set[Any]:
    """The models any server may find in a body: the first, the last, without regard to case."""
    found: list[Any] = []

    def top_or_any(fields: list[tuple[str, Any]]) -> dict[str, Any]:
        found.extend(value for name, value in fields if name.casefold() == "model")
        return dict(fields)

    json.loads(body, object_pairs_hook=top_or_any)
    return set(found)


BODIES = [
    b'{"model":"small","model":"large","messages":[]}',
    b'{"model":"large","model":"small","messages":[]}',
    b'{"model":"small","Model":"large","messages":[]}',
    b'{"MODEL":"large","model":"small","messages":[]}',
    b'{"mod\\u0065l":"large","messages":[]}',
    b'{"model":"small","mod\\u0065l":"large","messages":[]}',
    b'{"model":"small","\\u006dodel":"large","messages":[]}',
    b'{"model":"small","model\\u0000":"large","messages":[]}',
    b'{"model":"large","messages":[]}',
    b'{"model":"LARGE","messages":[]}',
    b'{"model":["large"],"messages":[]}',
    b'{"model":{"name":"large"},"messages":[]}',
    b'{"model":"small\\u0000large","messages":[]}',
    b'{"model":"small\\nlarge","messages":[]}',
    b'{"model":"","messages":[]}',
    b'{"model":null,"messages":[]}',
    b'{"model":"stub/large","messages":[]}',
    b'[{"model":"large"}]',
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("pad", [0, 300_000], ids=["short", "long"])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body[:44].decode())
async def test_r16_only_a_permitted_model_gets_through(
    gateway: GatewayProcess, upstream: ScriptedUpstream, body: bytes, pad: int, path: str
) -> None:
    reply = await ask(gateway, body.replace(b"{", b'{"x":"%b",' % (b"x" * pad), 1) if pad else body, path)
    assert reply.status in (400, 403) or all(read_by(bytes(call.body)) <= PERMITTED for call in upstream.calls)
    assert all(read_by(bytes(call.body)) <= PERMITTED for call in upstream.calls)


async def test_r16_the_permitted_ones_do_get_through(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    for name, sent in (("small", "small"), ("small-alias", "real-small"), ("small-x", "small-x")):
        body = b'{"messages":[{"role":"user","content":"\\"model\\":\\"large\\""}],"model":"%b"}' % name.encode()
        assert (await ask(gateway, body)).status == 200
        assert upstream.calls[-1].json["model"] == sent


async def test_r16_a_fallback_is_asked_about_too(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    upstream.script = error(500)
    assert (await ask(gateway, b'{"model":"small","messages":[]}')).status == 500
    assert [call.json["model"] for call in upstream.calls] == ["small", "real-small"]


@pytest.mark.parametrize(
    "query", ["model=large", "Model=large", "mod%65l=large", "a=b&model=large", "model", "stream=true", "api_base=x"]
)
async def test_r16_the_query_names_no_model(gateway: GatewayProcess, upstream: ScriptedUpstream, query: str) -> None:
    for path in PATHS:
        assert (await ask(gateway, b'{"model":"small","messages":[]}', f"{path}?{query}")).status == 400
    assert upstream.calls == []


async def test_any_other_query_passes(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    assert (await ask(gateway, b'{"model":"small"}', f"{PATHS[0]}?api-version=2024-10-21&a=%20b")).status == 200
    assert upstream.calls[0].target == "/v1/chat/completions?api-version=2024-10-21&a=%20b"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-ndjson", "application/JSON-seq", "", "x"])
async def test_r16_a_type_that_hides_a_model_from_us_is_refused(
    gateway: GatewayProcess, upstream: ScriptedUpstream, kind: str
) -> None:
    for path in PATHS[2:]:
        reply = await ask(gateway, b'{"model":"large"}', path, {"Content-Type": kind})
        assert reply.status == 403, path
    assert upstream.calls == []


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", ""])
async def test_r16_where_only_json_is_served_every_type_is_read_as_json(
    gateway: GatewayProcess, upstream: ScriptedUpstream, kind: str
) -> None:
    assert (await ask(gateway, b'{"model":"large"}', headers={"Content-Type": kind})).status == 403
    assert (await ask(gateway, b'{"model":"small"}', headers={"Content-Type": kind})).status == 200
    assert len(upstream.calls) == 1


@pytest.fixture
async def attacker() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(as_asked()) as scripted:
        yield scripted


NAMES = sorted(STEERING)


def nested(where: str, name: str, value: str) -> dict[str, Any]:
    plain: dict[str, Any] = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
    places: dict[str, dict[str, Any]] = {
        "root": {name: value},
        "capitals": {name.upper(): value},
        "dict": {"options": {"deep": {name: value}}},
        "list": {"tools": [{"type": "function", "function": {name: value}}]},
        "extra_body": {"extra_body": {name: value}},
        "metadata": {"metadata": {name: value}},
    }
    return plain | places[where]


@pytest.mark.parametrize("where", ["root", "capitals", "dict", "list", "extra_body", "metadata"])
async def test_r17_a_body_does_not_say_where_it_goes(
    gateway: GatewayProcess, upstream: ScriptedUpstream, attacker: ScriptedUpstream, where: str
) -> None:
    at_top = where in ("root", "capitals")
    replies = await asyncio.gather(
        *(ask(gateway, json.dumps(nested(where, name, attacker.url)).encode()) for name in NAMES)
    )
    # Deeper they are words of the provider's own API, a tool's parameter for instance, and mean nothing to us.
    assert {reply.status for reply in replies} == {400 if at_top else 200}
    assert len(upstream.calls) == (0 if at_top else len(NAMES))
    assert all(call.header("authorization") == "Bearer sk-stub" for call in upstream.calls)
    assert attacker.connections == []


@pytest.mark.parametrize("spelling", ["{}", "x-{}", "x-litellm-{}"])
async def test_r17_headers_do_not_say_it_either(
    gateway: GatewayProcess, upstream: ScriptedUpstream, attacker: ScriptedUpstream, spelling: str
) -> None:
    names = [spelling.format(name.replace("_", "-")) for name in NAMES]
    names += ["OpenAI-Organization", "OpenAI-Project", "X-Forwarded-Host", "X-Original-URL", "X-Provider"]
    for name in names:
        await ask(gateway, b'{"model":"small","messages":[]}', headers={name: attacker.url})
    assert upstream.calls
    for call in upstream.calls:
        assert attacker.url not in str(call.headers)
        assert call.header("authorization") == "Bearer sk-stub"
    assert attacker.connections == []


@pytest.mark.parametrize("name", NAMES)
async def test_r17_nor_does_the_query(
    gateway: GatewayProcess, upstream: ScriptedUpstream, attacker: ScriptedUpstream, name: str
) -> None:
    reply = await ask(gateway, b'{"model":"small","messages":[]}', f"{PATHS[0]}?{name}={attacker.url}")
    assert reply.status == 400
    assert upstream.calls == [] and attacker.connections == []
