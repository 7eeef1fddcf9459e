"""What the README shows works as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.testing import GatewayFactory, GatewayProcess, LocalGateway, fetch_chat
from tests.support.programs import ROOT, needs_program

README = (ROOT / "README.md").read_text()
ECHO = '[providers.echo]\ntype = "echo"\n'
# Providers of gateway.toml that are somewhere else: a test calls nobody outside.
NOBODY = {
    "GATEWAY__PROVIDERS__OPENAI__BASE_URL": "http://127.0.0.1:9/v1",
    "GATEWAY__PROVIDERS__OLLAMA__BASE_URL": "http://127.0.0.1:9",
}


def block(language: str, having: str) -> str:
    """The one code block of the README in ``language`` that contains ``having``."""
    (found,) = (text for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if having in text)
    return str(found)


@pytest.fixture(scope="module")
def out_of_the_box(shared_gateway_server: GatewayFactory) -> GatewayProcess:
    """The gateway as ``make run`` starts it, on other ports."""
    return shared_gateway_server((ROOT / "gateway.toml").read_text().replace("$", "$$"), env=NOBODY)


def run(command: list[str], folder: Path) -> str:
    environment = {"PATH": os.environ["PATH"], "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=30, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_curl_call_answers(out_of_the_box: GatewayProcess, tmp_path: Path) -> None:
    shown = block("console", "curl http").removeprefix("$ ").replace("http://127.0.0.1:8080", out_of_the_box.url)
    command = shlex.split(shown.replace("\\\n", " "))
    assert '"content":"Hello, gateway"' in run([needs_program("curl"), *command[1:]], tmp_path)


def test_the_sdk_call_answers(out_of_the_box: GatewayProcess, tmp_path: Path) -> None:
    shown = block("python", "OpenAI(").replace("http://127.0.0.1:8080", out_of_the_box.url)
    assert run([sys.executable, "-c", shown], tmp_path) == "Hello, gateway"


def test_the_real_configuration_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(block("toml", "default_provider"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main(["check", "--config", str(config)]) == 1
    assert "OPENAI_API_KEY" in capsys.readouterr().err
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    assert main(["check", "--config", str(config)]) == 0, capsys.readouterr().err


def test_the_commands_of_keys_work_as_they_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gateway.toml").write_text("[state]\nkeys = true\n")
    for line in block("console", "gateway keys create").splitlines():
        prompt, program, *arguments = shlex.split(line, comments=True)
        assert (prompt, program) == ("$", "gateway")
        assert main(arguments) == 0, capsys.readouterr().err


async def test_the_plugin_runs_when_it_is_dropped_in_and_named(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/motto.py").write_text(block("python", "class Plugin"))
    async with LocalGateway(tmp_path, block("toml", "[plugins.motto]") + ECHO) as gateway:
        reply = await fetch_chat(gateway.url, "echo")
    assert reply.status == 200
    assert reply.header("x-motto") == "memento mori"


async def test_the_plugin_needs_no_settings(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/motto.py").write_text(block("python", "class Plugin"))
    async with LocalGateway(tmp_path, '[plugins]\nchain = ["motto"]\n' + ECHO) as gateway:
        assert (await fetch_chat(gateway.url, "echo")).header("x-motto") == "carpe diem"


COMMANDS = sorted(set(re.findall(r"`gateway ((?:keys )?[a-z]+)", README)))


def test_commands_are_named() -> None:
    assert {"serve", "check", "keys new", "models", "plugins"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_named_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert f"gateway {command}" in capsys.readouterr().out


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z]+)", README))))
def test_every_make_target_named_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"\]\(([\w/.]+)\)|`((?:deploy/|Containerfile)[\w./]*)`", README)))
)
def test_every_file_named_exists(path: tuple[str, str]) -> None:
    assert (ROOT / "".join(path)).is_file()


def test_every_response_header_named_is_set_somewhere() -> None:
    sources = "".join(file.read_text() for folder in ("gateway", "plugins") for file in (ROOT / folder).rglob("*.py"))
    named = set(re.findall(r"`(x-gateway-[a-z-]+|x-request-id)`", README))
    assert len(named) >= 4
    assert all(name in sources for name in named)
