"""R15: whatever the live router has, a plugin's routes included, wants a key; the exceptions stand here."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.server import Server
from gateway.testing import ScriptedUpstream, as_asked, fetch
from tests.integration.conftest import KEY

PUBLIC = {"/", "/health/live", "/health/ready"}
"""They touch nothing and tell nothing. A path more here is a decision, not a repair of this test."""
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "PROPFIND")
PLUGIN = """
from aiohttp import web
from gateway import hookimpl


class Plugin:
    def __init__(self, settings: None, runtime: object) -> None:
        pass

    @hookimpl
    def routes(self) -> list[web.RouteDef]:
        return [web.get("/extra/thing", self.show), web.route("*", "/extra/{name}/more", self.show)]

    async def show(self, request: web.Request) -> web.Response:
        return web.Response(text="a plugin's answer")
"""
CONFIG = f"""
default_provider = "stub"
[server]
port = 0
[admin]
port = 0
[plugins]
folders = ["@folder"]
chain = ["request_id", "logging", "metrics", "auth", "rate_limit", "cache", "extra"]
[keys.alice]
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
[providers.stub]
type = "openai_compat"
base_url = "@upstream/v1"
"""


class Live:
    """A gateway in this process, so that its router can be looked at."""

    def __init__(self, server: Server, upstream: ScriptedUpstream) -> None:
        self.upstream = upstream
        # The admin listener has a router of its own; it is for operators, and not the public one.
        self.url = "http://{}:{}".format(*server.addresses[0])
        router = server.generation.routes.application.router
        self.routes = [(route.method, route.resource.canonical) for route in router.routes() if route.resource]

    async def status(self, method: str, path: str, key: str | None = None) -> int:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return (await fetch(self.url + path, method, headers)).status


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    (tmp_path / "extra.py").write_text(PLUGIN)
    config = tmp_path / "gateway.toml"
    async with ScriptedUpstream(as_asked()) as upstream:
        config.write_text(CONFIG.replace("@folder", str(tmp_path)).replace("@upstream", upstream.url))
        config.chmod(0o600)
        server = Server(config, {})
        await server.start()
        try:
            yield Live(server, upstream)
        finally:
            await server.stop()


def filled(pattern: str) -> str:
    for name, value in (("tail", "any/thing"), ("provider", "stub"), ("name", "x"), ("model", "m")):
        pattern = pattern.replace(f"{{{name}}}", value)
    return pattern


async def test_r15_every_route_but_the_public_ones_wants_a_key(live: Live) -> None:
    patterns = {pattern for _, pattern in live.routes}
    assert PUBLIC < patterns and {"/extra/thing", "/extra/{name}/more", "/{tail}"} < patterns and len(patterns) > 20
    open_to_all = set()
    for pattern in patterns:
        path = filled(pattern)
        assert "{" not in path
        for method in METHODS:
            if method == "HEAD":
                continue  # without a body to read; R04 asks them
            for key in (None, "wrong"):
                status = await live.status(method, path, key)
                assert status in (200, 401), (method, path, status)
                if status == 200:
                    open_to_all.add(pattern)
    assert open_to_all == PUBLIC
    assert live.upstream.requests == []


async def test_r15_with_a_key_the_routes_answer(live: Live) -> None:
    """Else everything could be a 401."""
    assert await live.status("GET", "/extra/thing", KEY) == 200
    assert await live.status("PUT", "/extra/x/more", KEY) == 200
    assert await live.status("GET", "/v1/models", KEY) == 200
    assert await live.status("GET", "/v1/files", KEY) == 200
    assert await live.status("GET", "/nowhere", KEY) == 404
    assert len(live.upstream.calls) >= 1


async def test_r15_public_paths_cannot_be_stretched(live: Live) -> None:
    for path in ("/health/live/", "/health/live/x", "/health/ready/..", "//", "/health", "/health/", "/health/live%2f"):
        assert await live.status("GET", path) == 401, path


async def test_r15_a_public_answer_tells_nothing(live: Live) -> None:
    for path in PUBLIC:
        answer = await fetch(live.url + path)
        assert len(answer.body) < 40
        assert {name.lower() for name, _ in answer.head.headers} <= {
            "server", "content-type", "content-length", "date", "connection",
        }  # fmt: skip
