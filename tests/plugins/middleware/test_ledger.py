"""One row per exchange of a proxied route; the ledger outlives reloads and is never in the way."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import time
from typing import Any

import attrs
import pytest

from gateway import Principal, Runtime, Surface, Usage, config, surfaces
from gateway.errors import ConfigError, PluginError, Unauthenticated
from gateway.state.rows import Row
from gateway.testing import LocalGateway, fetch, fetch_chat
from gateway_plugins.middleware import ledger
from tests.support.exchanges import CHAT, finished_exchange

KEY = "hg-ledger-alice"
CONFIG = f"""
[plugins]
chain = ["request_id", "metrics", "auth", "rate_limit", "cache", "ledger"]
[plugins.ledger]
interval = "10ms"
[keys.alice]
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
[providers.echo]
type = "echo"
"""


class Kept:
    """The plugin with a ledger that only remembers."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        runtime = Runtime(config.Config(), None, folder=folder)  # type: ignore[arg-type]  # it calls nobody
        self.plugin = ledger.Plugin(ledger.Settings(**settings), runtime)
        self._rows: list[Row] = []
        self.plugin._ledger.add = self._rows.append

    def finish(self, **facts: Any) -> list[Row]:
        self.plugin.on_finish(finished_exchange(**facts))
        return self._rows


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Any]:
    """Asks the file, from outside."""

    def ask(what: str = "request_id") -> list[Any]:
        with closing(sqlite3.connect(tmp_path / "gateway.db")) as database:
            rows = database.execute(f"SELECT {what} FROM hookgate_ledger ORDER BY started, id").fetchall()
        return [row if "," in what else row[0] for row in rows]

    yield ask


def test_a_row_tells_who_asked_for_what_and_what_it_used(kept: Kept) -> None:
    before = time()
    (row,) = kept.finish(
        notes={"request_id": "own-1"}, principal=Principal("alice", team="red"), stream=True,
        usage=Usage(10, 20, 4, 0, None, "partial"),
    )  # fmt: skip
    assert before - 0.1 <= row.started / 1000 <= time()
    assert attrs.asdict(row) == {
        "id": "own-1", "request_id": "req-1", "started": row.started, "principal": "alice", "team": "red",
        "surface": "chat", "model": "gpt-4o", "target": "openai/gpt-4o", "stream": True, "status": 200,
        "outcome": "ok", "error": None, "cache": "miss", "input_tokens": 10, "output_tokens": 20, "cached_tokens": 4,
        "cache_write_tokens": 0, "reasoning_tokens": None, "provenance": "partial", "cost_nano": None,
        "duration_ms": pytest.approx(20, abs=0.01), "ttfb_ms": pytest.approx(10, abs=0.01),
        "overhead_ms": pytest.approx(1, abs=0.01), "tried": 1,
    }  # fmt: skip


def test_what_is_not_known_is_none(kept: Kept) -> None:
    (row,) = kept.finish(
        usage=None, principal=None, model=None, target=None, first_byte=0.0, status=0, outcome="client_gone",
        error=asyncio.CancelledError(), cache=None, sent=True,
    )  # fmt: skip
    known = {name for name, value in attrs.asdict(row).items() if value is not None}
    assert known == {
        "id", "request_id", "started", "surface", "stream", "status", "outcome", "error", "duration_ms", "overhead_ms",
        "tried",
    }  # fmt: skip
    assert (row.error, row.status) == ("CancelledError", 0)


def test_without_request_ids_of_clients_the_own_one_is_both(kept: Kept) -> None:
    (row,) = kept.finish(id="own-1", notes={})
    assert (row.id, row.request_id) == ("own-1", "own-1")


@pytest.mark.parametrize(
    ("facts", "cost"),
    [
        ({"cost": 1_500_000}, 1_500_000), ({}, None), ({"usage": None, "sent": True}, None), ({"tried": []}, 0),
        ({"cache": "hit", "tried": []}, 0), ({"cache": "coalesced"}, 0), ({"usage": None, "sent": False}, 0),
        ({"usage": None, "sent": True, "outcome": "upstream_failed"}, 0),
        ({"cost": 7, "sent": True, "outcome": "upstream_failed"}, 7),
    ],
    ids=[
        "known", "no price", "no usage", "not called", "hit", "coalesced", "called in vain", "failed", "broke off",
    ],
)  # fmt: skip
def test_the_cost_is_what_is_known_of_it(kept: Kept, facts: dict[str, Any], cost: int | None) -> None:
    (row,) = kept.finish(**facts)
    assert row.cost_nano == cost


def test_a_refusal_of_a_stranger_is_a_row_unless_that_is_not_wanted(tmp_path: Path) -> None:
    facts: dict[str, Any] = {"principal": None, "outcome": "refused", "status": 401, "error": Unauthenticated()}
    (row,) = Kept(tmp_path).finish(**facts)
    assert (row.principal, row.status, row.error) == (None, 401, "invalid_api_key")
    closed = Kept(tmp_path, strangers=False)
    assert closed.finish(**facts) == []
    assert len(closed.finish(outcome="refused")) == 1
    assert len(closed.finish(principal=None)) == 2


