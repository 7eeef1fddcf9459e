"""Health of the providers, asked in parallel."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import orjson

from gateway.errors import GatewayError
from gateway.exchange import Exchange, Reply
from gateway.plugins import Call, Plugins

LIMIT = 5.0
"""Seconds one provider may take for its health check."""


class Health:
    """Asks every provider that has ``check_health``; one that hangs costs its own limit, not the sum."""

    def __init__(self, plugins: Plugins) -> None:
        hook = "check_health"
        self._checks = {name: calls[hook] for name, calls in plugins.providers.items() if hook in calls}

    async def check(self) -> dict[str, dict[str, Any]]:
        names = list(self._checks)
        results = await asyncio.gather(*(_ask(self._checks[name]) for name in names))
        return dict(zip(names, results, strict=True))

    async def answer(self, exchange: Exchange) -> Reply:
        providers = await self.check()
        well = sum(1 for item in providers.values() if item["status"] == "ok")
        status = "ok" if well == len(providers) else "degraded" if well else "down"
        body = orjson.dumps({"status": status, "providers": providers})
        return Reply(200 if well or not providers else 503, {"content-type": "application/json"}, body)


async def _ask(check: Call) -> dict[str, Any]:
    began = perf_counter()
    try:
        async with asyncio.timeout(LIMIT):
            reason = await check()
    except TimeoutError:
        reason = "no answer in time"
    except GatewayError as error:
        reason = error.message
    except Exception as error:  # noqa: BLE001 - told to whoever asked
        reason = f"the check failed: {type(error).__name__}"
    result: dict[str, Any] = {"status": "failing" if reason else "ok", "ms": round((perf_counter() - began) * 1000, 1)}
    if reason:
        result["reason"] = reason
    return result
