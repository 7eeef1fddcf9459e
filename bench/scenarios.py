"""What is measured, and the bar each figure is held against."""

from __future__ import annotations

from typing import Literal

import attrs

from bench import messages

EVENTS = 200
"""Content events of a stream."""
INTERVAL = 0.004
"""Seconds between two events: slow enough that each event is read and written alone, as tokens are in life."""
IMAGE_BYTES = 10_000_000
PASSING = "pass-through"
"""The gateway's row of the load that is measured beside another."""


@attrs.frozen
class Bar:
    """The most a figure may be, and where it is meant to go."""

    kind: Literal["ratio", "difference", "value"]
    """Held against the figure ÷ the one of ``against``, the figure minus that, or the figure itself."""
    limit: float
    goal: float
    against: str = "textbook"
    """Whose figure it is held against."""


@attrs.frozen
class Scenario:
    """One kind of load."""

    name: str
    title: str
    unit: str
    """What one unit of work is: a request, a chunk."""
    request: bytes
    """Body of every request."""
    reply: bytes
    """Body of every answer, byte for byte."""
    bar: Bar | None
    units: int = 1
    """Units of work one answer stands for."""
    connections: int = 0
    """How many connections at most; 0 is as many as the command line says."""
    interval: float = 0.0
    """Seconds between the events of a stream; 0 is full speed."""
    relayed: bool = True
    """The answer must come from the upstream, or from a cache."""
    gateway_head: bytes = b""
    """Header line a gateway's answer must have for its figure to mean anything."""
    path: str = messages.CHAT_PATH
    governed: Literal["", "memory", "redis"] = ""
    """Where the gateway counts requests, tokens, calls at once and money of the key; the ledger is written, too."""
    beside: Scenario | None = None
    """Another load on the same gateway, in the same rounds: what this one is compared with."""


def _stream(name: str, title: str, bar: Bar | None, *, usage: bool, interval: float) -> Scenario:
    return Scenario(
        name=name,
        title=title,
        unit="chunk",
        request=messages.chat_request(stream=True, include_usage=usage),
        reply=messages.stream_body(EVENTS, usage),
        units=len(messages.stream_events(EVENTS, usage)),
        interval=interval,
        bar=bar,
    )


def loads() -> list[Scenario]:
    """Every scenario that is a load, in the order they run."""
    chunk_bar = Bar("ratio", limit=1.1, goal=0.9)
    image = messages.chat_request(image_bytes=IMAGE_BYTES)
    whole = Scenario(
        name="whole",
        title="2 KB chat request, 1 KB answer",
        unit="request",
        request=messages.chat_request(),
        reply=messages.chat_reply(),
        relayed=False,
        bar=Bar("ratio", limit=1.0, goal=0.65),
    )
    stream = _stream("stream-usage", "the same, client asks for usage", chunk_bar, usage=True, interval=INTERVAL)
    return [
        whole,
        _stream("stream", f"stream of {EVENTS} paced events", chunk_bar, usage=False, interval=INTERVAL),
        stream,
        _stream("stream-burst", "stream at full speed", None, usage=False, interval=0.0),
        Scenario(
            name="cache",
            title="2 KB chat request with temperature 0, answered from the cache",
            unit="request",
            request=messages.chat_request(temperature=0),
            reply=messages.chat_reply(),
            bar=Bar("ratio", limit=0.5, goal=0.35),
            gateway_head=b"x-gateway-cache: hit",
        ),
        Scenario(
            name="image",
            title=f"{IMAGE_BYTES / 1e6:.0f} MB request, 1 KB answer",
            unit="request",
            request=image,
            reply=messages.size_reply(len(image)),
            relayed=False,
            connections=2,
            bar=Bar("difference", limit=15_000, goal=5_000),
        ),
        attrs.evolve(
            whole,
            name="governed",
            title="the same with limits, a budget and the ledger",
            governed="memory",
            bar=Bar("ratio", limit=1.2, goal=1.0),
        ),
        attrs.evolve(
            whole,
            name="governed-redis",
            title="the same, counted in Redis",
            governed="redis",
            bar=Bar("ratio", limit=2.0, goal=1.5),
        ),
        Scenario(
            name="translate",
            title="the question of whole from a client of Anthropic's Messages, translated both ways",
            unit="request",
            request=messages.messages_request(),
            reply=messages.messages_reply(),
            path=messages.MESSAGES_PATH,
            beside=whole,
            bar=Bar("ratio", limit=1.4, goal=1.2, against=PASSING),
        ),
        Scenario(
            name="translate-stream",
            title=f"the same as a stream of {EVENTS} paced events",
            unit="chunk",
            request=messages.messages_request(stream=True),
            reply=messages.messages_stream(EVENTS),
            units=stream.units,
            interval=INTERVAL,
            path=messages.MESSAGES_PATH,
            beside=stream,
            bar=Bar("ratio", limit=2.0, goal=1.5, against=PASSING),
        ),
    ]


START = Bar("value", limit=1.0, goal=0.5)
"""Seconds from the command to the first answer."""
IDLE_MEMORY = Bar("value", limit=80, goal=60)
"""MB resident after one answer."""
STREAM_MEMORY = Bar("value", limit=30, goal=20)
"""KB resident for each open stream."""
NAMES = (*(scenario.name for scenario in loads()), "start", "memory")
