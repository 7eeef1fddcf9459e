"""Answers again what was answered before: complete replies, from memory, in front of Redis or an optional SQLite file.

What a client can ask for is ``Cache-Control`` (RFC 9111 section 5.2.1) and no field of the body: the body goes to the
provider unchanged, and providers refuse fields they do not know.

===================  =============================================================================================
``no-store``         neither looked up nor stored
``no-cache``         not looked up and no call under way joined; a new answer is stored
``max-age=N``        cache this request, whatever its temperature; accept answers up to N seconds old
``only-if-cached``   as ``max-age``, of any age; 504 instead of calling a provider
===================  =============================================================================================

Who asks what is being asked already follows that call (``gateway.state.flight``), under the same rules, unless its
answer turns out to be no success. Calls under way end with their generation: a reload begins anew. They are known to
one process alone; through Redis others get the answer once it is complete.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from fnmatch import translate
from time import monotonic
from typing import cast

import attrs
from multidict import CIMultiDictProxy

from gateway import Duration, Exchange, Reply, Runtime, Size, Usage, hookimpl
from gateway.dialects.complete import is_complete
from gateway.errors import RequestRejected
from gateway.state.cache import Entry, MemoryTier, Recording, Tier
from gateway.state.cache_control import NO_WISH, Wish, parse_cache_control
from gateway.state.cache_file import FileTier
from gateway.state.cache_key import Keys, Scope
from gateway.state.cache_redis import Dropped, RedisTier
from gateway.state.flight import Flight, SharedStream

MAX_REQUEST = 1 << 20
"""Bytes of the longest request that is cached: hashing it takes 0.5 ms of the event loop."""
NO_SAMPLING = frozenset({"embeddings", "moderations", "rerank"})
"""Surfaces whose answers do not depend on chance, and which know no ``temperature``."""
KEPT_HEADERS = ("content-type", "openai-version")
"""What is replayed; the rest of a reply's headers tells of one call (ids, rate limits, timings)."""
_NOTE = "cache"
_FOLLOWED = "cache_followed"
_PIECE = 1 << 16  # bytes of a replayed stream written at once: between two, the client's reading speed counts


@attrs.frozen(kw_only=True)
class Settings:
    ttl: Duration = attrs.field(default=Duration(3600.0), validator=attrs.validators.gt(Duration(0.0)))
    """How long an answer is used."""
    scope: Scope = attrs.field(default="key", validator=attrs.validators.in_(("key", "team", "global")))
    """``key``: nobody gets an answer made for another key. ``team``: keys of one team share; one without a team is for
    itself. ``global``: all share. Where keys share, ``x-gateway-cache`` and the speed of the answer tell a caller
    whether another asked the same."""
    models: tuple[str, ...] = ("*",)
    """Globs of the models, by the names clients send, whose answers are cached at all."""
    always: bool = False
    """Cache whatever the temperature. Otherwise only what has ``temperature`` 0, what involves no sampling (embeddings,
    moderations, rerank), and what a client asks for by ``Cache-Control: max-age=N``."""
    memory: Size = attrs.field(default=Size(64 << 20), validator=attrs.validators.ge(Size(0)))
    """Bytes of answers kept in memory; the least recently used go first."""
    max_entry: Size = attrs.field(
        default=Size(1 << 20),
        validator=attrs.validators.and_(attrs.validators.gt(Size(0)), attrs.validators.le(Size(8 << 20))),
    )
    """Bytes of the largest answer that is kept, and held of a stream that is shared; at most 8 MiB."""
    path: str = ""
    """SQLite file behind the memory, so that answers outlive a restart. It holds them in clear text and is created for
    its owner only. Remove it when another server answers at a provider's address."""
    disk: Size = attrs.field(default=Size(1 << 30), validator=attrs.validators.ge(Size(1 << 20)))
    """Bytes of the file; what expires first goes first."""
    redis: bool | None = attrs.field(default=None)
    """Keep answers, those up to 1 MiB, also in Redis, in clear text, for all gateways with the same ``[state] redis``,
    providers and models. If not given: where ``[state] redis`` is and ``path`` is not. While it is not reachable the
    memory alone serves."""
    coalesce: bool = True
    """Equal requests that are under way together share one call, where they may be cached at all."""
    coalesce_wait: Duration = attrs.field(default=Duration(30.0), validator=attrs.validators.gt(Duration(0.0)))
    """How long one waits for the head of another's answer; then it makes a call of its own."""

    @redis.validator
    def _is_alone(self, _: attrs.Attribute[bool | None], value: bool | None) -> None:
        if value and self.path:
            raise ValueError("'redis': answers are kept in Redis or in the file of 'path', not in both.")


class NotCached(RequestRejected):
    """``only-if-cached``, and there is no such answer (RFC 9111 section 5.2.1.7)."""

    status = 504
    code = "not_cached"


