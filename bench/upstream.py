"""A mock model provider that is never the bottleneck: a bare asyncio protocol that writes rendered answers.

``python -m bench.upstream --events 200 --interval 0.004`` prints the port it listens on.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
from functools import cache
from typing import cast

import uvloop

from bench import messages

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD_LIMIT = 64 * 1024


class Upstream(asyncio.Protocol):
    """One client connection: whole chat answers, streams, the model list; keep-alive, no chunked requests.

    A stream has ``events`` content events, written one by one: ``interval`` seconds apart, or, when that is 0,
    each in its own turn of the loop so that every event is a system call of its own.
    """

    def __init__(self, events: int, interval: float) -> None:
        self._events = events
        self._interval = interval
        self._buffer = bytearray()
        self._head = b""
        self._size = 0
        self._received = -1  # bytes of the body so far; -1 while the head is incomplete
        self._timer: asyncio.Handle | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its base class

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._received < 0:
            self._buffer += data
            self._read_head()
        else:
            self._received += len(data)
            if self._size <= messages.SMALL:
                self._buffer += data
        if self._received >= self._size >= 0 and not self._transport.is_closing():
            self._answer()

    def _read_head(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _HEAD_LIMIT:
                self._transport.abort()
            return
        self._head = bytes(self._buffer[:end])
        length = _LENGTH.search(self._head)
        self._size = int(length[1]) if length else 0
        if not length and b"chunked" in self._head.lower():
            self._refuse(b"411 Length Required")
        del self._buffer[: end + 4]
        self._received = len(self._buffer)

    def _answer(self) -> None:
        body, size = bytes(self._buffer), self._size
        self._buffer.clear()
        self._received, self._size = -1, 0
        if self._head.startswith(b"GET "):
            self._transport.write(_whole(messages.model_list()))
        elif size > messages.SMALL:
            self._transport.write(_whole(messages.size_reply(size)))
        elif b'"stream":true' in body:
            self._transport.write(_STREAM_HEAD)
            self._write_event(_stream(self._events, b'"include_usage":true' in body), 0)
        else:
            self._transport.write(_chat())

    def _write_event(self, events: tuple[bytes, ...], position: int) -> None:
        self._transport.write(events[position])
        position += 1
        if position == len(events):
            self._timer = None
        elif self._interval:
            self._timer = self._loop.call_later(self._interval, self._write_event, events, position)
        else:
            self._timer = self._loop.call_soon(self._write_event, events, position)

    def _refuse(self, status: bytes) -> None:
        self._transport.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self._transport.close()


_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def _whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@cache
def _chat() -> bytes:
    return _whole(messages.chat_reply())


@cache
def _stream(count: int, usage: bool) -> tuple[bytes, ...]:
    framed = [b"%x\r\n%b\r\n" % (len(event), event) for event in messages.stream_events(count, usage)]
    return (*framed[:-1], framed[-1] + b"0\r\n\r\n")


async def serve(port: int, events: int, interval: float) -> None:
    """Answer on 127.0.0.1 until SIGTERM or SIGINT; ``interval`` in seconds."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(events, interval), "127.0.0.1", port, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="mock model provider on 127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--events", type=int, default=200, help="content events of a stream")
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between two events; 0 is full speed")
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.events, options.interval))


if __name__ == "__main__":
    main()
