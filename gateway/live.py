"""What a running gateway knows of its targets and gates now: ``GET /targets`` of its admin listener, and who asks."""

from __future__ import annotations

import json
from time import monotonic
from typing import Any

import aiohttp
from aiohttp import web

from gateway.config import Admin
from gateway.runtime import Runtime
from gateway.upstream import Upstream

WAIT = aiohttp.ClientTimeout(total=3.0, sock_connect=1.0)
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def route(runtime: Runtime) -> web.RouteDef:
    """``GET /targets``: ``{"targets": {NAME: TargetState.snapshot}, "gates": {NAME: …}}``."""

    async def answer(request: web.Request) -> web.Response:
        # Clients name targets (provider/model), and json.dumps can write whatever they call them.
        return web.json_response(told(runtime, monotonic()), dumps=json.dumps)

    return web.get("/targets", answer)


def told(runtime: Runtime, now: float) -> dict[str, dict[str, Any]]:
    """What ``GET /targets`` answers. Times are seconds."""
    gates = runtime.admission.gates
    return {
        "targets": runtime.targets.snapshot(now),
        "gates": {
            name: {"running": gate.running, "waiting": gate.waiting, "limit": gate.limit, "refused": gate.refused}
            for name, gate in gates.items()
        },
    }


def address(admin: Admin) -> str | None:
    """Where to ask the gateway of a configuration, as a URL; ``None`` if its admin listener is off or on any port."""
    if not admin.enabled or not admin.port:
        return None
    host = _EVERYWHERE.get(admin.host, admin.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{admin.port}/targets"


async def ask(upstream: Upstream, url: str) -> dict[str, dict[str, Any]]:
    """What the gateway whose ``address`` is ``url`` tells. Raises ``OSError`` when none answers, ``ValueError`` when
    what answers is no gateway."""
    try:
        async with upstream.session.get(url, timeout=WAIT, allow_redirects=False) as answer:
            found = json.loads(await answer.read()) if answer.status == 200 else None
    except TimeoutError:
        raise OSError("no answer in time") from None
    except aiohttp.ClientConnectionError as error:
        raise OSError(str(error)) from error
    except aiohttp.ClientError as error:
        raise ValueError(str(error)) from error
    if not isinstance(found, dict) or not all(isinstance(found.get(part), dict) for part in ("targets", "gates")):
        raise ValueError("what answers there is no gateway")
    return found
