"""R57: liveness asks nobody and answers while everything else is busy; neither probe tells anything."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from gateway.testing import GatewayFactory, RawClient, fetch, free_ports

CONFIG = """
[plugins.rate_limit]
requests_per_minute = 0
[providers.echo]
type = "echo"
[providers.dead]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
"""
BODY = "x" * (1 << 20)


@pytest.mark.alone
async def test_r57_liveness_answers_under_saturation(gateway_server: GatewayFactory) -> None:
    gateway = gateway_server(CONFIG, port=str(free_ports(1)[0]))
    over = False

    async def load() -> None:
        async with RawClient(gateway.url, timeout=60) as client:
            while not over:
                await client.chat("echo", BODY)
                assert (await client.read()).status == 200

    seconds: list[float] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(12):
            group.create_task(load())
        async with RawClient(gateway.url) as prober:
            for _ in range(60):
                began = monotonic()
                await prober.request("GET", "/health/live")
                assert (await prober.read()).status == 200
                seconds.append(monotonic() - began)
                await asyncio.sleep(0.03)
        over = True
    # The clients of this test share the machine with the gateway; the requirement's bound is 0.1 s on one of its own.
    assert sorted(seconds)[len(seconds) * 9 // 10] < 1.0


@pytest.mark.parametrize("target", ["/health/live", "/health/ready"])
async def test_r57_probes_ask_no_provider_and_tell_nothing(gateway_server: GatewayFactory, target: str) -> None:
    gateway = gateway_server(CONFIG, port=str(free_ports(1)[0]))
    assert (await fetch(f"{gateway.url}/health")).json["providers"]["dead"]["status"] == "failing"
    reply = await fetch(gateway.url + target)
    assert (reply.status, reply.body) == (200, b"ok\n")


async def test_r57_a_refused_reload_leaves_the_gateway_ready(gateway_server: GatewayFactory) -> None:
    gateway = gateway_server(CONFIG, port=str(free_ports(1)[0]))
    gateway.config_path.write_text("[nonsense]\n")
    assert (await fetch(f"{gateway.admin_url}/reload", "POST")).status == 422
    assert (await fetch(f"{gateway.url}/health/ready")).status == 200
