"""``gateway.toml``: read, override, structure, and check what must hold between its tables."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any, get_args, get_origin

import attrs

from gateway import environment
from gateway.authenticators import AUTHENTICATORS, misplaced
from gateway.document import Document, dotted
from gateway.pricing.check import check_prices
from gateway.pricing.vendors import address_of
from gateway.secret import Secret, is_reference
from gateway.settings import (
    CORE_KEYS,
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
    Team,
    Timeouts,
)
from gateway.state import redis_url
from gateway.state.database import DatabaseError, connect
from gateway.structure import did_you_mean
from gateway.toml_lines import KeyPath
from gateway.units import Duration, Size

__all__ = [
    "CORE_KEYS",
    "DEFAULT_CHAIN",
    "Admin",
    "Breaker",
    "Config",
    "Document",
    "Duration",
    "Key",
    "Model",
    "Plugins",
    "Pool",
    "ProviderConfig",
    "Retry",
    "Secret",
    "Server",
    "Size",
    "State",
    "Team",
    "Timeouts",
    "did_you_mean",
    "load",
]

_PROVIDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHORT = 16
_CREDENTIAL_HEADER = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)


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
    config = _structure(document)
    _check_listeners(document, config)
    _check_keys(document, config)
    _check_state(document, config)
    _check_names(document)
    _check_values(document, config)
    _check_target_limits(document)
    check_prices(document, config)
    return config, document


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
    for name, provider in config.providers.items():
        table = json.dumps(document.table("providers", name), sort_keys=True, default=str)
        address = address_of(document.table("providers", name))
        config.providers[name] = attrs.evolve(provider, digest=sha256(table.encode()).hexdigest(), base_url=address)
    return config


def _entries(document: Document, name: str, tables: Any, cls: type[Any]) -> dict[str, Any]:
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
    """Keys the section's class does not know: plugins structure their own."""
    if section == "plugins":
        return _tables(table)
    if section == "providers":
        return set(table) - set(CORE_KEYS) if isinstance(table, dict) else ()
    return ()


def _tables(value: Any) -> dict[str, dict[str, Any]]:
    return {name: inner for name, inner in value.items() if isinstance(inner, dict)} if isinstance(value, dict) else {}


def _check_listeners(document: Document, config: Config) -> None:
    missing = "" if "auth" in config.plugins.chain else "'auth' is not in the chain"
    if not document.table("keys") and not config.state.keys:
        missing = "there are no [keys]"
    if not set(config.plugins.chain).isdisjoint(AUTHENTICATORS[1:]):
        missing = ""  # they refuse whoever has no certificate, or token
    for path, host in document.find("server", "host"):
        if missing and isinstance(host, str) and not _is_loopback(host):
            document.problem(
                path,
                f"server.host: {missing}, so the gateway is open to everybody and may listen on loopback only "
                "(127.0.0.1). gateway keys new NAME makes a key.",
            )
    admin = config.admin
    if admin.token is not None and len(admin.token.reveal()) < _SHORT:
        message = f"admin.token: has less than {_SHORT} characters; openssl rand -hex 32 prints a good one."
        document.problem(("admin", "token"), message)
    if admin.enabled and not _is_loopback(admin.host):
        document.warn(("admin", "host"), "admin.host: not loopback; whoever reaches it sees the metrics without a key.")
    server = config.server
    if server.workers > 1 and config.state.redis is None:
        message = "server.workers: each of them counts limits and keeps its cache alone; [state] redis lets them share."
        document.warn(("server", "workers"), message)
    is_tcp = not server.host.startswith("unix:")
    if admin.enabled and is_tcp and admin.port and admin.port <= server.port < admin.port + server.workers:
        other = f"{server.port} is the port of [server], too."
        if server.port != admin.port:
            other = f"worker {server.port - admin.port} would listen on {server.port}, the port of [server]."
        document.problem(("admin", "port"), f"admin.port: {other}")