def _tier(settings: Settings, runtime: Runtime, clock: Callable[[], float]) -> Tier | None:
    """What stands behind the memory. Raises ``ValueError``."""
    if settings.redis and runtime.redis is None:
        raise ValueError("redis = true needs to know where Redis is: [state] redis.")
    if settings.path:
        return FileTier(settings.path, settings.disk, clock)
    if runtime.redis is None or settings.redis is False:
        return None
    return RedisTier(runtime.redis, clock, runtime.keep("dropped", Dropped))


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._models = re.compile("|".join(translate(pattern) for pattern in settings.models) or "(?!)")
        # Kept over reloads: entries of other routes have other keys, are not found any more and go when room is wanted.
        self._memory = runtime.keep("memory", lambda: MemoryTier(settings.memory))
        self._behind = _tier(settings, runtime, clock)
        self._runtime = runtime
        self._flights: dict[str, Flight] = {}
        config = runtime.config
        # An answer belongs to the routes it came by: where models, targets or providers change, so do all keys.
        self._keys = Keys(settings.scope, repr((config.default_provider, config.providers, config.models)))

    @hookimpl
    async def on_startup(self, runtime: Runtime) -> None:
        self._memory.resize(self._settings.memory)
        if self._behind is not None:
            await self._behind.start(runtime)

    @hookimpl
    async def on_shutdown(self) -> None:
        if self._behind is not None:
            await self._behind.close()

    @hookimpl
    def on_request(self, exchange: Exchange) -> Reply | Awaitable[Reply | None] | None:
        if not exchange.surface.cacheable or exchange.method != "POST":
            return None
        headers = cast("CIMultiDictProxy[str]", exchange.headers)
        asked = headers.getall("cache-control", None)
        wish = NO_WISH if asked is None else parse_cache_control(",".join(asked))
        now = self._clock()
        if (hit := self._known(exchange, headers, wish, now)) is not None:
            return _replay(exchange, hit, now)
        if not wish.asked and wish.store and exchange.read_now() is not None and not self._is_unasked(exchange):
            exchange.cache = "bypass"  # most requests: nothing to wait for
            return None
        return self._looked_up(exchange, headers, wish)

    async def _looked_up(self, exchange: Exchange, headers: CIMultiDictProxy[str], wish: Wish) -> Reply | None:
        if not (wish.store and await self._is_eligible(exchange, wish)):
            exchange.cache = "bypass"
        else:
            key = self._keys.of(exchange, headers, exchange.payload.raw)
            entry = await self._find(key) if wish.read else None
            now = self._clock()
            if entry is not None and now - entry.stored <= wish.max_age:
                return _replay(exchange, entry, now)
            if not wish.only_cached:
                if wish.read and key in self._flights and (reply := await self._coalesced(exchange, key, wish)):
                    return reply
                self._record(exchange, key, not wish.asked or self._is_unasked(exchange))
            exchange.cache = "miss"
        if wish.only_cached:
            raise NotCached("This answer is not in the cache.")
        return None

    def _record(self, exchange: Exchange, key: str, unasked: bool) -> None:
        exchange.notes[_NOTE] = recording = Recording(key, self._settings.max_entry, unasked)
        if self._settings.coalesce and key not in self._flights:
            recording.flight = Flight(self._flights, key, self._clock())

    async def _coalesced(self, exchange: Exchange, key: str, wish: Wish) -> Reply | None:
        """The answer of a call under way; ``None`` where this exchange has to make its own."""
        until = monotonic() + self._settings.coalesce_wait
        while (flight := self._flights.get(key)) is not None and self._clock() - flight.began <= wish.max_age:
            if not await flight.settled(exchange, until - monotonic()):
                return None
            if flight.state != "left":
                # Behind a failure everybody calls at once: waiting in a row for each other's failures takes for ever.
                return _follow(exchange, flight)
        return None

    def _known(self, exchange: Exchange, headers: CIMultiDictProxy[str], wish: Wish, now: float) -> Entry | None:
        """The entry of a request that was answered before, byte for byte: it need not be parsed again to know it."""
        if not (self._memory.data and wish.read):
            return None
        raw = exchange.arrived()
        if raw is None:
            return None
        if not (wish.asked or self._settings.always or exchange.surface.name in NO_SAMPLING or b'"temperature"' in raw):
            return None
        entry = self._memory.lookup(self._keys.of(exchange, headers, raw), now)
        if entry is None or now - entry.stored > wish.max_age or not (entry.unasked or wish.asked):
            return None
        principal = exchange.principal
        if principal is not None and entry.model is not None and not principal.allows(entry.model):
            return None
        exchange.model, exchange.stream = entry.model, entry.streamed
        return entry

    async def _is_eligible(self, exchange: Exchange, wish: Wish) -> bool:
        payload = await exchange.read()
        if payload.raw is None or len(payload.raw) > MAX_REQUEST or self._models.match(exchange.model or "") is None:
            return False
        return wish.asked or self._is_unasked(exchange)

    def _is_unasked(self, exchange: Exchange) -> bool:
        """Cacheable without a client's word: the answer is not one of chance, or the operator wants it."""
        if self._settings.always or exchange.surface.name in NO_SAMPLING:
            return True
        temperature = exchange.payload.get("temperature")
        return temperature == 0 and temperature is not False

    async def _find(self, key: str) -> Entry | None:
        entry = self._memory.lookup(key, self._clock())
        if entry is None and self._behind is not None:
            entry = await self._behind.read(key)
            if entry is None or not entry.is_fresh(self._clock()):
                return self._memory.lookup(key, self._clock())  # a call that has ended meanwhile
            self._memory[key] = entry
        return entry

    @hookimpl
    def on_reply(self, exchange: Exchange, reply: Reply) -> None:
        recording: Recording | None = exchange.notes.get(_NOTE)
        if recording is None:
            return
        recording.streamed = reply.headers.get("content-type", "").startswith("text/event-stream")
        if (
            reply.status != 200
            or recording.streamed != exchange.stream  # not what was asked for; the next answer may be
            or reply.headers.get("content-encoding", "identity") != "identity"  # completeness cannot be read
        ):
            del exchange.notes[_NOTE]
            if recording.flight is not None:
                recording.flight.leave(None, False)
            return
        recording.headers = {name: reply.headers[name] for name in KEPT_HEADERS if name in reply.headers}
        flight = recording.flight
        if reply.body is None:
            if flight is not None and recording.streamed:
                self._share(flight, recording, exchange, reply)
            reply.taps.append(recording.add)
        else:
            # As it is now: a replay passes the on_reply hooks still to come once more.
            recording.add(reply.body)
            if flight is not None and flight.awaited:
                flight.land(self._entry(exchange, recording, exchange.usage or reply.usage))

    def _share(self, flight: Flight, recording: Recording, exchange: Exchange, reply: Reply) -> None:
        flight.headers, flight.dropped = recording.headers, tuple(exchange.dropped)
        flight.stream = SharedStream(flight, exchange, reply, self._settings.max_entry)
        flight.stream.start(self._runtime.spawn)
        flight.settle("streamed")

    @hookimpl
    def on_finish(self, exchange: Exchange) -> None:
        followed: Flight | None = exchange.notes.pop(_FOLLOWED, None)
        if followed is not None:
            del followed.followers[exchange]
            if exchange.cache == "miss":
                _pass_on(followed, exchange)
        recording: Recording | None = exchange.notes.pop(_NOTE, None)
        if recording is None:
            return
        entry = None
        if exchange.outcome == "ok" and exchange.status == 200:
            landed = recording.flight and recording.flight.entry
            entry = landed or self._entry(exchange, recording, exchange.usage)
        if entry is not None:
            self._memory[recording.key] = entry
            if self._behind is not None:
                self._behind.offer(recording.key, entry)
        if recording.flight is not None:
            recording.flight.leave(entry, exchange.outcome == "client_gone")
            _pass_on(recording.flight, exchange)

    def _entry(self, exchange: Exchange, recording: Recording, usage: Usage | None) -> Entry | None:
        """What was recorded, if it is a complete success."""
        body = recording.body
        if body is None or not is_complete(exchange.surface.name, body, recording.streamed):
            return None
        now = self._clock()
        return Entry(
            stored=now,
            expires=now + self._settings.ttl,
            headers=recording.headers,
            body=body,
            streamed=recording.streamed,
            usage=None if usage is None else attrs.astuple(usage),
            dropped=tuple(exchange.dropped),
            model=exchange.model,
            unasked=recording.unasked,
        )


