"""R02: aiohttp at least as new as its last known smuggling fix, with its C parser."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from gateway.testing import GatewayFactory
from tests.support.programs import ROOT

FLOORS = {
    "aiohttp": "3.14.5",  # CVE-2026-111750 (fixed in 3.14.4) and the regressions of that fix
}
"""Distribution → the oldest version without a known advisory that concerns us."""
ECHO = '[providers.echo]\ntype = "echo"\n'


def test_r02_the_pure_python_parser_is_refused_at_start(gateway_server: GatewayFactory) -> None:
    with pytest.raises(RuntimeError, match=r"did not start\n+.*aiohttp.* C extensions"):
        gateway_server(ECHO, env={"AIOHTTP_NO_EXTENSIONS": "1"})


def test_r02_the_refusal_is_an_exit_status_and_one_line() -> None:
    command = [sys.executable, "-m", "gateway", "serve", "--config", "gateway.toml"]
    ended = subprocess.run(
        command, cwd=ROOT, env={"AIOHTTP_NO_EXTENSIONS": "1"}, capture_output=True, text=True, timeout=20, check=False
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("name", FLOORS)
def test_r02_nothing_older_is_installed_or_allowed(name: str) -> None:
    floor = Version(FLOORS[name])
    assert Version(version(name)) >= floor
    declared = [
        Requirement(line.strip())
        for line in (ROOT / "setup.cfg").read_text().splitlines()
        if line.strip().startswith(name)
    ]
    exact = [requirement for requirement in declared if requirement.name == name]
    assert exact, f"{name} is not declared in setup.cfg"
    assert all(not requirement.specifier.contains(_just_below(floor)) for requirement in exact)


@pytest.mark.parametrize("name", FLOORS)
def test_r02_nothing_older_is_locked(name: str) -> None:
    locked = {
        path.name: Version(found[1])
        for path in ROOT.glob("requirements*.lock")
        if (found := re.search(rf"^{name}==([\w.]+)", path.read_text(), re.MULTILINE))
    }
    assert "requirements.lock" in locked
    assert {lock: pinned for lock, pinned in locked.items() if pinned < Version(FLOORS[name])} == {}


def _just_below(floor: Version) -> Version:
    *rest, last = floor.release
    return Version(".".join(map(str, [*rest, last - 1])))
