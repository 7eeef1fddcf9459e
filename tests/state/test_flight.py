"""Single flight by itself: who waits, who reads at which pace, and what is held meanwhile."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import Exchange, Reply, Usage
from gateway.errors import Overloaded, StreamInterrupted, UpstreamProtocolError, forget_frames
from gateway.state.cache import Entry
from gateway.state.flight import AHEAD, Flight, Reader, SharedStream
from gateway.watchdog import Guard
from tests.support.exchanges import make_exchange

BLOCK = b"x" * 1000
LIMIT = 20 * AHEAD


class Source:
    """A provider's stream whose reads are counted; gives what is put in, ends at ``None``."""

    def __init__(self, *blocks: bytes | Exception | None) -> None:
        self.blocks: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.closed = 0
        self.given = 0
        for block in blocks:
            self.blocks.put_nowait(block)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (block := await self.blocks.get()) is not None:
            if isinstance(block, Exception):
                raise block
            self.given += len(block)
            yield block

    def close(self) -> None:
        self.closed += 1


class Course:
    """A flight whose leader has the head of its stream."""

    def __init__(self, *blocks: bytes | Exception | None, limit: int = LIMIT, started: bool = True) -> None:
        self.flights: dict[str, Flight] = {}
        self.ends: list[str] = []
        self.source = Source(*blocks)
        self.events: Any = SimpleNamespace(usage=Usage(3, 4), delivered=False, counted=False)
        self.flight = Flight(self.flights, "key", 0.0)
        self.exchange = exchange()
        self.exchange.call = SimpleNamespace(end=self.ends.append)
        self.reply = Reply(200, stream=aiter(self.source), close=self.source.close)
        self.reply.events = self.events
        self.reply.first = b"first "
        self.limit = limit
        self.tasks: list[asyncio.Task[None]] = []
        if started:
            self.begin()

    def begin(self) -> None:
        self.stream = self.flight.stream = SharedStream(self.flight, self.exchange, self.reply, self.limit)
        self.stream.start(self.spawn)
        self.flight.settle("streamed")
        assert isinstance(self.reply.stream, Reader)
        self.leader = self.reply.stream

    def spawn(self, coro: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        self.tasks.append(asyncio.get_running_loop().create_task(coro, name=name))
        return self.tasks[-1]

    def follower(self) -> Reader:
        reply = Reply(200)
        self.stream.join(reply)
        assert isinstance(reply.stream, Reader)
        return reply.stream

    async def over(self) -> None:
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await rounds(2)


def exchange() -> Exchange:
    return make_exchange(guard=Guard(asyncio.current_task(), set()))  # type: ignore[arg-type]


async def rounds(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def all_of(reader: Reader) -> bytes:
    return b"".join([block async for block in reader])


# Before the head.


async def test_who_waits_learns_what_the_answer_is() -> None:
    course = Course(started=False)
    waiting = [asyncio.ensure_future(course.flight.settled(exchange(), 30)) for _ in range(3)]
    await rounds()
    assert course.flight.awaited
    entry = Entry(0, 1, {}, b"whole", False)
    course.flight.land(entry)
    course.flight.settle("failed")
    assert await asyncio.gather(*waiting) == [True] * 3
    assert (course.flight.state, course.flight.entry, course.flight.awaited) == ("whole", entry, False)
    assert await course.flight.settled(exchange(), 0), "who comes later need not wait"


async def test_what_is_not_to_be_shared_is_a_failure_to_those_who_wait() -> None:
    course = Course(started=False)
    course.flight.land(None)
    assert course.flight.state == "failed"


@pytest.mark.parametrize(("gone", "state"), [(True, "left"), (False, "failed")])
async def test_a_leader_without_an_answer_gives_up_its_place(gone: bool, state: str) -> None:
    course = Course(started=False)
    course.flight.leave(None, gone)
    assert course.flight.state == state
    assert not course.flights


async def test_a_place_given_up_is_not_taken_from_its_successor() -> None:
    first = Course(started=False)
    first.flight.forget()
    second = Flight(first.flights, "key", 0.0)
    first.flight.leave(None, True)
    assert first.flights == {"key": second}


async def test_a_wait_has_its_limit_and_counts_as_time_at_the_provider() -> None:
    course = Course(started=False)
    one = exchange()

    async def wait() -> bool:
        one.guard.task = asyncio.current_task()
        return await course.flight.settled(one, 30)

    task = asyncio.ensure_future(wait())
    await rounds()
    one.guard.fire(one.guard.error())
    assert await task is False
    assert one.upstream_seconds > 0
    assert not course.flight.awaited
    assert not await course.flight.settled(one, 0)


async def test_a_gateway_that_stops_ends_the_wait_with_its_error() -> None:
    course = Course(started=False)
    one = exchange()

    async def wait() -> bool:
        one.guard.task = asyncio.current_task()
        return await course.flight.settled(one, 30)

    task = asyncio.ensure_future(wait())
    await rounds()
    one.guard.fire(Overloaded("stopping"))
    with pytest.raises(Overloaded):
        await task


async def test_who_leaves_while_waiting_leaves_nothing() -> None:
    course = Course(started=False)
    task = asyncio.ensure_future(course.flight.settled(exchange(), 30))
    await rounds()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not course.flight.awaited


# A stream.


async def test_all_read_the_same_bytes_and_the_call_ends_well() -> None:
    course = Course(b"a", b"b", None)
    followers = [course.follower() for _ in range(3)]
    assert await asyncio.gather(*map(all_of, [course.leader, *followers])) == [b"first ab"] * 4
    assert (course.source.closed, course.ends, course.exchange.call) == (1, ["ok"], None)
    assert course.leader.usage == Usage(3, 4)
    assert course.leader.usage is not followers[0].usage, "one exchange's usage is not another's"
    for course.events.counted in (False, True):
        assert course.leader.counted is course.events.counted
    assert course.reply.first == b""
    course.flight.leave(None, False)
    assert not course.flights


@pytest.mark.parametrize("broken", [UpstreamProtocolError("half"), ValueError("a plugin's")])
async def test_a_break_reaches_everybody_behind_the_bytes_before_it(broken: Exception) -> None:
    course = Course(b"a", broken)
    for reader in (course.leader, course.follower()):
        got = b""
        with pytest.raises(type(broken)):
            async for block in reader:
                got += block
        assert got == b"first a"
    assert course.ends == ["upstream_failed" if isinstance(broken, UpstreamProtocolError) else "failed"]
    assert not course.flights, "nobody joins what broke"


async def test_the_limits_of_the_call_go_on_in_the_guard_it_began_with() -> None:
    course = Course(started=False)
    began = course.exchange.guard
    course.begin()
    await rounds()
    assert course.exchange.guard is not began
    assert began.task is course.tasks[0]
    assert course.exchange.guard.task is asyncio.current_task()
    assert began.guards == {began, course.exchange.guard}
    began.fire(Overloaded("late"))
    with pytest.raises(Overloaded):
        await all_of(course.leader)
    await course.over()
    assert course.exchange.guard.guards == {course.exchange.guard}


async def test_the_last_to_leave_ends_the_call() -> None:
    course = Course(b"a")
    follower = course.follower()
    await rounds()
    course.leader.leave()
    await rounds()
    assert not course.tasks[0].done()
    follower.leave()
    assert not course.flights
    await course.over()
    follower.leave()
    assert (course.source.closed, course.ends) == (1, ["client_gone"])


async def test_a_call_whose_leader_left_at_once_is_ended_too() -> None:
    course = Course(b"a")
    course.leader.leave()  # its task has not run yet
    await course.over()
    assert (course.source.closed, course.ends) == (1, ["client_gone"])


async def test_who_has_waited_and_not_yet_read_keeps_the_call_going() -> None:
    course = Course(b"a", started=False)
    waiting = asyncio.ensure_future(course.flight.settled(exchange(), 30))
    await rounds()
    course.begin()
    course.leader.leave()  # before the one who waits could run
    assert await waiting
    follower = course.follower()
    course.source.blocks.put_nowait(None)
    assert await all_of(follower) == b"first a"


async def test_who_waited_and_leaves_in_that_moment_ends_the_call() -> None:
    course = Course(b"a", started=False)
    waiting = asyncio.ensure_future(course.flight.settled(exchange(), 30))
    await rounds()
    course.begin()
    course.leader.leave()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await course.over()
    assert course.source.closed == 1


async def test_delivered_is_what_this_client_has_been_written() -> None:
    course = Course(b"a")
    await rounds()
    course.events.delivered = True
    follower = course.follower()
    told = [follower.delivered]
    await anext(follower)
    told.append(follower.delivered)  # given is not yet written
    asking = asyncio.ensure_future(anext(follower))
    await rounds()
    assert [*told, follower.delivered] == [False, False, True]
    asking.cancel()
    course.leader.leave()
    follower.leave()
    await course.over()
    assert course.ends == ["ok"], "clients leave at the terminal marker"


# Pace and memory.


async def test_below_the_limit_nobody_is_waited_for() -> None:
    course = Course(*[BLOCK] * 100, None)
    await course.over()
    assert course.source.given == 100 * len(BLOCK)
    assert await all_of(course.leader) == await all_of(course.follower()) == b"first " + BLOCK * 100


async def test_beyond_the_limit_the_leader_sets_the_pace_and_little_is_held() -> None:
    limit = AHEAD
    course = Course(*[BLOCK] * 2000, None, limit=limit)
    await rounds(500)
    assert course.source.given <= limit + 2 * len(BLOCK)
    assert not course.flights, "nobody can join what is not held from its beginning"
    size = 0
    async for block in course.leader:
        size += len(block)
        await rounds(3)
        assert course.stream.held <= limit + AHEAD + 2 * len(BLOCK)
    assert size == 2000 * len(BLOCK) + len(b"first ")


async def test_a_slow_follower_holds_nobody_up_and_is_cut() -> None:
    course = Course(*[BLOCK] * 2000, None, limit=2 * AHEAD)
    slow, quick = course.follower(), course.follower()
    await anext(slow)
    whole = len(b"first ") + 2000 * len(BLOCK)
    sizes = [len(body) for body in await asyncio.gather(all_of(course.leader), all_of(quick))]
    assert sizes[0] == whole
    with pytest.raises(StreamInterrupted):
        await all_of(slow)


async def test_where_the_leader_leaves_the_furthest_sets_the_pace() -> None:
    course = Course(*[BLOCK] * 2000, None, limit=2 * AHEAD)
    slow, quick = course.follower(), course.follower()
    await anext(slow)
    reading = asyncio.ensure_future(all_of(quick))
    await rounds(500)
    course.leader.leave()  # who read nothing
    assert len(await reading) == len(b"first ") + 2000 * len(BLOCK)
    with pytest.raises(StreamInterrupted):
        await all_of(slow)


async def test_a_block_longer_than_the_limit_passes() -> None:
    course = Course(b"y" * 3 * AHEAD, b"z", None, limit=AHEAD)
    assert await all_of(course.leader) == b"first " + b"y" * 3 * AHEAD + b"z"


async def test_who_is_behind_gets_pieces_of_bounded_size() -> None:
    course = Course(*[BLOCK] * 500, None)
    await course.over()
    pieces = [piece async for piece in course.leader]
    assert max(map(len, pieces)) <= 1 << 16
    assert len(pieces) < 20


@pytest.mark.parametrize("last", [None, UpstreamProtocolError("half")])
@pytest.mark.parametrize("leaves_first", [False, True])
async def test_a_flight_that_is_over_is_freed_without_the_collector(last: Exception | None, leaves_first: bool) -> None:
    gc.disable()
    try:
        course = Course(b"a", *() if leaves_first else (last,))
        if not leaves_first:
            await asyncio.gather(all_of(course.leader), return_exceptions=True)
        course.leader.leave()
        await course.over()
        course.flight.leave(None, leaves_first)
        seen = weakref.ref(course.stream)
        forget_frames(course.stream.error)
        del course
        assert seen() is None
    finally:
        gc.enable()


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=30),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
    st.integers(1, 400),
)
def test_whatever_the_pace_a_reader_gets_all_or_an_error(blocks: list[bytes], paces: list[int], limit: int) -> None:
    async def read(reader: Reader, pace: int) -> bytes | None:
        got = []
        try:
            async for block in reader:
                got.append(block)
                await rounds(pace)
        except StreamInterrupted:
            return None
        finally:
            reader.leave()
        return b"".join(got)

    async def run() -> tuple[bytes | None, list[bytes | None]]:
        course = Course(*blocks, None, limit=limit)
        followers = [course.follower() for _ in paces]
        leader, *others = await asyncio.gather(
            read(course.leader, 2), *[read(one, pace) for one, pace in zip(followers, paces, strict=True)]
        )
        await course.over()
        assert course.source.closed == 1
        return leader, others

    leader, others = asyncio.run(run())
    whole = b"first " + b"".join(blocks)
    assert leader == whole
    assert set(others) <= {whole, None}