def _follow(exchange: Exchange, flight: Flight) -> Reply | None:
    """The answer of another's call, whole or from its beginning on; ``None`` where it is not to be shared."""
    stream = flight.stream
    if flight.entry is not None:
        reply = _replay(exchange, flight.entry, flight.entry.stored)
        exchange.cache = "coalesced"
        return reply
    if stream is None:
        return None
    if not _is_joinable(exchange, flight, stream):
        stream.end_unwanted()
        return None
    exchange.cache = "coalesced"
    exchange.dropped += flight.dropped
    flight.followers[exchange] = None
    exchange.notes[_FOLLOWED] = flight
    reply = Reply(200, flight.headers)
    stream.join(reply)
    return reply


def _pass_on(flight: Flight, payer: Exchange) -> None:
    """Where who pays for a stream has left it, the next of those who read on does: the call goes on for them."""
    stream = flight.stream
    if payer.outcome == "client_gone" and stream is not None and not stream.ended and flight.followers:
        heir = next(iter(flight.followers))
        heir.cache, heir.target, heir.tried = "miss", payer.target, payer.tried


def _is_joinable(exchange: Exchange, flight: Flight, stream: SharedStream) -> bool:
    if stream.ended and stream.error is None and flight.complete is None:
        flight.complete = is_complete(exchange.surface.name, b"".join(stream.parts), True)
    return not stream.base and (not stream.ended or bool(flight.complete))


def _replay(exchange: Exchange, entry: Entry, now: float) -> Reply:
    exchange.cache = "hit"
    exchange.dropped += entry.dropped
    usage = None if entry.usage is None else Usage(*entry.usage)
    # What the answer cost when it was made; nobody was called now, so exchange.target is None.
    exchange.usage = usage
    headers: Mapping[str, str] = {**entry.headers, "age": str(int(now - entry.stored))}
    if entry.streamed:
        return Reply(200, headers, stream=_pieces(entry.body), usage=usage)
    return Reply(200, headers, entry.body, usage=usage)


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE]
