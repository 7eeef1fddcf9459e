"""Keys and teams are made, changed and removed, in either database, by any number of people at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import Key, Team
from gateway.state.database import DatabaseError, RowRefused
from gateway.state.key_rows import Invalid
from gateway.state.key_store import KeyStore, Missing, Taken
from tests.contract.database import opened as opened_database
from tests.support.keys import digest, stored, url
from tests.support.postgres import Postgres

__all__ = ["url"]


def contents(folder: Path) -> str:
    return "".join(path.read_bytes().decode("latin-1") for path in folder.iterdir())


async def change(url: str) -> int:
    async with opened_database(url) as database:
        return int((await database.fetch("SELECT change FROM hookgate_key_changes"))[0][0])


async def test_a_key_is_made_and_found(url: str) -> None:
    async with stored(url) as store:
        await store.teams.create("red", {"requests_per_minute": 5})
        key, row = await store.keys.create("alice", {"models": ["gpt-*"], "team": "red", "expires": 99})
        assert row == await store.keys.get("alice")
        assert (row.sha256, row.created, row.table()) == (
            digest(key).hex(), row.updated, {"models": ["gpt-*"], "team": "red", "expires": 99},
        )  # fmt: skip
        assert (await store.teams.get("red")).read() == Team(requests_per_minute=5)
    async with stored(url) as store:
        assert row == await store.keys.get("alice"), "it outlives whoever made it"


async def test_lists_come_in_parts(url: str) -> None:
    names = ["a", "b", "c", "d", "e"]
    async with stored(url) as store:
        for name in reversed(names):
            await store.keys.create(name, {})
            await store.teams.create(name, {})
        for part in (store.keys, store.teams):
            assert [row.name for row in await part.list()] == names
            assert [row.name for row in await part.list(limit=2)] == names[:2]
            assert [row.name for row in await part.list("b", 2)] == names[2:4]
            assert await part.list("e") == []


async def test_only_what_is_named_changes(url: str) -> None:
    async with stored(url) as store:
        _, before = await store.keys.create("alice", {"models": ["m"], "max_concurrency": 1, "expires": 99})
        row = await store.keys.update("alice", {"max_concurrency": 2, "expires": None})
        assert row == await store.keys.get("alice")
        assert row.table() == {"models": ["m"], "max_concurrency": 2}
        assert (row.sha256, row.created) == (before.sha256, before.created) and row.change > before.change
        assert (await store.keys.update("alice", {"models": None, "max_concurrency": None})).table() == {}
        await store.teams.create("red", {"tokens_per_minute": 2, "max_concurrency": 1})
        assert (await store.teams.update("red", {"tokens_per_minute": None})).table() == {"max_concurrency": 1}


async def test_a_rotated_key_has_a_grace(url: str) -> None:
    async with stored(url) as store:
        old, _ = await store.keys.create("alice", {"models": ["m"]})
        new, row = await store.keys.rotate("alice", 3600.0)
        assert row == await store.keys.get("alice") and row.table() == {"models": ["m"]}
        assert (row.sha256, row.previous) == (digest(new).hex(), digest(old).hex())
        assert row.previous_until is not None and 3598 <= row.previous_until - row.updated <= 3600
        newer, row = await store.keys.rotate("alice")
        assert (row.sha256, row.previous, row.previous_until) == (digest(newer).hex(), None, None)


async def test_a_key_is_blocked_whatever_it_is(url: str) -> None:
    async with stored(url) as store:
        await store.keys.create("alice", {})
        async with opened_database(url) as database, database.transaction() as transaction:
            await transaction.execute("UPDATE hookgate_keys SET allowance = 'spoilt', team = 'gone'")
        assert (await store.keys.block("alice")).blocked
        assert (await store.keys.get("alice")).blocked
        assert not (await store.keys.block("alice", False)).blocked
        with pytest.raises(Invalid, match="allowance"):
            await store.keys.update("alice", {"models": ["m"]})


async def test_what_is_removed_is_gone(url: str) -> None:
    async with stored(url) as store:
        await store.keys.create("alice", {})
        await store.keys.delete("alice")
        assert await store.keys.list() == []
        key, _ = await store.keys.create("alice", {"models": ["other"]})
        assert (await store.keys.get("alice")).sha256 == digest(key).hex()
    assert await change(url) == 3


async def test_what_is_not_there_is_told(url: str) -> None:
    async with stored(url) as store:
        for call in (store.keys.get, store.keys.delete, store.keys.rotate, store.keys.block, store.teams.delete):
            with pytest.raises(Missing, match=r"There is no (key|team) 'nobody' in the database\."):
                await call("nobody")
        with pytest.raises(Missing):
            await store.teams.update("nobody", {})
    assert await change(url) == 0


async def test_names_are_taken_once(url: str) -> None:
    async with stored(url, keys={"carl": Key()}, teams={"blue": Team()}) as store:
        await store.keys.create("alice", {})
        await store.teams.create("red", {})
        for part, name, told in (
            (store.keys, "alice", "There is a key 'alice' already."),
            (store.teams, "red", "There is a team 'red' already."),
            (store.keys, "carl", "gateway.toml has a key 'carl', which would count instead."),
            (store.teams, "blue", "gateway.toml has a team 'blue', which would count instead."),
        ):
            with pytest.raises(Taken) as refused:
                await part.create(name, {})
            assert str(refused.value) == told


@pytest.mark.parametrize(
    "wanted",
    [{"modles": ["m"]}, {"team": "nobody"}, {"budget": {"usd": -1, "per": "day"}}, {"sha256": "a" * 64}],
    ids=str,
)  # fmt: skip
async def test_what_makes_no_sense_changes_nothing(url: str, wanted: dict[str, Any]) -> None:
    async with stored(url) as store:
        await store.keys.create("alice", {"models": ["m"]})
        for call in (store.keys.update("alice", wanted), store.keys.create("bob", wanted)):
            with pytest.raises(Invalid):
                await call
        assert [row.table() for row in await store.keys.list()] == [{"models": ["m"]}]
    assert await change(url) == 1


async def test_a_team_is_there_while_it_has_members(url: str) -> None:
    members = {"carl": Key(team="blue"), "dora": Key(team="green")}
    async with stored(url, keys=members, teams={"green": Team()}) as store:
        for team in ("red", "blue"):
            await store.teams.create(team, {})
        for name in "abcd":
            await store.keys.create(name, {"team": "red"})
        with pytest.raises(Taken, match=r"Team 'red' has members: a, b, c, …"):
            await store.teams.delete("red")
        with pytest.raises(Taken, match=r"Team 'blue' has members: carl$"):
            await store.teams.delete("blue")
        for name in "abcd":
            await store.keys.update(name, {"team": "green"})
        await store.teams.delete("red")


async def test_whoever_ends_later_has_the_higher_number(url: str) -> None:
    async def make(store: KeyStore, names: list[str]) -> list[int]:
        return [(await store.keys.create(name, {}))[1].change for name in names]

    async with stored(url) as one, stored(url) as two:
        numbers = await asyncio.gather(
            make(one, [f"a{n}" for n in range(20)]), make(two, [f"b{n}" for n in range(20)])
        )  # fmt: skip
        assert sorted(numbers[0] + numbers[1]) == list(range(1, 41))
        assert all(part == sorted(part) for part in numbers)
        with pytest.raises(Taken):
            await asyncio.gather(one.keys.create("same", {}), two.keys.create("same", {}))


async def test_r11_no_key_is_in_the_database(postgres: Postgres, postgres_url: str, tmp_path: Path) -> None:
    keys = []
    for place in (postgres_url, f"sqlite:///{tmp_path}/gateway.db"):
        async with stored(place) as store:
            keys.append((await store.keys.create("alice", {}))[0])
            keys.append((await store.keys.rotate("alice", 60))[0])
    dump = await asyncio.to_thread(postgres.dump)
    assert digest(keys[1]).hex() in dump and digest(keys[0]).hex() in dump
    dump += contents(tmp_path)
    assert digest(keys[3]).hex() in dump
    assert not [key for key in keys if key in dump or key[3:20] in dump]


async def test_a_database_that_was_tampered_with_is_told(url: str) -> None:
    async with stored(url) as store:
        async with opened_database(url) as database, database.transaction() as transaction:
            await transaction.execute("DELETE FROM hookgate_key_changes")
        with pytest.raises(DatabaseError, match="hookgate_key_changes must have one row"):
            await store.keys.create("alice", {})


async def test_r14_names_are_values_not_sql(url: str) -> None:
    async with stored(url) as store:
        await store.keys.create("alice", {})
        for name in ("' OR '1' = '1", "alice'; DROP TABLE hookgate_keys; --", "alice\0", "\ud800", "%", ":name"):
            with pytest.raises((Missing, RowRefused)):
                await store.keys.get(name)
        assert [row.name for row in await store.keys.list()] == ["alice"]
