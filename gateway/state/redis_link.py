"""The one way to Redis, for all of the gateway: ``runtime.redis``.

Redis may be slow, full, replaced or gone at any time, and no request waits for it longer than ``redis_timeout``. After
a lost connection or a handful of failures a circuit breaker opens: calls fail at once until a write has worked again.
A call that failed may yet have been carried out, so what is sent must bear being sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha1
from random import uniform
from time import monotonic
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from gateway.state.processes import Processes
from gateway.state.redis_pipe import Command, CommandError, Pipe, RedisUnavailable
from gateway.state.redis_url import parse

if TYPE_CHECKING:
    from gateway.settings import State
    from gateway.state.redis_pipe import Future

__all__ = ["CommandError", "Link", "RedisUnavailable", "Script", "link_to"]

log = logging.getLogger("hookgate")

FAILURES = 5
"""Failures that open the breaker …"""
_FORGIVEN = 0.05  # … less a twentieth for every answer in time
CONNECT_LIMIT = 1.0
"""Seconds that connecting may take, with TLS and login; so long a start waits for Redis, too."""
CHECK = 5.0
"""Seconds between two writes that show whether Redis is well; they also keep an idle connection."""
RETRY = (0.5, 1.0)
"""Seconds between two attempts to connect, drawn anew each time: not all workers at once."""
STABLE = 10.0
"""Seconds a connection must have lasted for the next attempt to be made at once."""
_LONGEST = 4.0  # seconds; where the pause stops doubling when Redis comes and goes
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05)
"""Upper bounds of the round trips' buckets, seconds."""


class Script:
    """A Lua script. Only its digest is sent; where Redis does not know it (any more), the text follows by itself.

    Each new connection begins by loading all of them, so that calls are carried out in the order they are made in.
    """

    def __init__(self, link: Link, text: str) -> None:
        self._link = link
        self._text = text
        self._sha = sha1(text.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[str], *values: str | bytes | int | float) -> Future:
        """As ``Link.call``. ``keys`` are the script's ``KEYS``, ``values`` its ``ARGV``."""
        rest = (len(keys), *keys, *values)
        return self._link.call("EVALSHA", self._sha, *rest, again=("EVAL", self._text, *rest))

    def fire(self, keys: Sequence[str], *values: str | bytes | int | float) -> None:
        """As ``Link.fire``."""
        rest = (len(keys), *keys, *values)
        self._link.fire("EVALSHA", self._sha, *rest, again=("EVAL", self._text, *rest))


