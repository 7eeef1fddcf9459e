"""The ``gateway`` command: exit status, and what it prints where."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from string import Template

import pytest

from gateway.cli import main
from gateway.testing import GatewayFactory, fetch_chat, free_ports
from tests.support.programs import ROOT

ECHO = '[providers.echo]\ntype = "echo"\n'
NEEDS = {"explain": ("--model", "m")}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``gateway.toml`` in the working directory: where every command looks by default."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "gateway.toml"
    path.touch(mode=0o600)
    path.write_text(ECHO)
    return path


def test_check_says_so_when_all_is_well(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert capsys.readouterr().out == "gateway.toml: no problems\n"


def test_check_prints_every_problem_with_its_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(
        "[server]\n"
        "prot = 9000\n"
        "[plugins]\n"
        'chain = ["auht"]\n'
        "[plugins.cache]\n"
        'ttl = "1h"\n'
        "[providers.echo]\n"
        'type = "echo"\n'
        'delay = "soon"\n'
        "[models.m]\n"
        'targets = [{ provider = "nobody" }]\n'
    )
    assert main(["check", "--config", str(config)]) == 1
    printed = capsys.readouterr()
    lines = {int(re.fullmatch(rf"{re.escape(str(config))}:(\d+): .+", line)[1]) for line in printed.err.splitlines()}  # type: ignore[index]
    assert lines == {2, 4, 5, 9, 11}
    assert "'port'" in printed.err and "'auth'" in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("beside_the_shipped_ones", [False, True])
def test_check_warns_of_what_lies_there_unnamed(
    config: Path, capsys: pytest.CaptureFixture[str], beside_the_shipped_ones: bool
) -> None:
    folder = config.parent / "plugins"
    if beside_the_shipped_ones:
        shutil.copytree(ROOT / "plugins", folder, ignore=shutil.ignore_patterns("__pycache__"))
    folder.mkdir(exist_ok=True)
    (folder / "forgotten.py").write_text("raise SystemExit('nothing that nobody names is run')\n")
    assert main(["check"]) == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1 and "forgotten.py: not loaded" in warnings[0]


@pytest.mark.parametrize("command", ["check", "serve", "models", "plugins", "explain"])
def test_a_missing_file_is_a_line_and_no_traceback(
    config: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main([command, *NEEDS.get(command, ()), "--config", "elsewhere.toml"]) == 1
    printed = capsys.readouterr()
    assert "elsewhere.toml" in printed.err and len(printed.err.splitlines()) == 1
    assert printed.out == ""


@pytest.mark.parametrize("command", ["serve", "models", "plugins", "explain"])
def test_every_command_refuses_a_broken_configuration(
    config: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    config.write_text(f"{ECHO}[server]\nprot = 1\n")
    assert main([command, *NEEDS.get(command, ())]) == 1
    assert "gateway.toml:4: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["alice", "team-a_1", "a.b c", 'qu"o\\te', "Zoë"])
async def test_a_new_key_opens_the_door_its_table_makes(
    gateway_server: GatewayFactory, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["keys", "new", name]) == 0
    printed = capsys.readouterr().out
    (key,) = re.findall(r"^  (hg-\S{43,})$", printed, re.MULTILINE)
    table = printed[printed.index("[keys.") :]
    assert sha256(key.encode()).hexdigest() in table and key not in table
    gateway = gateway_server(ECHO + table)
    assert (await fetch_chat(gateway.url, "echo", key=key)).status == 200
    assert (await fetch_chat(gateway.url, "echo", key=key + "x")).status == 401


def test_no_two_keys_are_alike(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        main(["keys", "new", "alice"])
    keys = re.findall(r"hg-\S+", capsys.readouterr().out)
    assert len(set(keys)) == 2


def test_models_lists_configured_and_provided_names(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(f'{ECHO}model = "parrot"\n[models.smart]\ntargets = [{{ provider = "echo" }}]\n')
    assert main(["models"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [["smart", "configured"], ["parrot", "echo"]]


OWN = """
from gateway import hookimpl

class Plugin:
    def __init__(self, settings, runtime):
        pass

    @hookimpl
    async def on_request(self, exchange):
        pass

    def helper(self):
        pass

    @hookimpl
    def on_finish(self, exchange):
        pass
"""


def test_plugins_lists_name_kind_place_hooks_and_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "plugins").mkdir()
    (config.parent / "plugins/own.py").write_text(OWN)
    config.write_text(f'[plugins]\nchain = ["request_id", "own"]\n{ECHO}')
    assert main(["plugins"]) == 0
    first, second, third = (re.split(r"\s{2,}", line.replace("middleware    ", "middleware  "))
                            for line in capsys.readouterr().out.splitlines())  # fmt: skip
    assert first[:3] == ["request_id", "middleware", "1"]
    assert second == ["own", "middleware", "2", "on_finish, on_request", "plugins/own.py"]
    assert third[:3] == ["echo", "provider", "-"]
    assert third[4].endswith("echo.py")


def test_python_m_gateway_is_the_same_command(config: Path) -> None:
    command = [sys.executable, "-m", "gateway", "check"]
    done = subprocess.run(
        command, cwd=config.parent, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, "gateway.toml: no problems\n"), done.stderr


async def test_reload_says_what_became_of_it(
    gateway_server: GatewayFactory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = gateway_server(ECHO)
    monkeypatch.setenv("GATEWAY__ADMIN__PORT", str(gateway.admin_port))
    command = ["reload", "--config", str(gateway.config_path)]
    assert await asyncio.to_thread(main, command) == 0
    assert capsys.readouterr().out == "reloaded\n"
    gateway.config_path.write_text(ECHO + 'delay = "soon"\n')
    assert await asyncio.to_thread(main, command) == 1
    assert capsys.readouterr().err.startswith(f"{gateway.config_path}:3: providers.echo.delay: ")


def test_reload_needs_a_gateway(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("GATEWAY__ADMIN__PORT", str(port))
    assert main(["reload"]) == 1
    assert f"no gateway answers at the admin listener 127.0.0.1:{port}: Connection refused" in capsys.readouterr().err
    monkeypatch.setenv("GATEWAY__ADMIN__ENABLED", "false")
    assert main(["reload"]) == 1
    assert "send SIGHUP" in capsys.readouterr().err


def test_workers_without_gunicorn_say_what_to_install(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(ECHO + "[server]\nworkers = 2\n")
    monkeypatch.setitem(sys.modules, "gunicorn", None)
    for command in ("serve", "check"):
        assert main([command]) == 1
        assert "pip install 'hookgate[workers]'" in capsys.readouterr().err


def test_check_warns_that_workers_share_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gunicorn")
    config.write_text(ECHO + "[server]\nworkers = 2\n")
    assert main(["check"]) == 0
    assert "warning: gateway.toml:4: server.workers: each of them counts limits" in capsys.readouterr().out


SINGER = """
from gateway import hookimpl

