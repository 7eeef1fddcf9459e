"""Reply → client: whole or as a stream, never claiming more than the upstream delivered.

A terminal marker is the upstream's own; without it a stream ends in an error event and an aborted connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from http import HTTPStatus
from time import perf_counter
from typing import Any

from aiohttp import HttpVersion11, web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_writer import StreamWriter

from gateway.errors import (
    GatewayError,
    InternalError,
    RequestTimeout,
    StreamInterrupted,
    UpstreamError,
)
from gateway.events import InBandError
from gateway.exchange import Exchange, Reply
from gateway.front import SENT
from gateway.outbox import outbox
from gateway.rendering import render_event
from gateway.sample import Sample

log = logging.getLogger("hookgate")
_PIECE = 1 << 16  # bytes of a large block written between two looks at the clock: a slow reader is not a stopped one


_DIRECT = 1 << 16  # bytes up to which an answer goes out in one write, without waiting for the client to read


async def send_whole(
    request: web.Request, exchange: Exchange, reply: Reply, reader_timeout: float
) -> web.StreamResponse:
    """Send a reply that is complete in memory; ``reader_timeout`` as for ``send_stream``."""
    body = reply.body or b""
    if len(body) >= _DIRECT and request.method != "HEAD":
        # More than the socket takes at once waits for its reader, who may be slow or gone.
        reply.headers["content-length"] = str(len(body))
        return await send_stream(request, exchange, reply, _once(body), False, reader_timeout)
    for tap in reply.taps:
        tap(body)
    exchange.status = reply.status
    if _is_plain(request, reply):
        response: web.StreamResponse = SENT
        # Half of what aiohttp's Response costs is for cases that were just ruled out.
        _write_at_once(request, reply, body)
        exchange.first_byte = perf_counter()
    else:
        response = web.Response(status=reply.status, headers=reply.headers, body=body)
        if "connection" in reply.headers:
            response.force_close()
        await response.prepare(request)
        exchange.first_byte = perf_counter()
        await response.write_eof()
    exchange.reply_bytes = len(body)
    return response


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _is_plain(request: web.Request, reply: Reply) -> bool:
    message = request._message
    return (
        message.version is HttpVersion11
        and not message.should_close
        and message.method != "HEAD"
        and reply.status in _REASONS
        and "connection" not in reply.headers
        and not request.protocol.writing_paused
    )


# Statuses with a body, and the reason phrases RFC 9110 gives them.
_REASONS = {int(status): status.phrase for status in HTTPStatus if status >= 200 and status not in (204, 205, 304)}


def _write_at_once(request: web.Request, reply: Reply, body: bytes) -> None:
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client is gone")
    headers = reply.headers
    headers.pop("content-length", None)
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if fields.count("\n") != len(headers) or fields.count("\r") != len(headers):
        raise ValueError("a reply header holds a line break")
    head = (
        f"HTTP/1.1 {reply.status} {_REASONS[reply.status]}\r\n{fields}"
        f"content-length: {len(body)}\r\ndate: {rfc822_formatted_time()}\r\n\r\n"
    )
    outbox.write(transport, head.encode("utf-8", "surrogateescape") + body)


async def send_stream(
    request: web.Request,
    exchange: Exchange,
    reply: Reply,
    blocks: AsyncIterator[bytes],
    events: bool,
    reader_timeout: float,
) -> web.StreamResponse:
    """Send a reply block by block, with back-pressure; the error event and the abort if it breaks.

    ``events`` says that the body is made of events, so that an error can be told as one. A client that makes no
    progress reading for ``reader_timeout`` seconds is cut and its upstream aborted.
    """
    # Not a copy of the headers, which would be a kilobyte of each open stream.
    response = web.StreamResponse(status=reply.status, _real_headers=reply.headers)
    if "connection" in reply.headers:
        response.force_close()
    guard: Any = exchange.guard
    exchange.status = reply.status
    try:
        guard.arm(reader_timeout, _too_slow)
        await response.prepare(request)
        await _send_blocks(request, response, exchange, reply, blocks, reader_timeout)
        guard.arm(reader_timeout, _too_slow)
        outbox.flush()
        await response.write_eof()
    except asyncio.CancelledError:
        if (fired := guard.caught()) is None:
            raise
        await _interrupt(request, exchange, response, fired, events, reader_timeout)
    except ConnectionError:
        raise  # the client's; an upstream's is an UpstreamError by now
    except Exception as error:  # noqa: BLE001 - whatever broke, the client must not take the rest for all
        await _interrupt(request, exchange, response, error, events, reader_timeout)
    finally:
        guard.disarm()
    return response


async def _send_blocks(
    request: web.Request,
    response: web.StreamResponse,
    exchange: Exchange,
    reply: Reply,
    blocks: AsyncIterator[bytes],
    reader_timeout: float,
) -> None:
    sample = reply.sample = Sample()
    wait = 0 if reply.events is None else 1  # blocks until the next one for the sample; below 0 none is wanted
    sent = 0
    try:
        if reply.first:
            first, reply.first = reply.first, b""
            await _send_block(response, exchange, first, reply.taps, reader_timeout)
            wait = sample.take(first)
            del first
        taps, protocol = reply.taps, request.protocol
        writer = response._payload_writer
        is_chunked = isinstance(writer, StreamWriter) and writer.chunked
        async for block in blocks:
            size = len(block)
            wait -= 1
            if not wait:
                wait = sample.take(block)
            if not (is_chunked and exchange.first_byte) or protocol.writing_paused or size > _PIECE:
                # aiohttp's writer has to wait, or to do more than what follows.
                await _send_block(response, exchange, block, taps, reader_timeout)
                continue
            transport = protocol.transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the client is gone")
            outbox.write(transport, b"%x\r\n%b\r\n" % (size, block))
            sent += size
            if taps:
                for tap in taps:
                    tap(block)
    except InBandError as error:
        if not error.orderly:
            raise
        _failed(exchange, error)
    finally:
        exchange.reply_bytes += sent


async def _send_block(
    response: web.StreamResponse,
    exchange: Exchange,
    block: bytes,
    taps: Sequence[Callable[[bytes], None]],
    reader_timeout: float,
) -> None:
    if not exchange.first_byte:
        exchange.first_byte = perf_counter()
    exchange.reply_bytes += len(block)
    outbox.flush()
    if len(block) <= _PIECE:
        exchange.guard.arm(reader_timeout, _too_slow)
        await response.write(block)
    else:
        for start in range(0, len(block), _PIECE):
            exchange.guard.arm(reader_timeout, _too_slow)
            await response.write(block[start : start + _PIECE])
    for tap in taps:
        tap(block)


async def _interrupt(
    request: web.Request,
    exchange: Exchange,
    response: web.StreamResponse,
    error: Exception,
    events: bool,
    reader_timeout: float,
) -> None:
    """Say in the client's dialect that the stream broke, then cut the connection without the final HTTP chunk."""
    if not isinstance(error, GatewayError):
        log.error("exchange %s failed inside its stream", exchange.id, exc_info=error)
        error = InternalError()
    _failed(exchange, error)
    outbox.flush()
    transport = request.transport
    if transport is None:
        return
    if isinstance(error, RequestTimeout):
        transport.abort()
        return
    writer = response._payload_writer
    if events and writer is not None and not isinstance(error, InBandError):
        told = StreamInterrupted(error.message)
        # A reader that has stopped reading must not hold the cut up: write without waiting for the drain.
        last = render_event(told, exchange.surface.dialect, exchange.id)
        await writer.write(last, drain=False)  # type: ignore[call-arg]  # the abstract writer lacks it
    transport.close()
    if transport.get_write_buffer_size():
        asyncio.get_running_loop().call_later(reader_timeout, transport.abort)


def _failed(exchange: Exchange, error: GatewayError) -> None:
    exchange.error = error
    if isinstance(error, RequestTimeout):
        exchange.outcome = "client_gone"
    else:
        exchange.outcome = "upstream_failed" if isinstance(error, UpstreamError) else "failed"


def _too_slow() -> GatewayError:
    return RequestTimeout("The client stopped reading.")
