"""A credential is found wherever an SDK puts it."""

from __future__ import annotations

import pytest

from gateway.credential import credential
from tests.support.exchanges import make_exchange


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"Authorization": "Bearer k"}, "k"),
        ({"authorization": "BEARER   k  "}, "k"),
        ({"x-api-key": "k"}, "k"),
        ({"api-key": "k"}, "k"),
        ({"x-goog-api-key": "k"}, "k"),
        ({"Authorization": "Basic dXNlcjpwYXNz", "x-api-key": "k"}, "k"),
        ({"Authorization": "Bearer ", "x-api-key": "k"}, "k"),
        ({"Authorization": "Bearer first", "x-api-key": "second"}, "first"),
        ({"Authorization": "Bearer two words"}, "two words"),
        ({"Authorization": "k"}, None),
        ({"Cookie": "key=k"}, None),
        ({"x-api-key": ""}, None),
        ({}, None),
    ],
    ids=str,
)
def test_where_a_credential_is_found(headers: dict[str, str], found: str | None) -> None:
    assert credential(make_exchange(headers)) == found
