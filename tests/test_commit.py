"""The head of a stream is held until its first meaningful event, and what comes before it decides nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.commit import HELD, committed, is_events
from gateway.errors import UpstreamProtocolError, UpstreamRefused
from gateway.events import InBandError
from gateway.exchange import Event, Exchange, Reply, Surface, Target
from gateway.testing import chat_events, event
from tests.support.exchanges import make_exchange

EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
CHAT = chat_events(2)
ERROR = event({"error": {"message": "too much", "type": "overloaded_error", "code": 529}})
RESPONSES = Surface("responses", "openai_responses", "/responses", chat=True)
AUDIO = Surface("audio", "openai_chat", "/audio/speech")


class Source:
    """An upstream's stream, piece by piece; knows how many of them were asked for."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.taken = 0

    async def stream(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            self.taken += 1
            yield piece


def exchange_of(surface: Surface | None = None) -> Exchange:
    exchange = make_exchange(target=Target("up", "m"), stream=True)
    exchange.surface = surface or exchange.surface
    return exchange


async def commit(source: Source, exchange: Exchange | None = None, **more: Any) -> Reply:
    return await committed(exchange or exchange_of(), Reply(200, EVENTS, stream=source.stream(), **more), None)


async def rest(reply: Reply) -> bytes:
    assert reply.stream is not None
    return b"".join([block async for block in reply.stream])


async def test_opening_events_pings_and_comments_are_held_until_one_says_something() -> None:
    source = Source(b": ping\n\n", CHAT[0], b": ping\n\n", CHAT[1], *CHAT[2:])
    exchange = exchange_of()
    reply = await commit(source, exchange)
    assert source.taken == 4
    assert exchange.committed
    assert reply.first == b": ping\n\n" + CHAT[0] + b": ping\n\n" + CHAT[1]
    assert await rest(reply) == b"".join(CHAT[2:])
    assert reply.events.failed is None


async def test_half_an_event_says_nothing() -> None:
    source = Source(CHAT[0] + CHAT[1][:20], CHAT[1][20:], *CHAT[2:])
    reply = await commit(source)
    assert source.taken == 2
    assert reply.first == CHAT[0] + CHAT[1]


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "x"},
        {"reasoning_content": "x"},
        {"refusal": "x"},
        {"tool_calls": [{"index": 0, "function": {"name": "f"}}]},
        {"role": "assistant", "content": "x"},
    ],
)
async def test_whatever_a_model_says_is_meaningful(delta: dict[str, Any]) -> None:
    told = event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    source = Source(told, CHAT[-1])
    assert (await commit(source)).first == told
    assert source.taken == 1


