"""Overrides by environment, and the names an earlier router used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import environment
from gateway.document import Document

Make = Callable[..., Document]
TEXT = """
models_ttl = "10m"
[server]
port = 1
[providers.ollama]
type = "ollama"
base_url = "http://file"
timeouts = { connect = "1s", idle = "2s" }
[providers.Open-AI]
type = "openai_compat"
[providers.echo]
type = "echo"
[models."gpt-4.1"]
targets = [{ provider = "echo" }]
"""


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def document(text: str = TEXT, **environ: str) -> Document:
        path = tmp_path / "gateway.toml"
        path.write_text(text)
        made = Document(path, environ)
        environment.apply(made)
        return made

    return document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9000", 9000), ("0.5", 0.5), ("true", True), ('"9000"', "9000"), ('["a", "b"]', ["a", "b"]),
        ("{a = 1}", {"a": 1}),
        ("plain", "plain"), ("", ""), ("5s", "5s"), ("2024-10-21", "2024-10-21"), ("1\nother = 2", "1\nother = 2"),
        ("[" * 5000, "[" * 5000), ("9" * 5000, "9" * 5000), ("# x", "# x"),
    ],
    ids=str,
)  # fmt: skip
def test_values_are_toml_or_text(make: Make, text: str, value: object) -> None:
    assert make(GATEWAY__SERVER__HOST=text).table("server") == {"port": 1, "host": value}


@pytest.mark.parametrize("name", ["GATEWAY__SERVER__PORT", "gateway__server__port", "Gateway__Server__Port"])
def test_names_are_matched_without_regard_to_case(make: Make, name: str) -> None:
    document = make(**{name: "2"})
    assert document.table("server") == {"port": 2}
    assert document.where(("server", "port")) == f"environment:{name}"


def test_names_in_the_file_are_matched_by_their_letters_and_digits(make: Make) -> None:
    document = make(GATEWAY__PROVIDERS__OPEN_AI__BASE_URL="http://x", GATEWAY__MODELS__GPT_4_1__FALLBACKS='["x"]')
    assert document.table("providers", "Open-AI")["base_url"] == "http://x"
    assert document.table("models", "gpt-4.1")["fallbacks"] == ["x"]


def test_new_tables_can_be_made(make: Make) -> None:
    document = make(GATEWAY__PROVIDERS__NEW__TYPE="echo", GATEWAY__MODELS_TTL="5s")
    assert document.table("providers", "new") == {"type": "echo"}
    assert document.table()["models_ttl"] == "5s"
    assert document.problems == document.warnings == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("GATEWAY__", "does not name a setting."),
        ("GATEWAY__SERVER__", "does not name a setting."),
        ("GATEWAY____PORT", "does not name a setting."),
        ("GATEWAY__MODELS_TTL__X", "'models_ttl' is not a table."),
        ("GATEWAY__PROVIDERS__A_B__TYPE", "means more than one of a-b, a_b."),
    ],
)
def test_names_that_cannot_be_meant(make: Make, name: str, problem: str) -> None:
    document = make(TEXT + "[providers.a-b]\n[providers.a_b]", **{name: "1"})
    assert document.problems == [f"environment:{name}: {problem}"]


def test_other_variables_mean_nothing(make: Make) -> None:
    document = make(GATEWAY_TEST_DATA="x", GATEWAY="y", PATH="z", XGATEWAY__SERVER__PORT="1")
    assert document.table() == make().table()
    assert document.problems == document.warnings == []


def earlier(document: Document) -> list[str]:
    assert document.problems == []
    return [warning.partition(":")[2].partition(":")[0] for warning in document.warnings]


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("OLLAMA_BASE", "http://old:11434", ("providers", "ollama", "base_url"), "http://old:11434"),
        ("ROUTER_MAX_CONCURRENCY", "64", ("pool", "max_connections"), 64),
        ("MODELS_CACHE_TTL_S", "30", ("models_ttl",), 30),
        (
            "ROUTER_AUTH_TOKEN", "0123", ("keys", "router", "sha256"), hashlib.sha256(b"0123").hexdigest(),
        ),
        ("HTTP_TIMEOUT_S", "30.5", ("providers", "Open-AI", "timeouts", "first_token"), 30.5),
        ("HTTP_TIMEOUT_S", "30", ("providers", "ollama", "timeouts", "idle"), 30),
        ("HTTP_TIMEOUT_S", "30", ("providers", "ollama", "timeouts", "connect"), "1s"),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_names_of_the_earlier_router_work_and_are_reported(
    make: Make, name: str, text: str, path: tuple[str, ...], value: object
) -> None:
    document = make(**{name: text})
    assert document.table(*path[:-1])[path[-1]] == value
    assert earlier(document) == [name]
    assert text not in document.warnings[0]
    untouched = make(**{name: ""})
    assert untouched.table() == make().table()
    assert untouched.warnings == []


def test_the_new_name_wins(make: Make) -> None:
    document = make(ROUTER_MAX_CONCURRENCY="64", GATEWAY__POOL__MAX_CONNECTIONS="65")
    assert document.table("pool") == {"max_connections": 65}
    assert document.where(("pool", "max_connections")) == "environment:GATEWAY__POOL__MAX_CONNECTIONS"


def test_ollama_base_alone_is_a_provider(make: Make) -> None:
    assert make("", OLLAMA_BASE="http://x").table("providers") == {"ollama": {"type": "ollama", "base_url": "http://x"}}


def test_timeouts_are_for_the_providers_the_earlier_router_knew(make: Make) -> None:
    assert make(HTTP_TIMEOUT_S="30").table("providers", "echo") == {"type": "echo"}


def test_a_providers_file_of_the_earlier_router(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text(
        "providers:\n  - name: ollama\n    type: openai\n    base_url: http://yaml/v1\n    api_key_env: KEY\n"
    )
    document = make(PROVIDERS_YAML=str(path), HTTP_TIMEOUT_S="30")
    assert document.table("providers", "ollama") == {
        "type": "openai_compat", "base_url": "http://yaml/v1", "api_key": "env:KEY",
        "timeouts": {"first_token": 30, "idle": 30},
    }  # fmt: skip
    assert document.where(("providers", "ollama", "api_key")) == f"{path}:2"
    assert earlier(document) == ["PROVIDERS_YAML", "HTTP_TIMEOUT_S"]


def test_a_providers_file_with_mistakes(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text("providers:\n  - nmae: x\n")
    assert make(PROVIDERS_YAML=str(path)).problems == [f"{path}:2: unknown key 'nmae'. Did you mean 'name'?"]
    path.write_bytes(b"\xff")
    assert make(PROVIDERS_YAML=str(path)).problems == [
        f"environment:PROVIDERS_YAML: {path} cannot be read: not UTF-8 text."
    ]
    assert make(PROVIDERS_YAML="/nowhere/x.yaml").problems == [
        "environment:PROVIDERS_YAML: /nowhere/x.yaml cannot be read: No such file or directory."
    ]


NAMES = (
    "OLLAMA_BASE",
    "ROUTER_MAX_CONCURRENCY",
    "MODELS_CACHE_TTL_S",
    "ROUTER_AUTH_TOKEN",
    "HTTP_TIMEOUT_S",
    "PROVIDERS_YAML",
)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(NAMES) | texts.map("GATEWAY__{}".format), texts, max_size=4))
def test_any_environment_is_applied_or_a_problem(make: Make, environ: dict[str, Any]) -> None:
    for text in (TEXT, "providers = 1\nkeys = 2\npool = []"):
        assert isinstance(make(text, **environ).table(), dict)
