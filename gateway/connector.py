"""The pool of connections: aiohttp's ``TCPConnector``, with a maximum age of its connections.

A pooled connection that is never idle would stay with the address it was made to for as long as there is traffic, also
when the provider's name has long pointed elsewhere. aiohttp has no limit for that (its issue 4948).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from time import monotonic

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
_SPREAD = 0.1  # share of the age by which connections made together part, or all would be made anew together


class Aging(ResponseHandler):
    """A connection that asks to be closed, instead of being given back to the pool, from a certain time on."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, clock: Callable[[], float]) -> None:
        super().__init__(loop)
        self._clock = clock
        self._until = clock() + seconds * random.uniform(1 - _SPREAD, 1)

    @property
    def should_close(self) -> bool:
        return self._clock() >= self._until or super().should_close


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
        if pool.max_age:
            loop = asyncio.get_running_loop()
            self._factory = partial(  # type: ignore[assignment]  # a partial's type does not know subclasses
                Aging, loop=loop, seconds=pool.max_age - keepalive, clock=clock
            )