class Plugin:
    def __init__(self, settings, runtime):
        pass

    @hookimpl
    def commands(self, cli):
        sing = cli.add_parser("sing")
        sing.add_argument("song")
        sing.set_defaults(run=lambda chosen: print(chosen.song) or 3)
"""


@pytest.mark.parametrize("options", [[], ["--config", "gateway.toml"]], ids=["default", "named"])
def test_a_plugin_can_bring_a_command(config: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    (config.parent / "plugins").mkdir()
    (config.parent / "plugins/singer.py").write_text(SINGER)
    config.write_text(f'[plugins]\nchain = ["singer"]\n{ECHO}')
    assert main(["sing", "la", *options]) == 3
    assert capsys.readouterr().out == "la\n"


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sing"])
    assert ended.value.code == 2
    assert "invalid choice: 'sing'" in capsys.readouterr().err


EXPLAINED = """
[plugins]
chain = ["auth", "rate_limit", "cache", "cooling"]
[keys.alice]
sha256 = "$digest"
models = ["gpt-*"]
[models.gpt-4o]
targets = [{ provider = "echo", model = "x", weight = 3 }, { provider = "echo", model = "y" }]
[models.other]
targets = [{ provider = "echo" }]
"""
COOLING = """
from time import monotonic
from gateway import Target, hookimpl

class Plugin:
    def __init__(self, settings, runtime):
        self.targets = runtime.targets

    @hookimpl
    def on_startup(self):
        self.targets.of(Target("echo", "x")).cool(monotonic(), 600.0)
"""


@pytest.fixture
def explained(config: Path) -> Path:
    (config.parent / "plugins").mkdir()
    (config.parent / "plugins/cooling.py").write_text(COOLING)
    (port,) = free_ports(1)
    text = Template(EXPLAINED).substitute(digest="0" * 64)
    config.write_text(f"{ECHO}{text}[admin]\nport = {port}\n")
    return config


def explain(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "explain", *arguments]
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)


def test_explain_says_where_a_request_goes_and_why(explained: Path) -> None:
    done = explain("--key", "alice", "--model", "gpt-4o")
    assert (done.returncode, done.stderr) == (0, "")
    first = done.stdout.splitlines()[0]
    assert first == "key 'alice', model 'gpt-4o': forwarded to echo/x, echo/y"
    for said in ("'gpt-*' matches, keys.alice.models (gateway.toml:8)", "600 requests a minute", "weight 3: 75%"):
        assert said in done.stdout
    assert "now " not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--key", "alice", "--model", "other"), "refused with 403"),
        (("--key", "alice", "--model", "gpt-9", "--live"), "refused with 404"),
        (("--key", "alcie", "--model", "gpt-4o"), "there is no key 'alcie'. Did you mean 'alice'?"),
        (("--model", "gpt-4o"), "401: this gateway asks for a key"),
    ],
    ids=["403", "404", "no such key", "no key"],
)
def test_explain_exits_with_1_where_a_request_is_refused(
    explained: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = explain(*arguments)
    assert done.returncode == 1
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_explain_without_an_answer_of_the_configuration_asks_for_live(explained: Path) -> None:
    done = explain("--key", "alice", "--model", "gpt-9")
    assert (done.returncode, "--live asks them" in done.stdout) == (0, True)


def test_explain_says_where_no_gateway_runs_only_when_asked_for_it(explained: Path) -> None:
    assert "no running gateway at http://127.0.0.1:" in explain("--key", "alice", "--model", "gpt-4o", "--live").stderr


def test_explain_tells_the_state_of_the_gateway_that_runs(gateway_server: GatewayFactory, explained: Path) -> None:
    gateway = gateway_server("", arguments=("--config", str(explained)))
    request, port = ("--key", "alice", "--model", "gpt-4o"), str(gateway.admin_port)
    said = explain(*request, GATEWAY__ADMIN__PORT=port).stdout
    assert re.search(r"now +closed, to be called in 5\d\d\.\d s; 0 in flight", said), said
    assert f"as the gateway at {gateway.admin_url}/targets tells" in said
    found = json.loads(explain(*request, "--json", GATEWAY__ADMIN__PORT=port).stdout)
    assert found["answer"] == "forwarded"
    assert 500 < found["targets"][0]["now"]["wait"] <= 600
