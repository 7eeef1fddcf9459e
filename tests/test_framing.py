"""Which request heads are let in, and how the others are refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import HttpVersion, HttpVersion10, HttpVersion11
from multidict import CIMultiDict

from gateway.framing import misframed


def message(target: str = "/", version: HttpVersion = HttpVersion11, **headers: str) -> Any:
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return SimpleNamespace(path=target, version=version, headers=named)


@pytest.mark.parametrize(
    "good",
    [
        message(), message(version=HttpVersion10), message(Host="gw.test:80"), message(Host="[::1]:8080"),
        message(Transfer_Encoding="chunked"), message(Transfer_Encoding=" Chunked "), message("/a?b=http://c"),
    ],
    ids=str,
)  # fmt: skip
def test_what_all_servers_read_alike_is_let_in(good: Any) -> None:
    assert misframed(good) is None


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (message(version=HttpVersion(0, 9)), 505),
        (message(version=HttpVersion(2, 0)), 505),
        (message("http://evil.test/"), 400),
        (message("*"), 400),
        (message("evil.test:443"), 400),
        (message(version=HttpVersion10, Transfer_Encoding="chunked"), 400),
        (message(Transfer_Encoding="gzip, chunked"), 501),
        (message(Transfer_Encoding="identity"), 501),
        (message(Transfer_Encoding=""), 501),
        (message(Host="gw.test/#"), 400),
        (message(Host="a b"), 400),
        (message(Host="user@gw.test"), 400),
        (message(Host=""), 400),
    ],
    ids=str,
)
def test_r01_what_servers_read_differently_is_not(bad: Any, status: int) -> None:
    wrong = misframed(bad)
    assert wrong is not None and wrong.http_status == status
