"""The distributions people install: built from the source as it is, run from somewhere else."""

from __future__ import annotations

import email
import json
import os
import shutil
import site
import subprocess
import sys
import tarfile
import time
import urllib.request
import venv
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from gateway.testing import free_ports
from tests.meta.sources import CORE, PLUGINS, modules
from tests.support.programs import ROOT

CONFIG = """
[server]
port = {port}
[admin]
port = {admin}
[plugins]
folders = ["dropped"]
chain = ["request_id", "logging", "metrics", "dropped_in"]
[providers.echo]
type = "echo"
"""
DROPPED_IN = """
from gateway import hookimpl

class Plugin:
    def __init__(self, settings, runtime): ...

    @hookimpl
    def on_reply(self, exchange, reply):
        reply.headers["x-dropped-in"] = "yes"
"""
BUILD = "from setuptools import build_meta as b; import sys; print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"
WHERE = """
import json, logging, sys
from importlib.util import find_spec
import gateway, gateway_plugins.middleware.logging as ours
bare = [name for name in ("middleware", "providers", "plugins", "request_id", "rate_limit", "echo") if find_spec(name)]
print(json.dumps([gateway.__file__, ours.__file__, logging.__file__, bare]))
"""


def run(command: Sequence[str | Path], folder: Path, **more: str) -> str:
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    done = subprocess.run(
        command, cwd=folder, env=environment | more, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def build(kind: str, source: Path, target: Path) -> Path:
    if Version(metadata.version("setuptools")) < Version("77"):
        pytest.skip("setuptools of requirements-build.lock is not installed")
    return target / run([sys.executable, "-c", BUILD, kind, str(target)], source).splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: nothing of it is left in the checkout, nothing of earlier builds gets in."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("sdist")
    left_out = shutil.ignore_patterns(".*", "build", "dist", "node_modules", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source / "tree", ignore=left_out)
    return build("sdist", source / "tree", target)


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, so that one is complete."""
    source, target = tmp_path_factory.mktemp("unpacked"), tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(source, filter="data")
    (tree,) = source.iterdir()
    return build("wheel", tree, target)


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the wheel in it; the dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    interpreter = folder / "bin/python"
    install = f"-m pip --python {interpreter} install --no-index --no-deps {wheel}"
    run([sys.executable, *install.split()], folder, PIP_DISABLE_PIP_VERSION_CHECK="1")
    # A path in a .pth file is searched, but .pth files there are not run: no editable install of ours comes in.
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return interpreter


def test_r65_the_wheel_holds_the_repository_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = {str(path) for path in modules(CORE)} | {f"gateway_{path}" for path in modules(PLUGINS)}
    empty = {name for name in names if name.endswith("__init__.py")}
    assert names - empty == (sources | {"gateway/py.typed"}) - empty
    assert sources <= names


def test_the_source_distribution_has_what_an_operator_needs(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"gateway.toml", "requirements.lock", "Makefile", "LICENSE", "CHANGELOG.md", "deploy/nginx.conf"}
    assert wanted <= names
    assert not [name for name in names if name.endswith((".db", ".sqlite", ".pyc"))]


def test_the_metadata_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        described = email.message_from_bytes(archive.read(name))
    assert described["Name"] == "hookgate"
    assert described["Requires-Python"] == ">=3.11"
    assert described.get_payload().startswith("# Hookgate")  # type: ignore[union-attr]


def test_no_plugin_stands_under_a_bare_name(python: Path, tmp_path: Path) -> None:
    core, plugin, standard, bare = json.loads(run([python, "-c", WHERE], tmp_path))
    environment = str(python.parents[1])
    assert core.startswith(environment)
    assert plugin.startswith(environment)
    assert "gateway" not in standard
    assert bare == []


@pytest.mark.parametrize("command", [["-m", "gateway"], ["gateway"]])
def test_the_command_line_runs(python: Path, tmp_path: Path, command: list[str]) -> None:
    program = [python, *command] if command[0] == "-m" else [python.parent / command[0]]
    assert "serve" in run([*program, "--help"], tmp_path)


def test_it_serves_with_a_dropped_in_plugin_from_another_folder(python: Path, tmp_path: Path) -> None:
    port, admin = free_ports(2)
    (tmp_path / "dropped").mkdir()
    (tmp_path / "dropped/dropped_in.py").write_text(DROPPED_IN)
    (tmp_path / "gateway.toml").write_text(CONFIG.format(port=port, admin=admin))
    run([python.parent / "gateway", "check", "--config", "gateway.toml"], tmp_path)
    with (tmp_path / "log").open("wb") as log:
        command = [str(python.parent / "gateway"), "serve", "--config", "gateway.toml"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        answer, dropped_in = ask_echo(port, process)
    finally:
        process.terminate()
        process.wait(10)
    assert answer["choices"][0]["message"]["content"] == "Hello from a wheel"
    assert dropped_in == "yes"
    assert process.returncode == 0, (tmp_path / "log").read_text()


def ask_echo(port: int, process: subprocess.Popen[bytes]) -> tuple[Any, str | None]:
    """The echo provider's answer, and what the dropped-in plugin added to its head."""
    body = {"model": "echo", "messages": [{"role": "user", "content": "Hello from a wheel"}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # 127.0.0.1 is behind no proxy
    deadline = time.monotonic() + 10
    while True:
        try:
            with direct.open(request, timeout=5) as response:
                return json.load(response), response.headers["x-dropped-in"]
        except OSError:
            assert process.poll() is None, "the gateway ended"
            assert time.monotonic() < deadline
            time.sleep(0.05)
