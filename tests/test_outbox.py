"""Writes wait for the end of the turn, keep their order, and are never lost between two loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from gateway.outbox import LIMIT, Outbox


class Pipe(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed


@pytest.fixture
def pipes() -> Iterator[Callable[[], Pipe]]:
    yield Pipe


async def test_what_is_written_in_one_turn_goes_out_at_its_end_in_order(pipes: Callable[[], Pipe]) -> None:
    outbox, one, two = Outbox(), pipes(), pipes()
    outbox.write(one, b"a")
    outbox.write(two, b"b")
    outbox.write(one, b"c")
    assert one.written == two.written == []
    await asyncio.sleep(0)
    assert (one.written, two.written) == ([b"a", b"c"], [b"b"])
    outbox.write(one, b"d")
    await asyncio.sleep(0)
    assert one.written == [b"a", b"c", b"d"]


async def test_everything_that_was_ready_runs_first(pipes: Callable[[], Pipe]) -> None:
    outbox, pipe = Outbox(), pipes()
    seen: list[int] = []
    loop = asyncio.get_running_loop()
    loop.call_soon(outbox.write, pipe, b"a")
    loop.call_soon(outbox.write, pipe, b"b")
    loop.call_soon(lambda: seen.append(len(pipe.written)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert seen == [0] and pipe.written == [b"a", b"b"]


async def test_a_flush_keeps_the_order_with_other_writes(pipes: Callable[[], Pipe]) -> None:
    outbox, pipe = Outbox(), pipes()
    outbox.write(pipe, b"a")
    outbox.flush()
    pipe.write(b"b")
    await asyncio.sleep(0)
    assert pipe.written == [b"a", b"b"]


async def test_a_closed_transport_gets_nothing_and_stops_nobody(pipes: Callable[[], Pipe]) -> None:
    outbox, closed, other = Outbox(), pipes(), pipes()
    outbox.write(closed, b"a")
    outbox.write(other, b"b")
    closed.closed = True
    await asyncio.sleep(0)
    assert (closed.written, other.written) == ([], [b"b"])


def test_a_loop_that_ended_with_writes_waiting_does_not_block_the_next(pipes: Callable[[], Pipe]) -> None:
    outbox, lost, kept = Outbox(), pipes(), pipes()
    loop = asyncio.new_event_loop()
    loop.call_soon(lambda: (loop.call_soon(outbox.write, lost, b"a"), loop.stop()))
    loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()  # writes, and stops before the end of that turn
    loop.close()

    async def again() -> None:
        outbox.write(kept, b"b")
        await asyncio.sleep(0)

    asyncio.run(again())
    assert kept.written == [b"b"]


async def test_no_more_than_the_limit_waits(pipes: Callable[[], Pipe]) -> None:
    outbox, pipe = Outbox(), pipes()
    for _ in range(8):
        outbox.write(pipe, b"x" * (LIMIT // 4))
    assert sum(map(len, pipe.written)) >= LIMIT
    await asyncio.sleep(0)
    assert sum(map(len, pipe.written)) == 2 * LIMIT
