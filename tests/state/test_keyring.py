"""What this process knows of the keys in the database follows it, and does not depend on it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections.abc import Callable
from math import inf
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from gateway.errors import Overloaded
from gateway.limits import Limit
from gateway.settings import Key, Team
from gateway.state import keyring as module
from gateway.state.database import DatabaseError
from gateway.state.keyring import Keyring, Teams, has_its_team
from tests.contract.database import opened as opened_database
from tests.support.keys import config, digest, holder, ring, stored, url
from tests.support.postgres import Postgres

__all__ = ["url"]


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/gateway.db"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL", 0.02)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "keys" in record.getMessage()]


async def until(condition: Callable[[], object], within: float = 20.0) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  # a test's wait
            await asyncio.sleep(0.005)


def move(folder: Path, before: str, after: str) -> None:
    """Rename a database with the files beside it."""
    for path in folder.glob(f"{before}.db*"):
        path.rename(folder / path.name.replace(before, after, 1))


async def tamper(url: str, sql: str) -> None:
    async with opened_database(url) as database, database.transaction() as transaction:
        await transaction.execute(sql)


async def test_r13_each_change_is_followed(url: str) -> None:
    async with stored(url) as store, ring(url) as keyring:
        assert keyring.known and not keyring.holders
        key, _ = await store.keys.create("alice", {"models": ["gpt-*"]})
        await keyring.read()
        assert holder(keyring, key).models == ("gpt-*",)
        before = holder(keyring, key)
        await keyring.read()
        assert holder(keyring, key) is before, "nothing has changed"
        await store.keys.update("alice", {"models": ["llama3"]})
        await keyring.read()
        assert holder(keyring, key).models == ("llama3",)
        await store.keys.block("alice")
        await keyring.read()
        assert holder(keyring, key) is None
        await store.keys.block("alice", False)
        new, _ = await store.keys.rotate("alice")
        await keyring.read()
        assert holder(keyring, key) is None and holder(keyring, new).name == "alice"
        await store.keys.delete("alice")
        await keyring.read()
        assert not keyring.holders and not keyring.refused


async def test_ends_stand_beside_the_holders(url: str) -> None:
    async with stored(url) as store:
        await store.keys.create("alice", {"expires": 4_000_000_000})
        old, _ = await store.keys.create("bob", {})
        new, row = await store.keys.rotate("bob", 3600)
        async with ring(url) as keyring:
            assert keyring.holders[digest(new)][2] == inf
            assert keyring.holders[digest(old)][2] == row.previous_until
            assert sorted(ends for _, _, ends in keyring.holders.values())[1] == 4_000_000_000


async def test_r12_keys_that_begin_alike_stay_apart(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    common = "hg-" + "c" * 57
    async with stored(url) as store:
        for name in ("kept", "revoked"):
            monkeypatch.setattr("gateway.virtual_key.make", lambda name=name: common + name)
            await store.keys.create(name, {})
        async with ring(url) as keyring:
            await store.keys.delete("revoked")
            await keyring.read()
            for _ in range(1000):
                assert holder(keyring, f"{common}kept").name == "kept"
                assert holder(keyring, f"{common}revoked") is None
                assert holder(keyring, common) is None


async def test_gateway_toml_wins(url: str) -> None:
    async with stored(url) as store:
        key, _ = await store.keys.create("alice", {"team": None})
        await store.teams.create("red", {"max_concurrency": 1})
        async with ring(url, keys={"alice": Key(sha256="a" * 64)}, teams={"red": Team(max_concurrency=9)}) as keyring:
            assert holder(keyring, key) is None
            assert keyring.refused == {"alice": "gateway.toml has one of this name, which counts instead."}
            assert Teams({"red": Team(max_concurrency=9)}, keyring)["red"].max_concurrency == 9
            assert "counts instead" in keyring.problem(await store.teams.get("red"))
            keyring.configure(config(url))
            assert holder(keyring, key).name == "alice" and not keyring.refused


async def test_a_bad_row_is_refused_and_no_other(url: str) -> None:
    async with stored(url) as store:
        keys = {name: (await store.keys.create(name, {}))[0] for name in ("alice", "bob", "eve")}
        await tamper(url, "UPDATE hookgate_keys SET allowance = '{\"modles\": []}' WHERE name = 'bob'")
        await tamper(url, "UPDATE hookgate_keys SET team = 'gone' WHERE name = 'eve'")
        async with ring(url) as keyring:
            assert [name for name, key in keys.items() if holder(keyring, key)] == ["alice"]
            assert keyring.refused == {
                "bob": "modles: unknown key. Did you mean 'models'?", "eve": "team: there is no team 'gone'.",
            }  # fmt: skip


async def test_a_team_that_makes_no_sense_closes_its_members(url: str) -> None:
    inline = {"carl": Key(sha256="c" * 64, team="red"), "dora": Key(sha256="d" * 64, team="blue")}
    async with stored(url) as store:
        await store.teams.create("red", {})
        key, _ = await store.keys.create("alice", {"team": "red"})
        async with ring(url, keys=inline) as keyring:
            assert set(keyring.holders) == {digest(key), bytes.fromhex("c" * 64)}
            assert keyring.refused == {"dora": "team: there is no team 'blue'."}
            await store.teams.create("blue", {})
            await tamper(url, "UPDATE hookgate_teams SET allowance = '[]', change = 99 WHERE name = 'red'")
            await keyring.read()
            assert set(keyring.holders) == {bytes.fromhex("d" * 64)}
            assert set(keyring.refused) == {"alice", "carl"}
            with pytest.raises(Overloaded):
                Teams({}, keyring).get("red")
            with pytest.raises(KeyError):
                Teams({}, keyring)["green"]
            assert Teams({}, keyring).get("green") is None


async def test_who_counts_by_teams_hears_of_their_changes_alone(url: str) -> None:
    async with stored(url) as store, ring(url) as keyring:
        told: list[Team] = []
        keyring.on_teams.append(lambda: told.append(keyring.team("red")))
        await store.teams.create("red", {"budget": {"usd": 1, "per": "day"}})
        await keyring.read()
        await store.keys.create("alice", {"team": "red"})
        await keyring.read()
        await store.teams.update("red", {"budget": None, "max_concurrency": 3})
        await keyring.read()
        assert told == [Team(budget=Limit(usd=1, per="day")), Team(max_concurrency=3)]


def test_a_key_of_gateway_toml_may_have_its_team_in_the_database(file: str) -> None:
    known = config(file, teams={"red": Team()})
    assert has_its_team(Key(), known) and has_its_team(Key(team="red"), known)
    assert not has_its_team(Key(team="blue"), known)


async def test_teams_are_a_mapping(url: str) -> None:
    async with stored(url) as store:
        await store.teams.create("blue", {})
        async with ring(url) as keyring:
            assert sorted(Teams({"red": Team()}, keyring)) == ["blue", "red"]
            assert len(Teams({"blue": Team()}, keyring)) == 1


async def test_before_the_first_look_nobody_can_tell(file: str) -> None:
    keyring = Keyring(config(file), Path())
    assert not keyring.known
    with pytest.raises(Overloaded):
        keyring.team("red")
    keyring.configure(config(file))
    assert not keyring.holders


@pytest.mark.usefixtures("quick")
async def test_r48_a_gateway_starts_without_its_database_and_finds_it_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hookgate")
    url = f"sqlite:///{tmp_path}/folder/gateway.db"
    keyring = Keyring(config(url), Path())
    try:
        await keyring.open()
        await asyncio.sleep(0.2)
        assert not keyring.known
        (tmp_path / "folder").mkdir()
        async with stored(url) as store:
            key, _ = await store.keys.create("alice", {})
        await until(lambda: holder(keyring, key))
    finally:
        await keyring.close()
    down, back = lines(caplog)
    assert down.startswith("the keys in the database cannot be read, until it can, they are answered with 503: sqlite:")
    assert back.startswith("the keys in the database are read again after ")


@pytest.mark.usefixtures("quick")
async def test_r48_the_last_snapshot_stays_while_the_file_is_away(
    file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hookgate")
    async with stored(file) as store:
        key, _ = await store.keys.create("alice", {})
    keyring = Keyring(config(file), Path())
    try:
        await keyring.open()
        move(tmp_path, "gateway", "away")
        keyring._all_at = 0.0  # as after five minutes
        await until(lambda: lines(caplog))
        await asyncio.sleep(0.2)
        assert holder(keyring, key).name == "alice"
        assert not (tmp_path / "gateway.db").exists(), "an empty one would have no keys"
        move(tmp_path, "away", "gateway")
        async with stored(file) as store:
            await store.keys.delete("alice")
        await until(lambda: not holder(keyring, key))
    finally:
        await keyring.close()
    down, back = lines(caplog)
    assert down.startswith("the keys in the database cannot be read, those read last stay in use: sqlite:")
    assert back.startswith("the keys in the database are read again after ")


@pytest.mark.usefixtures("quick")
async def test_r48_postgresql_is_killed_and_comes_back(
    postgres: Postgres, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hookgate")
    async with stored(postgres_url) as store:
        key, _ = await store.keys.create("alice", {})
    keyring = Keyring(config(postgres_url), Path())
    try:
        await keyring.open()
        await asyncio.to_thread(postgres.kill)
        await until(lambda: lines(caplog))
        assert holder(keyring, key).name == "alice"
        await asyncio.to_thread(postgres.start)
        async with stored(postgres_url) as store:
            await store.keys.block("alice")
        await until(lambda: not holder(keyring, key))
    finally:
        await keyring.close()
        await asyncio.to_thread(postgres.start)
    assert len(lines(caplog)) == 2


@pytest.mark.usefixtures("quick")
async def test_what_is_not_accepted_is_told_once_for_all(file: str, caplog: pytest.LogCaptureFixture) -> None:
    async with stored(file) as store:
        for number in range(9):
            await store.keys.create(f"k{number}", {})
    await tamper(file, "UPDATE hookgate_keys SET allowance = 'canary', change = 0")
    keyring = Keyring(config(file), Path())
    try:
        await keyring.open()
        async with stored(file) as store:
            await store.keys.create("fine", {})
        await until(lambda: keyring.holders)
        await asyncio.sleep(0.1)
        async with stored(file) as store:
            for number in range(9):
                await store.keys.delete(f"k{number}")
        await until(lambda: not keyring.refused)
    finally:
        await keyring.close()
    first, *_, last = lines(caplog)
    assert first.startswith("keys that are not accepted: 'k0': allowance: expected a JSON object. 'k1': ")
    assert first.endswith("And 4 more.")
    assert last == "keys that are not accepted: none any more"
    assert "canary" not in caplog.text


async def test_an_older_state_that_was_restored_is_read_whole(url: str) -> None:
    async with stored(url) as store:
        first, _ = await store.keys.create("alice", {})
        async with ring(url) as keyring:
            second, _ = await store.keys.rotate("alice")
            await keyring.read()
            assert holder(keyring, second)
            await tamper(url, f"UPDATE hookgate_keys SET sha256 = '{digest(first).hex()}', change = 1")
            await tamper(url, "UPDATE hookgate_key_changes SET change = 1")
            await keyring.read()
            assert holder(keyring, first) and not holder(keyring, second)


async def test_what_a_hand_has_changed_is_seen_in_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stored(url) as store:
        key, _ = await store.keys.create("alice", {})
        async with ring(url) as keyring:
            await tamper(url, "DELETE FROM hookgate_keys")
            await keyring.read()
            assert holder(keyring, key), "nobody has counted this change"
            later = time.monotonic() + module.ALL
            monkeypatch.setattr(module, "monotonic", lambda: later)
            await keyring.read()
            assert not holder(keyring, key)


async def test_another_file_in_its_place_is_found_in_time(file: str, tmp_path: Path) -> None:
    async with stored(file) as store:
        key, _ = await store.keys.create("alice", {})
    other = tmp_path / "other"
    other.mkdir()
    async with stored(f"sqlite:///{other}/gateway.db") as store:
        new, _ = await store.keys.create("bob", {})
    async with ring(file) as keyring:
        assert holder(keyring, key)
        os.replace(other / "gateway.db", tmp_path / "gateway.db")
        keyring._all_at = 0.0
        await keyring.read()
        assert holder(keyring, new) and not holder(keyring, key)


async def test_who_only_looks_makes_nothing(file: str, tmp_path: Path) -> None:
    for message in ("No such file", "no gateway of this release has written there yet"):
        keyring = Keyring(config(file), Path(), create=False)
        with pytest.raises(DatabaseError, match=message):
            await keyring.read()
        await keyring.close()
        async with opened_database(file) as database:
            assert not await database.has_table("hookgate_keys")


async def test_it_is_another_one_where_the_database_is(file: str, tmp_path: Path) -> None:
    keyring = Keyring(config(file), tmp_path)
    assert keyring.serves(config(file), tmp_path)
    assert not keyring.serves(config(f"{file}2"), tmp_path)
    assert not keyring.serves(config(file), tmp_path / "other")
    with pytest.raises(DatabaseError):
        Keyring(config("mysql://x/y"), tmp_path)


async def test_the_metrics_tell(url: str) -> None:
    async with stored(url) as store:
        await store.keys.create("alice", {})
        await store.keys.create("bob", {})
        await tamper(url, "UPDATE hookgate_keys SET team = 'gone' WHERE name = 'bob'")
    keyring = Keyring(config(url), Path())
    registry = CollectorRegistry()
    registry.register(keyring)
    try:
        await keyring.open()
    finally:
        await keyring.close()
    assert registry.get_sample_value("hookgate_keys") == 1
    assert registry.get_sample_value("hookgate_keys_refused") == 1
    assert time.time() - (registry.get_sample_value("hookgate_keys_read_timestamp_seconds") or 0) < 60


async def test_r38_many_keys_do_not_hold_up_the_event_loop(file: str) -> None:
    async with stored(file) as store:
        _, row = await store.keys.create("alice", {"models": ["gpt-*"]})
    async with opened_database(file) as database, database.transaction() as transaction:
        await transaction.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
            "INSERT INTO hookgate_keys SELECT 'k' || i, printf('%064x', i), NULL, NULL, NULL, :allowance, FALSE, NULL, "
            "0, 0, 5 FROM n",
            {"allowance": row.allowance},
        )
        await transaction.execute("UPDATE hookgate_key_changes SET change = 5")
    keyring = Keyring(config(file), Path())
    longest = 0.0
    gc.collect()
    gc.disable()  # pytest has far more for it to look at than a gateway, which lets it run seldom besides
    reading = asyncio.get_running_loop().create_task(keyring.read())
    try:
        while not reading.done():
            began = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - began)
        await reading
        assert len(keyring.holders) == 5001
    finally:
        gc.enable()
        await keyring.close()
    assert longest < 0.05, "seconds of CPU in one turn of the event loop"
