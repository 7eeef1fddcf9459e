"""Ports next to each other, for gateways with several workers."""

from __future__ import annotations

import contextlib
import random
import socket


def neighbours(count: int) -> int:
    """The first of ``count`` consecutive ports of 127.0.0.1 that nobody listens on.

    Below those the system gives to outgoing connections: a test under load has thousands of them.
    """
    while True:
        first = random.randrange(20_000, 30_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
