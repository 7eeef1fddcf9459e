"""R04: who may do what is decided on the route that is dispatched, however its path or Host is spelt."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from gateway.testing import GatewayFactory, GatewayProcess, RawClient, ScriptedUpstream, fetch
from tests.integration.conftest import KEY, Door

# (request target, Host instead of the right one)
VECTORS: list[tuple[str, str | None]] = [
    ("/admin%2fmetrics", None),
    ("/v1/%2e%2e/metrics", None),
    ("/v1/../metrics", None),
    ("//metrics", None),
    ("/v1;/metrics", None),
    ("/metrics%00", None),
    ("/METRICS", None),
    ("/metrics/", None),
    ("http://127.0.0.1:@ADMIN/metrics", None),
    ("/%6detrics", None),
    ("/metrics", "x/?"),
    ("/metrics", "x/#"),
    ("/metrics?", None),
    ("/metrics", "127.0.0.1:@ADMIN"),
    ("/metrics", None),
    ("/health/live/../../metrics", None),
    ("/health/live/%2e%2e/%2e%2e/v1/models", None),
    ("/health/live;/v1/models", None),
    ("/health/live%2f..%2f..%2fv1%2fmodels", None),
    ("/health/live?/v1/models", None),
]
# What each of them may show a stranger: the liveness answer, nothing else.
_LIVE = b"ok\n"


async def _ask(
    door: Door, admin_port: int, vector: tuple[str, str | None], headers: dict[str, str], method: str
) -> bytes:
    target, host = (part and part.replace("@ADMIN", str(admin_port)) for part in vector)
    assert target is not None
    async with RawClient(door.url, host=host or door.host) as client:
        await client.request(method, target, {**headers, "Connection": "close"})
        return await client.wait_closed(within=5)


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0  # nginx closes without a word


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector[0]} {vector[1] or ''}".strip())
async def test_r04_without_a_key_nothing_answers(
    door: Door, gateway: GatewayProcess, upstream: ScriptedUpstream, vector: tuple[str, str | None], method: str
) -> None:
    answer = await _ask(door, gateway.admin_port, vector, {}, method)
    assert not 200 <= _status(answer) < 400 or answer.partition(b"\r\n\r\n")[2] in (_LIVE, b""), answer
    assert b"# HELP" not in answer
    assert upstream.requests == []


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector[0]} {vector[1] or ''}".strip())
async def test_r04_a_users_key_opens_no_admin_route(
    door: Door, gateway: GatewayProcess, upstream: ScriptedUpstream, vector: tuple[str, str | None]
) -> None:
    answer = await _ask(door, gateway.admin_port, vector, {"Authorization": f"Bearer {KEY}"}, "GET")
    assert b"# HELP" not in answer
    assert all(call.target.startswith("/base/v1/") for call in upstream.requests)


async def test_r04_the_oracle_would_notice(gateway: GatewayProcess) -> None:
    assert "# HELP" in (await gateway.metrics()).text


@pytest.mark.parametrize(
    "target",
    [
        "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/models", "/v1/models/m",
        "/v1/moderations", "/v1/rerank", "/v1/images/generations", "/v1/audio/speech", "/v1/files", "/v1/files/f",
        "/v1/batches", "/v1/anything/else", "/p/stub/models", "/health", "/metrics", "/nowhere",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS", "HEAD"])
async def test_r04_every_route_wants_a_key(
    gateway: GatewayProcess, upstream: ScriptedUpstream, method: str, target: str
) -> None:
    async with RawClient(gateway.url) as client:
        await client.request(method, target, {"Connection": "close"})
        assert (await client.read_head()).start.split(" ")[1] == "401"
    assert upstream.requests == []


EXTRA = """
from aiohttp import web
from gateway import hookimpl


class Plugin:
    def __init__(self, settings, runtime):
        pass

    @hookimpl
    def routes(self):
        async def answer(request):
            return web.json_response(dict(request.match_info))

        return [web.get("/extra", answer), web.post("/extra/{name}", answer)]
"""


@pytest.mark.parametrize(("method", "target"), [("GET", "/extra"), ("POST", "/extra/x"), ("GET", "/extra?a=b")])
async def test_r04_a_plugins_route_wants_a_key_too(
    gateway_server: GatewayFactory, tmp_path: Path, method: str, target: str
) -> None:
    (tmp_path / "extra.py").write_text(EXTRA)
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    config = f'[plugins]\nfolders = ["{tmp_path}"]\nchain = ["auth", "extra"]\n[keys.alice]\nsha256 = "{digest}"\n'
    gateway = gateway_server(f'{config}[providers.echo]\ntype = "echo"\n')
    assert (await fetch(gateway.url + target, method)).status == 401
    reply = await fetch(gateway.url + target, method, {"Authorization": f"Bearer {KEY}"})
    assert reply.status == 200
    assert reply.json == ({"name": "x"} if method == "POST" else {})
