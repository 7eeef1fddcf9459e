"""The systemd unit against what the gateway and R66 say."""

from __future__ import annotations

import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from gateway.config import Server
from tests.support.programs import ROOT

UNIT = ROOT / "deploy/hookgate.service"


def settings() -> dict[str, list[str]]:
    found = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found[name].append(value)
    return found


SETTINGS = settings()


def test_running_streams_may_finish_before_systemd_kills() -> None:
    assert float(SETTINGS["TimeoutStopSec"][0]) > Server().drain_delay + Server().shutdown_grace
    assert SETTINGS["KillSignal"] == ["SIGTERM"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("AmbientCapabilities", ""),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("RestrictNamespaces", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("UMask", "0077"),
    ],
)
def test_r66_it_may_do_nothing_it_need_not(name: str, value: str) -> None:
    assert SETTINGS[name] == [value]


@pytest.mark.parametrize("name", ["MemoryMax", "TasksMax", "LimitNOFILE", "User", "SystemCallFilter"])
def test_r66_it_is_limited(name: str) -> None:
    assert SETTINGS[name]
    assert SETTINGS["User"] != ["root"]


@pytest.mark.parametrize("name", ["ExecStart", "ExecStartPre", "ExecReload"])
def test_the_commands_are_the_gateways(name: str) -> None:
    (command,) = SETTINGS[name]
    program, verb, option, _ = command.split()
    assert Path(program).name == "gateway"
    assert verb in ("serve", "check", "reload")
    assert option == "--config"


def test_systemd_accepts_it(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    # verify wants the program to be there, which a checkout cannot promise.
    unit = tmp_path / "hookgate.service"
    unit.write_text(UNIT.read_text().replace("/opt/hookgate/bin/gateway", "/bin/true"))
    done = subprocess.run([program, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