class Link:
    """Shared by all plugins of a process, and kept over reloads."""

    def __init__(self, state: State) -> None:
        assert state.redis is not None
        self.prefix = state.redis_prefix
        """What all keys begin with, without the colon behind it."""
        self.on_back: list[Callable[[], object]] = []
        """Called when Redis is there again: it may have forgotten everything meanwhile. Take yours out in
        ``on_shutdown``."""
        self._url = state.redis
        self._timeout = state.redis_timeout
        self._key = (state.redis.reveal(), state.redis_timeout, state.redis_prefix)
        self._scripts: set[str] = set()
        self._pipe: Pipe | None = None  # only while the breaker is closed
        self._trouble = 0.0
        self._told: float | None = None
        self._reason = "not connected yet"
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._lost = asyncio.Event()
        self._failures: Counter[str] = Counter({"timeout": 0, "refused": 0, "lost": 0, "skipped": 0})
        self._counts = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0
        self.processes = Processes(self)
        """Who else uses this Redis."""
        self._beats: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """The breaker is closed."""
        return self._pipe is not None

    def serves(self, state: State) -> bool:
        """It is what ``state`` asks for."""
        if state.redis is None:
            return False
        return self._key == (state.redis.reveal(), state.redis_timeout, state.redis_prefix)

    def call(self, *command: str | bytes | int | float, again: Command | None = None) -> Future:
        """The answer to come: bytes, int, ``None`` or a list of these.

        Calls made before the event loop turns share a write. Raises ``RedisUnavailable``, at once while the breaker
        is open, or from the future, which also has ``CommandError`` for a command that Redis refuses. ``again`` is
        sent where it does not know a script.
        """
        pipe = self._pipe
        if pipe is None or pipe.full:
            self._failures["skipped"] += 1
            raise RedisUnavailable(self._reason if pipe is None else "too many calls wait for Redis")
        return pipe.send(command, again)

    def fire(self, *command: str | bytes | int | float, again: Command | None = None) -> None:
        """Send what nobody waits for. What Redis refuses is logged; what does not get there is counted."""
        with contextlib.suppress(RedisUnavailable):
            self.call(*command, again=again).add_done_callback(_tell_refusal)

    def script(self, text: str) -> Script:
        self._scripts.add(text)
        if self.up:
            self.fire("SCRIPT", "LOAD", text)
        return Script(self, text)

    async def open(self) -> None:
        """Connect, and stay connected until ``close``. Not to be reached is a warning."""
        if self._task is None:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._stay_connected(), name="redis")
            await self._tried.wait()
            await self.processes.try_to_beat()
            self._beats = loop.create_task(self.processes.run(), name="redis beats")
        await self._tried.wait()

    async def close(self) -> None:
        await _ended(self._beats)
        if self._pipe is not None:
            await self.processes.leave()
        await _ended(self._task)
        if self._pipe is not None:
            self._pipe.close("the gateway is stopping")
            self._pipe = None

    async def _stay_connected(self) -> None:
        pause = 0.0
        while True:
            try:
                pipe = await self._connected()
            except Exception as error:  # noqa: BLE001 - whatever it is: it is told, and tried again
                self._tell_down(error)
                self._tried.set()
                await asyncio.sleep(uniform(*RETRY))
                continue
            self._take(pipe)
            self._tried.set()
            since = monotonic()
            await self._watch()
            lasted = monotonic() - since
            pause = 0.0 if lasted >= STABLE else min(pause * 2 or RETRY[0], _LONGEST)
            await asyncio.sleep(pause)

    async def _connected(self) -> Pipe:
        """A connection that has just carried out a write: a server that may only read is of no use to anybody."""
        address = parse(self._url.reveal())
        pipe = None
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                pipe = await address.connect(lambda: Pipe(self, self._timeout))
                scripts = [("SCRIPT", "LOAD", text) for text in self._scripts]
                await asyncio.gather(*map(pipe.send, (*address.greeting, self._probe, *scripts)))
        except BaseException as error:
            if pipe is not None:
                pipe.close(str(error))
            if isinstance(error, TimeoutError) and not str(error):
                raise TimeoutError(f"no connection to {address} within {CONNECT_LIMIT:g} s") from None
            raise
        return pipe

    @property
    def _probe(self) -> Command:
        return ("SET", f"{self.prefix}:probe", 1, "PX", 60_000)

    def _take(self, pipe: Pipe) -> None:
        self._lost.clear()
        self._trouble = 0.0
        if pipe.closed:  # in the turn in which it was greeted
            self._lost.set()
            return
        self._pipe = pipe
        if self._told is not None:
            log.info("Redis is back after %.1f s", monotonic() - self._told)
            self._told = None
            for callback in tuple(self.on_back):
                try:
                    callback()
                except Exception:
                    log.exception("a plugin failed when Redis was back")

    async def _watch(self) -> None:
        """Returns when the breaker has opened."""
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(CHECK):
                    await self._lost.wait()
            except TimeoutError:
                with contextlib.suppress(RedisUnavailable):
                    await self.call(*self._probe)

    def _tell_down(self, error: Exception) -> None:
        """Once until it is back."""
        self._reason = f"Redis is not reachable: {str(error) or repr(error)}"
        if self._told is None:
            self._told = monotonic()
            log.warning("%s", self._reason)

    def _open_breaker(self, error: Exception) -> None:
        self._pipe = None
        self._tell_down(error)
        self._lost.set()

    # What a Pipe tells.

    def answered(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._seconds += seconds
        if self._trouble:
            self._trouble = max(0.0, self._trouble - _FORGIVEN)

    def failed(self, pipe: Pipe, why: str, error: Exception) -> None:
        if pipe is not self._pipe:  # an attempt to connect, which tells by itself
            return
        self._failures[why] += 1
        self._trouble += 1
        if self._trouble >= FAILURES:
            self._open_breaker(error)
            # After a failover the same name may lead to another server: begin anew.
            self._failures["lost"] += pipe.close(str(error))

    def lost(self, pipe: Pipe, error: Exception, calls: int) -> None:
        if pipe is self._pipe:
            self._failures["lost"] += calls
            self._open_breaker(error)

    def collect(self) -> Iterator[Metric]:
        """For ``prometheus_client``, from a thread."""
        yield GaugeMetricFamily("hookgate_redis_up", "1 while Redis is used, 0 while it is not reachable.", self.up)
        failures = CounterMetricFamily(
            "hookgate_redis_failures", "Calls that got no answer; skipped: not made, as Redis is not reachable.",
            labels=["why"],
        )  # fmt: skip
        for why, count in dict(self._failures).items():
            failures.add_metric([why], count)
        yield failures
        trips = HistogramMetricFamily("hookgate_redis_round_trip_seconds", "Calls that were answered.")
        buckets, below = [], 0
        for bound, count in zip([*map(repr, BOUNDS), "+Inf"], list(self._counts), strict=True):
            below += count
            buckets.append((bound, float(below)))
        trips.add_metric([], buckets, self._seconds)
        yield trips


async def _ended(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _tell_refusal(future: Future) -> None:
    error = None if future.cancelled() else future.exception()
    if isinstance(error, CommandError):
        log.error("Redis refused a command of ours: %s", error)


def link_to(state: State) -> Link | None:
    """Not open yet; ``None`` where there is no ``[state] redis``."""
    return None if state.redis is None else Link(state)
