"""R54: two hundred reloads, some of them broken: every hook still runs once, and nothing is left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic
from typing import Any

from gateway.testing import GatewayProcess, RawClient, ScriptedUpstream, as_asked, fetch, fetch_chat

CYCLES = 200
BROKEN_EVERY = 10
GROWTH = 6.0
"""MiB of resident memory that may be there more after the last cycles than before them: the allocator's, not ours."""
CONFIG = """
[plugins]
chain = ["request_id", "logging", "metrics", "auth", "rate_limit", "once", "cache"]
[plugins.once]
number = 0
[plugins.rate_limit]
requests_per_minute = 0
[plugins.cache]
path = "cache.sqlite"
[providers.up]
type = "openai_compat"
base_url = "UPSTREAM/v1"
"""
PLUGIN = """
import asyncio, gc, sys, threading, weakref
import attrs
from aiohttp import web
from gateway import hookimpl

@attrs.frozen
class Settings:
    number: int

class Plugin:
    def __init__(self, settings, runtime):
        self.number = settings.number
        # Where modules that come and go have a place in common.
        sys.__dict__.setdefault("_alive", weakref.WeakSet()).add(self)

    @hookimpl
    async def on_startup(self, runtime):
        runtime.admin_routes.append(web.get("/inside", self.inside))
        runtime.spawn(asyncio.sleep(3600), "for ever")

    @hookimpl
    def on_request(self, exchange):
        exchange.notes["once"] = exchange.notes.get("once", 0) + 1

    @hookimpl
    def on_reply(self, exchange, reply):
        reply.headers["x-once"] = f"{self.number}-{CODE}-{exchange.notes['once']}"

    async def inside(self, request):
        gc.collect()
        modules = sum(name.startswith("hookgate_plugins.") for name in sys.modules)
        # The loop's executor keeps as many as it ever needed at once, which depends on the machine.
        threads = sum(not thread.name.startswith("uvloop_") for thread in threading.enumerate())
        return web.json_response({
            "tasks": len(asyncio.all_tasks()), "threads": threads, "plugins": len(sys._alive), "modules": modules,
        })

CODE = 0
"""


class Cycled:
    def __init__(self, folder: Path, upstream: ScriptedUpstream) -> None:
        (folder / "plugins").mkdir()
        self.plugin = folder / "plugins/once.py"
        self.plugin.write_text(PLUGIN)
        self.config = CONFIG.replace("UPSTREAM", upstream.url)
        self.process = GatewayProcess(folder, self.config).start()
        self.number = 0

    async def cycle(self, number: int) -> None:
        """Another setting, another code, or neither will do; then one exchange."""
        broken = number % BROKEN_EVERY == 0
        code = "CODE = 0)\n" if broken and number % 20 else f"CODE = {number}\n"
        self.plugin.write_text(PLUGIN.replace("CODE = 0\n", code))
        table = "[nonsense]\n" if broken and not number % 20 else ""
        self.process.config_path.write_text(self.config.replace("number = 0", f"number = {number}") + table)
        reply = await fetch(f"{self.process.admin_url}/reload", "POST")
        assert reply.status == (422 if broken else 200), reply.body
        if not broken:
            self.number = number
        answer = await fetch_chat(self.process.url, "up/m", temperature=0)
        assert answer.header("x-once") == f"{self.number}-{self.number}-1"

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    @property
    def resident(self) -> float:
        """MiB."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096 / 2**20

    async def inside(self) -> dict[str, Any]:
        return dict((await fetch(f"{self.process.admin_url}/inside")).json)


async def settles_at(gateway: Cycled, wanted: dict[str, Any], descriptors: int) -> None:
    """Nothing is there that was not before; the last generation takes its time to go."""
    until = monotonic() + 10
    while (found := await gateway.inside()) != wanted or gateway.descriptors > descriptors + 1:
        assert monotonic() < until, (found, wanted, gateway.descriptors, descriptors)
        await asyncio.sleep(0.1)


async def test_r54_two_hundred_reloads_leave_nothing_behind(tmp_path: Path) -> None:
    async with ScriptedUpstream(as_asked()) as upstream:
        gateway = Cycled(tmp_path, upstream)
        try:
            async with RawClient(gateway.process.url) as kept:
                await kept.chat("up/m")
                assert (await kept.read()).status == 200
                before, resident = {}, 0.0
                for number in range(1, CYCLES + 1):
                    await gateway.cycle(number)
                    if number == CYCLES // 4 + 1:
                        await asyncio.sleep(0.5)
                        before, descriptors, resident = await gateway.inside(), gateway.descriptors, gateway.resident
                assert (before["plugins"], before["modules"]) == (1, 1)
                await settles_at(gateway, before, descriptors)
                assert gateway.resident - resident < GROWTH
                await kept.chat("up/m")
                assert (await kept.read()).header("x-once") == f"{gateway.number}-{gateway.number}-1"
        finally:
            gateway.process.end()
