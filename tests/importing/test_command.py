"""Where the file goes, and that nothing is lost there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tomli

from gateway.cli import main

ROUTER = "providers:\n- name: a\n  type: ollama\n  base_url: http://127.0.0.1:1\n"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("old.yaml").write_text(ROUTER)
    return "old.yaml"


def test_it_goes_to_stdout(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "router", source]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("# Written by: gateway import router old.yaml\n")
    assert tomli.loads(printed.out)["providers"]["a"]["type"] == "ollama"
    assert printed.err == ""


def test_a_file_is_for_its_owner_only_whatever_the_umask(source: str) -> None:
    before = os.umask(0)
    try:
        assert main(["import", "router", source, "-o", "gateway.toml"]) == 0
    finally:
        os.umask(before)
    assert Path("gateway.toml").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in Path().iterdir()) == ["gateway.toml", "old.yaml"]


def test_an_existing_file_is_replaced_with_force_only(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = Path("gateway.toml")
    target.write_text("mine")
    target.chmod(0o644)
    assert main(["import", "router", source, "-o", "gateway.toml"]) == 1
    assert capsys.readouterr().err == "gateway.toml exists; --force replaces it.\n"
    assert target.read_text() == "mine"
    assert main(["import", "router", source, "-o", "gateway.toml", "--force"]) == 0
    assert "providers" in tomli.loads(target.read_text())
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in Path().iterdir()) == ["gateway.toml", "old.yaml"]


def test_a_link_that_leads_nowhere_is_not_followed(source: str) -> None:
    Path("gateway.toml").symlink_to("elsewhere")
    assert main(["import", "router", source, "-o", "gateway.toml"]) == 1
    assert not Path("elsewhere").exists()


@pytest.mark.parametrize("kind", ["router", "litellm"])
def test_a_source_that_cannot_be_read_is_a_line(source: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", kind, "nowhere.yaml"]) == 1
    Path(source).write_bytes(b"\xff")
    assert main(["import", kind, source]) == 1
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 2 and "old.yaml: not UTF-8 text." in printed.err
    assert printed.out == ""
