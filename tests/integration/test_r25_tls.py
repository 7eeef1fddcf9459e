"""R25: providers' certificates are always checked, and no pooled connection carries another provider's identity."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from gateway.testing import Call, LocalGateway, ScriptedUpstream, chat, chat_body, fetch, fetch_chat
from tests.support.certificates import Authority

PROVIDER = """
[providers.{name}]
type = "openai_compat"
base_url = "{url}/v1"
headers = {{ X-Provider = "{name}" }}
ca_file = "{ca}"
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def provider(name: str, url: str, authority: Authority, identity: bool = False) -> str:
    text = PROVIDER.format(name=name, url=url, ca=authority.file)
    if identity:
        certificate, key = authority.issue(name)
        text += f'client_cert = "{certificate}"\nclient_key = "{key}"\n'
    return text


async def test_r25_each_provider_shows_its_own_certificate_only(authority: Authority, tmp_path: Path) -> None:
    shown: list[tuple[str | None, str]] = []

    async def look(call: Call) -> None:
        peer = call._writer.get_extra_info("peercert")
        shown.append((call.request.header("x-provider"), peer["subject"][0][0][1]))
        await call.answer(200, chat_body(), {"Content-Type": "application/json"})

    async with ScriptedUpstream(look, tls=authority.server("server", demand=True)) as upstream:
        names = ("alpha", "beta")
        config = "".join(provider(name, upstream.url, authority, identity=True) for name in names)
        async with LocalGateway(tmp_path, config) as gateway:
            for _ in range(5):  # connections wait in the pool, and every other request is the other provider's
                for name in names:
                    assert (await fetch_chat(gateway.url, f"{name}/m")).status == 200
                    upload = f"{gateway.url}/p/{name}/files"  # not by way of the prepared call
                    assert (await fetch(upload, "POST", {"Content-Type": "text/plain"}, b"x")).status == 200
            asked = [fetch_chat(gateway.url, f"{name}/m") for name in names * 10]
            assert {reply.status for reply in await asyncio.gather(*asked)} == {200}
        assert len(upstream.connections) < len(shown), "none was reused"
    assert set(shown) == {("alpha", "alpha"), ("beta", "beta")}
    assert len(shown) == 40


def outdated(authority: Authority) -> ssl.SSLContext:
    context = authority.server("outdated")
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("fault", ["none", "expired", "another host's", "unknown authority", "TLS 1.1"])
async def test_r25_a_provider_that_cannot_be_trusted_is_not_asked(
    authority: Authority, tmp_path: Path, fault: str
) -> None:
    server = {
        "none": lambda: authority.server("good"),
        "expired": lambda: authority.server("expired", days=-1),
        "another host's": lambda: authority.server("elsewhere", host="DNS:elsewhere.test"),
        "unknown authority": lambda: Authority(tmp_path, "stranger").server("strange"),
        "TLS 1.1": lambda: outdated(authority),
    }[fault]()
    async with ScriptedUpstream(chat(), tls=server) as upstream:
        async with LocalGateway(tmp_path, provider("p", upstream.url, authority)) as gateway:
            reply = await fetch_chat(gateway.url, "p/m")
        if fault == "none":
            assert reply.status == 200
        else:
            assert reply.status == 502 and reply.json["error"]["code"] == "upstream_unreachable"
            assert not upstream.requests
