"""Tokens and a running gateway: keys that are not there yet, that change, that cannot be had; ``auth`` beside it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway import jwks
from gateway.testing import (
    Call,
    GatewayFactory,
    LocalGateway,
    RawClient,
    Script,
    ScriptedUpstream,
    error,
    fetch,
    fetch_chat,
    free_ports,
    hang_up,
    raw,
    silent,
    whole,
)
from tests.support.exchanges import disguises
from tests.support.issuer import Issuer, SigningKey, claims, segment

FIRST, SECOND = SigningKey("EdDSA", "first"), SigningKey("ES256", "second")
KEY = "hg-alice-0123456789abcdef"
CHAIN = '"request_id", "logging", "auth", "auth_jwt", "rate_limit", "cache"'
CONFIG = f"""
[plugins]
chain = [{CHAIN}]
[plugins.auth_jwt]
issuer = "$issuer"
audience = "hookgate"
refresh = "$refresh"
models_claim = "models"
limits = {{ requests_per_minute = "rpm" }}
[keys.alice]
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
[providers.echo]
type = "echo"
"""


def config(issuer: str, refresh: str = "10m") -> str:
    return CONFIG.replace("$issuer", issuer).replace("$refresh", refresh)


def token(key: SigningKey, issuer: str, **more: object) -> str:
    return key.sign(claims(iss=issuer, **more))


async def until(status: int, url: str, key: str) -> None:
    """Ask until the answer has this status."""
    async with asyncio.timeout(10):
        while True:
            if (await fetch_chat(url, "echo", key=key)).status == status:
                return
            await asyncio.sleep(0.02)


@asynccontextmanager
async def served(folder: Path, refresh: str = "10m") -> AsyncIterator[tuple[LocalGateway, ScriptedUpstream, Issuer]]:
    """A gateway that has the first key of an issuer."""
    issuer = Issuer(FIRST)
    async with ScriptedUpstream(issuer) as server:
        issuer.url = server.url
        async with LocalGateway(folder, config(server.url, refresh)) as gateway:
            await until(200, gateway.url, token(FIRST, server.url))
            yield gateway, server, issuer


async def test_it_starts_without_an_issuer_and_lets_nobody_in_until_there_are_keys(
    gateway_server: GatewayFactory,
) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    gateway = gateway_server(CONFIG, issuer=url, refresh="100ms")
    good, stranger = token(FIRST, url), token(SigningKey("EdDSA", "first"), url)
    refused = await fetch_chat(gateway.url, "echo", key=good)
    assert refused.status == 503 and refused.header("retry-after") is not None
    for junk in ("hg-none", "a.b.c", f"{segment({'alg': 'none'})}.{segment(claims())}."):
        assert (await fetch_chat(gateway.url, "echo", key=junk)).status == 401
    assert (await fetch_chat(gateway.url, "echo", key=KEY)).status == 200  # a key needs no issuer
    issuer = Issuer(FIRST)
    issuer.url = url
    async with ScriptedUpstream(issuer, port=port):
        await until(200, gateway.url, good)
        assert (await fetch_chat(gateway.url, "echo", key=stranger)).status == 401
    # It is gone again: the keys stay.
    assert (await fetch_chat(gateway.url, "echo", key=token(FIRST, url, sub="bob"))).status == 200


async def test_keys_and_tokens_stand_beside_each_other(tmp_path: Path) -> None:
    async with served(tmp_path) as (gateway, server, _):
        gateway.exchanges.clear()
        for credential in (KEY, token(FIRST, server.url, sub="alice")):
            assert (await fetch_chat(gateway.url, "echo", key=credential)).status == 200
        names = [exchange.principal.name for exchange in gateway.exchanges if exchange.principal is not None]
        assert names == ["alice", "jwt:alice"]
        for credential in (KEY + "x", token(FIRST, server.url, exp=1), "x.y.z", "hg-" + "k" * 3000):
            refused = await fetch_chat(gateway.url, "echo", key=credential)
            assert refused.status == 401 and refused.json["error"]["code"] == "invalid_api_key"
        assert (await fetch_chat(gateway.url, "echo")).status == 401
        assert (await fetch(f"{gateway.url}/v1/models")).status == 401
        assert (await fetch(f"{gateway.url}/health")).status == 401


async def test_claims_decide_on_models_and_limits(tmp_path: Path) -> None:
    async with served(tmp_path) as (gateway, server, _):
        limited = token(FIRST, server.url, sub="bob", models=["echo"], rpm=2)
        assert (await fetch_chat(gateway.url, "another", key=limited)).status == 403
        statuses = [(await fetch_chat(gateway.url, "echo", key=limited)).status for _ in range(2)]
        assert statuses == [200, 429]


async def test_claims_as_identity_providers_nest_them_decide_too(tmp_path: Path) -> None:
    signer = SigningKey("PS256", "nested")
    issuer = Issuer(signer)
    async with ScriptedUpstream(issuer) as server:
        issuer.url = server.url
        text = config(server.url).replace('"hookgate"', '["hookgate", "account"]\nalgorithms = ["PS256"]')
        text = text.replace('"models"', '"resource_access.hookgate.models"')
        text = text.replace('"rpm"', '"https://example.com/limits.rpm"')
        text = text.replace("[keys", 'required_claims = { "realm_access.roles" = "llm", scope = "chat" }\n[keys')
        async with LocalGateway(tmp_path, text) as gateway:
            told = {
                "aud": ["account"], "scope": "openid chat", "realm_access": {"roles": ["user", "llm"]},
                "resource_access": {"hookgate": {"models": ["echo"]}}, "https://example.com/limits": {"rpm": 2},
            }  # fmt: skip
            await until(200, gateway.url, token(signer, server.url, **told))
            bob = token(signer, server.url, sub="bob", **told)
            assert (await fetch_chat(gateway.url, "another", key=bob)).status == 403
            assert [(await fetch_chat(gateway.url, "echo", key=bob)).status for _ in range(2)] == [200, 429]
            for wrong in ({"scope": "openid"}, {"realm_access": {"roles": ["user"]}}, {"aud": "other"}):
                eve = token(signer, server.url, sub="eve", **told | wrong)
                assert (await fetch_chat(gateway.url, "echo", key=eve)).status == 401


async def test_a_new_key_is_fetched_once_for_all_who_come_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as (gateway, server, issuer):
        issuer.keys = [SECOND]
        asked = len(server.requests)
        new = [token(SECOND, server.url, sub=f"u{number}") for number in range(20)]
        assert (await fetch_chat(gateway.url, "echo", key=new[0])).status == 401  # so soon after the start
        assert len(server.requests) == asked
        monkeypatch.setattr(jwks, "PAUSE", 0.0)
        waiting = [fetch_chat(gateway.url, "echo", key=each) for each in new]
        assert {reply.status for reply in await asyncio.gather(*waiting)} == {200}
        monkeypatch.undo()
        fetched = len(server.requests) - asked
        assert 2 <= fetched <= 6  # a configuration and its keys; not all 20 need have waited for the first
        # The withdrawn key's tokens are none any more, also those that had been accepted.
        assert (await fetch_chat(gateway.url, "echo", key=token(FIRST, server.url))).status == 401
        for number in range(30):
            stranger = token(SigningKey("EdDSA", f"k{number}"), server.url)
            assert (await fetch_chat(gateway.url, "echo", key=stranger)).status == 401
        assert len(server.requests) - asked == fetched


async def test_an_accepted_token_ends_with_its_key(tmp_path: Path) -> None:
    async with served(tmp_path, "50ms") as (gateway, server, issuer):
        await until(200, gateway.url, held := token(FIRST, server.url))
        issuer.keys = [SECOND]
        await until(401, gateway.url, held)


@pytest.mark.parametrize(
    "fault", [silent, hang_up, error(500), raw(b"junk"), whole(200, {"keys": []}), whole(200, b"[")],
    ids=["silent", "hang up", "500", "no http", "no keys", "no json"],
)  # fmt: skip
async def test_a_failing_issuer_disturbs_nobody_who_has_a_key_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Script
) -> None:
    async with served(tmp_path) as (gateway, server, _):
        monkeypatch.setattr(jwks, "PAUSE", 0.0)
        monkeypatch.setattr(jwks, "PATIENCE", 1.0)
        reached = asyncio.Event()

        async def faulty(call: Call) -> None:
            reached.set()
            await fault(call)

        server.script = faulty
        async with RawClient(gateway.url) as unknown:
            await unknown.chat("echo", key=token(SECOND, server.url))
            await asyncio.wait_for(reached.wait(), 5)
            assert (await fetch_chat(gateway.url, "echo", key=token(FIRST, server.url, sub="bob"))).status == 200
            assert (await unknown.read()).status == 401
        assert (await fetch_chat(gateway.url, "echo", key=token(FIRST, server.url, sub="eve"))).status == 200


async def test_a_reload_keeps_the_keys(tmp_path: Path) -> None:
    async with served(tmp_path) as (gateway, server, _):
        server.script = error(500)
        await gateway.reload()
        assert (await fetch_chat(gateway.url, "echo", key=token(FIRST, server.url))).status == 200


async def test_r14_a_bad_token_is_refused_before_the_body_comes(tmp_path: Path) -> None:
    async with served(tmp_path) as (gateway, server, _):
        for bad in (token(FIRST, server.url, exp=1), "a.b.c"):
            async with RawClient(gateway.url) as client:
                headers = {"Authorization": f"Bearer {bad}", "Content-Length": "50000000"}
                await client.request("POST", "/v1/chat/completions", headers | {"Content-Type": "application/json"})
                assert (await client.read()).status == 401


async def test_r58_no_token_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with served(tmp_path) as (gateway, server, _):
        await until(200, gateway.url, good := token(FIRST, server.url))
        tokens = [good, token(FIRST, server.url, exp=1, canary="3fK9w2QzLm"), token(SECOND, server.url)]
        answers = [(await fetch_chat(gateway.url, "echo", key=each)).body for each in tokens]
    told = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records).encode() + b"".join(answers)
    assert b"ExpiredSignatureError" in told  # the reason is there
    for part in {part for each in tokens for part in each.split(".")[1:]}:
        assert not [form for form in disguises(part) if form in told]


def test_r03_a_gateway_with_tokens_may_listen_anywhere(gateway_server: GatewayFactory) -> None:
    text = '[server]\nhost = "0.0.0.0"\n[plugins]\nchain = ["$plugin"]\n[providers.echo]\ntype = "echo"\n'
    settings = '[plugins.auth_jwt]\naudience = "a"\nissuer = "http://127.0.0.1:9"\n'
    gateway_server(text + settings, plugin="auth_jwt")
    with pytest.raises(RuntimeError, match="loopback"):
        gateway_server(text, plugin="request_id")
