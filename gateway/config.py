"""``gateway.toml``: read, override, structure, and check what must hold between its tables."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from ipaddress import ip_address
from pathlib import Path
from typing import Any, get_args, get_origin

import attrs

from gateway import environment
from gateway.document import Document
from gateway.secret import Secret, is_reference
from gateway.settings import (
    DEFAULT_CHAIN,
    Admin,
    Config,
    Key,
    Model,
    Plugins,
    Pool,
    ProviderConfig,
    Server,
    State,
    Timeouts,
)
from gateway.structure import did_you_mean
from gateway.units import Duration, Size

__all__ = [
    "DEFAULT_CHAIN",
    "Admin",
    "Config",
    "Document",
    "Duration",
    "Key",
    "Model",
    "Plugins",
    "Pool",
    "ProviderConfig",
    "Secret",
    "Server",
    "Size",
    "State",
    "Timeouts",
    "did_you_mean",
    "load",
]

_PROVIDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CREDENTIAL_HEADER = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)
# What later versions will take, and what is so without it.
_LATER_STATE = {"redis": "limits and cache are kept in this process", "ledger": "usage is not stored"}


def load(path: Path, environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> tuple[Config, Document]:
    """Read ``path``, overridden by ``environ`` and then by ``overrides``, settings of ``[server]`` by option name.

    Raises nothing: mistakes are in ``document.problems``, and what is broken has its default in the ``Config``. So
    the problems of plugins can be added before ``document.raise_problems()`` tells all of them.
    """
    document = Document(path, environ)
    if document.problems:
        return Config(), document
    environment.apply(document)
    for name, value in (overrides or {}).items():
        document.set(("server", name), value, f"--{name}")
    _refuse_later_versions(document)
    config = _structure(document)
    _check_listeners(document, config)
    _check_keys(document, config)
    _check_chain(document, config)
    _check_providers(document, config)
    _check_models(document, config)
    return config, document


def _refuse_later_versions(document: Document) -> None:
    for name, why in _LATER_STATE.items():
        if document.table("state").get(name):
            document.problem(("state", name), f"state.{name} is not supported yet: {why}.")
    for name, key in document.table("keys").items():
        if isinstance(key, dict) and key.get("budget"):
            document.problem(("keys", name, "budget"), "budget is not supported yet: money is not counted.")
    workers = document.table("server").get("workers")
    if isinstance(workers, int) and workers > 1:
        document.problem(("server", "workers"), "workers > 1 is not supported yet: limits would count per process.")


def _structure(document: Document) -> Config:
    types: dict[str, Any] = {field.name: field.type for field in attrs.fields(attrs.resolve_types(Config))}
    values: dict[str, Any] = {}
    for name, value in document.table().items():
        if name not in types:
            document.problem((name,), f"{name}: unknown key.{did_you_mean(name, types)}")
        elif get_origin(types[name]) is dict:
            values[name] = _entries(document, name, value, get_args(types[name])[1])
        else:
            values[name] = document.structure(types[name], (name,), ignore=_left_out(name, value))
    config = Config(**{name: value for name, value in values.items() if value is not None})
    config.plugins.tables.update(_tables(document.table("plugins")))
    return config


def _entries(document: Document, name: str, tables: Any, cls: type) -> dict[str, Any]:
    """The tables below ``[name]``, without those that are broken."""
    if not isinstance(tables, dict):
        document.problem((name,), f"{name}: expected a table.")
        return {}
    found: dict[str, Any] = {}
    for entry, table in tables.items():
        if (value := document.structure(cls, (name, entry), ignore=_left_out(name, table))) is not None:
            found[entry] = value
    return found


def _left_out(section: str, table: Any) -> Collection[str]:
    """Keys the section's class does not know: plugins structure their own, later versions' are refused already."""
    if section == "plugins":
        return _tables(table)
    if section == "providers":
        return set(table) - {"type"} if isinstance(table, dict) else ()
    return {"state": tuple(_LATER_STATE), "keys": ("budget",)}.get(section, ())


def _tables(value: Any) -> dict[str, dict[str, Any]]:
    return {name: inner for name, inner in value.items() if isinstance(inner, dict)} if isinstance(value, dict) else {}


def _check_listeners(document: Document, config: Config) -> None:
    server, admin = config.server, config.admin
    is_open = not document.table("keys") or "auth" not in config.plugins.chain
    if is_open and not _is_loopback(server.host):
        missing = "'auth' is not in the chain" if document.table("keys") else "there are no [keys]"
        document.problem(
            ("server", "host"),
            f"server.host: {missing}, so the gateway is open to everybody and may listen on loopback only "
            "(127.0.0.1). gateway keys new NAME makes a key.",
        )
    if admin.enabled and not _is_loopback(admin.host):
        document.warn(
            ("admin", "host"), "admin.host is not loopback: whoever reaches it sees the metrics without a key."
        )
    if admin.enabled and server.port == admin.port != 0:
        document.problem(("admin", "port"), f"admin.port: {admin.port} is the port of [server], too.")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_keys(document: Document, config: Config) -> None:
    if config.keys and "auth" not in config.plugins.chain:
        document.warn(("keys",), "[keys]: nobody asks for them, because 'auth' is not in the chain.")
    holders: dict[str, str] = {}
    for name, key in config.keys.items():
        holder = holders.setdefault(key.sha256.lower(), name)
        if holder != name:
            document.problem(("keys", name, "sha256"), f"keys '{holder}' and '{name}' have the same sha256.")
        for limit in ("requests_per_minute", "tokens_per_minute", "max_concurrency"):
            if getattr(key, limit) and "rate_limit" not in config.plugins.chain:
                document.warn(
                    ("keys", name, limit), f"{limit}: nobody counts, because 'rate_limit' is not in the chain."
                )


def _check_chain(document: Document, config: Config) -> None:
    for index, name in enumerate(config.plugins.chain):
        if name in config.plugins.chain[:index]:
            document.problem(("plugins", "chain", index), f"plugins.chain: '{name}' stands in it twice.")


def _check_providers(document: Document, config: Config) -> None:
    providers = document.table("providers")
    for name in providers:
        if not _PROVIDER_NAME.fullmatch(name):
            # It is part of paths (/p/NAME/…), of model names (NAME/model) and of metrics.
            document.problem(("providers", name), f"'{name}': a provider's name has letters, digits and ._- only.")
        headers = document.table("providers", name, "headers")
        for header, value in headers.items() if not config.allow_inline_secrets else ():
            if _CREDENTIAL_HEADER.search(header) and isinstance(value, str) and not is_reference(value):
                document.problem(
                    ("providers", name, "headers", header),
                    f"header {header} looks like a credential: write it as env:NAME or file:/path.",
                )
    if config.default_provider and config.default_provider not in providers:
        document.problem(("default_provider",), _unknown("provider", config.default_provider, providers))


def _check_models(document: Document, config: Config) -> None:
    providers, models = document.table("providers"), document.table("models")
    for name, model in config.models.items():
        for index, target in enumerate(model.targets):
            path = ("models", name, "targets", index)
            if target.provider not in providers:
                document.problem((*path, "provider"), _unknown("provider", target.provider, providers))
            if target.weight < 1:
                document.problem((*path, "weight"), "weight: expected 1 or more.")
        for index, fallback in enumerate(model.fallbacks):
            path = ("models", name, "fallbacks", index)
            if fallback == name:
                document.problem(path, f"model '{name}' falls back to itself.")
            elif not any(fallback == other or fnmatchcase(fallback, other) for other in models):
                document.problem(path, _unknown("model", fallback, models))


def _unknown(kind: str, name: str, known: Mapping[str, Any]) -> str:
    return f"there is no {kind} '{name}'.{did_you_mean(name, known)}"
