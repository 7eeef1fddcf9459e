"""Health of the providers, asked in parallel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import monotonic, perf_counter
from typing import Any

import orjson

from gateway.errors import GatewayError
from gateway.exchange import ANY, Exchange, Principal, Reply, Target
from gateway.plugins import Call, Plugins
from gateway.routing import named_targets

LIMIT = 5.0
"""Seconds one provider may take for its health check."""


class Health:
    """Asks every provider that has ``check_health``; one that hangs costs its own limit, not the sum."""

    def __init__(self, plugins: Plugins) -> None:
        hook = "check_health"
        self._checks = {name: calls[hook] for name, calls in plugins.providers.items() if hook in calls}
        self._targets = plugins.runtime.targets
        # No others: clients make up names (provider/model) which are nobody else's business.
        self._named = named_targets(plugins.runtime.config)

    async def check(self) -> dict[str, dict[str, Any]]:
        names = list(self._checks)
        results = await asyncio.gather(*(_ask(self._checks[name]) for name in names))
        return dict(zip(names, results, strict=True))

    async def answer(self, exchange: Exchange) -> Reply:
        providers = await self.check()
        well = sum(1 for item in providers.values() if item["status"] == "ok")
        for target, state in self._troubled(exchange.principal):
            if target.provider in providers:
                providers[target.provider].setdefault("targets", {})[target.name] = state
        status = "ok" if well == len(providers) else "degraded" if well else "down"
        body = orjson.dumps({"status": status, "providers": providers})
        return Reply(200 if well or not providers else 503, {"content-type": "application/json"}, body)

    def _troubled(self, principal: Principal | None) -> Iterator[tuple[Target, dict[str, Any]]]:
        """Targets that are not closed, or cooling, with the seconds until they may be called.

        Who may not use all models is told of those only that name none.
        """
        now = monotonic()
        states = self._targets.states()
        unlimited = principal is None or principal.allows(ANY)
        for name, target in self._named.items():
            if (state := states.get(name)) is None or not (unlimited or target.model is None):
                continue
            breaker, wait = state.state(now), state.wait(now)
            if breaker != "closed" or wait:
                yield target, {"state": breaker, "wait": round(wait, 1)}


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
