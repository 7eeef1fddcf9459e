"""PostgreSQL as a database: the contract, its URL, and a server that goes away."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest

from gateway.secret import Secret
from gateway.state import postgres as module
from gateway.state.database import DatabaseError, connect
from gateway.state.postgres import Postgres
from gateway.testing import free_ports
from tests.contract.database import DatabaseContract, opened
from tests.support.postgres import Postgres as Server


class TestContract(DatabaseContract):
    @pytest.fixture
    def url(self, postgres_url: str) -> str:
        return postgres_url


@pytest.mark.parametrize(
    "url",
    ["postgresql://bob:canary#1@db.example.com/usage", "postgresql://bob:canary/1@db.example.com/usage",
     "postgresql://bob:[canary@db.example.com/usage"],
    ids=["#", "/", "["],
)  # fmt: skip
def test_a_password_that_is_not_encoded_is_told_without_it(url: str) -> None:
    with pytest.raises(DatabaseError, match="%23") as refused:
        Postgres(Secret(url))
    assert "canary" not in str(refused.value)


async def test_its_name_has_no_secret_in_it() -> None:
    (port,) = free_ports(1)
    database = Postgres(Secret(f"postgres://bob:canary@127.0.0.1:{port}/usage?password=canary"))
    assert database.name == "postgresql://127.0.0.1/usage"
    with pytest.raises(DatabaseError) as failed:
        await database.open()
    assert "canary" not in f"{failed.value!r}"
    assert "postgresql://127.0.0.1/usage: " in str(failed.value)


async def test_a_url_that_the_driver_refuses_is_told_without_it() -> None:
    with pytest.raises(DatabaseError, match="cannot be understood") as refused:
        await Postgres(Secret("postgresql://bob:canary?1@db.example.com/usage")).open()
    assert "canary" not in str(refused.value)


async def test_the_parameters_of_a_url_count(postgres_url: str) -> None:
    with pytest.raises(DatabaseError, match="sslmode"):
        await Postgres(Secret(f"{postgres_url}&sslmode=canary")).open()
    async with opened(f"{postgres_url}&sslmode=disable") as database:
        assert await database.fetch("SHOW application_name") == [("hookgate",)]


async def test_the_server_s_reason_is_told(postgres: Server) -> None:
    with pytest.raises(DatabaseError, match='database "nothing" does not exist'):
        await Postgres(Secret(postgres.url("nothing"))).open()


async def test_a_password_that_changes_is_taken_for_new_connections(postgres_url: str) -> None:
    now = "postgresql://nobody@/?host=/nowhere"
    database = Postgres(Secret(lambda: now))
    with pytest.raises(DatabaseError):
        await database.open()
    now = postgres_url
    await database.open()
    assert await database.fetch("SELECT 1") == [(1,)]
    await database.close()


async def test_a_statement_that_takes_too_long_is_cancelled(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STATEMENT", 0.3)
    async with opened(postgres_url) as database:
        began = time.monotonic()
        with pytest.raises(DatabaseError, match="does not answer"):
            await database.fetch("SELECT pg_sleep(20)")
        assert time.monotonic() - began < 5
        assert await database.fetch("SELECT 1") == [(1,)]


async def test_a_server_that_was_killed_is_found_again(postgres: Server, postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        await asyncio.to_thread(postgres.kill)
        with pytest.raises(DatabaseError):
            await database.fetch("SELECT 1")
        await asyncio.to_thread(postgres.start)
        assert await database.fetch("SELECT 1") == [(1,)]


async def test_a_server_that_is_silent_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # lets clients connect and says nothing
        database = connect(Secret(f"postgresql://bob@127.0.0.1:{silent.getsockname()[1]}/usage"), Path())
        began = time.monotonic()
        with pytest.raises(DatabaseError, match=r"127\.0\.0\.1/usage: it does not answer"):
            await database.open()
        await database.close()
    assert time.monotonic() - began < 5
