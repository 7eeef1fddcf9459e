"""LiteLLM's ``config.yaml`` as the tables of a ``gateway.toml``.

Facts: LiteLLM's documentation of ``config.yaml``, routing, reliability and caching, as of November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.errors import ConfigError
from gateway.importing import litellm_limits, litellm_prices, litellm_state
from gateway.importing import litellm_settings as settings
from gateway.importing.fields import Fields, Secrets
from gateway.importing.litellm_limits import UNITS
from gateway.importing.litellm_models import REASONS, Built, Deployment, build, deployment
from gateway.importing.notes import Notes
from gateway.importing.source import Source

_SECTIONS = ("model_list", "router_settings", "litellm_settings", "general_settings", "credential_list")
_REASONS = {
    "environment_variables": "set them for the gateway's process; no value is copied.",
    "include": "other files are not read: import each of them.",
    "guardrails": "checks of content are plugins.",
    "mcp_servers": "tools are not served.",
}


def convert(source: Source, environ: Mapping[str, str], notes: Notes) -> dict[str, Any]:
    """The tables; what they cannot say goes to ``notes``. Raises ``ConfigError`` if ``source`` is something else."""
    if not isinstance(source.data, dict):
        raise ConfigError(["not a configuration of LiteLLM: expected model_list, router_settings, …"])
    secrets = Secrets()
    top = Fields(source, (), source.data, environ, notes, secrets)
    router, general_litellm, general = (
        Fields(source, (name,), top.table(name), environ, notes, secrets) for name in _SECTIONS[1:4]
    )
    deployments = [found for each in _deployments(source, top, environ, notes, secrets)
                   if (found := _deployment(each, router, general_litellm)) is not None]  # fmt: skip
    built = build(deployments, str(router.get("routing_strategy") or "simple-shuffle"))
    if any("timeouts" not in provider for provider in built.tables["providers"].values()):
        notes.add(0, "LiteLLM waits for minutes where no timeout is given; here a provider has 60 s to begin its "
                  "answer, and for each further piece, unless its first_token and idle say more.")  # fmt: skip
    aliases = _aliases(router, general_litellm, built.tables["models"])
    document: dict[str, Any] = {name: built.tables[name] for name in ("default_provider",) if name in built.tables}
    if general_litellm.flag("drop_params") is False:
        document["strict"] = True
    if limit := general.whole("max_request_size_mb"):
        document["server"] = {"max_body": f"{limit}MiB"}
    document |= _state_and_plugins(built, aliases, router, general_litellm, general)
    document |= {"retry": settings.retry(router, general_litellm), "breaker": settings.breaker(router, general_litellm)}
    document |= {"prices": litellm_prices.prices(built.placed)}
    document |= {name: built.tables[name] for name in ("providers", "models")}
    for each in deployments:
        each.fields.left(REASONS)
        litellm_prices.left(each.info)
    router.left(settings.ROUTER_REASONS)
    general_litellm.left(settings.LITELLM_REASONS)
    general.left(settings.GENERAL_REASONS)
    top.left(_REASONS, _SECTIONS)
    return {name: value for name, value in document.items() if value != {}}


def _aliases(router: Fields, litellm: Fields, models: dict[str, Any]) -> dict[str, str]:
    """Add aliases and fallbacks to ``models``; alias → model."""
    aliases = settings.aliases(router, models)
    for fields in (router, litellm):
        settings.fallbacks(fields, models)
    for alias, name in aliases.items():
        if others := [other for other in models[name].get("fallbacks", ()) if other != alias]:
            models[alias].setdefault("fallbacks", others)
    return aliases


def _state_and_plugins(
    built: Built, aliases: Mapping[str, str], router: Fields, litellm: Fields, general: Fields
) -> dict[str, Any]:
    cached, redis = settings.cache(litellm)
    state = litellm_state.redis(router, redis) | litellm_state.ledger(general)
    plugins = settings.chain(router, built.ordered, cached is not None, "ledger" in state)
    names = [*built.tables["models"], *(each.deployment.name for each in built.placed)]
    plugins["rate_limit"] = litellm_limits.settings(built.placed, names, aliases, litellm, general)
    if cached is not None and redis is None and "redis" in state and "path" not in cached:
        cached["redis"] = False  # theirs is each process's own
    if cached:
        plugins["cache"] = cached
    if redis is not None:
        redis.left(settings.CACHE_REASONS)
    return {"state": state, "plugins": plugins}


def _deployments(
    source: Source, top: Fields, environ: Mapping[str, str], notes: Notes, secrets: Secrets
) -> list[tuple[str, Fields, Fields]]:
    """Name, parameters and ``model_info`` of each element of ``model_list``, those of its named credential included."""
    credentials: dict[str, dict[str, Any]] = {}
    given = top.get("credential_list")
    for entry in given if isinstance(given, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("credential_values"), dict):
            credentials[str(entry.get("credential_name"))] = entry["credential_values"]
    found: list[tuple[str, Fields, Fields]] = []
    entries = top.get("model_list")
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        path = ("model_list", index)
        params = entry.get("litellm_params") if isinstance(entry, dict) else None
        if not isinstance(params, dict) or not isinstance(entry.get("model_name"), str) or not entry["model_name"]:
            notes.add(source.line(path), "left out: expected a model_name and litellm_params.")
            continue
        named = params.get("litellm_credential_name")
        fields = Fields(source, (*path, "litellm_params"), params, environ, notes, secrets)
        if fields.get("litellm_credential_name") is not None:
            if str(named) not in credentials:
                fields.note("litellm_credential_name", "is not in credential_list.")
            for name, value in credentials.get(str(named), {}).items():
                fields.default(name, value)
        outer = Fields(source, path, entry, environ, notes, secrets)
        info = outer.inner("model_info")
        for key in UNITS:  # LiteLLM looks in all three places
            fields.default(key, outer.get(key))
            fields.default(key, info.get(key))
        outer.left({}, ("model_name", "litellm_params"))
        found.append((entry["model_name"], fields, info))
    return found


def _deployment(given: tuple[str, Fields, Fields], router: Fields, general: Fields) -> Deployment | None:
    name, fields, info = given
    for key, value in (
        ("timeout", router.get("timeout")),
        ("timeout", general.get("request_timeout")),
        ("stream_timeout", router.get("stream_timeout")),
        ("max_parallel_requests", router.get("default_max_parallel_requests")),
    ):
        fields.default(key, value)
    return deployment(name, fields, info)
