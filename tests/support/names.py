"""Host names as a test wants them: addresses that change, and addresses where nobody answers."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from aiohttp.abc import AbstractResolver, ResolveResult


class Names(AbstractResolver):
    """Every name has the addresses in ``at``, in this order. A port of 0 is the one asked for."""

    def __init__(self, *at: tuple[str, int]) -> None:
        self.at = at
        self.lookups = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.lookups += 1
        return [
            ResolveResult(hostname=host, host=address, port=own or port, family=family, proto=0, flags=0)
            for address, own in self.at
        ]

    async def close(self) -> None:
        pass


@contextlib.contextmanager
def black_hole(address: str) -> Iterator[int]:
    """A port at which connecting neither succeeds nor fails: its queue of connections is full, so SYNs are dropped.

    Raises ``OSError`` where the machine has no such address.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.socket(family))
        listener.bind((address, 0))
        listener.listen(0)
        place = listener.getsockname()
        for _ in range(4):
            filler = held.enter_context(socket.socket(family))
            filler.setblocking(False)
            filler.connect_ex(place)
        with socket.socket(family) as probe, contextlib.suppress(TimeoutError):
            probe.settimeout(0.3)
            probe.connect(place)
            raise AssertionError("somebody answers in the black hole")
        yield place[1]
