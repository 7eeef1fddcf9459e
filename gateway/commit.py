"""The head of a stream is held until its first meaningful event: until then another target can still take over.

What is held costs no time: the client is sent the opening frames together with the first event that says something.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from gateway.dialects.openai_chat import ChatStream, PlainStream
from gateway.dialects.registry import client
from gateway.errors import UpstreamProtocolError, UpstreamRefused
from gateway.events import EventStream, InBandError, StreamReader
from gateway.exchange import Event, Exchange, Reply, Surface

HELD = 1 << 16
"""Bytes of opening frames, pings and comments that are held; beyond them the stream is the client's."""
_EVENTS = "text/event-stream"
_LINES = "application/x-ndjson"
_JSON = {"content-type": "application/json"}


def is_events(reply: Reply, surface: Surface) -> bool:
    """Whether the reply is a stream of server-sent events, or of lines where the surface's dialect streams so."""
    return _kind(reply, surface) is not None


def _kind(reply: Reply, surface: Surface) -> str | None:
    if reply.status != 200:
        return None
    kind = reply.headers.get("content-type", "").lower()
    if kind.startswith(_EVENTS):
        return _EVENTS
    # Elsewhere lines are data: a file, or the results of a batch.
    return _LINES if surface.chat and kind.startswith(_LINES) else None


async def committed(exchange: Exchange, reply: Reply, observer: Callable[[Event], None] | None) -> Reply:
    """The streamed ``reply`` once its first meaningful event is here, which is then in ``reply.first``.

    Raises ``UpstreamError`` when the stream breaks, stalls, ends or tells an error before that.
    """
    kind = _kind(reply, exchange.surface)
    if kind is None:
        exchange.committed = True
        return reply
    if reply.headers.get("content-encoding", "identity") != "identity":
        # Nobody asked for it, and neither its end nor an error inside could be seen.
        raise UpstreamProtocolError("The provider compressed a stream.")
    assert reply.stream is not None
    if reply.events is None:
        events = EventStream(reply.stream, _reader(exchange), reply.terminated, observer, lines=kind is _LINES)
        blocks = events.blocks()
    else:  # our own translation
        events, blocks = reply.events, reply.stream
        events.observer = observer
    held: list[bytes] = []
    size = 0
    began = perf_counter()
    try:
        async for block in blocks:
            held.append(block)
            size += len(block)
            if events.failed is not None or events.started or size > HELD:
                break
    except InBandError:
        pass  # looked at below
    finally:
        exchange.upstream_seconds += perf_counter() - began
    # What came behind a first meaningful event, in the same read, is the client's to see; the relay meets it again.
    if not events.started:
        if isinstance(events.failed, InBandError):
            raise _refusal(events.reader, events.failed, exchange)
        if events.failed is not None:
            raise events.failed
    exchange.committed = True
    reply.first, reply.stream, reply.events = b"".join(held), blocks, events
    return reply


def _refusal(reader: StreamReader, failed: InBandError, exchange: Exchange) -> UpstreamRefused:
    """An error that came as the first event: the client gets it as the answer it would have been without a stream."""
    status, body = reader.refusal(failed.data)
    return UpstreamRefused(status, body, _JSON, target=exchange.target and exchange.target.name)


def _reader(exchange: Exchange) -> StreamReader:
    surface = exchange.surface
    if surface.name in ("chat", "completions"):
        return ChatStream(strip_usage=bool(exchange.notes.get("strip_usage")))
    return client(surface.dialect).reader() if surface.chat else PlainStream()