@pytest.mark.parametrize(
    "choices",
    [
        [],
        [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
        [{"index": 0, "delta": {"role": "assistant", "content": None, "tool_calls": []}, "finish_reason": None}],
        [{"index": 0, "delta": {}, "finish_reason": None}],
        [{"index": 0, "text": "", "finish_reason": None}],
    ],
)
async def test_what_says_nothing_is_held(choices: list[Any]) -> None:
    source = Source(event({"choices": choices}), CHAT[1], *CHAT[2:])
    await commit(source)
    assert source.taken == 2


async def test_an_empty_answer_is_an_answer() -> None:
    source = Source(CHAT[0], CHAT[-2], CHAT[-1])
    reply = await commit(source)
    assert reply.first + await rest(reply) == b"".join([CHAT[0], *CHAT[-2:]])


async def test_responses_have_openings_of_their_own() -> None:
    opening = [
        event({"type": kind}) for kind in ("response.created", "response.in_progress", "response.output_item.added")
    ]
    said = event({"type": "response.output_text.delta", "delta": "x"})
    source = Source(*opening, said, event({"type": "response.completed", "response": {}}))
    assert (await commit(source, exchange_of(RESPONSES))).first == b"".join([*opening, said])
    assert source.taken == 4


async def test_no_more_than_64_kib_are_held() -> None:
    ping = b": " + b"p" * 1021 + b"\n"
    source = Source(*[ping + b"\n"] * 100, *CHAT)
    reply = await commit(source)
    assert HELD < len(reply.first) <= HELD + 1025
    assert source.taken == 64
    assert reply.first + await rest(reply) == b"".join([*[ping + b"\n"] * 100, *CHAT])


@pytest.mark.parametrize("pieces", [[ERROR], [CHAT[0], ERROR], [CHAT[0] + ERROR], [b": ping\n\n", ERROR, CHAT[-1]]])
async def test_an_error_before_anything_was_said_is_the_answer_it_would_have_been(pieces: list[bytes]) -> None:
    exchange = exchange_of()
    with pytest.raises(UpstreamRefused) as refused:
        await commit(Source(*pieces), exchange)
    assert not exchange.committed
    assert (refused.value.http_status, refused.value.target) == (529, "up/m")
    assert refused.value.headers == {"content-type": "application/json"}
    assert refused.value.body == (b'{"error":{"param":null,"code":529,"type":"overloaded_error","message":"too much"}}')


@pytest.mark.parametrize("kind", ["error", "response.failed"])
async def test_an_error_of_a_response_is_one_too(kind: str) -> None:
    told = {"code": "rate_limit_exceeded", "message": "slow down"}
    failed = event({"type": kind, **told} if kind == "error" else {"type": kind, "response": {"error": told}})
    with pytest.raises(UpstreamRefused) as refused:
        await commit(Source(event({"type": "response.created"}), failed), exchange_of(RESPONSES))
    assert refused.value.http_status == 429
    assert b"slow down" in refused.value.body


async def test_an_error_of_a_surface_without_a_marker_is_one_too() -> None:
    with pytest.raises(UpstreamRefused) as refused:
        await commit(Source(b'event: error\ndata: {"error": {"message": "no", "code": 400}}\n\n'), exchange_of(AUDIO))
    assert refused.value.http_status == 400


@pytest.mark.parametrize("pieces", [[*CHAT[:2], ERROR], [CHAT[0] + CHAT[1] + ERROR]], ids=["apart", "in one read"])
async def test_an_error_behind_what_was_said_is_the_clients_to_see(pieces: list[bytes]) -> None:
    exchange = exchange_of()
    reply = await commit(Source(*pieces), exchange)
    assert exchange.committed
    received = reply.first
    with pytest.raises(InBandError):
        received += await rest(reply)
    assert received.startswith(CHAT[0] + CHAT[1])
    if len(pieces) == 1:
        assert received == pieces[0]


@pytest.mark.parametrize(
    "pieces", [[], [CHAT[0]], [b": ping\n\n"], [b"data: {oops\n\n"], [CHAT[0] + b"data: {oops\n\n"]]
)
async def test_a_stream_that_breaks_or_ends_before_it_said_anything_is_a_failed_call(pieces: list[bytes]) -> None:
    exchange = exchange_of()
    with pytest.raises(UpstreamProtocolError):
        await commit(Source(*pieces), exchange)
    assert not exchange.committed


async def test_a_compressed_stream_is_refused() -> None:
    reply = Reply(200, EVENTS | {"content-encoding": "gzip"}, stream=Source(*CHAT).stream())
    with pytest.raises(UpstreamProtocolError):
        await committed(exchange_of(), reply, None)


async def test_what_is_no_stream_of_events_is_not_held() -> None:
    source = Source(b"sound")
    exchange = exchange_of()
    reply = await committed(exchange, Reply(200, {"content-type": "audio/mpeg"}, stream=source.stream()), None)
    assert exchange.committed
    assert (source.taken, reply.first) == (0, b"")


async def test_an_observer_sees_the_held_events_once() -> None:
    seen: list[Event] = []
    reply = await committed(exchange_of(), Reply(200, EVENTS, stream=Source(*CHAT).stream()), seen.append)
    assert len(seen) == 2
    await rest(reply)
    assert [each.data for each in seen] == [raw[6:-2] for raw in CHAT]


@pytest.mark.parametrize(
    ("status", "kind", "events"),
    [
        (200, "text/event-stream", True),
        (200, "Text/Event-Stream; charset=utf-8", True),
        (200, "application/json", False),
        (206, "text/event-stream", False),
    ],
)
def test_a_stream_of_events_says_so_in_its_head(status: int, kind: str, events: bool) -> None:
    assert is_events(Reply(status, {"content-type": kind})) is events
