"""R06: request headers reach a provider by allow-list; nothing of the client's identity or hops goes along."""

from __future__ import annotations

import pytest

from gateway.testing import GatewayProcess, ScriptedUpstream
from tests.integration.conftest import KEY, SECRET, Door

NEVER = [
    ("Connection", "close, X-Secret"), ("X-Secret", "listed"),
    ("Keep-Alive", "timeout=5"), ("Proxy-Connection", "keep-alive"), ("Proxy-Authorization", "Basic eDp5"),
    ("TE", "trailers"), ("Trailer", "X-T"), ("HTTP2-Settings", "AAMAAABkAAQ"), ("Cookie", "session=1"),
    ("Cookie2", "$Version=1"), ("api-key", KEY), ("x-api-key", KEY), ("x-goog-api-key", KEY), ("X-Auth-Token", "t"),
    ("X-Amz-Security-Token", "t"), ("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-Host", "evil.test"),
    ("X-Forwarded-Proto", "https"), ("X-Forwarded-Port", "1"), ("X_Forwarded_For", "198.51.100.2"),
    ("Forwarded", "for=198.51.100.3"), ("X-Real-IP", "198.51.100.4"), ("Via", "1.1 me"),
    ("CF-Connecting-IP", "198.51.100.5"), ("True-Client-IP", "198.51.100.6"), ("X-Original-URL", "/admin"),
    ("X-Rewrite-URL", "/admin"), ("X-HTTP-Method-Override", "DELETE"), ("X-Gateway-Target", "other"),
    ("X-Gateway-Anything", "1"), ("OpenAI-Organization", "org-evil"), ("OpenAI-Project", "proj_evil"),
    ("Origin", "https://evil.test"), ("Referer", "https://evil.test/page"), ("User-Agent", "evil/1"),
    ("Accept-Encoding", "gzip, br"), ("Range", "bytes=0-1"), ("If-None-Match", '"x"'), ("Expect-CT", "x"),
    ("X-SSL-Client-Verify", "SUCCESS"), ("X-SSL-Client-S-DN", "CN=evil"), ("X-SSL-Client-Fingerprint", "ab" * 20),
    ("X-SSL-Client-Cert", "evil"), ("X-Forwarded-Client-Cert", "evil"), ("Client-Cert", ":evil:"),
    ("X-Unknown", "1"), ("Sec-Fetch-Mode", "cors"), ("Content-Location", "/x"),
]  # fmt: skip
ALWAYS = [
    ("anthropic-beta", "a-2025-01-01,b;q=1"),
    ("anthropic-version", "2023-06-01"),
    ("openai-beta", "assistants=v2"),
    ("idempotency-key", '7f3a x="1"'),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("tracestate", "a=1,b=2"),
]
# What a request of the gateway's own may carry besides.
OURS = {
    "host",
    "authorization",
    "accept",
    "accept-encoding",
    "user-agent",
    "content-length",
    "content-type",
    "x-request-id",
}


async def test_r06_only_allowed_names_reach_the_provider(door: Door, upstream: ScriptedUpstream) -> None:
    assert (await door.chat(headers=[*NEVER, *ALWAYS])).status == 200
    (call,) = upstream.calls
    names = {name.lower() for name, _ in call.headers}
    assert names - {name for name, _ in ALWAYS} <= OURS
    values = " ".join(value for _, value in call.headers)
    assert KEY not in values
    assert "198.51.100" not in values and "evil" not in values
    assert call.header("accept-encoding") == "identity"


async def test_r06_what_providers_need_survives_byte_for_byte(door: Door, upstream: ScriptedUpstream) -> None:
    assert (await door.chat(headers=ALWAYS)).status == 200
    received = [(name.lower(), value) for name, value in upstream.calls[0].headers]
    assert [pair for pair in received if pair[0] in dict(ALWAYS)] == ALWAYS


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "api-key", "x-goog-api-key"])
async def test_r06_the_providers_credential_is_the_only_one(door: Door, upstream: ScriptedUpstream, name: str) -> None:
    value = f"Bearer {KEY}" if name == "Authorization" else KEY
    async with door.client() as client:
        await client.chat(headers=[(name, value)])
        assert (await client.read()).status == 200
    (call,) = upstream.calls
    assert call.header("authorization") == f"Bearer {SECRET}"
    assert KEY.encode() not in call.head.raw


@pytest.mark.parametrize("name", ["anthropic-beta", "traceparent"])
async def test_r06_an_allowed_header_named_by_connection_ends_here(
    gateway: GatewayProcess, upstream: ScriptedUpstream, name: str
) -> None:
    # nginx replaces Connection, so behind it such a header is like any other; RFC 9110 section 7.6.1 is its matter.
    door = Door("direct", gateway.url)
    await door.chat(headers=[("Connection", f"keep-alive, {name}"), ("anthropic-beta", "x"), ("traceparent", "y")])
    received = {key.lower() for key, _ in upstream.calls[0].headers}
    assert received & {"anthropic-beta", "traceparent"} == {"anthropic-beta", "traceparent"} - {name}


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/v1/embeddings", b'{"model":"m","input":"x"}'),
        ("GET", "/v1/files/f", None),
        ("GET", "/p/stub/x", None),
    ],
)
async def test_r06_every_route_filters(
    door: Door, upstream: ScriptedUpstream, method: str, target: str, body: bytes | None
) -> None:
    headers = [("Content-Type", "application/json"), *NEVER] if body else NEVER
    await door.fetch(target, method, headers, body)
    (call,) = upstream.calls
    assert {name.lower() for name, _ in call.headers} <= OURS