def test_what_the_gateway_answers_itself_is_no_row(kept: Kept) -> None:
    own = {surface.name for surface in vars(surfaces).values() if isinstance(surface, Surface)} - {"passthrough"}
    assert own == ledger.LOCAL
    for name in sorted(own):
        assert kept.finish(surface=attrs.evolve(CHAT, name=name)) == []


def test_r58_nothing_of_a_request_lives_on_in_the_queue(kept: Kept) -> None:
    (row,) = kept.finish(model="x" * 1_000_000, error=ValueError("prompt"), outcome="failed")
    assert {type(value) for value in attrs.astuple(row)} <= {str, int, float, bool, type(None)}
    assert len(row.model or "") <= 1024
    assert "prompt" not in repr(row) and "192.0.2.7" not in repr(row)


@pytest.mark.parametrize("wrong", [{"queue": 0}, {"interval": 0.0}, {"keep": 31 * 86400.0}], ids=str)
def test_settings_that_would_lose_rows_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ledger.Settings(**wrong)


async def test_rows_are_written_and_told_in_the_metrics(tmp_path: Path, stored: Any) -> None:
    async with LocalGateway(tmp_path, CONFIG) as gateway:
        replies = [await fetch_chat(gateway.url, "echo", key=KEY), await fetch_chat(gateway.url, "echo")]
        await fetch(f"{gateway.url}/v1/models", headers=[("Authorization", f"Bearer {KEY}")])
        metrics = ""
        async with asyncio.timeout(10):
            while "hookgate_ledger_rows_written_total 2.0" not in metrics:
                metrics = (await fetch(f"{gateway.admin_url}/metrics")).body.decode()
        assert "hookgate_ledger_rows_dropped_total 0.0" in metrics
        assert "hookgate_ledger_queue 0.0" in metrics
        assert "hookgate_ledger_last_failure_timestamp_seconds 0.0" in metrics
    assert stored("request_id, status, principal") == [
        (replies[0].header("x-request-id"), 200, "alice"), (replies[1].header("x-request-id"), 401, None),
    ]  # fmt: skip


async def test_other_plugins_find_it(tmp_path: Path) -> None:
    async with LocalGateway(tmp_path, CONFIG) as gateway:
        opened = gateway.plugin("ledger")._ledger
        assert gateway.plugin("cache")._runtime.services.ledger is opened
        await fetch_chat(gateway.url, "echo", key=KEY)
        assert await opened.spent("key", "alice", 0) == 0


async def test_a_reload_keeps_it_and_its_rows(tmp_path: Path, stored: Any) -> None:
    ids: list[str | None] = []
    async with LocalGateway(tmp_path, CONFIG) as gateway:
        first = gateway.plugin("ledger")._ledger
        for interval in ("10ms", "50s", "60s"):
            await gateway.reload(CONFIG.replace("10ms", interval))
            ids.append((await fetch_chat(gateway.url, "echo", key=KEY)).header("x-request-id"))
        assert gateway.plugin("ledger")._ledger is first
        assert first.interval == 60
        with pytest.raises(ConfigError):
            await gateway.reload(CONFIG + "[providers.broken]\n")
        ids.append((await fetch_chat(gateway.url, "echo", key=KEY)).header("x-request-id"))
        first._hurry.set()
        async with asyncio.timeout(10):
            while first.waiting:  # noqa: ASYNC110  # a test's wait
                await asyncio.sleep(0.01)
    assert stored() == ids


async def test_another_place_is_another_ledger_and_nothing_is_lost(tmp_path: Path, stored: Any) -> None:
    async with LocalGateway(tmp_path, CONFIG) as gateway:
        before = gateway.plugin("ledger")._ledger
        first = (await fetch_chat(gateway.url, "echo", key=KEY)).header("x-request-id")
        await gateway.reload(f'{CONFIG}[state]\nledger = "sqlite:///other.db"\n')
        await fetch_chat(gateway.url, "echo", key=KEY)
        await gateway.reload(CONFIG)
        last = (await fetch_chat(gateway.url, "echo", key=KEY)).header("x-request-id")
        assert gateway.plugin("ledger")._ledger is not before
        assert gateway.plugin("ledger")._counts is before.counts
    assert stored() == [first, last]
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        assert other.execute("SELECT COUNT(*) FROM hookgate_ledger").fetchone() == (1,)


async def test_a_ledger_that_cannot_be_opened_refuses_the_start_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"gateway\.toml:3: plugin 'ledger' failed in on_startup: sqlite:///.*nowhere"
    ):
        async with LocalGateway(tmp_path, f'{CONFIG}[state]\nledger = "sqlite:///nowhere/gateway.db"\n'):
            pass


async def test_shutting_down_what_was_never_opened_does_no_harm(tmp_path: Path) -> None:
    plugin = Kept(tmp_path / "nowhere").plugin
    with pytest.raises(PluginError, match="nowhere"):
        await plugin.on_startup(Runtime(config.Config(), None))  # type: ignore[arg-type]
    await plugin.on_shutdown()
