"""Keys and teams on the admin listener: for whoever has the token, and nowhere else."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.testing import LocalGateway, Response, fetch, fetch_chat
from tests.support.keys import digest, stored

TOKEN = "admin-token-4f6a1c"
CONFIG = """
[state]
keys = true
[admin]
token = "env:TOKEN"
[providers.echo]
type = "echo"
[models.m]
targets = [{ provider = "echo" }]
"""
PATHS = (
    ("GET", "/keys"), ("POST", "/keys"), ("GET", "/keys/alice"), ("PATCH", "/keys/alice"), ("DELETE", "/keys/alice"),
    ("POST", "/keys/alice/rotate"), ("POST", "/keys/alice/block"), ("POST", "/keys/alice/unblock"), ("GET", "/teams"),
    ("POST", "/teams"), ("GET", "/teams/red"), ("PATCH", "/teams/red"), ("DELETE", "/teams/red"),
)  # fmt: skip


class Admin:
    def __init__(self, gateway: LocalGateway) -> None:
        self.gateway = gateway

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Response:
        given = {"Authorization": f"Bearer {TOKEN}"} | headers
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        return await fetch(self.gateway.admin_url + path, method, given, content)

    async def create(self, **table: Any) -> str:
        answer = await self.ask("POST", "/keys", table)
        assert answer.status == 201, answer.body
        return str(answer.json["key"])

    async def opens(self, key: str, model: str = "m") -> int:
        return (await fetch_chat(self.gateway.url, model, key=key)).status


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    async with LocalGateway(tmp_path, CONFIG, {"TOKEN": TOKEN}) as gateway:
        yield Admin(gateway)


async def test_a_key_has_a_life(admin: Admin) -> None:
    answer = await admin.ask("POST", "/keys", {"name": "alice", "models": ["m"], "expires": "30d"})
    key = answer.json["key"]
    assert (answer.status, answer.json["state"], answer.json["models"]) == (201, "ok", ["m"])
    assert answer.header("Cache-Control") == "no-store"
    assert await admin.opens(key) == 200, "here at once"
    answer = await admin.ask("PATCH", "/keys/alice", {"models": ["other"], "expires": None})
    assert (answer.json["models"], "expires" in answer.json, "key" in answer.json) == (["other"], False, False)
    assert await admin.opens(key) == 403
    new = (await admin.ask("POST", "/keys/alice/rotate", {"grace": "1h"})).json["key"]
    assert [await admin.opens(each) for each in (key, new)] == [403, 403]
    newest = (await admin.ask("POST", "/keys/alice/rotate")).json["key"]
    assert [await admin.opens(each) for each in (key, new, newest)] == [401, 401, 403]
    assert (await admin.ask("POST", "/keys/alice/block")).json["state"] == "blocked"
    assert await admin.opens(newest) == 401
    await admin.ask("POST", "/keys/alice/unblock")
    await admin.ask("PATCH", "/keys/alice", {"models": None})
    assert await admin.opens(newest) == 200
    assert (await admin.ask("PATCH", "/keys/alice", {"expires": "2026-01-01"})).json["state"] == "expired"
    assert await admin.opens(newest) == 401
    await admin.ask("PATCH", "/keys/alice", {"expires": None})
    assert (await admin.ask("DELETE", "/keys/alice")).status == 200
    assert await admin.opens(newest) == 401
    assert (await admin.ask("GET", "/keys/alice")).status == 404


async def test_a_team_has_one_too(admin: Admin) -> None:
    assert (await admin.ask("POST", "/teams", {"name": "red", "requests_per_minute": 2})).status == 201
    keys = [await admin.create(name=name, team="red") for name in ("alice", "bob")]
    assert [await admin.opens(key) for key in (*keys, keys[0])] == [200, 200, 429]
    assert (await admin.ask("PATCH", "/teams/red", {"requests_per_minute": 3})).json["requests_per_minute"] == 3
    assert [await admin.opens(keys[1]) for _ in range(2)] == [200, 429]
    refused = await admin.ask("DELETE", "/teams/red")
    assert (refused.status, refused.json) == (409, {"problems": ["Team 'red' has members: alice, bob"]})
    for name in ("alice", "bob"):
        await admin.ask("PATCH", f"/keys/{name}", {"team": None})
    assert (await admin.ask("DELETE", "/teams/red")).status == 200
    assert (await admin.ask("GET", "/teams")).json == {"teams": [], "next": None}


async def test_lists_come_in_parts(admin: Admin) -> None:
    for name in ("a b", "b", "ü"):
        await admin.create(name=name)
    first = (await admin.ask("GET", "/keys?limit=2")).json
    assert ([each["name"] for each in first["keys"]], first["next"]) == (["a b", "b"], "b")
    second = (await admin.ask("GET", "/keys?limit=2&after=b")).json
    assert ([each["name"] for each in second["keys"]], second["next"]) == (["ü"], None)
    assert (await admin.ask("GET", "/keys/a%20b")).json["name"] == "a b"
    assert (await admin.ask("GET", "/keys/%C3%BC")).json["name"] == "ü"


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_r18_without_the_token_there_is_nothing_to_see(admin: Admin, method: str, path: str) -> None:
    key = await admin.create(name="alice", team=None)
    await admin.ask("POST", "/teams", {"name": "red"})
    for value in ("", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN,
                  f"Bearer {key}", "Bearer ü\x80"):  # fmt: skip
        answer = await admin.ask(method, path, {"name": "eve"}, Authorization=value)
        assert answer.status == 401, value
        assert answer.header("WWW-Authenticate") == "Bearer"
        assert b"alice" not in answer.body and b"red" not in answer.body
    answer = await admin.ask(method, path, {"name": "eve"}, Origin="http://example.com")
    assert answer.status == 403
    assert [each["name"] for each in (await admin.ask("GET", "/keys")).json["keys"]] == ["alice"]


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_r18_the_public_listener_knows_none_of_it(admin: Admin, method: str, path: str) -> None:
    key = await admin.create(name="alice")
    for credential, status in ((TOKEN, 401), (key, 404)):
        answer = await fetch(admin.gateway.url + path, method, {"Authorization": f"Bearer {credential}"}, b"{}")
        assert answer.status == status


@pytest.mark.parametrize(
    ("config", "missing"),
    [
        (CONFIG.replace('token = "env:TOKEN"', ""), "[admin] token"),
        (CONFIG.replace("keys = true", ""), "[state] keys"),
    ],
)  # fmt: skip
async def test_r18_it_is_not_there_unless_it_is_wanted(tmp_path: Path, config: str, missing: str) -> None:
    async with LocalGateway(tmp_path, config, {"TOKEN": TOKEN}) as gateway:
        for method, path in PATHS:
            answer = await Admin(gateway).ask(method, path, {"name": "eve"})
            assert answer.status == 404
            assert answer.json == {"problems": [f"Keys and teams can be changed here where {missing} is set."]}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "problem"),
    [
        ("POST", "/keys", {}, 400, "name: expected a string."),
        ("POST", "/keys", {"name": "a/b"}, 400, "name: expected letters"),
        ("POST", "/keys", {"name": "bob", "modles": []}, 400, "modles: unknown key. Did you mean 'models'?"),
        ("POST", "/keys", {"name": "bob", "sha256": "a" * 64}, 400, "sha256: unknown key."),
        ("POST", "/keys", {"name": "bob", "team": "red"}, 400, "team: there is no team 'red'."),
        ("POST", "/keys", {"name": "bob", "expires": "soon"}, 400, "expires: expected a date"),
        ("POST", "/keys", {"name": "alice"}, 409, "There is a key 'alice' already."),
        ("POST", "/keys", [], 400, "Expected a JSON object."),
        ("POST", "/keys", b"{", 400, "Expected a JSON object."),
        ("POST", "/keys", b"[" * 100_000, 400, "Expected a JSON object."),
        ("PATCH", "/keys/alice", {"name": "eve"}, 400, "name: unknown key."),
        ("PATCH", "/keys/nobody", {}, 404, "There is no key 'nobody' in the database."),
        ("DELETE", "/keys/nobody", None, 404, "There is no key 'nobody' in the database."),
        ("POST", "/keys/nobody/rotate", None, 404, "There is no key 'nobody' in the database."),
        ("POST", "/keys/alice/rotate", {"grace": "long"}, 400, "grace: expected a duration"),
        ("POST", "/keys/alice/rotate", {"x": 1}, 400, "'x': unknown key."),
        ("POST", "/teams", {"name": "red", "models": ["m"]}, 400, "models: unknown key."),
        ("GET", "/keys?limit=0", None, 400, "limit: expected a number from 1 to 1000."),
        ("GET", "/keys?limit=x", None, 400, "limit: expected a number from 1 to 1000."),
        ("GET", "/keys?limit=99999999999999", None, 400, "limit: expected a number from 1 to 1000."),
    ],
)  # fmt: skip
async def test_what_cannot_be_done_is_told(
    admin: Admin, method: str, path: str, body: Any, status: int, problem: str
) -> None:
    await admin.create(name="alice")
    answer = await admin.ask(method, path, body)
    assert answer.status == status
    (told,) = answer.json["problems"]
    assert told.startswith(problem)


async def test_r11_keys_are_shown_once_and_digests_never(admin: Admin, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "hookgate")
    key = await admin.create(name="alice")
    shown = []
    for method, path in PATHS[:8]:
        if method != "DELETE" and not path.endswith("rotate"):
            shown.append((await admin.ask(method, path, {} if method != "GET" else None)).body)
    rotated = await admin.ask("POST", "/keys/alice/rotate", {"grace": 60})
    shown += [rotated.body.replace(rotated.json["key"].encode(), b""), (await admin.ask("DELETE", "/keys/alice")).body]
    text = b"".join(shown).decode() + caplog.text
    for each in (key, rotated.json["key"]):
        assert each not in text and digest(each).hex() not in text
    assert TOKEN not in text
    assert "admin: key 'alice' rotated" in caplog.text


async def test_a_database_that_is_away_is_told(admin: Admin, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = await admin.create(name="alice")
    (tmp_path / "gateway.db").rename(tmp_path / "away.db")
    for method, path, body in (("GET", "/keys", None), ("POST", "/keys", {"name": "bob"}), ("DELETE", "/keys/a", None)):
        answer = await admin.ask(method, path, body)
        assert (answer.status, answer.json) == (503, {"problems": ["The database cannot be used; the log says why."]})
    assert "admin: sqlite:///" in caplog.text
    assert await admin.opens(key) == 200
    (tmp_path / "away.db").rename(tmp_path / "gateway.db")
    assert (await admin.ask("GET", "/keys/alice")).status == 200


async def test_keys_of_another_writer_are_shown_with_what_is_wrong(admin: Admin, tmp_path: Path) -> None:
    async with stored(f"sqlite:///{tmp_path}/gateway.db") as store:
        await store.keys.create("alice", {})
        async with store.keys._changing() as (transaction, change):
            await transaction.execute(
                "UPDATE hookgate_keys SET allowance = '{\"modles\": 1}', change = :n", {"n": change}
            )
    answer = await admin.ask("GET", "/keys/alice")
    assert (answer.json["state"], answer.json["problem"]) == (
        "refused", "modles: unknown key. Did you mean 'models'?",
    )  # fmt: skip
