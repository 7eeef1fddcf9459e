"""LiteLLM's ``router_settings``, ``litellm_settings`` and ``general_settings`` as tables of ``gateway.toml``."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from gateway.importing.fields import Fields
from gateway.settings import DEFAULT_CHAIN, Breaker

STRATEGIES = {
    "simple-shuffle": None,
    "least-busy": "least_busy",
    "latency-based-routing": "latency",
    "usage-based-routing": "least_busy",
    "usage-based-routing-v2": "least_busy",
}
"""``routing_strategy`` → the plugin that decides; ``None``: the weights."""
_KEYS = "make keys with: gateway keys new NAME."
_USERS = "limits and budgets are those of keys and teams here: [keys.NAME] and [teams.NAME] budget, limits."
_MAKERS = "keys are made by gateway keys new NAME, and have what their tables say."
_CALLBACKS = "metrics are at /metrics of [admin]; anything else is a plugin with an on_finish hook."
_BIGGER = "fallbacks are tried for any failure; [models.NAME] context keeps requests that are too long from one."
ROUTER_REASONS = {
    "context_window_fallbacks": _BIGGER, "content_policy_fallbacks": "fallbacks are tried for any failure.",
    "provider_budget_config": "budgets count by the names of models, not by provider: [plugins.rate_limit] total.",
    "retry_after": "[retry] backoff is drawn anew for each retry, and a provider's Retry-After is obeyed.",
    "retry_policy": "[retry] decides by what failed, not by a number for each error.",
    "model_group_retry_policy": "[retry] counts for all models.",
    "enable_pre_call_checks": "[models.NAME] context keeps requests that are too long from a fallback.",
    "routing_strategy_args": "the plugins that choose have no such settings.",
}  # fmt: skip
LITELLM_REASONS = {
    "callbacks": _CALLBACKS, "success_callback": _CALLBACKS, "failure_callback": _CALLBACKS,
    "service_callback": _CALLBACKS, "set_verbose": "what is logged is up to the plugin logging.",
    "json_logs": "what is logged is up to the plugin logging.",
    "context_window_fallbacks": _BIGGER, "content_policy_fallbacks": "fallbacks are tried for any failure.",
    "redact_user_api_key_info": "keys are never logged.", "modify_params": "requests pass as they are.",
    "turn_off_message_logging": "messages are never logged.", "guardrails": "checks of content are plugins.",
    "max_end_user_budget": _USERS, "max_end_user_budget_id": _USERS, "max_user_budget": _USERS,
    "max_internal_user_budget": _USERS, "internal_user_budget_duration": _USERS, "default_internal_user_params": _USERS,
    "default_team_params": "each team has what its table says: [teams.NAME] models, budget, limits.",
    "default_team_settings": _CALLBACKS, "upperbound_key_generate_params": _MAKERS, "key_generation_settings": _MAKERS,
}  # fmt: skip
GENERAL_REASONS = {
    "master_key": f"a key is never copied: {_KEYS}",
    "salt_key": "no secret is kept in a database; of a key its SHA-256 is.",
    "enable_jwt_auth": "tokens are the plugin auth_jwt's: [plugins.auth_jwt] issuer and audience.",
    "litellm_jwtauth": "tokens are the plugin auth_jwt's: [plugins.auth_jwt] issuer and audience.",
    "disable_spend_logs": "without the plugin ledger in the chain nothing is written.",
    "maximum_spend_logs_retention_period": "[plugins.ledger] keep is how old rows get.",
    "custom_auth": "authentication of your own is a plugin with an on_head hook.",
    "max_parallel_requests": "[plugins.rate_limit] max_concurrency limits each key, [providers.NAME] each provider.",
    "global_max_parallel_requests": "[providers.NAME] max_concurrency limits each provider.",
    "alerting": "alerts are Prometheus's, from /metrics of [admin].",
    "background_health_checks": "/health asks all providers when it is asked.",
    "store_model_in_db": "models stand in gateway.toml only; gateway reload takes its changes.",
}  # fmt: skip


CACHE_REASONS = {
    "supported_call_types": "[plugins.cache] models says whose answers are cached, whatever the call.",
    "similarity_threshold": "only an equal request gets a cached answer.",
    "max_connections": "one connection to Redis carries all.",
    "ssl_cert_reqs": "TLS is always verified.", "ssl_check_hostname": "TLS is always verified.",
}  # fmt: skip


def chain(router: Fields, ordered: list[str], cached: bool, ledger: bool) -> dict[str, Any]:
    """``[plugins]``: as LiteLLM does, and nothing cached that it does not cache."""
    found: dict[str, Any] = {"chain": [name for name in DEFAULT_CHAIN if cached or name != "cache"]}
    if ledger:
        found["chain"].append("ledger")
    if ordered:
        found["chain"].append("priority")
        found["priority"] = {"models": ordered}
    strategy = router.get("routing_strategy")
    name = STRATEGIES.get(str(strategy))
    if name is not None:
        found["chain"].append(name)
    if strategy is not None and str(strategy) not in STRATEGIES:
        router.note("routing_strategy", "no plugin here does this; targets are drawn by weight.")
    elif str(strategy).startswith("usage-based"):
        router.note("routing_strategy", "least_busy is nearest to it: it counts calls under way, not those per minute.")
    return found


def retry(router: Fields, settings: Fields) -> dict[str, Any]:
    """``[retry]``."""
    retries = router.whole("num_retries")
    if (other := settings.whole("num_retries")) is not None and retries is None:
        retries = other
    if retries is None:
        return {}
    if retries > 9:
        router.note("num_retries", "no more than 10 attempts are made.")
    return {"attempts": min(retries, 9) + 1}


def breaker(router: Fields, settings: Fields) -> dict[str, Any]:
    """``[breaker]``. LiteLLM counts failures within a minute, we those without a success between them."""
    found: dict[str, Any] = {}
    fails = router.whole("allowed_fails")
    if (other := settings.whole("allowed_fails")) is not None and fails is None:
        fails = other
    if fails is not None:
        found["failures"] = fails + 1
    pause = router.number("cooldown_time")
    if (also := settings.number("cooldown_time")) is not None and pause is None:
        pause = also
    if pause:
        found |= {"open_for": pause, "max_open": max(pause, float(Breaker().max_open))}
    if router.flag("disable_cooldowns"):
        found = {"failures": 0, "error_rate": 0.0}
    return found


def cache(settings: Fields) -> tuple[dict[str, Any] | None, Fields | None]:
    """``[plugins.cache]``, ``None`` where nothing is cached; and the parameters where they are those of a Redis."""
    on = settings.flag("cache") is True
    params = settings.inner("cache_params")
    if not on:
        if params.names():
            settings.note("cache_params", "not carried over: cache is not true.")
        return None, None
    kind = str(params.get("type") or ("local" if params.names() else "redis"))
    redis = params if kind in ("redis", "redis-semantic", "valkey-semantic") else None
    if kind not in ("local", "disk", "redis"):
        params.note("type", "only an equal request gets a cached answer, and it is kept in memory, in Redis ([state] "
                    'redis) or in a file ([plugins.cache] path = "cache.sqlite").')  # fmt: skip
    if params.get("supported_call_types") == []:
        return None, redis
    ttls = [params.number(name) for name in ("ttl", "default_in_redis_ttl", "default_in_memory_ttl")]
    found: dict[str, Any] = {}
    if params.get("mode") != "default_off":
        found["always"] = True
    if ttl := next(filter(None, ttls), None):
        found["ttl"] = ttl
    if kind == "disk":
        found["path"] = "cache.sqlite"
    settings.note("cache", 'answers are cached for each key alone; [plugins.cache] scope = "team" or "global" shares '
                  "them.")  # fmt: skip
    return found, redis


def aliases(router: Fields, models: dict[str, Any]) -> dict[str, str]:
    """Add ``model_group_alias`` to ``models``; alias → model, so that its fallbacks can follow."""
    found: dict[str, str] = {}
    for name, given in router.table("model_group_alias").items():
        target = given.get("model") if isinstance(given, dict) else given
        if isinstance(target, str) and target in models and name not in models:
            models[name] = {"targets": models[target]["targets"]}
            found[name] = target
        else:
            router.note("model_group_alias", f"{name}: names no model that was carried over, or is one itself.")
    return found


def fallbacks(fields: Fields, models: dict[str, Any]) -> None:
    """Add ``fallbacks`` and ``default_fallbacks`` to ``models``, where these have none yet."""
    given = fields.get("fallbacks")
    found: dict[str, Any] = {}
    for table in given if isinstance(given, list) else ():
        if isinstance(table, dict):
            found.update(table)
        else:
            fields.note("fallbacks", "expected { model: [others] }; left out.")
    general = found.pop("*", None) or fields.get("default_fallbacks") or []
    for name, others in found.items():
        if name not in models:
            fields.note("fallbacks", f"{name}: is no name in [models].")
        elif "fallbacks" not in models[name]:
            _fall_back(fields, models, name, others)
    for name, model in models.items():
        if "fallbacks" not in model and general:
            _fall_back(fields, models, name, [other for other in _list(general) if other != name])


def _fall_back(fields: Fields, models: dict[str, Any], name: str, others: Any) -> None:
    kept: list[str] = []
    for other in _list(others):
        if isinstance(other, str) and other != name and any(fnmatchcase(other, known) for known in models):
            kept.append(other)
        else:
            told = other if isinstance(other, str) else "a table"
            fields.note("fallbacks", f"{name}: {told} is left out, as it is no other name in [models].")
    if kept:
        models[name]["fallbacks"] = kept


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
