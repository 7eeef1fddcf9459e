"""Sends each request where its first byte is likely to come soonest: the target's latency, the worse of late counting
more (``TargetState.latency``), times the calls it would then have under way, divided by its weight.

All targets are compared, not two drawn at random: they are few, and what this process knows of its own calls is never
out of date, which is what a draw of two is good for.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from time import monotonic

import attrs

from gateway import Exchange, Runtime, Target, hookimpl
from gateway.selection import available, matcher, weighted


@attrs.frozen(kw_only=True)
class Settings:
    models: tuple[str, ...] = ("*",)
    """Globs of the models, by the names clients send, whose targets are ordered here."""


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._decides = matcher(settings.models)
        self._targets = runtime.targets
        self.clock = monotonic

    @hookimpl
    def select(self, exchange: Exchange, targets: Sequence[Target]) -> Sequence[Target] | None:
        if len(targets) < 2 or not self._decides(exchange.model):
            return None
        now = self.clock()
        ready, others = available(weighted(targets), self._targets, now)
        ready.sort(key=lambda target: self._cost(target, now))
        return ready + others

    def _cost(self, target: Target, now: float) -> tuple[float, float]:
        state = self._targets.of(target)
        load = (state.in_flight + 1) / target.weight
        latency = state.latency(now)
        if latency == 0.0 and state.in_flight:
            return inf, load  # its first call will tell; until then it gets no second one
        return latency * load, load
