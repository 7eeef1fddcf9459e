"""Which database a URL means."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.secret import Secret
from gateway.state.database import DatabaseError, connect
from gateway.state.sqlite import Sqlite


@pytest.mark.parametrize(
    ("url", "place"),
    [
        (None, "/etc/hookgate/gateway.db"),
        ("sqlite:///usage/gateway.db", "/etc/hookgate/usage/gateway.db"),
        ("sqlite:////var/lib/gateway.db", "/var/lib/gateway.db"),
    ],
    ids=["default", "relative", "absolute"],
)
def test_a_file_is_relative_to_the_configuration(url: str | None, place: str) -> None:
    database = connect(None if url is None else Secret(url), Path("/etc/hookgate"))
    assert isinstance(database, Sqlite)
    assert database.name == f"sqlite:///{place}"


@pytest.mark.parametrize(
    "url",
    ["mysql://bob:canary@db/usage", "sqlite://canary.db", "sqlite:///", "sqlite:///canary.db?mode=memory", "canary"],
)
def test_anything_else_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(DatabaseError, match="expected sqlite:///FILE or postgresql://HOST/DATABASE") as refused:
        connect(Secret(url), Path())
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("missing", ["sqlalchemy", "sqlalchemy.ext.asyncio", "asyncpg"])
def test_without_its_extra_postgresql_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gateway.state.postgres", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(DatabaseError, match=r"pip install 'hookgate\[postgres\]'"):
        connect(Secret("postgresql://db/usage"), Path())
