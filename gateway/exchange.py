"""The vocabulary: what a request is while it passes through the gateway.

Imports nothing of ours but errors and limits, so that everything else may import it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from time import perf_counter
from typing import Any, Literal

import attrs
from multidict import CIMultiDict

from gateway.errors import InvalidRequest
from gateway.limits import Limit

Provenance = Literal["reported", "partial", "estimated"]
CacheState = Literal["hit", "miss", "bypass", "coalesced"]
_SHORT = 1 << 18  # bytes
_ALL = ("*",)
ANY = "\0"
"""No model's name: only a principal that may use all models may use this one."""
Outcome = Literal["ok", "refused", "upstream_failed", "failed", "client_gone"]


@attrs.frozen
class Surface:
    """One route clients call, known in full when the gateway starts."""

    name: str
    """Stable, bounded label: ``chat``, ``completions``, ``passthrough``, …"""
    dialect: str
    """Wire format the caller speaks; errors are rendered in it."""
    path: str
    """Path below the provider's ``base_url``; a ``{tail}`` stands for the rest of the caller's path."""
    body: Literal["json", "any"] = "json"
    """``json``: always parsed; ``any``: parsed, searched part by part, or streamed, as its content type says."""
    repeatable: bool = False
    """A repeat only costs tokens (chat, embeddings), it changes no state at the provider."""
    cacheable: bool = False
    """A complete answer may be stored and replayed."""
    chat: bool = False
    """It asks a model for an answer, so that it can be told in any dialect."""
    counts: bool = False
    """It asks how many tokens such a question has."""
    embeds: bool = False
    """It asks for embeddings, likewise."""
    streams: Literal["asked", "always", "never", "unless"] = "asked"
    """The answer is a stream when the body asks for it, always, never, or unless the body says otherwise."""
    stores: bool = False
    """The provider keeps the answer unless the body says ``"store": false``."""


