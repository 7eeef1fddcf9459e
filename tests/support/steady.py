"""A steady load through a gateway: so many requests a second, whatever becomes of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

import attrs

from gateway.testing import fetch_chat


@attrs.define
class Steady:
    url: str
    key: str | None = None
    rate: float = 200.0
    statuses: list[int] = attrs.field(factory=list)
    """Of each request, in the order of their ends; 0: no answer."""
    seconds: list[float] = attrs.field(factory=list)

    async def _one(self) -> None:
        began = perf_counter()
        try:
            status = (await fetch_chat(self.url, key=self.key)).status
        except (OSError, EOFError, TimeoutError):
            status = 0
        self.seconds.append(perf_counter() - began)
        self.statuses.append(status)

    async def run(self, seconds: float) -> None:
        began = perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(int(seconds * self.rate)):
                await asyncio.sleep(max(0.0, began + number / self.rate - perf_counter()))
                tasks.create_task(self._one())

    async def run_until(self, done: Callable[[], bool], most: float) -> None:
        """Go on until ``done``, looked at every 0.1 s; ``TimeoutError`` after ``most`` seconds."""
        async with asyncio.timeout(most):
            while not done():
                await self.run(0.1)

    def quantile(self, share: float) -> float:
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))]
