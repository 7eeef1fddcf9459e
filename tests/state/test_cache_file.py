"""The cache file: what is written is found again, by the next process too; what goes wrong is a miss, told once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from gateway.state import cache_file
from gateway.state.cache import Entry
from gateway.state.cache_file import FileTier
from tests.contract.tier import Clock, Opened, TierContract, entry, warnings


@pytest.fixture
def clock() -> Clock:
    return Clock()


def join_threads() -> None:
    """The interpreter waits for aiosqlite's threads: one that is left keeps a stopped gateway alive."""
    for thread in threading.enumerate():
        if "_connection_worker" in thread.name:
            thread.join(2)
            assert not thread.is_alive()


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    join_threads()


@contextlib.asynccontextmanager
async def opened(path: Path, clock: Callable[[], float], limit: int = 1 << 30) -> AsyncIterator[FileTier]:
    """The tier as the plugin runs it."""
    tier = FileTier(str(path), limit, clock)
    await tier.open()
    writer = asyncio.create_task(tier.run())
    try:
        yield tier
    finally:
        await tier.close()
        writer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writer


class TestContract(TierContract):
    """The folder is another one in each test, so each has a file of its own."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "deeper" / "cache.db"

    @pytest.fixture
    def opened(self, path: Path, clock: Clock) -> Opened:
        return lambda: opened(path, clock)

    @pytest.fixture
    def damage(self, path: Path) -> Callable[[str], None]:
        def damage(key: str) -> None:
            with contextlib.closing(sqlite3.connect(path)) as other:
                other.execute("UPDATE entries SET value = CAST(replace(value, 'answer', 'forged') AS BLOB) "
                              "WHERE key = ?", (key,))  # fmt: skip
                other.commit()

        return damage


async def written(tier: FileTier, key: str, what: Entry) -> None:
    """Offer an entry and wait until the file has taken it."""
    tier.offer(key, what)
    async with asyncio.timeout(5):
        while tier._queue or tier._writing.locked() or tier._wake.is_set():  # noqa: ASYNC110  # a test's wait
            await asyncio.sleep(0.001)


async def test_nobody_else_may_read_the_file(tmp_path: Path, clock: Clock) -> None:
    before = os.umask(0)
    try:
        async with opened(tmp_path / "cache.db", clock) as tier:
            await written(tier, "k", entry())
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in os.scandir(tmp_path)}
    finally:
        os.umask(before)
    assert modes == {"cache.db": 0o600, "cache.db-wal": 0o600, "cache.db-shm": 0o600}


async def test_expired_entries_leave_the_file(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path / "cache.db", clock) as tier:
        await written(tier, "old", entry(expires=1500.0))
        clock.now = 1500.0
        await written(tier, "new", entry())
        assert await tier.read("old") is None
        assert await tier.read("new") is not None


async def test_the_file_is_bounded_and_what_expires_first_goes_first(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "cache.db"
    limit = 2 << 20
    async with opened(path, clock, limit) as tier:
        for number in range(60):
            await written(tier, str(number), entry(os.urandom(100_000), expires=5000.0 + number))
        present = [number for number in range(60) if await tier.read(str(number)) is not None]
    assert 15 <= len(present) <= 20
    assert present == list(range(60 - len(present), 60))
    assert path.stat().st_size < limit * 1.2


async def test_entries_wait_in_a_bounded_queue(tmp_path: Path, clock: Clock) -> None:
    tier = FileTier(str(tmp_path / "cache.db"), 1 << 30, clock)
    await tier.open()  # nobody runs it: nothing is written
    try:
        for number in range(100):
            tier.offer(str(number), entry(b"x" * (1 << 20)))
        assert len(tier._queue) == 15
        assert tier._queued == sum(waiting.size for waiting in tier._queue.values()) <= cache_file.QUEUE
    finally:
        tier._queue.clear()
        await tier.close()


NOT_A_DATABASE = b"dear diary, " * 1000


async def test_a_file_that_is_no_database_is_left_alone(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache.db"
    path.write_bytes(NOT_A_DATABASE)
    async with opened(path, clock) as tier:
        for number in range(20):
            await written(tier, str(number), entry())
            assert await tier.read(str(number)) is None
            clock.now += cache_file.RETRY  # it is tried again, and again nothing is said
    assert path.read_bytes() == NOT_A_DATABASE
    assert len(warnings(caplog)) == 1
    assert "file is not a database" in warnings(caplog)[0]


async def test_a_table_of_another_make_is_left_alone(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache.db"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE entries (day TEXT, text TEXT)")
        other.execute("INSERT INTO entries VALUES ('Monday', 'rain')")
        other.commit()
        async with opened(path, clock) as tier:
            await written(tier, "k", entry())
            assert await tier.read("k") is None
        assert other.execute("SELECT * FROM entries").fetchall() == [("Monday", "rain")]
    assert len(warnings(caplog)) == 1


async def test_a_file_damaged_behind_our_back_costs_misses_and_one_warning(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache.db"
    async with opened(path, clock) as tier:
        for number in range(50):
            await written(tier, str(number), entry(b"x" * 5000))
    with contextlib.closing(sqlite3.connect(path)) as other:  # two that close at once may leave their log behind
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xa5" * (len(raw) - 4096)  # every page but the first
    path.write_bytes(raw)
    async with opened(path, clock) as tier:
        for number in range(50):
            assert await tier.read(str(number)) is None
            await written(tier, str(number), entry())
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("obstacle", ["a file for a folder", "a folder for a file"])
async def test_a_path_that_cannot_be_written_costs_misses_and_one_warning(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, obstacle: str
) -> None:
    path = tmp_path / "place" / "cache.db"
    if obstacle == "a file for a folder":
        path.parent.touch()
    else:
        path.mkdir(parents=True)
    async with opened(path, clock) as tier:
        for number in range(5):
            await written(tier, str(number), entry())
            assert await tier.read(str(number)) is None
    assert len(warnings(caplog)) == 1


async def test_a_file_locked_at_the_start_is_used_once_it_is_free(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache.db"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        async with opened(path, clock) as tier:
            await written(tier, "early", entry())
            assert await tier.read("early") is None
            other.rollback()
            await written(tier, "soon", entry())  # within RETRY: the file is left alone
            assert await tier.read("soon") is None
            clock.now += cache_file.RETRY
            await written(tier, "later", entry())
            assert await tier.read("later") == entry()
    assert len(warnings(caplog)) == 1
    assert "locked" in warnings(caplog)[0]


async def test_a_file_locked_while_in_use_delays_nobody(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache.db"
    async with opened(path, clock) as tier:
        await written(tier, "k", entry(b"kept"))
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN EXCLUSIVE")  # under WAL this stops writers
            tier.offer("blocked", entry())
            began = time.monotonic()
            assert await tier.read("k") == entry(b"kept")
            assert time.monotonic() - began < 0.3
            await written(tier, "more", entry())
            assert len(warnings(caplog)) == 1
            began = time.monotonic()
            assert [await tier.read("k") for _ in range(100)] == [None] * 100
            assert time.monotonic() - began < 0.3
        clock.now += cache_file.RETRY
        await written(tier, "free", entry())
        assert await tier.read("k") == entry(b"kept")
        assert await tier.read("free") == entry()
    assert len(warnings(caplog)) == 1


@contextlib.asynccontextmanager
async def hanging(tier: FileTier, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Look-ups hang in SQLite's own thread, as for a disk that does not answer."""
    reader = tier._reader
    assert reader is not None
    gate = threading.Event()
    await reader._connection.create_function("hang", 0, lambda: gate.wait(5) and 0)
    with monkeypatch.context() as patch:
        patch.setattr(reader, "_fetch", lambda *_: reader._connection.execute_fetchall("SELECT hang()"))
        try:
            yield
        finally:
            gate.set()


