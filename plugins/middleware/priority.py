"""Sends each request to the first target, as the configuration orders them, that may be called; no weight counts."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

import attrs

from gateway import Exchange, Runtime, Target, hookimpl
from gateway.selection import available, matcher


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
        ready, others = available(targets, self._targets, self.clock())
        return ready + others
