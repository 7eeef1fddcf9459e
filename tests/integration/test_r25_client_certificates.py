"""R25: a certificate that nginx has verified says who is calling; what anybody else says of one says nothing."""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.testing import LocalGateway, RawClient, Response, ScriptedUpstream, as_asked, fetch_chat
from gateway.testing.wire import Headers
from tests.support.certificates import Authority
from tests.support.issuer import SigningKey, claims, key_set
from tests.support.nginx import HOST, Nginx

KEY = "hg-alice-0123456789abcdef"
ALICE, BOB = "CN=alice,O=Example", "CN=bob,O=Example"
SIGNER = SigningKey("EdDSA", "k")
CONFIG = f"""
[server]
host = "@host"
trusted_proxies = ["127.0.0.1/32"]
[plugins]
chain = ["request_id", "logging", "auth", "auth_mtls", "rate_limit"]
[plugins.auth_mtls]
principals = {{ "{ALICE}" = "alice", "@fingerprint" = "bob" }}
[keys.alice]
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
models = ["m"]
[keys.bob]
[providers.stub]
type = "openai_compat"
base_url = "@upstream/v1"
[models.m]
targets = [{{ provider = "stub" }}]
[models.other]
targets = [{{ provider = "stub" }}]
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def identities(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ssl.SSLContext]:
    """What clients come with, by name."""
    stranger = Authority(tmp_path_factory.mktemp("stranger"), "stranger")
    foreign = authority.client()
    foreign.load_cert_chain(*stranger.issue("foreign", subject="/O=Example/CN=alice"))
    return {
        "alice": authority.client("alice", subject="/O=Example/CN=alice"),
        "bob": authority.client("bob", subject="/O=Example/CN=bob"),
        "nobody": authority.client("nobody", subject="/O=Example/CN=alice/CN=nobody"),
        "expired": authority.client("expired", subject="/O=Example/CN=alice", days=-1),
        "foreign": foreign,
        "none": authority.client(),
    }


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(as_asked()) as server:
        yield server


def fingerprint(authority: Authority, name: str) -> str:
    command = ["openssl", "x509", "-noout", "-fingerprint", "-sha1", "-in", str(authority.file.parent / f"{name}.pem")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().partition("=")[2]


@pytest.fixture
def config(upstream: ScriptedUpstream, authority: Authority, identities: dict[str, ssl.SSLContext]) -> str:
    return (
        CONFIG.replace("@upstream", upstream.url)
        .replace("@fingerprint", fingerprint(authority, "bob"))
        .replace("@host", "127.0.0.1")
    )


@pytest.fixture
async def gateway(tmp_path: Path, config: str) -> AsyncIterator[LocalGateway]:
    async with LocalGateway(tmp_path, config) as gateway:
        yield gateway


@contextmanager
def nginx(folder: Path, authority: Authority, port: int, verify: str, address: str | None = None) -> Iterator[Nginx]:
    """The file we deploy with its TLS lines in; ``verify`` is ``ssl_verify_client``, ``address`` the gateway's where it
    is no port."""
    front = Nginx(folder, port)
    certificate, key = authority.issue("front", host=f"DNS:{HOST}")
    for line, tls in (
        (f"listen 127.0.0.1:{front.port};", f"listen 127.0.0.1:{front.port} ssl; ssl_certificate {certificate};"
                                            f"ssl_certificate_key {key};"),
        ("# ssl_reject_handshake on;", "ssl_reject_handshake on;"),
        ("# ssl_client_certificate /etc/nginx/clients.pem;", f"ssl_client_certificate {authority.file};"),
        ("# ssl_verify_client on;", f"ssl_verify_client {verify};"),
        (f"server 127.0.0.1:{port};", f"server {address or f'127.0.0.1:{port}'};"),
    ):  # fmt: skip
        assert front.config.count(line) == 1
        front.config = front.config.replace(line, tls)
    front.start()
    try:
        yield front
    finally:
        front.stop()


def port(gateway: LocalGateway) -> int:
    return int(gateway.url.rpartition(":")[2])


async def ask(
    url: str, identity: ssl.SSLContext | None = None, model: str = "m", headers: Headers = (), key: str | None = None
) -> Response:
    async with RawClient(url, host=HOST, tls=identity) as client:
        await client.chat(model, headers=headers, key=key)
        return await client.read()


def claimed(subject: str = ALICE, verify: str = "SUCCESS") -> list[tuple[str, str]]:
    """What nginx would say."""
    return [("X-SSL-Client-Verify", verify), ("X-SSL-Client-S-DN", subject)]


def served(gateway: LocalGateway) -> list[str | None]:
    return [exchange.principal and exchange.principal.name for exchange in gateway.exchanges]  # type: ignore[misc]


Identities = dict[str, ssl.SSLContext]


async def test_r25_a_verified_certificate_is_served_as_its_holder(
    tmp_path: Path, authority: Authority, identities: Identities, gateway: LocalGateway, upstream: ScriptedUpstream
) -> None:
    with nginx(tmp_path, authority, port(gateway), "on") as front:
        assert (await ask(front.url, identities["alice"])).status == 200
        assert (await ask(front.url, identities["alice"], "other")).status == 403
        assert (await ask(front.url, identities["bob"], "other", key="sk-any")).status == 200
    assert served(gateway) == ["alice", "alice", "bob"]
    assert [name for call in upstream.calls for name, _ in call.headers if "ssl" in name.lower()] == []
    assert all(b"Example" not in call.head.raw for call in upstream.calls)


async def test_r25_certificate_and_key_share_their_holders_limits(tmp_path: Path, config: str) -> None:
    async with LocalGateway(
        tmp_path, config.replace("[keys.alice]", "[keys.alice]\nrequests_per_minute = 2")
    ) as gateway:
        assert (await fetch_chat(gateway.url, "m", headers=claimed())).status == 200
        assert (await fetch_chat(gateway.url, "m", key=KEY)).status == 200
        assert (await fetch_chat(gateway.url, "m", headers=claimed())).status == 429


@pytest.mark.parametrize("who", ["none", "expired", "foreign"])
async def test_r25_nginx_turns_away_who_has_no_good_certificate(
    tmp_path: Path, authority: Authority, identities: Identities, gateway: LocalGateway, who: str
) -> None:
    with nginx(tmp_path, authority, port(gateway), "on") as front:
        refused = await ask(front.url, identities[who], headers=claimed(), key=KEY)
    assert refused.status == 401 and refused.json["error"]["code"] == "invalid_api_key"
    assert gateway.exchanges == []


@pytest.mark.parametrize(
    ("who", "status"),
    [("alice", 200), ("bob", 200), ("nobody", 401), ("none", 401), ("expired", 401), ("foreign", 401)],
)
async def test_r25_the_gateway_does_not_leave_it_to_nginx(
    tmp_path: Path, authority: Authority, identities: Identities, gateway: LocalGateway, who: str, status: int
) -> None:
    with nginx(tmp_path, authority, port(gateway), "optional_no_ca") as front:
        assert (await ask(front.url, identities[who])).status == status
        # A client cannot say it in nginx's place, whatever its own certificate is.
        for headers in (claimed(), claimed(BOB), [(name.replace("-", "_"), value) for name, value in claimed()]):
            assert (await ask(front.url, identities[who], headers=headers)).status == status
    assert set(served(gateway)) == ({who} if status == 200 else set() if who == "expired" else {None})


async def test_r25_beside_a_certificate_that_is_nobodys_a_key_counts(
    tmp_path: Path, authority: Authority, identities: Identities, gateway: LocalGateway
) -> None:
    with nginx(tmp_path, authority, port(gateway), "optional") as front:
        for who in ("none", "nobody"):
            assert (await ask(front.url, identities[who], key=KEY)).status == 200
    assert served(gateway) == ["alice", "alice"]


async def test_r25_nobody_but_the_proxy_is_believed(tmp_path: Path, gateway: LocalGateway) -> None:
    async with RawClient(gateway.url, source="127.0.0.2") as stranger:
        await stranger.chat("m", headers=claimed())
        assert (await stranger.read()).status == 401
        await stranger.chat("m", headers=claimed(), key=KEY)
        assert (await stranger.read()).status == 200
    assert (await fetch_chat(gateway.url, "m", headers=claimed(verify="FAILED:x"))).status == 401
    assert (await fetch_chat(gateway.url, "m", headers=claimed() * 2)).status == 401
    assert (await fetch_chat(gateway.url, "m", headers=claimed())).status == 200  # else all could be refused


async def test_r25_where_no_certificates_are_asked_for_nothing_passes_for_one(
    tmp_path: Path, gateway: LocalGateway
) -> None:
    front = Nginx(tmp_path, port(gateway)).start()  # as it is deployed, without TLS
    try:
        assert (await ask(front.url, headers=claimed())).status == 401
        assert (await ask(front.url, headers=claimed(), key=KEY)).status == 200
    finally:
        front.stop()


async def test_r25_the_proxy_may_come_by_a_unix_socket(
    tmp_path: Path, authority: Authority, identities: Identities, config: str
) -> None:
    address = f"unix:{tmp_path}/s"
    async with LocalGateway(tmp_path, config.replace('host = "127.0.0.1"', f'host = "{address}"')) as gateway:
        with nginx(tmp_path, authority, 9, "optional", address) as front:
            assert (await ask(front.url, identities["alice"])).status == 200
            assert (await ask(front.url, identities["none"], headers=claimed())).status == 401
        assert served(gateway) == ["alice", None]


@pytest.mark.parametrize("host", ["127.0.0.1", "unix:/tmp/never"])
async def test_r25_it_does_not_start_where_nobody_is_believed(tmp_path: Path, config: str, host: str) -> None:
    text = config.replace('["127.0.0.1/32"]', "[]").replace('host = "127.0.0.1"', f'host = "{host}"')
    with pytest.raises(ConfigError, match="trusted_proxies must have the address of the proxy"):
        async with LocalGateway(tmp_path, text):
            pass


async def test_r14_a_certificate_is_refused_before_the_body_comes(gateway: LocalGateway) -> None:
    for headers in (claimed(verify="FAILED:x"), claimed("CN=nobody"), []):
        for path in ("/v1/chat/completions", "/v1/files", "/p/stub/x", "/v1/messages"):
            async with RawClient(gateway.url) as client:
                await client.request("POST", path, [*headers, ("Content-Length", "50000000")])
                assert (await client.read()).status == 401


async def test_keys_certificates_and_tokens_stand_beside_each_other(tmp_path: Path, config: str) -> None:
    (tmp_path / "keys.json").write_text(json.dumps(key_set(SIGNER)))
    text = config.replace('"auth_mtls",', '"auth_mtls", "auth_jwt",')
    text += f'[plugins.auth_jwt]\naudience = "hookgate"\njwks = "file:{tmp_path}/keys.json"\n'
    token = SIGNER.sign(claims(sub="carol"))
    async with LocalGateway(tmp_path, text) as gateway:
        for headers, credential, who in (
            ([], KEY, "alice"),
            (claimed(), None, "alice"),
            (claimed(), token, "alice"),
            (claimed("CN=nobody"), token, "jwt:carol"),
            (claimed(verify="NONE"), token, "jwt:carol"),
            (claimed(verify="FAILED:x"), token, None),
            (claimed() * 2, token, None),
            (claimed("CN=nobody"), None, None),
            ([], token[:-4] + "AAAA", None),
            ([], None, None),
        ):
            gateway.exchanges.clear()
            reply = await fetch_chat(gateway.url, "m", headers=headers, key=credential)
            assert (reply.status, served(gateway)) == (401 if who is None else 200, [who])


async def test_r03_a_gateway_with_certificates_may_listen_anywhere(tmp_path: Path, config: str) -> None:
    text = config.replace('host = "127.0.0.1"', 'host = "0.0.0.0"').replace('"auth", ', "")
    async with LocalGateway(tmp_path, text) as gateway:
        url = gateway.url.replace("0.0.0.0", "127.0.0.1")
        assert (await fetch_chat(url, "m")).status == 401
        assert (await fetch_chat(url, "m", headers=claimed())).status == 200
