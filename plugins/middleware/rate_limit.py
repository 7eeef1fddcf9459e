"""Limits and budgets of keys, teams and models: requests, tokens, calls at once, and money.

All that a request may use is reserved before its call, of all of its limits or of none, and settled once after it with
what was used. Exact in one process, and with ``[state] redis`` in all that share it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from time import monotonic
from typing import Any, Literal

import attrs
from prometheus_client import Counter

from gateway import Exchange, Principal, Reply, Runtime, hookimpl
from gateway.config import Config
from gateway.demand import NOTHING, Demand, demand, spends
from gateway.errors import BudgetExceeded, Overloaded
from gateway.limit_words import headers, refusal
from gateway.limits import Limit, Unit
from gateway.metering import Metering, Plan
from gateway.pricing.price import Price
from gateway.state.database import DatabaseError
from gateway.state.keyring import Teams
from gateway.state.memory import Memory
from gateway.state.meters import Meter, Period, Ticket
from gateway.state.shared import Shared

log = logging.getLogger("hookgate")

_NOTE = "rate_limit"
_MANY = 1024  # models whose prices are kept at hand
_PRICE_AGE = 60.0  # seconds for which a model's dearest price is kept at hand


@attrs.frozen(kw_only=True)
class Settings:
    requests_per_minute: int = attrs.field(default=600, validator=attrs.validators.ge(0))
    """For keys without a limit on requests of their own; 0 is no limit."""
    tokens_per_minute: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    """Input and output together, for keys without a limit on tokens of their own; 0 is no limit."""
    max_concurrency: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    """Calls at once, for keys without such a limit of their own; 0 is no limit."""
    limits: tuple[Limit, ...] = ()
    """Further ones, each for keys without a limit of that kind of their own."""
    total: tuple[Limit, ...] = ()
    """Limits that all keys use up together; with ``models`` those of a model."""
    usual_output: int = attrs.field(default=1000, validator=attrs.validators.ge(0))
    """Tokens of an answer that limits on tokens expect, where the request does not allow less."""
    longest_output: int = attrs.field(default=16_384, validator=attrs.validators.ge(0))
    """Tokens of an answer that budgets reserve, where neither the request nor the prices say how long it may be."""
    without_redis: Literal["share", "open", "closed"] = "share"
    """While ``[state] redis`` is not reachable: each process allows its part of every limit, and of what is left of
    every budget; or everything; or nothing (503)."""
    unknown_price: Literal["refuse", "allow"] = "refuse"
    """What keys with a budget get for what has no known price: 402, or the answer without a charge."""


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._settings = settings
        self._runtime = runtime
        defaults: dict[Unit, Sequence[Limit]] = {}
        for limit in (*_shorthands(settings), *settings.limits):
            defaults[limit.unit] = (*defaults.get(limit.unit, ()), limit)
        teams, keys = runtime.config.teams, runtime.keys
        self._metering = Metering(defaults, settings.total, teams if keys is None else Teams(teams, keys))
        self.store = self._store(runtime)
        self._refused = runtime.keep("refused", _refusals)
        runtime.registry.register(self._refused)
        self._counts_money = _counts_money(settings, runtime.config)
        self._prices: dict[tuple[str | None, str], tuple[float, Sequence[Price] | None]] = {}

    async def _spent(self, meter: Meter, period: Period) -> int:
        """By the ledger. Raises ``Overloaded`` while it cannot be read: money nobody knows of could be spent twice."""
        ledger = self._runtime.services.ledger
        assert ledger is not None
        try:
            return await ledger.spent(meter.whose, meter.owner, period.start, meter.models)
        except DatabaseError as error:
            log.warning("what %s %r has spent cannot be read: %s", meter.whose, meter.owner, error)
            raise Overloaded("What was spent cannot be read at the moment.", retry_after=1) from error

    def _store(self, runtime: Runtime) -> Memory | Shared:
        """Kept over reloads: a limit that began anew with each of them would be none."""
        link = runtime.redis
        if link is None:
            return runtime.keep("memory", Memory)
        # Behind a reload to another Redis there is another link.
        kept: dict[int, Shared] = runtime.keep("shared", dict)
        if id(link) not in kept:
            kept.clear()
            kept[id(link)] = Shared(link, self._settings.without_redis)
        return kept[id(link)]

    @hookimpl
    async def on_startup(self, runtime: Runtime) -> None:
        self.store.spent = self._spent if runtime.services.ledger is not None else None
        if isinstance(self.store, Shared):
            self.store.without = self._settings.without_redis
        if self._counts_money:
            await runtime.prices.load()
        if runtime.keys is not None:
            runtime.keys.on_teams.append(self._metering.forget)

    @hookimpl
    def on_shutdown(self) -> None:
        if (keys := self._runtime.keys) is not None and self._metering.forget in keys.on_teams:
            keys.on_teams.remove(self._metering.forget)

    @hookimpl
    def on_request(self, exchange: Exchange) -> Awaitable[None] | None:
        known = self._metering.known(exchange.principal or _OPEN)
        if not known.by_model and (plan := known.plan(None)).still is not None:
            return self._reserve(exchange, plan, plan.still)
        if exchange.method == "POST" and exchange.read_now() is None:
            return self._read_first(exchange, known)
        return self._planned(exchange, known.plan(exchange.model))

    async def _read_first(self, exchange: Exchange, known: Any) -> None:
        await exchange.read()
        waiting = self._planned(exchange, known.plan(exchange.model))
        if waiting is not None:
            await waiting

    def _planned(self, exchange: Exchange, plan: Plan) -> Awaitable[None] | None:
        wanted = demand(exchange) if plan.tokens or plan.money else NOTHING
        if plan.money:
            found = self._prices.get((exchange.model, exchange.path))
            if found is None or found[0] < monotonic():
                return self._priced(exchange, plan, wanted)
            return self._reserve(exchange, plan, self._amounts(exchange, plan, wanted, found[1]))
        return self._reserve(exchange, plan, self._amounts(exchange, plan, wanted, None))

    async def _priced(self, exchange: Exchange, plan: Plan, wanted: Demand) -> None:
        """Look up what the model may cost, wherever it is sent."""
        prices: Sequence[Price] | None = None
        if spends(exchange):
            targets = await self._runtime.router.candidates(exchange)
            found = [self._runtime.prices.of(target, exchange.model) for target in targets]
            prices = [price for price in found if price is not None]
            if len(prices) < len(found):
                prices = None
            if len(self._prices) >= _MANY:
                self._prices.clear()
            self._prices[exchange.model, exchange.path] = (monotonic() + _PRICE_AGE, prices)
        waiting = self._reserve(exchange, plan, self._amounts(exchange, plan, wanted, prices))
        if waiting is not None:
            await waiting

    def _amounts(self, exchange: Exchange, plan: Plan, wanted: Demand, prices: Sequence[Price] | None) -> list[int]:
        given, made = wanted.input_tokens, wanted.output_tokens(self._settings.usual_output)
        # In the order of UNITS.
        counts = 1, given + made, given, made, 1, self._worst(exchange, wanted, prices) if plan.money else 0
        return [counts[place] for place in plan.places]

    def _worst(self, exchange: Exchange, wanted: Demand, prices: Sequence[Price] | None) -> int:
        """The most the request can cost, in nano-dollars."""
        if not spends(exchange):
            if exchange.method in ("GET", "HEAD", "DELETE", "OPTIONS") or exchange.surface.counts:
                return 0
            prices = None
        if prices is None:
            if self._settings.unknown_price == "refuse":
                raise BudgetExceeded("The price of this is not known, and this key has a budget.")
            return 0
        return max(self._most(exchange, wanted, price) for price in prices)

    def _most(self, exchange: Exchange, wanted: Demand, price: Price) -> int:
        given, made = wanted.most_input_tokens, wanted.most_output_tokens
        if price.context is not None:
            given = min(given, price.context)
        if made is None:
            made = price.max_output_tokens or self._settings.longest_output
        tier = exchange.payload.get("service_tier")
        return price.worst(given, made, tier if isinstance(tier, str) else None)

    def _reserve(self, exchange: Exchange, plan: Plan, amounts: Sequence[int]) -> Awaitable[None] | None:
        if not plan.meters:
            return None
        ticket = Ticket(plan.meters, amounts, plan.after if plan.still is not None else None)
        waiting = self.store.reserve(ticket)
        if waiting is not None:
            return self._reserved(exchange, ticket, waiting)
        self._granted(exchange, ticket)
        return None

    async def _reserved(self, exchange: Exchange, ticket: Ticket, waiting: Awaitable[None]) -> None:
        exchange.notes[_NOTE] = ticket  # who leaves now gives back what is granted meanwhile
        await waiting
        self._granted(exchange, ticket)

    def _granted(self, exchange: Exchange, ticket: Ticket) -> None:
        if ticket.refused >= 0:
            meter = ticket.meters[ticket.refused]
            self._refused.labels(meter.unit, meter.whose).inc()
            raise refusal(ticket)
        exchange.notes[_NOTE] = ticket

    @hookimpl
    def on_reply(self, exchange: Exchange, reply: Reply) -> None:
        ticket: Ticket | None = exchange.notes.get(_NOTE)
        if ticket is not None and ticket.used:
            for name, value in headers(ticket):
                reply.headers[name] = value
            ticket.used = ()  # told: streams that last are many

    @hookimpl
    def on_finish(self, exchange: Exchange) -> None:
        ticket: Ticket | None = exchange.notes.pop(_NOTE, None)
        if ticket is not None and ticket.refused < 0:
            self.store.settle(ticket, ticket.after or self._used(exchange, ticket))

    def _used(self, exchange: Exchange, ticket: Ticket) -> list[int]:
        usage = exchange.usage if exchange.cache not in ("hit", "coalesced") else None
        if usage is None and exchange.surface.name == "passthrough" and exchange.outcome == "ok":
            return list(ticket.amounts)  # what it used nobody reports
        given = usage.input_tokens or 0 if usage is not None else 0
        made = usage.output_tokens or 0 if usage is not None else 0
        counts = {"requests": 1, "concurrency": 0, "input_tokens": given, "output_tokens": made, "tokens": given + made}
        return [
            counts[meter.unit] if meter.unit != "usd" else self._cost(exchange, usage is not None, reserved)
            for meter, reserved in zip(ticket.meters, ticket.amounts, strict=True)
        ]

    def _cost(self, exchange: Exchange, used: bool, reserved: int) -> int:
        if not used:
            return 0
        cost = self._runtime.prices.settle(exchange)
        # A target nobody expected, and without a price: what was thought the most stands.
        return reserved if cost is None else int(cost)


_OPEN = Principal("open")


def _refusals() -> Counter:
    text = "Requests refused by a limit, by what it counts and whose it is."
    return Counter("hookgate_limited", text, ["unit", "whose"], registry=None)


def _counts_money(settings: Settings, config: Config) -> bool:
    allowances = (*config.keys.values(), *config.teams.values())
    limits = [*settings.limits, *settings.total, *(limit for each in allowances for limit in each.limits)]
    return config.state.keys or any(each.budget for each in allowances) or any(limit.usd for limit in limits)


def _shorthands(settings: Settings) -> list[Limit]:
    found = []
    if settings.requests_per_minute:
        found.append(Limit(requests=settings.requests_per_minute, per="minute"))
    if settings.tokens_per_minute:
        found.append(Limit(tokens=settings.tokens_per_minute, per="minute"))
    if settings.max_concurrency:
        found.append(Limit(concurrency=settings.max_concurrency))
    return found
