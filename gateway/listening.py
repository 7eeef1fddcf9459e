"""The public socket: opened by host and port or as a unix socket, closed so that a successor loses nothing by it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import struct

from aiohttp import web

from gateway.config import Server

BACKLOG = 1024
SETTLING = 0.1
"""Seconds for handshakes under way to end before a shared port is left."""
_SO_ATTACH_FILTER = 26
# A socket filter (Linux, socket(7)), one (code, jump if true, jump if false, operand) each: drop a packet that has SYN
# and not ACK, let everything else pass.
_NO_SYN = (
    (0x30, 0, 0, 13),  # load the byte of TCP's flags
    (0x54, 0, 0, 0x12),  # of which SYN and ACK
    (0x15, 0, 1, 0x02),  # if it is SYN alone
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # else keep all
)


async def listen(runner: web.AppRunner, settings: Server) -> tuple[str, int]:
    """Host and port listened on; port 0 is a unix socket's. Raises ``OSError`` if the address is taken."""
    if settings.host.startswith("unix:"):
        path = settings.host.removeprefix("unix:")
        await web.UnixSite(runner, path, backlog=BACKLOG).start()
        os.chmod(path, 0o666)  # noqa: S103 - as reachable as a port of loopback; the folder's mode can narrow it
        return settings.host, 0
    # Not False: uvloop and asyncio take that for a wish, which a platform without the option refuses.
    reuse_port = settings.reuse_port or None
    await web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG, reuse_port=reuse_port).start()
    host, port, *_ = runner.addresses[-1]
    return host, port


async def leave(runner: web.AppRunner, settings: Server) -> None:
    """Close the public sockets.

    The kernel resets connections that wait to be accepted when their socket closes, also where another process listens
    on the same port. So on a shared port new ones are first turned away in a manner that makes their client's kernel
    ask again, after a second, when only the successor is there; then those that wait are accepted, and none is lost.
    """
    if settings.reuse_port and not settings.host.startswith("unix:"):
        for site in runner.sites:
            for listener in site._server.sockets:  # type: ignore[union-attr]
                _turn_away(listener.fileno())
        await asyncio.sleep(SETTLING)
    for site in runner.sites:
        await site.stop()  # the file of a unix socket stays: it may be a successor's by now


def _turn_away(descriptor: int) -> None:
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _NO_SYN))
    # Where there is no such option, closing has a gap of microseconds.
    with socket.socket(fileno=os.dup(descriptor)) as listener, contextlib.suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
        )
