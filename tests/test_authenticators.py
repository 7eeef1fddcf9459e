"""Which of several plugins refuses, and where they may stand."""

from __future__ import annotations

import pytest

from gateway.authenticators import AUTHENTICATORS, is_last, misplaced
from gateway.config import DEFAULT_CHAIN


@pytest.mark.parametrize(
    ("chain", "last"),
    [
        (DEFAULT_CHAIN, "auth"),
        (("logging", *AUTHENTICATORS, "cache"), "auth_jwt"),
        (("auth", "auth_mtls", "rate_limit"), "auth_mtls"),
        (("auth_mtls",), "auth_mtls"),
    ],
    ids=str,
)
def test_one_of_them_refuses(chain: tuple[str, ...], last: str) -> None:
    there = [name for name in AUTHENTICATORS if name in chain]
    assert [name for name in there if is_last(chain, name)] == [last]
    assert misplaced(chain) == ""


def test_none_is_in_nobodys_way() -> None:
    assert misplaced(("logging", "cache")) == misplaced(()) == ""


@pytest.mark.parametrize(
    "chain",
    [
        ("auth", "cache", "auth_jwt"),
        ("auth_jwt", "auth"),
        ("auth_mtls", "auth"),
        ("auth", "auth_jwt", "auth_mtls"),
        ("auth", "auth_mtls", "cache", "auth_jwt"),
    ],
    ids=str,
)
def test_nothing_may_stand_between_them(chain: tuple[str, ...]) -> None:
    there = ", ".join(repr(name) for name in AUTHENTICATORS if name in chain)
    assert misplaced(chain).startswith(f"{there} must stand directly behind one another")
