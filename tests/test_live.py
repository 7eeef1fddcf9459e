"""``GET /targets`` of the admin listener, and asking for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import Target, live
from gateway.admission import Admission
from gateway.config import Admin, Config, Model, Pool, ProviderConfig
from gateway.plugins import Runtime
from gateway.testing import LocalGateway, Script, ScriptedUpstream, fetch, free_ports, hang_up, whole
from gateway.upstream import Upstream

ECHO = '[providers.echo]\ntype = "echo"\n'
COOLING = """
from time import monotonic
from gateway import Target, hookimpl

class Plugin:
    def __init__(self, settings, runtime):
        self.targets = runtime.targets

    @hookimpl
    def on_startup(self):
        self.targets.of(Target("echo", "\\ud800")).cool(monotonic(), 60.0)
"""


async def test_targets_are_told_on_the_admin_listener_only(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/cooling.py").write_text(COOLING)
    async with LocalGateway(tmp_path, ECHO + '[plugins]\nchain = ["cooling"]\n') as gateway:
        told = (await fetch(f"{gateway.admin_url}/targets", "GET")).json
        assert (await fetch(f"{gateway.url}/targets", "GET")).status == 404
    assert told["gates"].keys() <= {"echo"}
    assert 50 < told["targets"]["echo/\ud800"]["wait"] <= 60


async def test_gates_are_told_with_their_limits() -> None:
    config = Config(
        providers={"p": ProviderConfig(type="echo", max_concurrency=3)},
        models={"m": Model(targets=(Target("p", max_concurrency=2),))},
    )
    upstream = Upstream(Pool())
    try:
        admission = Admission(config)
        assert admission.gates["p"].try_enter()
        told = live.told(Runtime(config, upstream, admission=admission), 0.0)
        assert told == {
            "targets": {},
            "gates": {
                "p": {"running": 1, "waiting": 0, "limit": 3, "refused": 0},
                "p/m": {"running": 0, "waiting": 0, "limit": 2, "refused": 0},
            },
        }
        assert live.told(Runtime(Config(), upstream), 0.0) == {"targets": {}, "gates": {}}
    finally:
        await upstream.close()


@pytest.mark.parametrize(
    ("host", "port", "enabled", "url"),
    [
        ("127.0.0.1", 8081, True, "http://127.0.0.1:8081/targets"),
        ("::", 8081, True, "http://[::1]:8081/targets"),
        ("0.0.0.0", 8081, True, "http://127.0.0.1:8081/targets"),
        ("127.0.0.1", 0, True, None),
        ("127.0.0.1", 8081, False, None),
    ],
)
def test_the_address_is_that_of_the_admin_listener(host: str, port: int, enabled: bool, url: str | None) -> None:
    assert live.address(Admin(host=host, port=port, enabled=enabled)) == url


@pytest.mark.parametrize(
    "script",
    [whole(404, b"{}"), whole(200, b"nothing"), whole(200, b"[]"), whole(200, b'{"targets": {}}'), hang_up],
    ids=["404", "no JSON", "a list", "no gates", "nothing"],
)
async def test_who_answers_something_else_is_no_gateway(script: Script) -> None:
    upstream = Upstream(Pool())
    try:
        async with ScriptedUpstream(script) as other:
            with pytest.raises((ValueError, OSError)):
                await live.ask(upstream, f"{other.url}/targets")
        (port,) = free_ports(1)
        with pytest.raises(OSError, match=str(port)):
            await live.ask(upstream, f"http://127.0.0.1:{port}/targets")
    finally:
        await upstream.close()
