"""The settings classes: documented, frozen, and shown with their defaults in the gateway.toml that ships."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import attrs
import pytest
import tomli

from gateway import settings
from gateway.document import Document
from gateway.exchange import Principal
from gateway.pricing import settings as prices
from gateway.settings import (
    DEFAULT_CHAIN,
    Admin,
    Breaker,
    Config,
    Key,
    Model,
    Plugins,
    Pool,
    ProviderConfig,
    Retry,
    Server,
    State,
)

SHIPPED = Path(__file__).parents[1] / "gateway.toml"
CLASSES = [
    cls
    for module in (settings, prices)
    for cls in vars(module).values()
    if attrs.has(cls) and cls.__module__ == module.__name__
]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_field_is_followed_by_its_meaning(cls: type) -> None:
    (body,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(body, ast.ClassDef)
    documented = {
        field.target.id
        for field, text in zip(body.body, body.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }  # fmt: skip
    # The tables of Config are documented by their own classes, as is what a class inherits.
    tables = {
        "server", "admin", "plugins", "pool", "retry", "breaker", "state", "keys", "teams", "providers", "models",
        "capabilities", "prices",
    }  # fmt: skip
    inherited = {name for base in cls.__mro__[1:] if attrs.has(base) for name in attrs.fields_dict(base)}
    assert documented == set(attrs.fields_dict(cls)) - (tables if cls is Config else inherited)
    assert cls.__doc__


@pytest.mark.parametrize("cls", CLASSES)
def test_settings_are_frozen(cls: type) -> None:
    made: Any = object.__new__(cls)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        made.anything = 1


def test_each_position_of_the_chain_has_its_reason() -> None:
    source = inspect.getsource(settings).partition("DEFAULT_CHAIN = (\n")[2].partition("\n)")[0].splitlines()
    assert [line.split('"')[1] for line in source] == list(DEFAULT_CHAIN)
    assert all("  # " in line for line in source)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("server", Server), ("admin", Admin), ("plugins", Plugins), ("pool", Pool), ("retry", Retry),
        ("breaker", Breaker),
    ],
)  # fmt: skip
def test_the_shipped_file_shows_every_setting_with_its_default(name: str, cls: type) -> None:
    shown = Document(SHIPPED, {})
    assert shown.structure(cls, (name,)) == cls()
    assert set(tomli.loads(SHIPPED.read_text())[name]) == {field.name for field in attrs.fields(cls) if field.init}


@pytest.mark.parametrize(
    ("cls", "value", "name"),
    [
        (Server, {"port": 65536}, "port"), (Server, {"port": -1}, "port"), (Server, {"host": ""}, "host"),
        (Server, {"max_body": 0}, "max_body"), (Server, {"body_timeout": 0}, "body_timeout"),
        (Server, {"body_total": "0s"}, "body_total"), (Server, {"reader_timeout": 0}, "reader_timeout"),
        (Server, {"workers": 0}, "workers"),
        (Server, {"max_connections_per_peer": -1}, "max_connections_per_peer"), (Admin, {"port": 65536}, "port"),
        (Pool, {"max_connections": -1}, "max_connections"), (Pool, {"max_per_host": -1}, "max_per_host"),
        (Retry, {"attempts": 0}, "attempts"), (Retry, {"attempts": 11}, "attempts"),
        (Retry, {"budget": -0.1}, "budget"), (Retry, {"budget": 1.1}, "budget"),
        (Retry, {"backoff": "5s"}, "max_backoff"),
        (Retry, {"max_backoff": "100ms"}, "max_backoff"), (Breaker, {"failures": -1}, "failures"),
        (Breaker, {"error_rate": 1.5}, "error_rate"), (Breaker, {"error_rate": -0.5}, "error_rate"),
        (Breaker, {"min_calls": 0}, "min_calls"), (Breaker, {"window": 0}, "window"),
        (Breaker, {"open_for": 0}, "open_for"), (Breaker, {"open_for": "2m"}, "max_open"),
        (Breaker, {"max_open": "1s"}, "max_open"),
        (Key, {"sha256": "0" * 63}, "sha256"), (Key, {"sha256": "g" * 64}, "sha256"), (Key, {"sha256": "0"}, "sha256"),
        (Key, {"sha256": "0" * 64, "max_concurrency": -1}, "max_concurrency"),
        (Key, {"sha256": "0" * 64, "tokens_per_minute": -1}, "tokens_per_minute"),
        (Key, {"sha256": "0" * 64, "requests_per_minute": -1}, "requests_per_minute"),
        (Model, {"targets": []}, "targets"), (ProviderConfig, {"type": ""}, "type"),
        (ProviderConfig, {"type": "x", "max_concurrency": -1}, "max_concurrency"),
        (ProviderConfig, {"type": "x", "queue": -1}, "queue"),
        (ProviderConfig, {"type": "x", "queue_timeout": -1}, "queue_timeout"),
        (ProviderConfig, {"type": "x", "retry_ambiguous": 1}, "retry_ambiguous"), (State, {"x": 1}, "x"),
    ],
    ids=str,
)  # fmt: skip
def test_values_out_of_range(tmp_path: Path, cls: type, value: dict[str, object], name: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text("")
    document = Document(path, {})
    document.set(("table",), value, "here")
    assert document.structure(cls, ("table",)) is None
    (problem,) = document.problems
    assert f"table.{name}: " in problem


def test_a_keys_holder_has_its_limits() -> None:
    key = Key(models=("a",), requests_per_minute=1, tokens_per_minute=2, max_concurrency=3)
    assert key.principal("alice") == Principal("alice", ("a",), 1, 2, 3)
