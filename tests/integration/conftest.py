"""One gateway per module with a provider port of its own, reached directly and through a real nginx."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator

import attrs
import pytest

from gateway.testing import (
    GatewayFactory,
    GatewayProcess,
    RawClient,
    Response,
    ScriptedUpstream,
    as_asked,
    fetch,
    fetch_chat,
    free_ports,
)
from gateway.testing.wire import Headers, pairs
from tests.support.nginx import HOST, Nginx

KEY = "hg-integration-alice"
SECRET = "sk-the-providers-own-secret"
CONFIG = f"""
default_provider = "stub"

[retry]
attempts = 1
[breaker]
failures = 0
error_rate = 0

[plugins.rate_limit]
requests_per_minute = 10_000_000

[keys.alice]
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"

[providers.stub]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/base/v1"
api_key = "env:STUB_KEY"

[models.m]
targets = [{{ provider = "stub" }}]
"""


@attrs.frozen
class Door:
    """A way into the gateway."""

    name: str
    url: str
    host: str | None = None
    """The ``Host`` to ask for; ``None``: the address."""

    def client(self, *, source: str | None = None) -> RawClient:
        return RawClient(self.url, host=self.host, source=source)

    async def fetch(
        self, target: str, method: str = "GET", headers: Headers = (), body: bytes | None = None
    ) -> Response:
        """One request with alice's key."""
        fields = [("Authorization", f"Bearer {KEY}"), *pairs(headers)]
        return await fetch(self.url + target, method, fields, body, host=self.host)

    async def chat(self, content: str = "hi", *, model: str = "m", headers: Headers = (), **fields: object) -> Response:
        return await fetch_chat(self.url, model, content, host=self.host, key=KEY, headers=headers, **fields)


@pytest.fixture(scope="module")
def provider_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, provider_port: int) -> GatewayProcess:
    return shared_gateway_server(CONFIG, env={"STUB_KEY": SECRET}, port=str(provider_port))


@pytest.fixture
async def upstream(provider_port: int) -> AsyncIterator[ScriptedUpstream]:
    """The provider of ``gateway``; it answers chat as asked until a test assigns another script."""
    async with ScriptedUpstream(as_asked(), port=provider_port) as scripted:
        yield scripted


@pytest.fixture(scope="module")
def nginx(gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    front = Nginx(tmp_path_factory.mktemp("nginx"), gateway.port).start()
    yield front
    front.stop()


@pytest.fixture(params=["direct", "nginx"])
def door(request: pytest.FixtureRequest, gateway: GatewayProcess) -> Door:
    """Every test that uses it runs twice."""
    if request.param == "direct":
        return Door("direct", gateway.url)
    front: Nginx = request.getfixturevalue("nginx")
    return Door("nginx", front.url, HOST)
