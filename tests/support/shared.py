"""Gateway processes that share limits through one Redis, as far as limits know them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from gateway.secret import Secret, StoreUrl
from gateway.settings import State
from gateway.state.meters import Meter
from gateway.state.redis_link import Link
from gateway.state.shared import Shared, Without
from gateway.units import Duration
from tests.contract.store import take
from tests.support.redis import Redis


class Gateway:
    """One process' part in it."""

    def __init__(self, link: Link, without: Without = "share") -> None:
        self.link = link
        self.processes = link.processes
        self.store = Shared(link, without)

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def used(self, meter: Meter) -> int:
        return (await take(self.store, [meter], [0])).used[0]


async def joined(stack: AsyncExitStack, server: Redis, without: Without = "share", patience: float = 1.0) -> Gateway:
    link = Link(State(redis=StoreUrl(Secret(server.url)), redis_timeout=Duration(patience)))
    await link.open()
    stack.push_async_callback(link.close)
    return Gateway(link, without)
