"""A plugin that measures from inside a gateway how long one round of its loop takes.

It takes the processor time between its wake-ups: what another program takes from the machine does not count, what
blocks the loop does. One wake-up comes after at most one round of the loop. ``GET /rounds`` gives the seconds since the
last time it was asked.
"""

SAMPLER = """
import asyncio
import json
from time import thread_time

from aiohttp import web
from gateway import hookimpl


class Plugin:
    def __init__(self, settings: None, runtime: object) -> None:
        self.runtime = runtime
        self.rounds: list[float] = []

    @hookimpl
    async def on_startup(self) -> None:
        self.runtime.spawn(self.sample(), "sampler")

    async def sample(self) -> None:
        before = thread_time()
        while True:
            await asyncio.sleep(0.001)
            now = thread_time()
            self.rounds.append(now - before)
            before = now

    @hookimpl
    def routes(self) -> list[web.RouteDef]:
        return [web.get("/rounds", self.show)]

    async def show(self, request: web.Request) -> web.Response:
        rounds, self.rounds = self.rounds, []
        return web.Response(text=json.dumps(rounds))
"""
