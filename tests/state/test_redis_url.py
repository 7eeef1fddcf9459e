"""Where Redis is: URLs as other clients write them, and what is wrong with one told without repeating it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.state.redis_url import Address, parse


def address(host: str = "localhost", port: int = 6379, path: str = "", db: int = 0, **more: str) -> Address:
    return Address(host, port, path, db, more.get("user", ""), more.get("password", ""), None)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", address()),
        ("redis://cache.example:7000/3", address("cache.example", 7000, db=3)),
        ("redis://[::1]:7000?db=3", address("::1", 7000, db=3)),
        ("redis://:s%40fe:x@cache.example", address("cache.example", password="s@fe:x")),
        ("redis://bob:safe@cache.example/", address("cache.example", user="bob", password="safe")),
        ("unix:///run/redis.sock", address(path="/run/redis.sock")),
        ("unix://:safe@/run/redis.sock?db=2", address(path="/run/redis.sock", db=2, password="safe")),
    ],
)
def test_urls_say_where(url: str, expected: Address) -> None:
    assert parse(url) == expected


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://canary", "expected redis://HOST"),
        ("redis://localhost/canary", "the database"),
        ("redis://localhost?db=canary", "the database"),
        ("redis://localhost:canary", "the port"),
        ("redis://localhost:70000", "the port"),
        ("redis://localhost?canary=1", "takes no options but db"),
        ("redis://localhost?ssl_ca_certs=canary", "takes no options but db"),
        ("rediss://localhost?ssl_cert_reqs=none", "takes no options but db, ssl_ca_certs"),
        ("unix://canary/run/redis.sock", "expected unix:///PATH"),
        ("unix://", "expected unix:///PATH"),
        ("redis://[canary", "not a URL"),
        ("redis://[canary]/", "not a URL"),
        ("redis://canary\u2100@localhost", "not a URL"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_of_the_url(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        parse(url)
    assert "canary" not in str(caught.value)


def test_the_greeting_logs_in_and_selects() -> None:
    assert parse("redis://localhost").greeting == []
    assert parse("redis://:safe@localhost/2").greeting == [("AUTH", "safe"), ("SELECT", 2)]
    assert parse("redis://bob:safe@localhost").greeting == [("AUTH", "bob", "safe")]


def test_a_password_does_not_show() -> None:
    found = parse("redis://bob:canary@cache.example:7000/2")
    assert "canary" not in f"{found!r} {found}"
    assert str(found) == "cache.example:7000"
    assert str(parse("unix://:canary@/run/redis.sock")) == "/run/redis.sock"


def test_tls_is_verified(tmp_path: Path) -> None:
    assert parse("rediss://cache.example").tls is True
    file = tmp_path / "ca.pem"
    file.write_bytes(b"")
    with pytest.raises(OSError):
        parse(f"rediss://cache.example?ssl_ca_certs={file}")
