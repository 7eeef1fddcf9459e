"""Redis and the database: as URLs without secrets, or as references."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.importing import converted

OURS = "env:HOOKGATE_REDIS_URL?"


def state(router: str = "", cache: str | None = None, general: str = "") -> tuple[dict[str, Any], list[str]]:
    cached = "" if cache is None else f"cache: true, cache_params: {{{cache}}}"
    document, told = converted(
        f"router_settings: {{{router}}}\nlitellm_settings: {{{cached}}}\ngeneral_settings: {{{general}}}\n"
    )
    return document.get("state", {}), told


@pytest.mark.parametrize(
    ("params", "url"),
    [
        ("host: h", "redis://h:6379"),
        ("host: 10.0.0.7, port: '6380', db: 2", "redis://10.0.0.7:6380/2"),
        ("host: '::1', ssl: true", "rediss://[::1]:6379"),
        ("host: h, port: 0x20000", OURS),
        ("host: h, password: hunter2", OURS),
        ("host: h, password: os.environ/REDIS_PASSWORD", OURS),
        ("host: os.environ/REDIS_HOST", OURS),
        ("host: 'h/?password=hunter2'", OURS),
        ("url: os.environ/MY_REDIS", "env:MY_REDIS?"),
        ("url: 'rediss://h:1/3'", "rediss://h:1/3"),
        ("url: 'redis://:hunter2@h'", OURS),
        ("url: 'redis://h?password=hunter2'", OURS),
        ("url: 'redis://h?ssl_cert_reqs=none'", OURS),
        ("url: 'http://hunter2'", OURS),
        ("port: 1", "env:REDIS_URL?"),
        ("sentinel_nodes: [[h, 1]], service_name: m", None),
        ("redis_startup_nodes: [{host: h, port: 1}]", None),
    ],
)
def test_redis_is_one_url_with_nothing_secret_in_it(params: str, url: str | None) -> None:
    found, told = state(cache=f"type: redis, {params}")
    assert found.get("redis") == url
    assert "hunter2" not in f"{found}{told}"
    assert any("HOOKGATE_REDIS_URL" in line for line in told) is (url == OURS)
    assert any("neither a Cluster nor Sentinel" in line for line in told) is (url is None)


def test_the_namespace_begins_its_names() -> None:
    assert state(cache="type: redis, host: h, namespace: 'a.b'")[0] == {
        "redis": "redis://h:6379",
        "redis_prefix": "a.b",
    }


def test_the_routers_redis_serves_where_the_cache_has_none() -> None:
    assert state("redis_host: h, redis_port: 1")[0] == {"redis": "redis://h:1"}
    assert state("redis_url: os.environ/R", "type: local")[0] == {"redis": "env:R?"}
    found, told = state("redis_host: h, redis_port: 1", "type: redis, host: other")
    assert found == {"redis": "redis://other:6379"}
    assert any(line.startswith("x:1: redis_host: left out: one Redis") for line in told)
    assert not any("left out" in line for line in state("redis_host: h", "type: redis, host: h")[1])


def test_a_password_without_a_host_is_told() -> None:
    found, told = state("redis_password: hunter2")
    assert found == {}
    assert told == ["x:1: redis_password: left out: there is no host beside it."]


@pytest.mark.parametrize(
    ("given", "reference"),
    [("os.environ/DB", "env:DB?"), ("'postgresql://u:hunter2@h/d'", "env:DATABASE_URL?"), ("''", None)],
)
def test_the_database_becomes_the_ledgers_by_reference(given: str, reference: str | None) -> None:
    found, told = state(general=f"database_url: {given}")
    assert found.get("ledger") == reference
    assert "hunter2" not in str(told)
    assert any("spend of LiteLLM are not read" in line for line in told) is (reference is not None)
