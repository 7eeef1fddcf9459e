"""Sends each request to the target with the fewest calls under way, streams until their end, relative to its weight."""

from __future__ import annotations

from collections.abc import Sequence
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
        # A sort keeps the order of equals: among equally busy ones the weights' chance decides.
        ready, others = available(weighted(targets), self._targets, self.clock())
        ready.sort(key=self._load)
        return ready + others

    def _load(self, target: Target) -> float:
        return self._targets.of(target).in_flight / target.weight
