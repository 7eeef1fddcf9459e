"""Which meters count a request: those of its key, of its team and of all, for its model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from glob import escape
from typing import Literal

import attrs

from gateway.exchange import Principal
from gateway.limits import SECONDS, UNITS, Limit, Unit
from gateway.settings import Team
from gateway.state.meters import Kind, Meter

_KINDS: dict[Unit, Kind] = {"concurrency": "gauge", "usd": "purse"}
_MANY = 4096  # (key, model) pairs whose meters are kept at hand


@attrs.frozen
class Plan:
    """What counts requests of one principal for one model."""

    meters: tuple[Meter, ...]
    tokens: bool
    """Some count tokens."""
    money: bool
    """Some count money."""
    still: tuple[int, ...] | None
    """What a request takes of each, where nothing depends on its body."""
    places: tuple[int, ...]
    """Of each meter, the place of its unit in ``UNITS``."""
    after: tuple[int, ...]
    """What of ``still`` stays used when the request has ended."""


class Metering:
    """Makes the meters of principals, once each."""

    def __init__(
        self,
        defaults: Mapping[Unit, Sequence[Limit]],
        total: Sequence[Limit],
        teams: Mapping[str, Team],
    ) -> None:
        """``defaults``: by unit, for keys without a limit of that unit; ``total``: for all keys together."""
        self._defaults = defaults
        self._total = total
        self._teams = teams
        self._known: dict[str, _Known] = {}

    def forget(self) -> None:
        """Look at the teams anew. What was counted stays counted."""
        self._known.clear()

    def known(self, principal: Principal) -> _Known:
        known = self._known.get(principal.name)
        if known is None or known.principal is not principal:
            known = self._learn(principal)
        return known

    def _learn(self, principal: Principal) -> _Known:
        if len(self._known) >= _MANY:
            self._known.clear()
        scopes = list(self._scopes(principal))
        by_model = any(_by_model(limit) for _, _, limits in scopes for limit in limits)
        known = self._known[principal.name] = _Known(principal, scopes, by_model)
        return known

    def _scopes(self, principal: Principal) -> Iterator[_Scope]:
        own = list(_own(principal))
        taken = {unit for unit, _ in own}
        yield (
            "key",
            principal.name,
            [limit for _, limit in own if limit is not None]
            + [limit for unit, limits in self._defaults.items() if unit not in taken for limit in limits],
        )
        if principal.team is not None and (team := self._teams.get(principal.team)) is not None:
            yield "team", principal.team, [limit for _, limit in _own(team) if limit is not None]
        yield "all", "", list(self._total)


Whose = Literal["key", "team", "all"]
_Scope = tuple[Whose, str, list[Limit]]


class _Known:
    """A principal's limits, and its meters for each model it asked for."""

    __slots__ = ("_plans", "_scopes", "by_model", "principal")

    def __init__(self, principal: Principal, scopes: list[_Scope], by_model: bool) -> None:
        self.principal = principal
        self.by_model = by_model
        """It takes the model's name to know which limits count."""
        self._scopes = scopes
        self._plans: dict[str | None, Plan] = {}

    def plan(self, model: str | None) -> Plan:
        if not self.by_model:
            model = None
        plan = self._plans.get(model)
        if plan is None:
            if len(self._plans) >= _MANY:
                self._plans.clear()
            plan = self._plans[model] = _plan(self._scopes, model)
        return plan


def _own(of: Principal | Team) -> Iterator[tuple[Unit, Limit | None]]:
    """Limits by their units; ``None``: unlimited in words, which overrides a default, too."""
    if of.requests_per_minute is not None:
        yield "requests", Limit(requests=of.requests_per_minute, per="minute") if of.requests_per_minute else None
    if of.tokens_per_minute is not None:
        yield "tokens", Limit(tokens=of.tokens_per_minute, per="minute") if of.tokens_per_minute else None
    if of.max_concurrency is not None:
        yield "concurrency", Limit(concurrency=of.max_concurrency) if of.max_concurrency else None
    if isinstance(of, Team) and of.budget is not None:
        yield "usd", of.budget
    for limit in of.limits:
        yield limit.unit, limit if limit.amount else None


def _by_model(limit: Limit) -> bool:
    return limit.per_model or limit.models != ("*",)


def _plan(scopes: Iterable[_Scope], model: str | None) -> Plan:
    meters = {
        (meter := _meter(scope, owner, limit, model)).key: meter
        for scope, owner, limits in scopes
        for limit in limits
        if limit.concerns(model)
    }
    # The cheapest to refuse first, and money last: whoever has spent it should hear that, not that it was too quick.
    ordered = tuple(sorted(meters.values(), key=lambda meter: _ORDER.index(meter.unit)))
    units = {meter.unit for meter in ordered}
    tokens = not units.isdisjoint(("tokens", "input_tokens", "output_tokens"))
    still = None if tokens or "usd" in units else (1,) * len(ordered)
    places = tuple(UNITS.index(meter.unit) for meter in ordered)
    return Plan(ordered, tokens, "usd" in units, still, places, tuple(int(meter.kind == "rate") for meter in ordered))


_ORDER = ("concurrency", "requests", "input_tokens", "output_tokens", "tokens", "usd")


def _meter(scope: Whose, owner: str, limit: Limit, model: str | None) -> Meter:
    about = f"model={model or ''}" if limit.per_model else "models=" + _encoded(limit.models)
    key = _encoded((scope, owner, limit.unit, limit.per or "", about))
    seconds = SECONDS.get(limit.per or "", 0) if limit.unit != "usd" else 0
    kind = _KINDS.get(limit.unit, "rate")
    models = (escape(model or ""),) if limit.per_model else limit.models
    return Meter(key, kind, limit.amount, limit.unit, scope, owner, limit.per, seconds, models)


def _encoded(parts: Iterable[str]) -> str:
    """Each behind its length, so that different parts never make one name."""
    return "".join(f"{len(part)}:{part}," for part in parts)
