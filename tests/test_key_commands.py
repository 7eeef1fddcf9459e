"""``gateway keys`` and ``gateway teams`` find the database that the configuration names, or say why not."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from gateway.cli import main
from tests.support.keys import digest, holder, ring

ON = "[state]\nkeys = true\n"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In another folder than the working directory."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = tmp_path / "gateway.toml"
    path.touch(mode=0o600)
    path.write_text(ON)
    return path


def run(config: Path, *arguments: str) -> int:
    return main([*arguments, "--config", str(config)])


async def names(url: str) -> list[str]:
    async with ring(url) as keyring:
        return sorted(keyring.keys.items)


def test_the_database_is_where_the_configuration_says(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(config, "keys", "create", "alice") == 0
    assert asyncio.run(names(f"sqlite:///{config.parent}/gateway.db")) == ["alice"]
    config.write_text(f'{ON}ledger = "sqlite:///other.db"\n')
    assert run(config, "keys", "create", "bob") == 0
    monkeypatch.setenv("GATEWAY__STATE__LEDGER", "sqlite:///third.db")
    assert run(config, "keys", "create", "carl") == 0
    assert asyncio.run(names(f"sqlite:///{config.parent}/other.db")) == ["bob"]
    assert asyncio.run(names(f"sqlite:///{config.parent}/third.db")) == ["carl"]


def test_it_may_be_postgresql(config: Path, postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(f'{ON}ledger = "env:LEDGER"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEDGER", postgres_url)
        assert run(config, "keys", "create", "alice", "--models", "m") == 0
    (key,) = re.findall(r"hg-\S+", capsys.readouterr().out)

    async def found() -> object:
        async with ring(postgres_url) as keyring:
            return holder(keyring, key)

    assert asyncio.run(found()).models == ("m",)  # type: ignore[attr-defined]


def test_what_else_is_wrong_with_the_configuration_is_no_matter(config: Path) -> None:
    config.write_text(f'{ON}[providers.openai]\ntype = "openai_compat"\napi_key = "env:NOT_HERE"\n[pool]\nx = 1\n')
    assert run(config, "keys", "create", "alice") == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "gateway.toml:1: state.keys is not on: all keys are in this file. gateway keys new NAME makes one.\n"),
        (f'{ON}ledger = "mysql://h/d"\n', "gateway.toml:3: [state] ledger: expected sqlite:///FILE or postgresql://"),
        (f"{ON}x = 1\n", "gateway.toml:3: state.x: unknown key.\n"),
        (f'{ON}[keys.a]\nsha256 = "x"\n', "gateway.toml:4: keys.a.sha256: expected the 64 hexadecimal digits"),
        ("[state", "gateway.toml:1: "),
    ],
)  # fmt: skip
def test_what_is_wrong_with_it_is_told(config: Path, capsys: pytest.CaptureFixture[str], text: str, told: str) -> None:
    config.write_text(text)
    assert run(config, "keys", "create", "alice") == 1
    printed = capsys.readouterr()
    assert told in printed.err and printed.err.count("\n") == 1 and not printed.out
    assert not (config.parent / "gateway.db").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["keys", "list"], ["keys", "show", "alice"], ["keys", "block", "alice"], ["keys", "delete", "alice"],
        ["teams", "list"], ["teams", "update", "red", "--max-concurrency", "1"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_only_create_makes_a_database(config: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert run(config, *command) == 1
    assert capsys.readouterr().err.endswith("gateway.db: No such file or directory\n")
    assert not (config.parent / "gateway.db").exists()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["keys", "show", "nobody"], "There is no key 'nobody' in the database."),
        (["keys", "create", "alice"], "There is a key 'alice' already."),
        (["keys", "create", "jwt:x"], "name: expected letters"),
        (["keys", "create", "bob", "--team", "red"], "team: there is no team 'red'."),
        (["keys", "expire", "alice", "soon"], "expires: expected a date"),
        (["keys", "update", "alice", "--limit", "tokens=1/month"], "limits[0].per: 'per': of tokens expected one of"),
        (["teams", "delete", "red"], "There is no team 'red' in the database."),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_a_line(
    config: Path, capsys: pytest.CaptureFixture[str], command: list[str], told: str
) -> None:
    assert run(config, "keys", "create", "alice") == 0
    capsys.readouterr()
    assert run(config, *command) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(told) and printed.err.count("\n") == 1 and not printed.out


def test_new_asks_no_configuration(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.unlink()
    assert main(["keys", "new", "a b"]) == 0
    printed = capsys.readouterr().out
    (key,) = re.findall(r"^  (hg-\S{43})$", printed, re.MULTILINE)
    assert printed.endswith(f'[keys."a b"]\nsha256 = "{digest(key).hex()}"\n')