@attrs.frozen
class Principal:
    """Whom a virtual key or a token stands for, with its limits; what plugins see instead of either."""

    name: str
    models: tuple[str, ...] = ("*",)
    """Globs of the model names this principal may call."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None
    team: str | None = None
    """Whom it belongs to; for plugins that count or report by it."""
    limits: tuple[Limit, ...] = ()
    """Any number of further ones, budgets among them."""
    drains: bool = False
    """When its client leaves, the answer is read on to its usage, instead of being estimated."""

    def allows(self, model: str) -> bool:
        return self.models == _ALL or any(fnmatchcase(model, pattern) for pattern in self.models)


@attrs.frozen
class Target:
    """A provider and the model name it knows."""

    provider: str
    model: str | None = None
    """Upstream model name; ``None`` sends what the client sent."""
    weight: int = 1
    max_concurrency: int = 0
    """Calls at once to this model of this provider, whatever name clients know it by; 0 is no limit."""
    name: str = attrs.field(init=False)

    @name.default
    def _name(self) -> str:
        return f"{self.provider}/{self.model}" if self.model else self.provider


@attrs.define
class Usage:
    """Tokens an exchange used, normalised (OpenAI's counting).

    ``input_tokens`` includes all that was read: what came from a cache, was written to one, was sound or picture;
    ``output_tokens`` likewise, with ``reasoning_tokens``. ``None`` means nobody said, which is not zero.
    ``provenance``: all ``reported`` by the provider; ``partial``: a part of it, and where the exchange broke off the
    rest is estimated; ``estimated``: all of it, from the request and from what was delivered.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    provenance: Provenance = "reported"
    cache_write_1h_tokens: int | None = None
    """Those of ``cache_write_tokens`` that are kept for an hour."""
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    image_input_tokens: int | None = None
    image_output_tokens: int | None = None
    web_searches: int | None = None
    """Searches the provider made itself, where it counts them (Anthropic)."""
    service_tier: str | None = None
    """How the provider says it served the request: ``default``, ``standard``, ``flex``, ``priority``, ``batch``, …"""

    @property
    def total_tokens(self) -> int:
        return (self.input_tokens or 0) + (self.output_tokens or 0)


class Event:
    """One server-sent event of a streamed reply. Assign ``data`` to change what the client gets."""

    __slots__ = ("data", "name")

    def __init__(self, data: bytes, name: str | None = None) -> None:
        self.data = data
        """The joined ``data:`` lines."""
        self.name = name
        """The ``event:`` line, where there is one."""


class Reply:
    """An answer on its way to the client: whole (``body``) or streamed (``stream``), never both.

    ``stream`` yields bytes in the client's dialect; for ``text/event-stream`` any chunking will do.
    ``close`` is called once, however the exchange ends; it must give back or abort the upstream connection.
    """

    __slots__ = (
        "body", "close", "events", "first", "headers", "sample", "status", "stream", "taps", "terminated", "translated",
        "usage",
    )  # fmt: skip

    def __init__(
        self,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        stream: AsyncIterator[bytes] | None = None,
        close: Callable[[], None] | None = None,
        usage: Usage | None = None,
        terminated: bool = True,
    ) -> None:
        self.status = status
        self.headers: CIMultiDict[str] = CIMultiDict(headers or ())
        self.body = body
        self.stream = stream
        self.close = close
        self.usage = usage
        """Known usage; ``None`` lets the relay read it out of the reply."""
        self.terminated = terminated
        """The stream must end with its dialect's terminal marker (``False``: this provider is known to omit it)."""
        self.first = b""
        """What was read of the stream before the head could be sent; sent ahead of the rest."""
        self.events: Any = None
        """The core's reader of a stream of events; knows its usage when it has ended."""
        self.translated = False
        """We wrote it ourselves, of an answer that was understood: what it used is ``usage``, or nobody knows."""
        self.sample: Any = None
        """Some blocks of a stream of events that was sent (``gateway.sample.Sample``); the core's."""
        self.taps: list[Callable[[bytes], None]] = []
        """Called with the body bytes the client is sent, in order; what they add up to is complete only when
        ``on_finish`` sees the outcome ``ok``."""


class Exchange:
    """One request with its answer. Made by the dispatcher, walked through the chain, seen last by ``on_finish``."""

    __slots__ = (
        "_arrived", "_reader", "_ready", "cache", "call", "client_ip", "committed", "cost", "drain", "dropped", "error",
        "finished", "first_byte", "guard", "headers", "id", "method", "model", "notes", "outcome", "path", "payload",
        "principal", "query", "reply_bytes", "request", "sent", "started", "status", "stream", "strict", "surface",
        "tail", "target", "tried", "upstream_seconds", "usage",
    )  # fmt: skip

    def __init__(
        self,
        request: Any,
        surface: Surface,
        reader: Callable[[Exchange], Awaitable[Any]],
        ready: Callable[[Exchange], Any] = lambda _: None,
    ) -> None:
        self.id = ""
        """Request id, ``x-request-id`` of the reply: unique; ``request_id`` may put the client's in its place."""
        self.request = request
        """The ``aiohttp.web.Request``. Its body belongs to the gateway: call ``read()``."""
        self.surface = surface
        self.method: str = request.method
        self.path: str = request.rel_url.raw_path
        self.query: str = request.rel_url.raw_query_string
        self.tail = ""
        """What ``{tail}`` of the surface stands for, percent-encoded as the client sent it."""
        self.headers: Mapping[str, str] = request.headers
        self.client_ip = ""
        self.principal: Principal | None = None
        self._arrived: bytes | None = None
        self._reader = reader
        self._ready = ready
        self.guard: Any = None
        """The time limit this exchange is under now (``gateway.watchdog.Guard``); the core's."""
        self.call: Any = None
        """The call whose answer is being relayed (``gateway.attempts.Running``); the core's."""
        self.committed = False
        """The answer's first meaningful event is here, or its head where it is no stream: nothing is tried again."""
        self.payload: Any = None
        """What ``read()`` returned; ``None`` while nobody has asked for the body."""
        self.model: str | None = None
        self.stream = False
        self.target: Target | None = None
        self.tried: list[str] = []
        """Names of the targets a call was made to, in order."""
        self.sent = False
        """The provider of the last of these has been sent the request and has not refused it: it costs tokens."""
        self.drain: Any = None
        """What reads on when the client leaves (``gateway.drain.Drain``), if its principal wants that; the core's."""
        self.usage: Usage | None = None
        self.cost: int | None = None
        """Nano-USD (1e-9 USD). ``None``: unknown, or no plugin asked (``runtime.prices.settle``)."""
        self.cache: CacheState | None = None
        self.strict = False
        """A translation that cannot carry all of the request refuses it."""
        self.dropped: list[str] = []
        """What a translation could not carry (``x-gateway-dropped``)."""
        self.status = 0
        """Status sent to the client; 0 while no head was sent."""
        self.error: Exception | None = None
        self.outcome: Outcome = "ok"
        self.started = perf_counter()
        self.first_byte = 0.0
        """``perf_counter`` when the first body byte went out; 0.0 if none did."""
        self.finished = 0.0
        self.upstream_seconds = 0.0
        """Time spent waiting for upstreams before the head; the rest is the gateway's overhead."""
        self.reply_bytes = 0
        self.notes: dict[str, Any] = {}
        """Free for plugins: state between their own hooks, under their own name."""

    async def read(self) -> Any:
        """Read and parse the request body, once, and return it (``gateway.body.Payload``).

        Sets ``model`` and ``stream``. Raises ``InvalidRequest``, ``PayloadTooLarge``, ``RequestTimeout``, or
        ``Forbidden`` when the principal may not use the model.
        """
        if self.read_now() is None:
            self.payload = await self._reader(self)
        return self.payload

    def read_now(self) -> Any:
        """``read()`` without waiting: ``None`` where that cannot be, because more of the body has still to arrive or it
        takes long to parse. Raises what ``read()`` raises."""
        if self.payload is None:
            self.payload = self._ready(self)
        return self.payload

    def drop(self, names: Iterable[str]) -> None:
        """Note what a translation could not carry, for ``x-gateway-dropped``. Raises ``InvalidRequest`` where the
        operator wants nothing left out (``strict``)."""
        self.dropped += [name for name in names if name not in self.dropped]
        if self.dropped and self.strict:
            raise InvalidRequest(f"The provider of this model cannot be given: {', '.join(self.dropped)}.")

    def repeatable(self) -> bool:
        """Whether a provider that gets this request twice has only spent tokens: nothing of it is kept there."""
        if not self.surface.repeatable:
            return False
        body = self.payload
        if body is None:
            return not self.surface.stores
        store = body.get("store")
        # A conversation grows by each answer, whether or not the answer itself is stored.
        return not (self.surface.stores if store is None else store) and body.get("conversation") is None

    def arrived(self) -> bytes | None:
        """The body as it came, unchecked, if it is short and all of it is here already; nothing is awaited or parsed.

        Good for recognising a body that was read, checked and answered before; ``read()`` afterwards works as ever.
        """
        content = self.request.content
        if self._arrived is None and content.is_eof() and content.exception() is None and content.total_bytes <= _SHORT:
            self._arrived = content.read_nowait(-1)
        return self._arrived
