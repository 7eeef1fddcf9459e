"""R11, R12, R13, R48: keys in a database, changed under two running gateways, which no message reaches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from gateway.cli import main
from gateway.state.key_store import KeyStore
from gateway.testing import GatewayFactory, GatewayProcess, fetch, fetch_chat
from tests.support.keys import digest, stored, url
from tests.support.postgres import Postgres

__all__ = ["url"]

WITHIN = 5.0
"""Seconds a change may take."""
CONFIG = """
[state]
keys = true
ledger = "env:LEDGER"
[admin]
token = "env:ADMIN"
[plugins.rate_limit]
requests_per_minute = 0
[providers.echo]
type = "echo"
"""
ADMIN = "admin-token-0123456789"


class Keys:
    """They share their first 60 characters."""

    def __init__(self) -> None:
        self._count = 0

    def make(self) -> str:
        self._count += 1
        return "hg-" + "c" * 57 + f"{self._count:03}"


@pytest.fixture(autouse=True)
def alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.virtual_key.make", Keys().make)


@pytest.fixture
def gateways(url: str, gateway_server: GatewayFactory) -> list[GatewayProcess]:
    return [gateway_server(CONFIG, env={"LEDGER": url, "ADMIN": ADMIN}) for _ in range(2)]


@pytest.fixture
async def store(url: str) -> AsyncIterator[KeyStore]:
    async with stored(url) as store:
        yield store


async def status(gateway: GatewayProcess, key: str) -> int:
    return (await fetch_chat(gateway.url, "echo", key=key)).status


async def follows(gateways: list[GatewayProcess], key: str, wanted: int, since: float) -> None:
    """Each of them answers ``wanted`` at last, and answered otherwise no later than ``WITHIN`` after ``since``."""

    async def one(gateway: GatewayProcess) -> None:
        last = since
        while await status(gateway, key) != wanted:
            last = time.monotonic()
            assert last - since <= WITHIN, f"still not {wanted} after {last - since:.1f} s"
            await asyncio.sleep(0.05)

    await asyncio.gather(*map(one, gateways))


async def command(gateway: GatewayProcess, *arguments: str) -> None:
    assert await asyncio.to_thread(main, [*arguments, "--config", str(gateway.config_path)]) == 0


async def test_r13_each_change_counts_in_each_process(
    gateways: list[GatewayProcess], store: KeyStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDGER", url)
    monkeypatch.setenv("ADMIN", ADMIN)
    names = ("kept", "blocked", "rotated", "expired", "removed", "narrowed", "ordered")
    keys = {name: (await store.keys.create(name, {}))[0] for name in names}
    began = time.monotonic()
    await asyncio.gather(*(follows(gateways, key, 200, began) for key in keys.values()))
    assert await status(gateways[0], digest(keys["kept"]).hex()) == 401
    assert await status(gateways[0], keys["kept"][:60]) == 401

    async def change(name: str, call: Callable[[], Awaitable[object]], wanted: int) -> None:
        await call()
        await follows(gateways, keys[name], wanted, time.monotonic())

    steady = asyncio.get_running_loop().create_task(stay(gateways, keys["kept"]))
    await asyncio.gather(
        change("blocked", lambda: store.keys.block("blocked"), 401),
        change("rotated", lambda: store.keys.rotate("rotated"), 401),
        change("expired", lambda: store.keys.update("expired", {"expires": int(time.time())}), 401),
        change("removed", lambda: store.keys.delete("removed"), 401),
        change("narrowed", lambda: store.keys.update("narrowed", {"models": ["other"]}), 403),
        change("ordered", lambda: command(gateways[0], "keys", "block", "ordered"), 401),
    )
    steady.cancel()
    with pytest.raises(asyncio.CancelledError):
        await steady
    headers = {"Authorization": f"Bearer {ADMIN}"}
    answer = await fetch(f"{gateways[0].admin_url}/keys/kept/block", "POST", headers)
    assert answer.status == 200
    assert await status(gateways[0], keys["kept"]) == 401, "at once where it was changed"
    await follows(gateways, keys["kept"], 401, time.monotonic())
    for gateway in gateways:
        await gateway.stop()
        written = gateway.stdout + gateway.stderr
        assert not [key for key in keys.values() if key in written or digest(key).hex() in written]


async def stay(gateways: list[GatewayProcess], key: str) -> None:
    while True:
        assert [await status(gateway, key) for gateway in gateways] == [200, 200]
        await asyncio.sleep(0.05)


def told(gateway: GatewayProcess) -> list[str]:
    return [line for line in gateway.stderr.splitlines() if "keys in the database" in line]


@pytest.fixture
def revived(postgres: Postgres) -> Iterator[Postgres]:
    yield postgres
    postgres.start()


async def test_r48_keys_go_on_while_the_database_is_gone(
    postgres_url: str, revived: Postgres, gateway_server: GatewayFactory
) -> None:
    async with stored(postgres_url) as store:
        key, _ = await store.keys.create("alice", {})
        ending, _ = await store.keys.create("bob", {"expires": int(time.time()) + 5})
    gateways = [gateway_server(CONFIG, env={"LEDGER": postgres_url, "ADMIN": ADMIN}) for _ in range(2)]
    assert [await status(gateway, key) for gateway in gateways] == [200, 200]
    await asyncio.to_thread(revived.kill)
    late = gateway_server(CONFIG, env={"LEDGER": postgres_url, "ADMIN": ADMIN})
    assert [await status(late, key), await status(late, "")] == [503, 401]
    for gateway in gateways:
        while await status(gateway, ending) == 200 or not told(gateway):
            assert await status(gateway, key) == 200
            await asyncio.sleep(0.1)
        assert [await status(gateway, each) for each in (key, ending, "hg-nobody")] == [200, 401, 401]
    await asyncio.to_thread(revived.start)
    began = time.monotonic()
    await follows([late], key, 200, began)
    async with stored(postgres_url) as store:
        await store.keys.block("alice")
    await follows([*gateways, late], key, 401, time.monotonic())
    for gateway in (*gateways, late):
        assert len(told(gateway)) == 2, "gone, and back"
