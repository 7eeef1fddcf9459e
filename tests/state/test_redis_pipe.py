"""The pipe alone: what it makes of a server's bytes, however they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.state.redis_pipe import CommandError, Pipe, RedisUnavailable


class Owner:
    def __init__(self) -> None:
        self.answers = 0
        self.failures: list[str] = []
        self.losses: list[tuple[str, int]] = []

    def answered(self, seconds: float) -> None:
        assert seconds >= 0
        self.answers += 1

    def failed(self, pipe: Pipe, why: str, error: Exception) -> None:
        self.failures.append(why)

    def lost(self, pipe: Pipe, error: Exception, calls: int) -> None:
        self.losses.append((str(error), calls))


class Wire(asyncio.WriteTransport):
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def pipe(owner: Owner, wire: Wire) -> AsyncIterator[Pipe]:
    pipe = Pipe(owner, 0.04)
    pipe.connection_made(wire)
    yield pipe
    pipe.close("the test is over")


async def test_commands_are_packed_and_written_together(pipe: Pipe, wire: Wire) -> None:
    pipe.send(("SET", "k\r\n", b"\xff", 1, 2.5))
    pipe.send(("GET", "ü"))
    assert wire.written == []
    await asyncio.sleep(0)
    assert wire.written == [
        b"*5\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$1\r\n\xff\r\n$1\r\n1\r\n$3\r\n2.5\r\n*2\r\n$3\r\nGET\r\n$2\r\n\xc3\xbc\r\n"
    ]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_answers_are_read_however_they_are_cut(pipe: Pipe, owner: Owner, size: int) -> None:
    said = b"+OK\r\n:7\r\n$-1\r\n$5\r\n\r\n\xff\r\n\r\n-ERR no\r\n*2\r\n:1\r\n*1\r\n$1\r\na\r\n"
    calls = [pipe.send(("PING",)) for _ in range(6)]
    await asyncio.sleep(0)
    for start in range(0, len(said), size):
        pipe.data_received(said[start : start + size])
    *rest, refused, nested = [call.exception() or call.result() for call in calls]
    assert rest == [b"OK", 7, None, b"\r\n\xff\r\n"] and nested == [1, [b"a"]]
    assert isinstance(refused, CommandError) and refused.code == "ERR"
    assert owner.answers == 5 and not owner.failures


async def test_a_script_that_is_not_known_is_sent_in_full(pipe: Pipe, wire: Wire) -> None:
    call = pipe.send(("EVALSHA", "x"), again=("EVAL", "return 1"))
    await asyncio.sleep(0)
    pipe.data_received(b"-NOSCRIPT No matching script.\r\n")
    await asyncio.sleep(0)
    assert b"EVAL\r\n$8\r\nreturn 1" in wire.written[1]
    pipe.data_received(b":1\r\n")
    assert await call == 1


@pytest.mark.parametrize("code", ["OOM", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "BUSY"])
async def test_a_server_in_trouble_is_not_a_mistake_of_ours(pipe: Pipe, owner: Owner, code: str) -> None:
    call = pipe.send(("GET", "k"))
    await asyncio.sleep(0)
    pipe.data_received(f"-{code} for some reason\r\n".encode())
    with pytest.raises(RedisUnavailable, match=code):
        await call
    assert owner.failures == ["refused"]


async def test_what_is_late_fails_and_its_answer_is_nobody_elses(pipe: Pipe, owner: Owner) -> None:
    first = pipe.send(("GET", "first"))
    await asyncio.sleep(0.02)
    second = pipe.send(("GET", "second"))
    with pytest.raises(RedisUnavailable, match="40 ms"):
        await first
    assert not second.done()
    pipe.data_received(b"+first\r\n+second\r\n")
    assert await second == b"second"
    assert owner.failures == ["timeout"]


async def test_what_was_sent_is_not_repeated_by_an_error(pipe: Pipe) -> None:
    call = pipe.send(("STE", "k", "canary"))
    await asyncio.sleep(0)
    pipe.data_received(b"-ERR unknown command 'STE', with args beginning with: 'k' 'canary' \r\n")
    with pytest.raises(CommandError) as caught:
        await call
    assert str(caught.value) == "ERR unknown command 'STE'"


async def test_a_server_that_has_no_room_tells_why(pipe: Pipe, owner: Owner) -> None:
    call = pipe.send(("PING",))
    pipe.data_received(b"-ERR max number of clients reached\r\n")
    with pytest.raises(RedisUnavailable):
        await call
    assert owner.losses == [("ERR max number of clients reached", 1)]


@pytest.mark.parametrize("said", [b"HTTP/1.1 200 OK\r\n", b"+OK\r\n+canary\r\n"], ids=["garbage", "too much"])
async def test_bytes_that_make_no_sense_end_the_connection(pipe: Pipe, owner: Owner, wire: Wire, said: bytes) -> None:
    call = pipe.send(("PING",))
    await asyncio.sleep(0)
    pipe.data_received(said)
    await asyncio.wait([call])
    assert pipe.closed and wire.aborted
    assert len(owner.losses) == 1 and "canary" not in owner.losses[0][0]
    pipe.connection_lost(None)  # as the loop tells it then
    assert len(owner.losses) == 1


async def test_a_lost_connection_fails_what_was_sent_and_what_was_not(pipe: Pipe, owner: Owner) -> None:
    sent = pipe.send(("PING",))
    await asyncio.sleep(0)
    unsent = pipe.send(("PING",))
    left = pipe.send(("PING",))
    left.cancel()
    pipe.connection_lost(ConnectionResetError("reset"))
    for call in (sent, unsent):
        with pytest.raises(RedisUnavailable, match="reset"):
            await call
    assert owner.losses == [("reset", 2)]
    await asyncio.sleep(0.06)  # no timer of its is left to fail them again
    assert owner.failures == []
