"""A mirror is what the table is, however it came to be so, and reads no more than it must."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.state import key_mirror
from gateway.state.database import Database, Found
from gateway.state.key_mirror import FIRST, Mirror
from gateway.state.key_rows import KeyRow
from gateway.state.key_store import CHANGE, Keys
from tests.contract.database import opened as opened_database
from tests.support.keys import stored, url

__all__ = ["url"]


class Follower:
    def __init__(self, database: Database) -> None:
        self.mirror = Mirror(KeyRow, KeyRow.read)
        self.read: list[int] = []
        self._database = database
        self._seen = FIRST

    async def follow(self) -> list[str]:
        """Names as they are mirrored now."""
        change = (await self._database.fetch(CHANGE))[0][0]
        self.read.clear()
        self.mirror.items = await self.mirror.follow(self._fetch, self._seen)
        self._seen = change
        return sorted(self.mirror.items)

    async def _fetch(self, sql: str, values: Mapping[str, Any]) -> Found:
        found = await self._database.fetch(sql, values)
        if "sha256" in sql:
            self.read.append(len(found))
        return found


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_mirror, "_PAGE", 3)


async def same(follower: Follower, keys: Keys) -> bool:
    names = await follower.follow()
    rows = await keys.list()
    mirrored = [follower.mirror.items[name].row for name in names]
    return mirrored == sorted(rows, key=lambda row: row.name)


async def test_only_what_has_changed_is_read(url: str) -> None:
    async with stored(url) as store, opened_database(url) as database:
        follower = Follower(database)
        assert await follower.follow() == []
        for name in "abcdefg":
            await store.keys.create(name, {})
        assert await same(follower, store.keys)
        assert follower.read == [3, 3, 1, 0]
        kept = follower.mirror.items["a"]
        await store.keys.update("b", {"models": ["m"]})
        assert await same(follower, store.keys)
        assert follower.read == [1, 0]
        assert follower.mirror.items["a"] is kept
        await store.keys.delete("c")
        assert await same(follower, store.keys)
        assert follower.read == [0]


async def test_one_gone_and_one_come_between_two_looks(url: str) -> None:
    async with stored(url) as store, opened_database(url) as database:
        follower = Follower(database)
        for name in "abc":
            await store.keys.create(name, {})
        await follower.follow()
        await store.keys.delete("a")
        await store.keys.create("d", {})
        await store.keys.delete("b")
        await store.keys.create("b", {"models": ["m"]})
        assert await same(follower, store.keys)
        assert follower.mirror.items["b"].row.table() == {"models": ["m"]}


async def test_rows_of_one_change_are_all_read(url: str) -> None:
    """As a restored backup has them, or a hand at work."""
    async with stored(url) as store, opened_database(url) as database:
        for name in "abcdefgh":
            await store.keys.create(name, {})
        async with database.transaction() as transaction:
            await transaction.execute("UPDATE hookgate_keys SET change = 5")
        follower = Follower(database)
        assert await same(follower, store.keys)


async def test_whatever_happens_the_mirror_is_the_table(url: str) -> None:
    order = random.Random(11)
    async with stored(url) as store, opened_database(url) as database:
        follower = Follower(database)
        there = set[str]()
        for _ in range(25):
            for _ in range(order.randrange(1, 5)):
                name = order.choice("abcdefghij")
                if name not in there:
                    await store.keys.create(name, {})
                    there.add(name)
                elif order.random() < 0.5:
                    await store.keys.delete(name)
                    there.remove(name)
                else:
                    await store.keys.rotate(name)
            assert await same(follower, store.keys)


async def test_a_row_that_makes_no_sense_harms_no_other(url: str) -> None:
    async with stored(url) as store, opened_database(url) as database:
        for name in "abc":
            await store.keys.create(name, {})
        async with database.transaction() as transaction:
            await transaction.execute("UPDATE hookgate_keys SET allowance = '{\"models\": 1}' WHERE name = 'b'")
        follower = Follower(database)
        await follower.follow()
        problems = {name: item.problem for name, item in follower.mirror.items.items()}
        assert problems == {"a": "", "b": "models: expected a list, not a whole number.", "c": ""}
        assert follower.mirror.items["b"].value is None


async def test_what_only_sqlite_takes_harms_no_other(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/gateway.db"
    async with stored(url) as store, opened_database(url) as database:
        for name in "abcd":
            await store.keys.create(name, {})
        async with database.transaction() as transaction:
            for name, column, value in (("b", "name", b"b"), ("c", "previous_until", "later"), ("d", "sha256", b"\0")):
                sql = f"UPDATE hookgate_keys SET previous = sha256, {column} = :value WHERE name = :name"
                await transaction.execute(sql, {"value": value, "name": name})
        follower = Follower(database)
        follower.mirror.items = await follower.mirror.follow(follower._fetch, FIRST)
        good = [name for name, item in follower.mirror.items.items() if item.value is not None]
        assert good == ["a"] and len(follower.mirror.items) == 4
