"""The response cache's entries, and the tier that keeps them in memory.

The tiers in memory and in a file are storage classes of aiohttp-client-cache under keys and a serialisation of our own:
its own serialisation is pickle, and unpickling runs code of whoever can write the file.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from struct import Struct
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import orjson
from aiohttp_client_cache.backends.base import DictCache

if TYPE_CHECKING:
    from gateway.runtime import Runtime
    from gateway.state.flight import Flight

OVERHEAD = 1024
"""Bytes an entry costs beside its body: key, headers, objects (measured: 0.9 KiB)."""
_MAGIC = b"HGR2"
_FRAME = Struct(">4sII")  # magic, CRC-32 of all that follows, length of the JSON head; then the head, then the body


@attrs.frozen
class Entry:
    """A complete answer, as the client got it. Times are seconds since the epoch."""

    stored: float
    expires: float
    headers: dict[str, str]
    body: bytes
    streamed: bool
    """The body is an event stream and is replayed as one."""
    usage: tuple[Any, ...] | None = None
    """The fields of ``gateway.exchange.Usage``, in order."""
    dropped: tuple[str, ...] = ()
    """What the translation for this answer could not carry (``x-gateway-dropped``)."""
    model: str | None = None
    """The model the request named: who may not use it does not get the answer either."""
    unasked: bool = True
    """Cacheable by itself; else only because its client asked, and only for those who ask too."""

    @property
    def size(self) -> int:
        """Bytes it counts for in a bounded tier."""
        return len(self.body) + OVERHEAD

    def is_fresh(self, now: float) -> bool:
        """Neither expired nor, after the clock was set back, from the future."""
        return self.stored <= now < self.expires


class Recording:
    """An answer on its way to the client, kept until it is known to be complete. Too long, it is let go."""

    __slots__ = ("_limit", "_parts", "_size", "flight", "headers", "key", "streamed", "unasked")

    def __init__(self, key: str, limit: int, unasked: bool) -> None:
        self.key = key
        self.unasked = unasked
        self.headers: dict[str, str] = {}
        self.streamed = False
        self.flight: Flight | None = None
        """The call this exchange leads."""
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size <= self._limit:
            self._parts.append(chunk)
        else:
            self._parts.clear()

    @property
    def body(self) -> bytes | None:
        return b"".join(self._parts) if self._size <= self._limit else None


class Codec:
    """Entry ↔ bytes: a checked frame, a JSON head, the body as it is. Has the methods ``BaseCache`` wants."""

    @staticmethod
    def dumps(entry: Entry) -> bytes:
        facts = (
            entry.stored, entry.expires, entry.headers, entry.streamed, entry.usage, entry.dropped, entry.model,
            entry.unasked,
        )  # fmt: skip
        head = orjson.dumps(facts)
        check = zlib.crc32(entry.body, zlib.crc32(head))
        return b"".join((_FRAME.pack(_MAGIC, check, len(head)), head, entry.body))

    @staticmethod
    def loads(raw: bytes) -> Entry:
        """Raises ``ValueError`` for anything that ``dumps`` of this version did not write."""
        magic, check, length = _FRAME.unpack(raw[: _FRAME.size]) if len(raw) > _FRAME.size else (b"", 0, 0)
        if magic != _MAGIC or zlib.crc32(memoryview(raw)[_FRAME.size :]) != check:
            raise ValueError("not a cache entry, or a damaged one")
        start = _FRAME.size + length
        stored, expires, headers, streamed, usage, dropped, model, unasked = orjson.loads(raw[_FRAME.size : start])
        used = None if usage is None else tuple(usage)
        return Entry(stored, expires, headers, raw[start:], streamed, used, tuple(dropped), model, unasked)


class Tier(Protocol):
    """What may stand behind the memory. No method of it raises, or holds an exchange up by more than 50 ms."""

    async def start(self, runtime: Runtime) -> None:
        """Once, before the first look-up."""

    async def read(self, key: str) -> Entry | None:
        """The entry, fresh or not; ``None`` also when it does not come in time."""

    def offer(self, key: str, entry: Entry) -> None:
        """Have ``entry`` written soon, or not at all where that is not possible or too much waits."""

    async def close(self) -> None:
        """Write what still waits; takes two seconds at most."""


class MemoryTier(DictCache):
    """Entries in memory, bounded by bytes; the least recently used go first."""

    def __init__(self, limit: int) -> None:
        super().__init__(serializer=Codec)
        self.data: OrderedDict[str, Entry] = OrderedDict()
        self.limit = limit
        self.used = 0

    def lookup(self, key: str, now: float) -> Entry | None:
        """The entry if it is fresh; one that is not is removed. Not a coroutine: a hit costs a dict look-up."""
        entry = self.data.get(key)
        if entry is None:
            return None
        if not entry.is_fresh(now):
            del self[key]
            return None
        self.data.move_to_end(key)
        return entry

    def __setitem__(self, key: str, entry: Entry) -> None:
        if key in self.data:
            del self[key]
        if entry.size > self.limit:
            return
        self.data[key] = entry
        self.used += entry.size
        self.resize(self.limit)

    def resize(self, limit: int) -> None:
        """Hold ``limit`` bytes from now on."""
        self.limit = limit
        while self.used > self.limit:
            del self[next(iter(self.data))]

    def __delitem__(self, key: str) -> None:
        self.used -= self.data.pop(key).size

    # BaseCache's way in: the library's own versions would pass the accounting by.

    async def write(self, key: str, item: Any) -> None:
        self[key] = item

    async def delete(self, key: str) -> None:
        if key in self.data:
            del self[key]

    async def clear(self) -> None:  # type: ignore[override]  # as in the library
        self.data.clear()
        self.used = 0
