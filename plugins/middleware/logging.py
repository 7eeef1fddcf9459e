"""One JSON line per exchange, written after its last byte by a thread of its own.

The request path only appends to a bounded queue. A sink that is full, blocked or dead fills that queue; what comes then
is counted and dropped, and one line says how many when the sink takes lines again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import stat
import sys
import threading
import traceback
from collections import deque
from datetime import UTC, datetime
from functools import lru_cache
from time import time
from typing import Any

import attrs
import orjson
from prometheus_client import Counter

from gateway import Exchange, Runtime, hookimpl
from gateway.errors import GatewayError, PluginError
from gateway.exchange import Usage

log = logging.getLogger("hookgate")

INTERVAL = 0.2
"""Seconds between two writes."""
STOP_LIMIT = 2.0
"""Seconds a stopping gateway waits for the last lines to be taken."""
_ATOMIC = 4096
# Up to PIPE_BUF bytes reach a pipe in one piece (POSIX write), so that workers sharing it never cut each other's lines.
_BLOCK = 1 << 16
_STREAMS = {"stdout": 1, "stderr": 2}

Record = tuple[Any, ...]
_FIELDS = (
    "time", "id", "gateway_id", "method", "surface", "path", "model", "stream", "status", "outcome", "error", "key",
    "team", "client_ip", "target", "tried", "cache", "cost_nano", "usage", "bytes", "duration_ms", "ttfb_ms",
    "overhead_ms", "dropped",
)  # fmt: skip


@attrs.frozen(kw_only=True)
class Settings:
    target: str = "stdout"
    """``stdout``, ``stderr``, or a file to append to; opened anew for every write, so it may be rotated."""
    queue: int = attrs.field(default=8192, validator=attrs.validators.in_(range(1, 1_000_001)))
    """Lines kept while the sink takes none; further ones are dropped and counted."""


def _snapshot(exchange: Exchange) -> Record:
    """What the line needs and nothing more: no body and no traceback may live on in the queue.

    Text a client chose is cut here, so that the queue is bounded in bytes too.
    """
    error, target, principal, model = exchange.error, exchange.target, exchange.principal, exchange.model
    return (
        time(), exchange.id, exchange.notes.get("request_id"), exchange.method[:16], exchange.surface.name,
        exchange.path[:256], model and model[:128], exchange.stream, exchange.status, exchange.outcome,
        None if error is None else error.code if isinstance(error, GatewayError) else type(error).__name__,
        principal and principal.name, principal and principal.team, exchange.client_ip, target and target.name[:256],
        [name[:256] for name in exchange.tried[:8]] or None,
        exchange.cache, exchange.cost, exchange.usage, exchange.reply_bytes, exchange.started, exchange.first_byte,
        exchange.finished, exchange.upstream_seconds, [name[:64] for name in exchange.dropped[:16]] or None,
    )  # fmt: skip


def _line(record: Record) -> bytes:
    """The record as a line. What is not known is left out; zero means zero."""
    (at, own_id, gateway_id, *facts, usage, size, started, first_byte, finished, upstream, dropped) = record
    head_sent = first_byte or finished
    values = (
        _rfc3339(at), own_id, gateway_id or own_id, *facts, usage and _usage(usage), size,
        _milliseconds(finished - started),
        _milliseconds(first_byte - started) if first_byte else None,
        _milliseconds(max(0.0, head_sent - started - upstream)),
        dropped,
    )  # fmt: skip
    return _dump({name: value for name, value in zip(_FIELDS, values, strict=True) if value is not None})


def _usage(usage: Usage) -> dict[str, Any]:
    counts = {
        "input": usage.input_tokens, "output": usage.output_tokens,
        "cached": usage.cached_tokens, "reasoning": usage.reasoning_tokens,
        "provenance": usage.provenance,
    }  # fmt: skip
    return {name: value for name, value in counts.items() if value is not None}


def _milliseconds(seconds: float) -> float:
    return int(seconds * 1_000_000) / 1000  # a third of the cost of round()


@lru_cache(maxsize=4)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()[:-6]


def _rfc3339(at: float) -> str:
    second = int(at)
    return f"{_second(second)}.{int((at - second) * 1000):03d}Z"


def _dump(fields: dict[str, Any]) -> bytes:
    """One line of printable ASCII.

    orjson leaves U+007F to U+009F, line separators and bidirectional controls as they are, and knows neither lone
    surrogates nor integers above 64 bits; the standard library escapes and writes all of them, at five times the cost.
    """
    try:
        line = orjson.dumps(fields)
    except TypeError:
        line = b"\x7f"
    if not line.isascii() or b"\x7f" in line:
        line = json.dumps(fields, separators=(",", ":"), default=str).encode()
    return line + b"\n"


class Writer:
    """The queue and the thread that empties it. Only the event loop adds, only the thread takes."""

    def __init__(self, target: str, capacity: int) -> None:
        self.target = target
        self.records: deque[Record] = deque()
        self.dropped = 0
        """Records refused since the start because the queue was full."""
        self._capacity = capacity
        self._noted = 0
        self._rest = b""
        self._carried = b""
        self._failing = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hookgate-log", daemon=True)

    def add(self, record: Record) -> bool:
        """Queue a record; ``False`` if it was dropped."""
        if len(self.records) >= self._capacity:
            self.dropped += 1
            return False
        self.records.append(record)
        return True

    def start(self) -> None:
        """Raises ``OSError`` if the target cannot be written."""
        self._close(self._open())
        self._thread.start()

    async def stop(self) -> None:
        """Write what is left, as far as the sink takes it within ``STOP_LIMIT``."""
        if not self._thread.ident:
            return
        self._stop.set()
        await asyncio.to_thread(self._thread.join, STOP_LIMIT)
        lost = len(self.records) + self._rest.count(b"\n")
        if lost and self.target not in _STREAMS:  # where stdout is stuck, stderr may be, and would hold up the stop
            log.warning("%s did not take the last %d log lines", self.target, lost)

    def _open(self) -> int:
        if (stream := _STREAMS.get(self.target)) is not None:
            if getattr(sys, f"__{self.target}__") is None:
                # Closed before we started: the number may belong to a socket or a database by now.
                raise OSError(f"{self.target} is closed")
            return stream
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(self.target, flags, 0o640)

    def _close(self, sink: int) -> None:
        if self.target not in _STREAMS:
            os.close(sink)

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._drain()
        self._drain()

    def _drain(self) -> None:
        """Write all there is. A sink that fails keeps its lines for the next time."""
        if not self._rest and not self.records:
            return
        try:
            sink = self._open()
            try:
                self._write_all(sink)
            finally:
                self._close(sink)
            self._failing = False
        except BlockingIOError:
            pass  # full; nothing is wrong with it
        except OSError as error:
            if not self._failing and self.target != "stderr":
                log.warning("%s takes no log lines: %s", self.target, error.strerror or error)
            self._failing = True

    def _write_all(self, sink: int) -> None:
        mode = os.fstat(sink).st_mode
        limit = _ATOMIC if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else _BLOCK
        while self._rest or self._next_block(limit):
            self._rest = self._rest[os.write(sink, self._rest) :]

    def _next_block(self, limit: int) -> bool:
        """Put whole lines, ``limit`` bytes together, into ``_rest``; the line that was one too many waits."""
        lines = [self._carried]
        size = len(self._carried)
        self._carried = b""
        while self.records and not self._carried:
            line = _line(self.records.popleft())
            if size and size + len(line) > limit:
                self._carried = line
            else:
                lines.append(line)
                size += len(line)
        dropped = self.dropped - self._noted
        if dropped and not self._carried:
            self._noted += dropped
            lines.append(_dump({"time": _rfc3339(time()), "event": "log_lines_dropped", "count": dropped}))
        self._rest = b"".join(lines)
        return bool(self._rest)


_LIBRARIES = ("aiohttp.client", "aiohttp.internal", "aiohttp.server", "aiohttp.web", "aiohttp.websocket", "asyncio")
_QUOTED = re.compile(r"[(<'\"\n]")


def _without_contents(record: logging.LogRecord) -> bool:
    """A log filter for libraries: what happened and where in the code stays, what a request said goes.

    Their messages carry the ``repr`` of futures, callbacks and arguments; exceptions quote what could not be parsed.
    """
    record.msg = _QUOTED.split(str(record.msg), maxsplit=1)[0]
    record.args = ()
    if record.exc_info and record.exc_info[0] is not None:
        kind, _, trace = record.exc_info
        record.exc_text = "".join(traceback.format_tb(trace)) + kind.__name__
        record.exc_info = None
    return True


def _strip(logger: logging.Logger) -> None:
    """Put our filter on ``logger``, in the place of one that an older version of this file has put there."""
    for filtering in list(logger.filters):
        if getattr(filtering, "__name__", "") == _without_contents.__name__:
            logger.removeFilter(filtering)
    logger.addFilter(_without_contents)


def _dropped_lines() -> Counter:
    return Counter("hookgate_log_lines_dropped", "Log lines dropped because the sink took none.", registry=None)


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._writer = Writer(settings.target, settings.queue)
        self._dropped = runtime.keep("dropped", _dropped_lines)
        runtime.registry.register(self._dropped)

    @hookimpl
    def on_startup(self, runtime: Runtime) -> None:
        for name in _LIBRARIES:
            _strip(logging.getLogger(name))
        try:
            self._writer.start()
        except OSError as error:
            raise PluginError(f"logging: target {self._writer.target}: {error.strerror or error}") from error

    @hookimpl
    def on_finish(self, exchange: Exchange) -> None:
        if not self._writer.add(_snapshot(exchange)):
            self._dropped.inc()

    @hookimpl
    async def on_shutdown(self) -> None:
        await self._writer.stop()
