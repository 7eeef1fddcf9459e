"""Ready-made scripts for ``ScriptedUpstream``: good answers, refusals, and every way a provider can break off."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from gateway.testing import wire
from gateway.testing.upstream import Call, Script
from gateway.testing.wire import Headers

Ending = Literal["end", "close", "reset", "stall", "half"]
"""How a stream ends: ``end`` with its last chunk, ``close`` with FIN and ``reset`` with RST before it, ``stall``
never, ``half`` with FIN in the middle of an event."""

SSE = {"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked"}
JSON = {"Content-Type": "application/json"}
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def chat_body(text: str = "Hello", *, model: str = "m", usage: Any = USAGE, **more: Any) -> bytes:
    """A whole OpenAI chat completion; ``more`` adds top-level fields."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": model, "choices": [choice]}
    return wire.json_bytes(body | ({"usage": usage} if usage else {}) | more)


def event(data: Any) -> bytes:
    """One server-sent event: bytes as they are, anything else as JSON."""
    return b"data: " + wire.json_bytes(data) + b"\n\n"


def chat_events(words: int = 3, *, model: str = "m", usage: Any = None, done: bool = True) -> list[bytes]:
    """The events of a streamed OpenAI chat completion: role, ``words`` deltas ``"w0 "``…, finish, usage, ``[DONE]``."""
    deltas = [{"role": "assistant", "content": ""}, *({"content": f"w{index} "} for index in range(words)), {}]
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": model}
    if usage:
        common["usage"] = None
    events = [
        event(common | {"choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}]})
        for delta in deltas
    ]
    if usage:
        events.append(event(common | {"choices": [], "usage": usage}))
    return events + [event(b"[DONE]")] * done


def whole(status: int, body: Any, headers: Headers = JSON) -> Script:
    """A whole answer; ``body`` is sent as it is when bytes, else as JSON."""

    async def script(call: Call) -> None:
        await call.answer(status, wire.json_bytes(body), headers)

    return script


def chat(text: str = "Hello", **more: Any) -> Script:
    """A whole chat completion; arguments as for ``chat_body``."""
    return whole(200, chat_body(text, **more))


def stream(
    pieces: Iterable[bytes], *, headers: Headers = SSE, pause: float = 0.0, ending: Ending = "end", status: int = 200
) -> Script:
    """A streamed answer, one chunk per piece, ``pause`` seconds between them."""
    kept = list(pieces)

    async def script(call: Call) -> None:
        await call.head(status, headers)
        for index, piece in enumerate(kept):
            if index and pause:
                await asyncio.sleep(pause)
            await call.chunk(piece)
        await _end(call, ending)

    return script


async def _end(call: Call, ending: Ending) -> None:
    if ending == "end":
        await call.chunk(b"")
    elif ending == "stall":
        await call.stall()
    elif ending == "reset":
        await asyncio.sleep(0.05)  # a reset overtakes bytes the other side has not read yet
        call.reset()
    else:
        if ending == "half":
            await call.chunk(b'data: {"id":"chatcmpl-1","cho')
        call.close()


def chat_stream(
    words: int = 3,
    *,
    usage: Any = None,
    done: bool = True,
    after: int | None = None,
    pause: float = 0.0,
    ending: Ending = "end",
    headers: Headers = SSE,
) -> Script:
    """A streamed chat completion; with ``after``, ``ending`` comes after that many events.

    The usage event is sent only when asked for with ``stream_options``, as OpenAI does, and only if ``usage`` is set.
    """

    async def script(call: Call) -> None:
        wanted = (call.request.json.get("stream_options") or {}).get("include_usage")
        events = chat_events(words, usage=usage if wanted else None, done=done)
        await stream(events[:after], headers=headers, pause=pause, ending=ending)(call)

    return script


def as_asked(words: int = 3, *, usage: Any = USAGE) -> Script:
    """A chat completion, streamed if the request says ``"stream": true`` and whole if not."""
    streamed, complete = chat_stream(words, usage=usage), chat(usage=usage)

    async def script(call: Call) -> None:
        body = call.request.body
        await (streamed if body and call.request.json.get("stream") else complete)(call)

    return script


def error(status: int, message: str = "No.", *, code: str | None = None, headers: Headers = ()) -> Script:
    """An error in OpenAI's shape."""
    body = {"error": {"message": message, "type": "test_error", "param": None, "code": code}}
    return whole(status, body, [*JSON.items(), *wire.pairs(headers)])


def redirect(status: int, location: str) -> Script:
    return whole(status, b"", {"Location": location})


def raw(data: bytes, ending: Literal["keep", "close", "reset"] = "close") -> Script:
    """Bytes that need not be HTTP."""

    async def script(call: Call) -> None:
        await call.send(data)
        if ending == "close":
            call.close()
        elif ending == "reset":
            await asyncio.sleep(0.05)
            call.reset()

    return script


def delayed(seconds: float, then: Script) -> Script:
    """Silence before the first byte."""

    async def script(call: Call) -> None:
        await asyncio.sleep(seconds)
        await then(call)

    return script


async def silent(call: Call) -> None:
    """The request is read and never answered."""
    await call.stall()


async def hang_up(call: Call) -> None:
    """The request is read and the connection closed, without a byte of answer."""
    call.close()


WHOLE_FAULTS: dict[str, Script] = {
    "closed without an answer": hang_up,
    "reset without an answer": raw(b"", "reset"),
    "half a head": raw(b"HTTP/1.1 200 OK\r\nContent-Ty"),
    "not HTTP": raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "body shorter than its Content-Length": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + chat_body()[:99]),
    "redirect": redirect(307, "http://127.0.0.1:9/v1/chat/completions"),
    "500": error(500),
}
"""Name → script: how a provider fails to answer. None of them is a success a client may see."""


def stream_faults(after: int) -> dict[str, Script]:
    """Name → script: how a chat stream breaks after ``after`` events. None may look complete to a client."""
    endings: Sequence[Ending] = ("end", "close", "reset", "half")
    return {f"{ending} after {after}": chat_stream(after + 9, after=after, ending=ending) for ending in endings}
