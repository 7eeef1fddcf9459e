"""The link to a real Redis that dies, hangs, fills up, changes its mind and comes back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from prometheus_client import CollectorRegistry

from gateway.state import redis_link, redis_pipe
from gateway.state.redis_link import CommandError, Link, RedisUnavailable
from gateway.units import Duration
from tests.support.certificates import Authority
from tests.support.linked import BACK, DOWN, impatient, linked, state, told, until
from tests.support.redis import Redis, redis

__all__ = ["impatient", "redis"]

pytestmark = pytest.mark.usefixtures("impatient")
SLOW = """
local t = redis.call('TIME')
repeat local n = redis.call('TIME') until (n[1] - t[1]) * 1000000 + n[2] - t[2] > tonumber(ARGV[1]) * 1000
"""
ADD = "return redis.call('INCRBY', KEYS[1], ARGV[1])"


@pytest.fixture(autouse=True)
def all_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="hookgate")


@pytest.fixture
async def link(redis: Redis) -> AsyncIterator[Link]:
    async with linked(redis.url) as link:
        yield link


HASTE = 0.1  # seconds


@pytest.fixture
async def hasty(redis: Redis) -> AsyncIterator[Link]:
    async with linked(redis.url, HASTE) as link:
        yield link


def metric(link: Link, name: str, **labels: str) -> float:
    registry = CollectorRegistry()
    registry.register(link)
    value = registry.get_sample_value(f"hookgate_redis_{name}", labels)
    assert value is not None, name
    return value


async def test_calls_are_answered_in_order(link: Link, redis: Redis) -> None:
    answers = await asyncio.gather(*(link.call("INCRBY", "n", number) for number in range(100)))
    assert answers == [sum(range(number + 1)) for number in range(100)]
    assert redis.ask("GET", "n") == b"4950"
    assert await link.call("GET", "nothing") is None
    assert await link.call("MGET", "n", b"n") == [b"4950", b"4950"]


async def test_calls_of_one_turn_go_out_in_one_write(link: Link) -> None:
    assert link._pipe is not None
    transport, writes = link._pipe._transport, []

    class Counting:
        def write(self, data: bytes) -> None:
            writes.append(data)
            transport.write(data)  # type: ignore[union-attr]

        def abort(self) -> None:
            transport.abort()  # type: ignore[union-attr]

    link._pipe._transport = Counting()  # type: ignore[assignment]
    await asyncio.gather(*(link.call("INCR", "n") for _ in range(50)))
    assert len(writes) == 1


async def test_large_values_pass_whole(link: Link) -> None:
    value = bytes(range(256)) * 4096 * 3
    await link.call("SET", "k", value)
    assert await link.call("GET", "k") == value


async def test_a_refused_command_is_raised_as_such_and_harms_nothing_else(link: Link) -> None:
    await link.call("SET", "k", "text")
    right, wrong, unknown = await asyncio.gather(
        link.call("GET", "k"), link.call("INCR", "k"), link.call("NOSUCH"), return_exceptions=True
    )
    assert right == b"text"
    assert isinstance(wrong, CommandError) and wrong.code == "ERR"
    assert isinstance(unknown, CommandError)
    assert link.up
    with pytest.raises(TypeError):
        link.call("SET", "k", object())  # type: ignore[arg-type]
    assert await link.call("GET", "k") == b"text"


async def test_what_nobody_waits_for_is_done_and_told_when_refused(
    link: Link, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    link.fire("SET", "k", "text")
    link.fire("INCR", "k")
    await link.call("PING")
    await until(lambda: caplog.records)
    assert redis.ask("GET", "k") == b"text"
    assert [record.message for record in caplog.records] == [
        "Redis refused a command of ours: ERR value is not an integer or out of range"
    ]


async def test_a_script_is_known_again_after_a_flush_and_a_restart(link: Link, redis: Redis) -> None:
    script = link.script(ADD)
    assert await script.call(["n"], 5) == 5
    assert await script.call(["n"], 5) == 10
    redis.ask("SCRIPT", "FLUSH")
    script.fire(["n"], 1)
    calls = [script.call(["n"], 5), script.call(["n"], 5)]
    assert [await call for call in calls] == [16, 21]
    redis.restart()
    await until(lambda: not link.up)
    await until(lambda: link.up)
    assert await script.call(["n"], 5) == 5
    with pytest.raises(CommandError, match="compiling script"):
        await link.script("nope").call([])


async def test_r48_a_dead_redis_is_told_once_costs_nothing_and_is_found_again(
    link: Link, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    back: list[bool] = []
    link.on_back.append(lambda: back.append(link.up))
    redis.kill()
    await until(lambda: not link.up)
    began = time.perf_counter()
    for _ in range(1000):
        link.fire("INCR", "n")
        with pytest.raises(RedisUnavailable, match="not reachable"):
            link.call("INCR", "n")
    assert time.perf_counter() - began < 0.5
    await asyncio.sleep(0.3)
    assert told(caplog) == [DOWN] and back == []
    assert metric(link, "up") == 0
    assert metric(link, "failures_total", why="skipped") == 2000
    redis.start()
    await until(lambda: link.up)
    assert await link.call("INCR", "n") == 1
    assert told(caplog) == [DOWN, BACK] and back == [True]
    assert metric(link, "up") == 1


async def test_calls_under_way_when_the_connection_dies_fail(hasty: Link, redis: Redis) -> None:
    redis.stop()
    calls = [hasty.call("INCR", "n") for _ in range(3)]
    await asyncio.sleep(0)
    redis.kill()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [RedisUnavailable] * 3
    assert metric(hasty, "failures_total", why="lost") + metric(hasty, "failures_total", why="timeout") == 3


async def test_r48_a_hanging_redis_is_left_alone_after_five_failures(
    hasty: Link, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis.stop()
    waited = []
    for _ in range(redis_link.FAILURES):
        began = time.perf_counter()
        with pytest.raises(RedisUnavailable):
            await hasty.call("INCR", "n")
        waited.append(time.perf_counter() - began)
    assert not hasty.up
    assert waited[0] >= HASTE and sorted(waited)[2] < 5 * HASTE, waited
    await asyncio.sleep(0.3)  # it takes connections, so that is not what counts
    assert told(caplog) == [DOWN]
    redis.cont()
    await until(lambda: hasty.up)
    assert told(caplog) == [DOWN, BACK]
    assert await hasty.call("PING") == b"PONG"


async def test_a_pause_shorter_than_five_failures_is_nobodys_concern(
    hasty: Link, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis.ask("CLIENT", "PAUSE", 150)
    with pytest.raises(RedisUnavailable, match="no answer within 100 ms"):
        await hasty.call("SET", "k", 1)
    await asyncio.sleep(0.15)
    assert await hasty.call("SET", "k", 2) == b"OK"
    assert await hasty.call("GET", "k") == b"2"
    assert told(caplog) == []


async def test_r48_paused_clients_open_the_breaker(hasty: Link, redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    redis.ask("CLIENT", "PAUSE", 600)
    outcomes = await asyncio.gather(*(hasty.call("INCR", "n") for _ in range(8)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {RedisUnavailable}
    assert not hasty.up
    await until(lambda: hasty.up)
    assert told(caplog) == [DOWN, BACK]


async def test_a_slow_redis_opens_the_breaker_although_some_answers_come(hasty: Link, redis: Redis) -> None:
    slow = hasty.script(SLOW)
    assert await hasty.call("PING") == b"PONG"
    for _ in range(20):
        await asyncio.wait([hasty.call("PING"), hasty.call("PING")])
        try:
            await slow.call([], 130)
        except RedisUnavailable:
            await asyncio.sleep(0.03)
        if not hasty.up:
            return
    pytest.fail("it stayed in use")


@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_busy_loop_of_ours_is_not_redis_s_fault(redis: Redis, make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def busy() -> None:
        time.sleep(0.15)  # noqa: ASYNC251  # that is the point

    async def run() -> None:
        async with linked(redis.url, HASTE) as link:
            for _ in range(2):
                answers = [link.call("PING") for _ in range(4)]
                await busy()  # before they are sent …
                await asyncio.sleep(0)
                await busy()  # … and while their answers come
                assert await asyncio.gather(*answers) == [b"PONG"] * 4
            slow = link.script(SLOW)
            await slow.call([], 1)  # Redis knows it now
            asyncio.get_running_loop().call_soon(time.sleep, 0.15)  # and within the very turn that sends
            await slow.call([], 30)
            assert metric(link, "failures_total", why="timeout") == 0

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(run())


async def test_r48_a_full_redis_is_left_alone_until_it_has_room(
    link: Link, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis.ask("CONFIG", "SET", "maxmemory", 1)
    for _ in range(redis_link.FAILURES):
        with pytest.raises(RedisUnavailable, match="OOM"):
            await link.call("SET", "k", "v")
    assert not link.up
    await asyncio.sleep(0.3)
    assert told(caplog) == [DOWN]
    redis.ask("CONFIG", "SET", "maxmemory", 0)
    await until(lambda: link.up)
    assert told(caplog) == [DOWN, BACK]


async def test_r48_a_replica_is_of_no_use(link: Link, redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    redis.ask("REPLICAOF", "127.0.0.1", 1)
    async with asyncio.timeout(5):
        while link.up:
            await asyncio.wait([link.call("SET", "k", "v")])
    await asyncio.sleep(0.3)
    assert told(caplog) == [DOWN]
    assert "READONLY" in caplog.text
    redis.ask("REPLICAOF", "NO", "ONE")
    await until(lambda: link.up)
    assert told(caplog) == [DOWN, BACK]


async def test_a_redis_that_is_not_there_at_the_start_is_a_warning(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis.kill()
    back: list[None] = []
    async with linked(redis.url) as link:
        assert not link.up and told(caplog) == [DOWN]
        link.on_back.append(lambda: back.append(None))
        redis.start()
        await until(lambda: link.up)
        assert told(caplog) == [DOWN, BACK] and back == [None]


async def test_a_black_hole_at_the_start_holds_it_up_for_a_second(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "CONNECT_LIMIT", 0.2)
    held = []

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    # It accepts, and never begins TLS: to the link the same as packets that vanish.
    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    began = time.perf_counter()
    async with linked(f"rediss://127.0.0.1:{port}") as link:
        assert 0.2 <= time.perf_counter() - began < 1.5
        assert not link.up
    assert f"no connection to 127.0.0.1:{port} within 0.2 s" in caplog.text
    for writer in held:
        writer.close()
    server.close()


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("", "NOAUTH"),
        (":canary@", "WRONGPASS"),
        ("bob:canary@", "WRONGPASS"),
    ],
)  # fmt: skip
async def test_a_wrong_password_is_a_warning_that_does_not_hold_it(
    redis: Redis, caplog: pytest.LogCaptureFixture, user: str, said: str
) -> None:
    redis.ask("CONFIG", "SET", "requirepass", "right")
    url = redis.url.replace("//", f"//{user}")
    async with linked(url) as link:
        assert not link.up
        await asyncio.sleep(0.3)
    assert told(caplog) == [DOWN]
    assert said in caplog.text and "canary" not in caplog.text


async def test_a_password_and_a_database_are_used_again_after_a_restart(tmp_path: Path) -> None:
    redis = Redis(tmp_path, "--requirepass", "right").start()
    try:
        async with linked(f"redis://:right@127.0.0.1:{redis.port}/3") as link:
            for _ in range(2):
                await link.call("SET", "k", "v")
                assert b"db=3" in await link.call("CLIENT", "INFO")
                redis.restart()
                await until(lambda: not link.up)
                await until(lambda: link.up)
    finally:
        redis.kill()


async def test_a_unix_socket_will_do(tmp_path: Path) -> None:
    redis = Redis(tmp_path, "--unixsocket", str(tmp_path / "s")).start()
    try:
        async with linked(f"unix://{tmp_path}/s?db=1") as link:
            assert await link.call("PING") == b"PONG"
    finally:
        redis.kill()


async def test_tls_reaches_only_whom_the_authority_vouches_for(
    tmp_path: Path, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", redis.port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, outer), pump(inner, writer))

    server = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=authority.server("redis"))
    url = f"rediss://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with linked(f"{url}?ssl_ca_certs={authority.file}") as link:
        assert await link.call("PING") == b"PONG"
    assert told(caplog) == []
    async with linked(url) as link:
        assert not link.up
    assert told(caplog) == [DOWN] and "CERTIFICATE_VERIFY_FAILED" in caplog.text
    server.close()


async def test_what_is_no_redis_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with linked(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as link:
        assert not link.up
    assert told(caplog) == [DOWN] and "Protocol error" in caplog.text
    server.close()


async def test_waiting_calls_are_bounded(link: Link, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_pipe, "MOST_WAITING", 20)
    calls = [link.call("INCR", "n") for _ in range(20)]
    with pytest.raises(RedisUnavailable, match="too many"):
        link.call("INCR", "n")
    assert await asyncio.gather(*calls) == list(range(1, 21))
    assert await link.call("INCR", "n") == 21


async def test_who_stops_waiting_does_not_shift_the_answers_of_others(link: Link) -> None:
    calls = [link.call("INCR", "n") for _ in range(5)]
    calls[1].cancel()
    calls[3].cancel()
    assert [await calls[index] for index in (0, 2, 4)] == [1, 3, 5]


async def test_round_trips_are_counted(link: Link) -> None:
    before = metric(link, "round_trip_seconds_count")
    await asyncio.gather(*(link.call("PING") for _ in range(10)))
    assert metric(link, "round_trip_seconds_count") == before + 10
    assert 0 < metric(link, "round_trip_seconds_sum") < 5


async def test_a_redis_that_comes_and_goes_is_given_longer_pauses(
    redis: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "_LONGEST", 0.4)
    async with linked(redis.url) as link:
        outages = []
        for _ in range(5):
            began = time.perf_counter()
            redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await until(lambda: not link.up)
            await until(lambda: link.up)
            outages.append(time.perf_counter() - began)
    assert outages[0] < outages[-1] and 0.4 <= outages[-1] < 2
    assert told(caplog) == [DOWN, BACK] * 5


async def test_a_failing_callback_does_not_stop_the_others(
    link: Link, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    back: list[None] = []
    link.on_back += [lambda: 1 / 0, lambda: back.append(None)]
    redis.restart()
    await until(lambda: back)
    assert "a plugin failed when Redis was back" in caplog.text
    assert await link.call("PING") == b"PONG"


async def test_an_unchanged_state_is_served_by_the_same_link() -> None:
    link = Link(state("redis://a"))
    assert link.serves(state("redis://a"))
    assert not link.serves(state("redis://b"))
    assert not link.serves(state("redis://a", redis_timeout=Duration(1.0)))
    assert not link.serves(state("redis://a", redis_prefix="p"))
    await link.close()
