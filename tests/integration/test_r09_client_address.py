"""R09: whose request it is comes from X-Forwarded-For only where the peer is a trusted proxy, walked right to left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.testing import GatewayFactory, GatewayProcess, RawClient
from tests.support.nginx import HOST, Nginx

# A plugin is how the resolved address is seen from outside.
WHOAMI = """
from gateway import Exchange, Reply, hookimpl


class Plugin:
    def __init__(self, settings: None, runtime: object) -> None:
        pass

    @hookimpl
    def on_reply(self, exchange: Exchange, reply: Reply) -> None:
        reply.headers["x-whoami"] = exchange.client_ip
"""
CONFIG = """
[server]
trusted_proxies = ["127.0.0.1/32", "10.0.0.0/8", "2001:db8:aaaa::/48"]

[plugins]
folders = ["$folder"]
chain = ["whoami"]

[providers.echo]
type = "echo"
"""
PROXY, STRANGER = "127.0.0.1", "127.0.0.2"
# Name → (headers, who it is when a trusted proxy says so; None: the proxy itself).
FORMS: dict[str, tuple[list[tuple[str, str]], str | None]] = {
    "none": ([], None),
    "one": ([("X-Forwarded-For", "203.0.113.5")], "203.0.113.5"),
    "forged hop before": ([("X-Forwarded-For", "198.51.100.9, 203.0.113.5")], "203.0.113.5"),
    "through our proxies": ([("X-Forwarded-For", "198.51.100.9, 203.0.113.5,10.1.2.3 , 127.0.0.1")], "203.0.113.5"),
    "only our proxies": ([("X-Forwarded-For", "10.1.2.3, 127.0.0.1")], "10.1.2.3"),
    "header twice": ([("X-Forwarded-For", "198.51.100.9"), ("X-Forwarded-For", "203.0.113.5")], "203.0.113.5"),
    "IPv6": ([("X-Forwarded-For", "2001:DB8::7, 2001:db8:aaaa::1")], "2001:db8::7"),
    "port": ([("X-Forwarded-For", "203.0.113.5:4711")], "203.0.113.5"),
    "IPv6 in brackets with port": ([("X-Forwarded-For", "[2001:db8::7]:443")], "2001:db8::7"),
    "junk": ([("X-Forwarded-For", "unknown")], None),
    "junk after an address": ([("X-Forwarded-For", "198.51.100.9, <script>")], None),
    "empty": ([("X-Forwarded-For", "")], None),
    "empty item": ([("X-Forwarded-For", "198.51.100.9, ,")], None),
    "number": ([("X-Forwarded-For", "3405803781")], None),
    "other names": (
        [("X_Forwarded_For", "198.51.100.1"), ("X-Real-IP", "198.51.100.2"), ("Forwarded", "for=198.51.100.3")],
        None,
    ),
}


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, tmp_path_factory: pytest.TempPathFactory) -> GatewayProcess:
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "whoami.py").write_text(WHOAMI)
    return shared_gateway_server(CONFIG, folder=str(folder))


async def _whoami(url: str, source: str, headers: list[tuple[str, str]], host: str | None = None) -> str | None:
    async with RawClient(url, source=source, host=host) as client:
        await client.chat("echo", headers=headers)
        reply = await client.read()
    assert reply.status == 200
    return reply.header("x-whoami")


@pytest.mark.parametrize("form", FORMS)
async def test_r09_a_trusted_proxy_is_believed(gateway: GatewayProcess, form: str) -> None:
    headers, said = FORMS[form]
    assert await _whoami(gateway.url, PROXY, headers) == (said or PROXY)


@pytest.mark.parametrize("form", FORMS)
async def test_r09_a_stranger_changes_nothing(gateway: GatewayProcess, form: str) -> None:
    assert await _whoami(gateway.url, STRANGER, FORMS[form][0]) == STRANGER


@pytest.fixture(scope="module")
def nginx(gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    front = Nginx(tmp_path_factory.mktemp("nginx"), gateway.port).start()
    yield front
    front.stop()


@pytest.mark.parametrize("form", FORMS)
async def test_r09_behind_nginx_it_is_nginxs_peer(nginx: Nginx, form: str) -> None:
    assert await _whoami(nginx.url, STRANGER, FORMS[form][0], HOST) == STRANGER
