"""What router_settings, litellm_settings and general_settings become, or why they become nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.importing import converted

MODELS = "model_list:\n" + "".join(f"- {{model_name: {n}, litellm_params: {{model: groq/{n}}}}}\n" for n in "abc")


def settings(router: str = "", litellm: str = "", general: str = "") -> tuple[dict[str, Any], list[str]]:
    """In YAML's flow style; each section stands on a line of its own, from 5 on. What is told of the file as a whole
    is left out."""
    document, told = converted(
        f"{MODELS}router_settings: {{{router}}}\nlitellm_settings: {{{litellm}}}\ngeneral_settings: {{{general}}}\n"
    )
    return document, [line for line in told if not line.startswith("x: ")]


@pytest.mark.parametrize(
    ("strategy", "last", "told"),
    [
        ("simple-shuffle", "rate_limit", False),
        ("least-busy", "least_busy", False),
        ("latency-based-routing", "latency", False),
        ("usage-based-routing-v2", "least_busy", True),
        ("cost-based-routing", "rate_limit", True),
    ],
)
def test_the_strategy_is_a_plugin_in_the_chain(strategy: str, last: str, told: bool) -> None:
    document, notes = settings(f"routing_strategy: {strategy}")
    assert document["plugins"]["chain"][-1] == last
    assert any(line.startswith("x:5: routing_strategy: ") for line in notes) is told


def test_nothing_is_limited_or_cached_that_was_not() -> None:
    document, told = settings()
    assert document["plugins"] == {
        "chain": ["request_id", "logging", "metrics", "auth", "rate_limit"],
        "rate_limit": {"requests_per_minute": 0},
    }
    assert told == []
    assert {"retry", "breaker", "strict"}.isdisjoint(document)


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (2, 3), (9, 10), (50, 10)])
def test_retries_are_attempts(retries: int, attempts: int) -> None:
    assert settings(f"num_retries: {retries}")[0]["retry"] == {"attempts": attempts}
    assert settings(litellm=f"num_retries: {retries}")[0]["retry"] == {"attempts": attempts}
    assert settings(f"num_retries: {retries}", "num_retries: 7")[0]["retry"] == {"attempts": attempts}


def test_cooldowns_are_the_breaker() -> None:
    document, _ = settings("allowed_fails: 3, cooldown_time: 2")
    assert document["breaker"] == {"failures": 4, "open_for": 2, "max_open": 8.0}
    assert settings("cooldown_time: 60")[0]["breaker"] == {"open_for": 60, "max_open": 60}
    assert settings("disable_cooldowns: true")[0]["breaker"] == {"failures": 0, "error_rate": 0.0}


@pytest.mark.parametrize(("value", "strict"), [("drop_params: false", True), ("drop_params: true", None), ("", None)])
def test_what_may_not_be_dropped_is_strict(value: str, strict: bool | None) -> None:
    assert settings(litellm=value)[0].get("strict") is strict


@pytest.mark.parametrize(
    ("params", "table"),
    [
        ("", {"always": True}),
        ("type: local, ttl: 600", {"always": True, "ttl": 600}),
        ("type: disk, mode: default_off", {"path": "cache.sqlite"}),
        ("type: redis, host: h, password: hunter2, default_in_redis_ttl: 5", {"always": True, "ttl": 5}),
        ("type: s3, s3_bucket_name: x, ttl: many", {"always": True}),
    ],
)
def test_the_cache(params: str, table: dict[str, Any]) -> None:
    document, told = settings(litellm=f"cache: true, cache_params: {{{params}}}")
    assert document["plugins"]["chain"][-1] == "cache"
    assert document["plugins"]["cache"] == table
    assert "hunter2" not in str(told)
    assert any("type: only an equal request" in line for line in told) is ("s3" in params)


def test_a_cache_that_is_off_or_for_no_calls_is_none() -> None:
    document, told = settings(litellm="cache: false, cache_params: {type: redis, host: h}")
    assert "cache" not in document["plugins"]["chain"] and "state" not in document
    assert told == ["x:6: cache_params: not carried over: cache is not true."]
    document, _ = settings(litellm="cache: true, cache_params: {type: redis, host: h, supported_call_types: []}")
    assert "cache" not in document["plugins"]["chain"] and document["state"] == {"redis": "redis://h:6379"}


def test_a_cache_of_each_process_stays_one_beside_redis() -> None:
    document, _ = settings("redis_host: h", "cache: true, cache_params: {type: local}")
    assert document["plugins"]["cache"] == {"always": True, "redis": False}
    document, _ = settings("redis_host: h", "cache: true, cache_params: {type: disk}")
    assert document["plugins"]["cache"] == {"always": True, "path": "cache.sqlite"}


def test_the_ledger_stands_behind_the_cache_and_before_what_chooses() -> None:
    document, _ = settings("routing_strategy: least-busy", "cache: true", "database_url: os.environ/DB")
    assert document["plugins"]["chain"][-3:] == ["cache", "ledger", "least_busy"]


@pytest.mark.parametrize("section", ["router", "litellm"])
def test_fallbacks_to_names_that_exist(section: str) -> None:
    given = "fallbacks: [{a: [b, nobody, a]}, {zz: [a]}], default_fallbacks: [c]"
    document, told = settings(**{section: given})
    assert {name: model.get("fallbacks") for name, model in document["models"].items()} == {
        "a": ["b"], "b": ["c"], "c": None,
    }  # fmt: skip
    assert [line.split(" ", 1)[1] for line in told] == [
        "fallbacks: a: a is left out, as it is no other name in [models].",
        "fallbacks: a: nobody is left out, as it is no other name in [models].",
        "fallbacks: zz: is no name in [models].",
    ]


def test_an_alias_has_the_targets_and_fallbacks_of_its_model() -> None:
    given = "{d: a, e: {model: b, hidden: true}, f: zz, g: [a]}"
    document, told = settings(f"model_group_alias: {given}, fallbacks: [{{a: [b, d]}}]")
    assert document["models"]["d"] == {"targets": document["models"]["a"]["targets"], "fallbacks": ["b"]}
    assert document["models"]["e"] == document["models"]["b"]
    for alias in "fg":
        assert any(f"model_group_alias: {alias}: names no model" in line for line in told)


def test_keys_are_never_copied_and_the_rest_is_told() -> None:
    document, told = settings(
        "redis_password: hunter2, context_window_fallbacks: [{a: [b]}]",
        "callbacks: [x], foo: 1",
        "master_key: sk-hunter2, database_url: 'postgres://hunter2', max_request_size_mb: 3",
    )
    assert document["server"] == {"max_body": "3MiB"}
    assert "hunter2" not in f"{document}{told}"
    assert [line.split(": ")[:2] for line in told] == [
        ["x:5", "context_window_fallbacks"], ["x:5", "redis_password"], ["x:6", "callbacks"], ["x:6", "foo"],
        *[["x:7", "database_url"]] * 3, ["x:7", "master_key"],
    ]  # fmt: skip
    assert "gateway keys new NAME" in told[-1]
