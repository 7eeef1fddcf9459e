"""R21 and R24: one shared session, and yet nothing of one request, tenant or provider reaches another."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from gateway.testing import Call, GatewayFactory, ScriptedUpstream, chat, chat_body, error, fetch, fetch_chat

CONFIG = """
default_provider = "one"
[providers.one]
type = "openai_compat"
base_url = "$one/v1"
api_key = "env:KEY_ONE"
[providers.two]
type = "openai_compat"
base_url = "$two/v1"
api_key = "env:KEY_TWO"
[providers.three]
type = "openai_compat"
base_url = "$three/v1"
[models.m]
targets = [{ provider = "one" }]
fallbacks = ["n", "o"]
[models.n]
targets = [{ provider = "two" }]
[models.o]
targets = [{ provider = "three" }]
"""
ENV = {"KEY_ONE": "sk-the-first-providers", "KEY_TWO": "sk-the-second-providers"}
JSON = {"Content-Type": "application/json", "Authorization": "Bearer sk-the-clients"}


async def cookies(call: Call) -> None:
    fields = [("Content-Type", "application/json"), ("Set-Cookie", "session=alice; Path=/"), ("Set-Cookie", "b=2")]
    await call.answer(200, chat_body(), fields)


async def test_r24_no_cookie_proxy_or_netrc(gateway_server: GatewayFactory, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(
        "default login mallory password netrc-secret\nmachine 127.0.0.1 login mallory password netrc-secret\n"
    )
    netrc.chmod(0o600)
    async with ScriptedUpstream(cookies) as one, ScriptedUpstream(cookies) as two, ScriptedUpstream(chat()) as proxy:
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
        env = ENV | dict.fromkeys(names, proxy.url) | {"NETRC": str(netrc)}
        gateway = gateway_server(CONFIG, env=env, one=one.url, two=two.url, three=two.url)
        for turn in range(100):
            model, tenant = ("m", "alice") if turn % 2 else ("o", "bob")
            reply = await fetch_chat(gateway.url, model, headers={"Cookie": f"of={tenant}"})
            assert reply.status == 200
            assert reply.header("set-cookie") is None
        assert (await fetch(f"{gateway.url}/v1/models")).status == 200
        received = one.requests + two.requests
        assert len(one.calls) == len(two.calls) == 50
        assert all(call.header("cookie") is None for call in received)
        assert {call.header("authorization") for call in one.requests} == {f"Bearer {ENV['KEY_ONE']}"}
        # "three" has no key: netrc must not lend it one. Its model list is asked of the same host as that of "two".
        assert {call.header("authorization") for call in two.calls} == {None}
        assert not proxy.connections


async def test_r21_a_key_reaches_its_own_origin_only(gateway_server: GatewayFactory) -> None:
    async with (
        ScriptedUpstream(error(500)) as one,
        ScriptedUpstream(error(503)) as two,
        ScriptedUpstream(chat()) as three,
    ):
        gateway = gateway_server(CONFIG, env=ENV, one=one.url, two=two.url, three=three.url)
        reply = await fetch_chat(gateway.url, "m")  # falls from one to two to three
        assert reply.status == 200 and reply.header("x-gateway-target") == "three/o"
        for name in ("one", "two", "three"):
            for path in ("x", "@evil.test/x", "http://evil.test/x", "..;/x", "%2e%2e/x"):
                await fetch(f"{gateway.url}/p/{name}/{path}", headers=JSON)
        for method, path, body in (
            ("POST", "embeddings", b'{"model":"one/e","input":"x"}'),
            ("POST", "responses", b'{"model":"two/r","input":"x"}'),
            ("GET", "files", None),
            ("GET", "models", None),
        ):
            await fetch(f"{gateway.url}/v1/{path}", method, JSON, body)
        seen = [Counter(call.header("authorization") for call in each.requests) for each in (one, two, three)]
        assert set(seen[0]) == {f"Bearer {ENV['KEY_ONE']}"} and seen[0].total() > 3
        assert set(seen[1]) == {f"Bearer {ENV['KEY_TWO']}"} and seen[1].total() > 3
        assert set(seen[2]) == {None} and seen[2].total() > 2
        assert not any(b"sk-the-clients" in call.head.raw for each in (one, two, three) for call in each.requests)
