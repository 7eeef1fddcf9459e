"""Health of the providers, asked in parallel, and the list of models, in the caller's shape."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import monotonic, perf_counter, time
from typing import Any

import orjson

from gateway.dispatch import Answer
from gateway.errors import GatewayError, ModelNotFound
from gateway.exchange import ANY, Exchange, Principal, Reply, Target
from gateway.plugins import Call, Plugins
from gateway.routing import Router, named_targets

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


def models_answer(router: Router) -> Answer:
    """``GET /v1/models`` and ``GET /v1/models/{id}`` in OpenAI's shape, with only what the caller may use."""
    started = int(time())

    async def answer(exchange: Exchange) -> Reply:
        listed: dict[str, dict[str, Any]] = {
            name: {"id": name, "object": "model", "created": started, "owned_by": "hookgate"} for name in router.names
        }
        for provider, models in (await router.catalog.models()).items():
            for model in models:
                listed.setdefault(model["id"], {"object": "model", "created": started, "owned_by": provider, **model})
        principal = exchange.principal
        visible = [model for name, model in listed.items() if principal is None or principal.allows(name)]
        if not exchange.tail:
            return _json({"object": "list", "data": visible})
        wanted = exchange.request.match_info["tail"]
        found = next((model for model in visible if model["id"] == wanted), None)
        if found is None:
            raise ModelNotFound("The model does not exist or is not served here.")
        return _json(found)

    return answer


def _json(body: Any) -> Reply:
    return Reply(200, {"content-type": "application/json"}, orjson.dumps(body))
