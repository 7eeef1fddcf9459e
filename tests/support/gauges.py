"""A plugin that shows what a gateway holds for its running exchanges: connections, targets, gates. ``GET /gauges``."""

from __future__ import annotations

from typing import Any

from gateway.testing import GatewayProcess, fetch

GAUGES = """
from time import monotonic

from aiohttp import web
from gateway import hookimpl


class Plugin:
    def __init__(self, settings: None, runtime: object) -> None:
        self.runtime = runtime

    @hookimpl
    def routes(self) -> list[web.RouteDef]:
        return [web.get("/gauges", self.show)]

    async def show(self, request: web.Request) -> web.Response:
        runtime = self.runtime
        targets = runtime.targets.snapshot(monotonic())
        gates = runtime.admission.gates
        return web.json_response({
            "acquired": runtime.upstream.stats()["acquired"],
            "in_flight": {name: state["in_flight"] for name, state in targets.items()},
            "running": {name: gate.running for name, gate in gates.items()},
            "waiting": {name: gate.waiting for name, gate in gates.items()},
        })
"""


async def gauges(gateway: GatewayProcess) -> dict[str, Any]:
    """What the plugin ``gauges`` of ``gateway`` shows now."""
    shown: dict[str, Any] = (await fetch(gateway.url + "/gauges")).json
    return shown
