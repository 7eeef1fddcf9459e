"""The pool of connections: aiohttp's ``TCPConnector``, with a maximum age of its connections.

A pooled connection that is never idle would stay with the address it was made to for as long as there is traffic, also
when the provider's name has long pointed elsewhere. aiohttp has no limit for that (its issue 4948).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from math import inf
from time import monotonic
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler

from gateway.settings import Pool

NAMES_KEPT = 4
"""Seconds a name's addresses are kept. A connection made to an address that has just gone lives for ``max_age``, so the
last request gets there after ``max_age`` and these seconds."""
NEXT_ADDRESS = 0.2
"""Seconds after which a name's next address, of the other family first, is tried beside the one that does not answer
(RFC 8305, which recommends 0.25 and at least 0.1): a dead family costs less than 0.3."""
READ_AHEAD = 1 << 16
"""Bytes of an answer read before the client has taken them; at twice that the upstream is not read from. aiohttp's own
256 KiB add up to 3 MiB for a client that has stopped reading: what is read at once is joined, checked and written."""
_SPREAD = 0.1  # share of the age by which connections made together part, or all would be made anew together


class Handler(ResponseHandler):
    """aiohttp's response protocol, one for each connection, without what it does over and over.

    From a certain time on it asks to be closed instead of being given back to the pool.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, clock: Callable[[], float]) -> None:
        super().__init__(loop)
        self._clock = clock
        self._until = clock() + seconds * random.uniform(1 - _SPREAD, 1)
        self.used = False
        """A request was sent on this connection before."""
        self._ready = False

    @property
    def should_close(self) -> bool:
        return self._clock() >= self._until or super().should_close

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp calls this for every block that is read, and parses nothing at all each time."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def expect(self, head_only: bool, head_limit: int) -> None:
        """Get ready for the answer to one more request; the parser of the last one serves again."""
        if self._ready and not head_only and self._parser is not None:
            return
        super().set_response_params(
            skip_payload=head_only,
            read_until_eof=True,
            auto_decompress=False,
            max_line_size=head_limit,
            max_field_size=head_limit,
            read_bufsize=READ_AHEAD,
        )
        self._ready = not head_only

    def set_response_params(self, **params: Any) -> None:
        """aiohttp's own way: its parser may be another."""
        self._ready = False
        super().set_response_params(**params)


class Connector(aiohttp.TCPConnector):
    """As ``[pool]`` says. Leans on one private name, ``_factory``: what makes the protocol of a new connection."""

    def __init__(
        self, pool: Pool, resolver: AbstractResolver | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        # What is given back in time may still lie idle until it is taken: together no longer than the age.
        keepalive = min(pool.keepalive, pool.max_age / 2) if pool.max_age else pool.keepalive
        super().__init__(
            limit=pool.max_connections,
            limit_per_host=pool.max_per_host,
            keepalive_timeout=keepalive,
            ttl_dns_cache=NAMES_KEPT,
            happy_eyeballs_delay=NEXT_ADDRESS,
            interleave=1,
            resolver=resolver,
        )
        seconds = pool.max_age - keepalive if pool.max_age else inf
        self._factory = partial(  # type: ignore[assignment]  # a partial's type does not know subclasses
            Handler, loop=asyncio.get_running_loop(), seconds=seconds, clock=clock
        )
