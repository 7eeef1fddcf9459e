"""One gateway for all clients, in front of one scripted provider of three dialects."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator

import pytest

from gateway.testing import GatewayFactory, GatewayProcess, ScriptedUpstream, free_ports, hang_up
from tests.clients.clients import KEY
from tests.support.vendors import CITIES, Vendors

CONFIG = f"""
[retry]
attempts = 1
[breaker]
failures = 0
error_rate = 0
[plugins.rate_limit]
requests_per_minute = 0
[keys.alice]
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
[providers.openai]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/openai/v1"
responses = false
[providers.anthropic]
type = "anthropic"
base_url = "http://127.0.0.1:$port/anthropic/v1"
[providers.gemini]
type = "gemini"
base_url = "http://127.0.0.1:$port/gemini/v1beta"
[models.by-openai]
targets = [{{ provider = "openai" }}]
[models.by-anthropic]
targets = [{{ provider = "anthropic" }}]
[models.by-gemini]
targets = [{{ provider = "gemini" }}]
"""


@pytest.fixture(scope="session")
def provider_port() -> int:
    return free_ports(1)[0]


def _serve(upstream: ScriptedUpstream) -> Iterator[None]:
    """In a thread of its own: clients are waited for without an event loop."""
    with asyncio.Runner() as runner:
        runner.run(upstream.__aenter__())
        loop = runner.get_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        yield
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        runner.run(upstream.__aexit__(None, None, None))


@pytest.fixture(scope="session")
def provider(provider_port: int) -> Iterator[Vendors]:
    """The provider behind every model."""
    vendors = Vendors()
    yield from (vendors for _ in _serve(ScriptedUpstream(vendors, port=provider_port)))


@pytest.fixture(scope="session", autouse=True)
def outside() -> Iterator[ScriptedUpstream]:
    """The proxy of all clients: what they want of any other host than the gateway's comes here, and is nothing."""
    upstream = ScriptedUpstream(hang_up)
    yield from (upstream for _ in _serve(upstream))
    assert [request.head.start for request in upstream.requests] == []


@pytest.fixture
def vendors(provider: Vendors) -> Iterator[Vendors]:
    """The provider, for a test with a plan of its own."""
    provider.asked.clear()
    yield provider
    provider.plan = CITIES


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, provider: Vendors, provider_port: int) -> GatewayProcess:
    return shared_gateway_server(CONFIG, port=str(provider_port))