async def test_a_lookup_that_takes_too_long_is_a_miss_and_the_third_in_a_row_is_told(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path / "cache.db", clock) as tier:
        await written(tier, "k", entry())
        async with hanging(tier, monkeypatch):
            for told in (0, 0, 1, 1, 1):
                began = time.monotonic()
                assert await tier.read("k") is None
                assert time.monotonic() - began < 0.3
                assert len(warnings(caplog)) == told
        assert "50 ms" in warnings(caplog)[0]
        clock.now += cache_file.RETRY
        await written(tier, "after", entry())
        assert await tier.read("k") == entry()


async def test_a_file_that_hangs_does_not_keep_the_gateway_from_stopping(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_file, "_STOP", 0.3)
    async with opened(tmp_path / "cache.db", clock) as tier, hanging(tier, monkeypatch):
        assert await tier.read("k") is None
        began = time.monotonic()
        await tier.close()
        assert 0.2 < time.monotonic() - began < 1.0
    assert "stopped before everything was written" in warnings(caplog)[0]
    await asyncio.to_thread(join_threads)  # while there is a loop to tell its futures to


@pytest.mark.parametrize("whole_folder", [False, True])
async def test_a_file_that_vanishes_is_made_again(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, whole_folder: bool
) -> None:
    path = tmp_path / "place" / "cache.db"
    async with opened(path, clock) as tier:
        await written(tier, "before", entry())
        if whole_folder:
            shutil.rmtree(path.parent)
        else:
            path.unlink()
        await written(tier, "lost", entry())
        assert await tier.read("before") is None
        assert len(warnings(caplog)) == 1
        clock.now += cache_file.RETRY
        await written(tier, "after", entry())
        assert await tier.read("after") == entry()
        assert await tier.read("before") is None
    assert path.is_file()
    assert len(warnings(caplog)) == 1


async def test_each_outage_is_told_once(tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="hookgate")
    path = tmp_path / "cache.db"
    async with opened(path, clock) as tier:
        for outage in (1, 2):
            path.unlink()
            await written(tier, "lost", entry())
            assert len(warnings(caplog)) == outage
            clock.now += cache_file.RETRY
            await written(tier, "after", entry())
            assert caplog.text.count("is in use again") == outage


async def test_two_processes_share_one_file(tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cache.db"
    async with opened(path, clock) as one, opened(path, clock) as two:
        for number in range(20):
            await asyncio.gather(written(one, f"one-{number}", entry()), written(two, f"two-{number}", entry()))
        assert await one.read("two-19") == entry()
        assert await two.read("one-0") == entry()
    assert warnings(caplog) == []


async def test_the_loop_goes_on_while_the_file_is_written(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path / "cache.db", clock) as tier:
        for number in range(12):
            tier.offer(str(number), entry(os.urandom(1 << 20)))
        longest, last = 0.0, time.perf_counter()
        while tier._queue or tier._writing.locked():
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
    assert longest < 0.1
