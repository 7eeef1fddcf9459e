"""R20: a provider's redirect is never followed and never shown."""

from __future__ import annotations

import pytest

from gateway.testing import ScriptedUpstream, chat, redirect
from tests.integration.conftest import Door

ROUTES = [
    ("POST", "/v1/chat/completions", b'{"model":"m","messages":[]}'),
    ("POST", "/v1/chat/completions", b'{"model":"m","messages":[],"stream":true}'),
    ("POST", "/v1/responses", b'{"model":"m","input":"x"}'),
    ("POST", "/v1/embeddings", b'{"model":"m","input":"x"}'),
    ("GET", "/v1/files/f/content", None),
    ("GET", "/p/stub/x", None),
]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_r20_another_host_gets_no_connection(
    door: Door, upstream: ScriptedUpstream, status: int, scheme: str
) -> None:
    async with ScriptedUpstream(chat("stolen")) as other:
        upstream.script = redirect(status, f"{scheme}://127.0.0.1:{other.port}/v1/chat/completions")
        for method, target, body in ROUTES:
            reply = await door.fetch(target, method, {"Content-Type": "application/json"} if body else (), body)
            assert reply.status == 502
            assert reply.json["error"]["code"] == "upstream_protocol_error"
            assert reply.header("location") is None
            assert str(other.port).encode() not in reply.head.raw + reply.body
        assert not other.connections


@pytest.mark.parametrize("location", ["/v1/elsewhere", "", "chat/completions", "//127.0.0.1:1/x"])
async def test_r20_the_same_host_is_not_asked_again(door: Door, upstream: ScriptedUpstream, location: str) -> None:
    upstream.script = redirect(307, location)
    assert (await door.chat()).status == 502
    assert len(upstream.calls) == 1
