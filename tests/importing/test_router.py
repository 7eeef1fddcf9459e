"""The earlier router's providers.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli import main
from gateway.errors import ConfigError
from gateway.importing.notes import Notes
from gateway.importing.router import convert

GOOD = """\
providers:
  - name: local
    type: openai
    base_url: http://127.0.0.1:8000/v1
    api_key_env: LOCAL_KEY
  - name: home
    type: ollama
    base_url: http://127.0.0.1:11434
  - name: "two words"
    type: ollama
    base_url: http://127.0.0.1:11435
"""


def test_providers_are_carried_over_and_bad_names_told() -> None:
    notes = Notes()
    assert convert(Path("x"), GOOD, {}, notes) == {
        "providers": {
            "local": {"type": "openai_compat", "base_url": "http://127.0.0.1:8000/v1", "api_key": "env:LOCAL_KEY?"},
            "home": {"type": "ollama", "base_url": "http://127.0.0.1:11434"},
        }
    }
    assert notes.told("x") == ["x:9: left out: a provider's name has letters, digits and ._- only, 64 at most."]


def test_what_the_router_had_in_the_environment_is_told_by_name() -> None:
    notes = Notes()
    convert(Path("x"), "", {"ROUTER_AUTH_TOKEN": "hunter2", "MODELS_CACHE_TTL_S": "60", "HTTP_TIMEOUT_S": ""}, notes)
    told = notes.told("x")
    assert [line.split()[1] for line in told] == ["MODELS_CACHE_TTL_S", "ROUTER_AUTH_TOKEN"]
    assert "models_ttl" in told[0] and "gateway keys new NAME" in told[1]
    assert "hunter2" not in str(told)


def test_other_yaml_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        convert(Path("x"), "providers:\n  - [a]\n", {}, Notes())
    assert caught.value.problems[0].startswith("x:2: ")


def test_what_is_written_passes_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("providers.yaml").write_text(GOOD)
    assert main(["import", "router", "providers.yaml", "-o", "gateway.toml"]) == 0
    assert capsys.readouterr().err.startswith("providers.yaml:9: ")
    assert main(["check"]) == 0, capsys.readouterr().err
