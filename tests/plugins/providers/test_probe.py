"""A probe: asked for its health with GET, at the very address, and never sent a request of a client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.testing import LocalGateway, Script, ScriptedUpstream, fetch, fetch_chat, hang_up, redirect, silent, whole

CONFIG = """
plugins = {{ chain = [] }}
[providers.agents]
type = "probe"
url = "{url}/live"
headers = {{ X-Token = "env:TOKEN" }}
timeouts = {{ connect = "1s", first_token = "200ms" }}
"""


@pytest.fixture
async def agents() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(whole(204, b""), models=()) as upstream:
        yield upstream


@pytest.fixture
async def gateway(tmp_path: Path, agents: ScriptedUpstream) -> AsyncIterator[LocalGateway]:
    async with LocalGateway(tmp_path, CONFIG.format(url=agents.url), {"TOKEN": "t-1"}) as running:
        yield running


async def test_a_well_one_is_asked_as_configured(gateway: LocalGateway, agents: ScriptedUpstream) -> None:
    reply = await fetch(f"{gateway.url}/health", headers={"X-Client": "curious"})
    assert (reply.status, reply.json["providers"]["agents"]["status"]) == (200, "ok")
    (asked,) = agents.requests
    assert (asked.method, asked.target, bytes(asked.body)) == ("GET", "/live", b"")
    assert asked.header("x-token") == "t-1"
    assert asked.header("x-client") is None


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (whole(503, b"postgres://user:secret@db"), "answered 503"),
        (hang_up, "closed the connection"),
        (silent, "in time"),
    ],
    ids=["error", "closed", "silent"],
)
async def test_one_that_fails_says_why(
    gateway: LocalGateway, agents: ScriptedUpstream, script: Script, reason: str
) -> None:
    agents.script = script
    reply = await fetch(f"{gateway.url}/health")
    assert reply.status == 503
    told = reply.json["providers"]["agents"]
    assert told["status"] == "failing"
    assert reason in told["reason"]
    assert b"postgres" not in reply.body


async def test_a_redirect_is_not_followed(gateway: LocalGateway, agents: ScriptedUpstream) -> None:
    agents.script = redirect(302, f"{agents.url}/elsewhere")
    await fetch(f"{gateway.url}/health")
    assert [request.target for request in agents.requests] == ["/live"]


async def test_no_model_is_routed_to_it(gateway: LocalGateway, agents: ScriptedUpstream) -> None:
    assert (await fetch_chat(gateway.url, "agents/m")).status == 404
    assert agents.requests == []
