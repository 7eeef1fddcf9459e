"""What limits a key's requests for a model, and where that is written: a part of ``gateway explain``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from gateway.config import Config, Document
from gateway.document import dotted
from gateway.exchange import Principal
from gateway.limits import NANO
from gateway.limits import Limit as Rule
from gateway.settings import Allowance

SHORTHANDS = {
    "requests_per_minute": "requests", "tokens_per_minute": "tokens", "max_concurrency": "concurrency",
}  # fmt: skip
Place = tuple[str | int, ...]


@attrs.frozen
class Limit:
    """What the caller may use."""

    name: str
    value: float
    """0 is no limit."""
    where: str


def limits_of(
    document: Document, config: Config, settings: Any, principal: Principal | None, model: str
) -> Iterator[Limit]:
    """Of the key, else the defaults; of its team; of all together. ``settings`` are those of ``rate_limit``, ``None``
    where it is not in the chain."""
    if settings is None:
        return
    told = _Told(document, model)
    key = config.keys.get(principal.name) if principal is not None else None
    own: Place = ("keys", principal.name) if principal is not None else ()
    defaults: Place = ("plugins", "rate_limit")
    for name in SHORTHANDS:
        given = getattr(key, name) if key is not None else None
        place, value = (defaults, getattr(settings, name)) if given is None else (own, given)
        if given is None and key is not None and SHORTHANDS[name] in _units(key):
            continue  # one of its own takes the default's place
        yield Limit(name, value, told.where((*place, name)))
    if key is not None:
        yield from told.rules(key, own)
    taken = set() if key is None else _units(key) | {unit for name, unit in SHORTHANDS.items() if _given(key, name)}
    yield from told.listed([rule for rule in settings.limits if rule.unit not in taken], (*defaults, "limits"))
    if key is not None and key.team is not None and (team := config.teams.get(key.team)) is not None:
        at: Place = ("teams", key.team)
        for name in SHORTHANDS:
            if value := getattr(team, name):
                yield Limit(f"the team's {name}", value, told.where((*at, name)))
        yield from told.rules(team, at, "the team's ")
    yield from told.listed(settings.total, (*defaults, "total"), "all keys' ")


def _given(of: Allowance, name: str) -> bool:
    return getattr(of, name) is not None


def _units(of: Allowance) -> set[str]:
    return {rule.unit for rule in of.limits} | ({"usd"} if of.budget is not None else set())


class _Told:
    def __init__(self, document: Document, model: str) -> None:
        self._document = document
        self._model = model

    def where(self, place: Place) -> str:
        table = self._document.table(*map(str, place[:-1]))
        if place[-1] not in table:
            return f"default of {dotted(place[:-1])}"
        return f"{dotted(place)} ({self._document.where(place)})"

    def rules(self, of: Allowance, place: Place, whose: str = "") -> Iterator[Limit]:
        if of.budget is not None:
            yield from self._rule(of.budget, (*place, "budget"), whose)
        yield from self.listed(of.limits, (*place, "limits"), whose)

    def listed(self, rules: Any, place: Place, whose: str = "") -> Iterator[Limit]:
        for number, rule in enumerate(rules):
            yield from self._rule(rule, (*place, number), whose)

    def _rule(self, rule: Rule, place: Place, whose: str) -> Iterator[Limit]:
        if rule.concerns(self._model):
            value = rule.amount / NANO if rule.unit == "usd" else rule.amount
            per = f" per {rule.per}" if rule.per not in (None, "total") else ""
            yield Limit(f"{whose}{rule.unit}{per}", value, f"{dotted(place)} ({self._document.where(place)})")
