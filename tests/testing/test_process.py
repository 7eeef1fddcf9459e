from __future__ import annotations

import signal
import stat
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.testing import GatewayFactory, GatewayProcess, Metrics, ScriptedUpstream, as_asked, fetch, fetch_chat

ECHO = '[providers.echo]\ntype = "echo"\n'
# A plugin that leaves what a clean process must not leave behind.
DIRTY = """
import asyncio
from gateway import hookimpl

async def nobody_waits():
    raise ValueError("lost")

class Plugin:
    def __init__(self, settings, runtime):
        pass

    @hookimpl
    def on_request(self, exchange):
        self.task = asyncio.get_running_loop().create_task(nobody_waits())

    @hookimpl
    def on_finish(self, exchange):
        self.task = None
"""


async def test_values_stand_in_the_configuration(gateway_server: GatewayFactory) -> None:
    config = """
        [providers.stub]
        type = "openai_compat"
        base_url = "$url/v1"
        api_key = "env:STUB_KEY"
        [models.m]
        targets = [{ provider = "stub" }]
    """
    async with ScriptedUpstream(as_asked()) as upstream:
        gateway = gateway_server(config, env={"STUB_KEY": "sk-test"}, url=upstream.url)
        assert (await fetch_chat(gateway.url, "m")).status == 200
        assert upstream.calls[0].header("authorization") == "Bearer sk-test"
        assert stat.S_IMODE(gateway.config_path.stat().st_mode) == 0o600
        await gateway.stop()
    assert gateway.process.returncode == 0


async def test_logs_and_metrics_can_be_read(gateway_server: GatewayFactory) -> None:
    gateway = gateway_server(ECHO)
    reply = await fetch_chat(gateway.url, "echo")
    (line,) = await gateway.wait_log(id=reply.header("x-request-id"))
    assert line["status"] == 200
    assert (await gateway.metrics()).samples
    with pytest.raises(TimeoutError):
        await gateway.wait_log(within=0.05, id="another")


def test_metrics_are_summed_over_the_labels_left_out() -> None:
    metrics = Metrics('# TYPE a counter\na_total{x="1",y="1"} 2\na_total{x="1",y="2"} 3\na_total{x="2",y="1"} 5\n')
    assert metrics.value("a_total", x="1") == 5
    assert metrics.value("a_total") == 10
    assert metrics.value("b_total") == 0


def test_a_gateway_that_does_not_start_shows_why(gateway_server: GatewayFactory) -> None:
    with pytest.raises(RuntimeError, match=r"did not start[^$]*no_such_type"):
        gateway_server('[providers.x]\ntype = "no_such_type"\n')


@pytest.fixture
def dirty(tmp_path: Path) -> Iterator[GatewayProcess]:
    (tmp_path / "dirty.py").write_text(DIRTY)
    process = GatewayProcess(tmp_path, f'{ECHO}[plugins]\nfolders = ["."]\nchain = ["dirty"]\n')
    yield process.start()
    process.kill()


async def test_an_unclean_end_fails(dirty: GatewayProcess) -> None:
    await fetch_chat(dirty.url, "echo")
    with pytest.raises(AssertionError, match="never retrieved"):
        await dirty.stop()


async def test_an_unclean_end_can_be_wanted(dirty: GatewayProcess) -> None:
    await fetch_chat(dirty.url, "echo")
    dirty.checked = False
    await dirty.stop()


async def test_a_killed_gateway_fails(gateway_server: GatewayFactory) -> None:
    gateway = gateway_server(ECHO)
    with pytest.raises(AssertionError, match="status -9"):
        await gateway.stop(signal.SIGKILL)


async def test_the_environment_of_the_machine_stays_outside(
    gateway_server: GatewayFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY__SERVER__HOST", "not.an.address")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    gateway = gateway_server(ECHO)
    assert (await fetch(f"{gateway.url}/health/live")).status == 200


async def test_two_gateways_have_different_ports(gateway_server: GatewayFactory) -> None:
    first, second = gateway_server(ECHO), gateway_server(ECHO)
    assert len({first.port, first.admin_port, second.port, second.admin_port}) == 4


def test_a_module_can_share_one(shared_gateway_server: GatewayFactory) -> None:
    with urllib.request.urlopen(f"{shared_gateway_server(ECHO).url}/health/live") as answer:
        assert answer.status == 200