def _is_loopback(host: str) -> bool:
    if host.startswith("unix:"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_keys(document: Document, config: Config) -> None:
    digests = [(path, digest) for path, digest in document.find("keys", "*", "sha256") if digest]
    if "auth" not in config.plugins.chain:
        nobody_asks = "nobody asks for them, because 'auth' is not in the chain."
        if digests:
            document.warn(("keys",), f"[keys]: {nobody_asks}")
        if config.state.keys:
            document.warn(("state", "keys"), f"state.keys: {nobody_asks}")
    holders: dict[str, KeyPath] = {}
    for path, digest in digests:
        if isinstance(digest, str) and (holder := holders.setdefault(digest.lower(), path)) != path:
            document.problem(path, f"{dotted(path)}: this is the key of {dotted(holder[:-1])}, too.")
    if set(config.plugins.chain).isdisjoint(AUTHENTICATORS[1:]):
        for path, table in document.find("keys", "*"):
            if isinstance(table, dict) and not table.get("sha256"):
                document.problem(path, f"{dotted(path)}.sha256: is missing, and a key is all that is asked for.")
    _check_limits(document, config)


def _check_limits(document: Document, config: Config) -> None:
    for path, team in document.find("keys", "*", "team"):
        if isinstance(team, str) and team not in config.teams and not config.state.keys:
            hint = did_you_mean(team, document.table("teams"))
            document.problem(path, f"{dotted(path)}: there is no team '{team}' in [teams].{hint}")
    for limit in ("requests_per_minute", "tokens_per_minute", "max_concurrency", "budget", "limits"):
        for path, _ in (*document.find("keys", "*", limit), *document.find("teams", "*", limit)):
            if "rate_limit" not in config.plugins.chain:
                document.warn(path, f"{dotted(path)}: nobody counts, because 'rate_limit' is not in the chain.")
    if "ledger" not in config.plugins.chain and config.state.redis is None:
        for path in _budgets(document):
            document.warn(path, f"{dotted(path)}: begins anew at every start, because 'ledger' is not in the chain.")


def _budgets(document: Document) -> Iterator[KeyPath]:
    for whose in (("keys", "*"), ("teams", "*"), ("plugins", "rate_limit")):
        yield from (path for path, _ in document.find(*whose, "budget"))
        for name in ("limits", "total"):
            yield from (path for path, _ in document.find(*whose, name, "*", "usd"))


def _check_state(document: Document, config: Config) -> None:
    if config.state.redis is not None:
        if importlib.util.find_spec("hiredis") is None:
            document.problem(("state", "redis"), "state.redis: needs hiredis: pip install 'hookgate[redis]'")
        try:
            redis_url.parse(config.state.redis.reveal())
        except (ValueError, OSError) as error:
            document.problem(("state", "redis"), f"state.redis: {error}")
    if config.state.ledger is not None and "ledger" not in config.plugins.chain and not config.state.keys:
        message = "state.ledger has no effect, because 'ledger' is not in the chain."
        document.problem(("state", "ledger"), message)
    if config.state.keys:
        try:
            connect(config.state.ledger, document.path.parent)
        except DatabaseError as error:
            document.problem(("state", "ledger"), str(error))


def _check_names(document: Document) -> None:
    """Names that must be known somewhere else in the file, or stand once."""
    providers, models = document.table("providers"), document.table("models")
    for path, name in (*document.find("default_provider"), *document.find("models", "*", "targets", "*", "provider")):
        if isinstance(name, str) and name not in providers:
            document.problem(path, f"{dotted(path)}: there is no provider '{name}'.{did_you_mean(name, providers)}")
    for path, name in document.find("models", "*", "fallbacks", "*"):
        if name == path[1]:
            document.problem(path, f"{dotted(path)}: '{name}' falls back to itself.")
        elif isinstance(name, str) and not any(name == known or fnmatchcase(name, known) for known in models):
            document.problem(path, f"{dotted(path)}: there is no model '{name}'.{did_you_mean(name, models)}")
    seen: list[Any] = []
    for path, name in document.find("plugins", "chain", "*"):
        if name in seen:
            document.problem(path, f"{dotted(path)}: '{name}' stands in the chain twice.")
        seen.append(name)
    if wrong := misplaced([name for name in seen if isinstance(name, str)]):
        document.problem(("plugins", "chain"), f"plugins.chain: {wrong}")


def _check_values(document: Document, config: Config) -> None:
    for path, _ in document.find("providers", "*"):
        if not _PROVIDER_NAME.fullmatch(str(path[1])):
            # It becomes part of paths (/p/NAME/…), of model names (NAME/model) and of metrics.
            document.problem(path, f"{dotted(path)}: a provider's name has letters, digits and ._- only.")
    for path, value in document.find("providers", "*", "headers", "*"):
        looks_secret = isinstance(value, str) and _CREDENTIAL_HEADER.search(str(path[-1])) and not is_reference(value)
        if looks_secret and not config.allow_inline_secrets:
            document.problem(path, f"{dotted(path)}: looks like a credential; write it as env:NAME or file:/path.")
    for name, least in (("weight", 1), ("max_concurrency", 0)):
        for path, value in document.find("models", "*", "targets", "*", name):
            if isinstance(value, int) and value < least:
                document.problem(path, f"{dotted(path)}: expected {least} or more.")


def _check_target_limits(document: Document) -> None:
    """A target's limit is its provider's model's, under whatever names clients reach it: there can be only one."""
    limits: dict[str, tuple[int, KeyPath]] = {}
    for path, target in document.find("models", "*", "targets", "*"):
        limit = target.get("max_concurrency") if isinstance(target, dict) else None
        if not isinstance(limit, int) or limit < 1:
            continue
        place = (*path, "max_concurrency")
        if not target.get("model") and any(char in str(path[1]) for char in "*?["):
            document.problem(
                place, f"{dotted(place)}: a limit is for one model, but this target takes any; name its model."
            )
        name = f"{target.get('provider')}/{target.get('model') or path[1]}"
        first, there = limits.setdefault(name, (limit, place))
        if first != limit:
            document.problem(place, f"{dotted(place)}: the limit of {name} is {first} in {dotted(there)}.")
