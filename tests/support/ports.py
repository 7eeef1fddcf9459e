"""Ports next to each other, for gateways with several workers."""

from __future__ import annotations

from gateway.testing import free_ports


def neighbours(count: int) -> int:
    """The first of ``count`` consecutive ports of 127.0.0.1 that nobody listens on."""
    while (ports := free_ports(count))[-1] - ports[0] != count - 1:
        pass
    return ports[0]
