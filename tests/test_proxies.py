"""Whose word is believed: that of the trusted proxies, and of a unix socket's peer where they are on this machine."""

from __future__ import annotations

from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.proxies import Proxies


def came(peer: str, forwarded: str | None = None) -> Any:
    headers = CIMultiDict({} if forwarded is None else {"X-Forwarded-For": forwarded})
    return SimpleNamespace(protocol=SimpleNamespace(peer=peer), headers=headers)


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, junk", "10.0.0.1"),
        ("10.0.0.1", "[2001:db8::1]:443", "2001:db8::1"),
        ("10.0.0.1", "203.0.113.9:80", "203.0.113.9"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("not an address", "203.0.113.9", "not an address"),
    ],
)
def test_r09_who_it_is(peer: str, forwarded: str | None, expected: str) -> None:
    assert Proxies([ip_network("10.0.0.0/8")]).client_ip(came(peer, forwarded)) == expected


@pytest.mark.parametrize(
    ("peer", "networks", "believed"),
    [
        ("10.0.0.1", ["10.0.0.0/8"], True),
        ("10.0.0.1", ["192.0.2.0/24", "10.0.0.1/32"], True),
        ("10.0.0.1", [], False),
        ("11.0.0.1", ["10.0.0.0/8"], False),
        ("2001:db8::1", ["2001:db8::/32"], True),
        ("::ffff:10.0.0.1", ["10.0.0.0/8"], False),
        ("", ["127.0.0.1/32"], True),
        ("", ["10.0.0.0/8"], False),
        ("", [], False),
        ("not an address", ["0.0.0.0/0"], False),
    ],
)
def test_r09_who_is_believed(peer: str, networks: list[str], believed: bool) -> None:
    assert Proxies(map(ip_network, networks)).vouch_for(came(peer)) is believed
