"""Keys and teams in a database: the configuration that has them there, and a way to write."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.secret import Secret, StoreUrl
from gateway.settings import Config, State
from gateway.state.key_store import KeyStore, opened
from gateway.state.keyring import Keyring


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database, of either kind."""
    return f"sqlite:///{tmp_path}/gateway.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


def config(url: str, **tables: Any) -> Config:
    """With keys in the database at ``url``."""
    return Config(state=State(keys=True, ledger=StoreUrl(Secret(url))), **tables)


@contextlib.asynccontextmanager
async def stored(url: str, **tables: Any) -> AsyncIterator[KeyStore]:
    async with opened(config(url, **tables), Path()) as store:
        yield store


@contextlib.asynccontextmanager
async def ring(url: str, **tables: Any) -> AsyncIterator[Keyring]:
    """A keyring that has read, and reads again when it is told to."""
    keyring = Keyring(config(url, **tables), Path())
    try:
        await keyring.read()
        yield keyring
    finally:
        await keyring.close()


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def holder(keyring: Keyring, key: str) -> Any:
    """Whom ``key`` stands for."""
    found = keyring.holders.get(digest(key))
    return None if found is None else found[1]
