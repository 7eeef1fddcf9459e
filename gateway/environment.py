"""What the environment changes in a configuration: ``GATEWAY__SECTION__KEY``, and the names of an earlier router."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import tomli

from gateway.document import Document, dotted
from gateway.providers_yaml import YamlError, parse

_PREFIX = "GATEWAY__"
# Name of the earlier router → where its value belongs now.
RENAMED: dict[str, tuple[str, ...]] = {
    "OLLAMA_BASE": ("providers", "ollama", "base_url"),
    "ROUTER_MAX_CONCURRENCY": ("pool", "max_connections"),
    "MODELS_CACHE_TTL_S": ("models_ttl",),
}


def apply(document: Document) -> None:
    """Override ``document``. ``GATEWAY__`` names win over the earlier router's; both win over the file."""
    _apply_earlier_router(document)
    for name, value in sorted(document.environ.items()):
        if name.upper().startswith(_PREFIX):
            _apply_override(document, name, value)


def _apply_override(document: Document, name: str, value: str) -> None:
    parts = name[len(_PREFIX) :].split("__")
    path: tuple[str, ...] = ()
    for part in parts:
        matches = [key for key in document.table(*path) if _plain(key) == _plain(part)]
        if not part or len(matches) > 1:
            fault = f"means more than one of {', '.join(matches)}" if matches else "does not name a setting"
            document.problems.append(f"environment:{name}: {fault}.")
            return
        path = (*path, matches[0] if matches else part.lower())
    document.set(path, _parsed(value), f"environment:{name}")


def _plain(key: str) -> str:
    """Keys differ in more characters than names of environment variables do."""
    return re.sub(r"[^a-z0-9]", "_", key.lower())


def _parsed(text: str) -> Any:
    """``text`` as TOML reads it, else as it stands. No setting is a date, so ``2024-10-21`` stays a string."""
    try:
        document = tomli.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    value = document.pop("value")
    return value if not document and isinstance(value, (bool, int, float, str, list, dict)) else text


def _apply_earlier_router(document: Document) -> None:
    environ = {name: value for name, value in document.environ.items() if value}
    if "PROVIDERS_YAML" in environ:
        _apply_providers_yaml(document, environ["PROVIDERS_YAML"])
    for name, path in RENAMED.items():
        if name in environ:
            _rename(document, name, path, _parsed(environ[name]))
    if "OLLAMA_BASE" in environ and "type" not in document.table("providers", "ollama"):
        document.set(("providers", "ollama", "type"), "ollama", "environment:OLLAMA_BASE")
    if "ROUTER_AUTH_TOKEN" in environ:
        digest = hashlib.sha256(environ["ROUTER_AUTH_TOKEN"].encode("utf-8", "surrogateescape")).hexdigest()
        _rename(document, "ROUTER_AUTH_TOKEN", ("keys", "router", "sha256"), digest)
    if "HTTP_TIMEOUT_S" in environ:
        _set_timeouts(document, _parsed(environ["HTTP_TIMEOUT_S"]))


def _set_timeouts(document: Document, seconds: Any) -> None:
    """The earlier router had two types of provider and one limit, for the wait until the next sign of life."""
    origin = "environment:HTTP_TIMEOUT_S"
    for name, provider in document.table("providers").items():
        if isinstance(provider, dict) and provider.get("type") in ("ollama", "openai_compat"):
            document.set(("providers", name, "timeouts", "first_token"), seconds, origin)
            document.set(("providers", name, "timeouts", "idle"), seconds, origin)
    document.warnings.append(
        f"{origin}: a name of an earlier router; it now sets first_token and idle in the timeouts of every provider "
        "of type ollama or openai_compat."
    )


def _rename(document: Document, name: str, path: tuple[str, ...], value: Any) -> None:
    document.set(path, value, f"environment:{name}")
    document.warnings.append(f"environment:{name}: a name of an earlier router; it now sets {dotted(path)}.")


def _apply_providers_yaml(document: Document, name: str) -> None:
    try:
        providers = parse(Path(name).read_text("utf-8"))
    except YamlError as error:
        document.problems.append(f"{name}:{error.line}: {error}")
        return
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        document.problems.append(f"environment:PROVIDERS_YAML: {name} cannot be read: {reason}.")
        return
    for provider, (line, table) in providers.items():
        document.set(("providers", provider), table, f"{name}:{line}")
    document.warnings.append(
        f"environment:PROVIDERS_YAML: a file of an earlier router; its providers ({', '.join(providers)}) "
        "belong into [providers] of gateway.toml."
    )
