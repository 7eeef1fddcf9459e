"""A plugin with a ``select`` hook, its targets, and a clock that only the test moves."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from gateway import Exchange, Target
from gateway.targets import Targets, TargetState
from tests.support.exchanges import make_exchange, make_runtime


class Selecting:
    """``Selecting(least_busy, [Target("a"), Target("b")], models=["gpt-*"])``."""

    def __init__(self, module: ModuleType, targets: Sequence[Target], **settings: Any) -> None:
        self.now = 1000.0
        self.registry = Targets()
        self.targets = tuple(targets)
        self.plugin = module.Plugin(module.Settings(**settings), make_runtime(targets=self.registry))
        self.plugin.clock = lambda: self.now

    def of(self, index: int) -> TargetState:
        return self.registry.of(self.targets[index])

    def select(self, exchange: Exchange | None = None) -> Sequence[Target] | None:
        order: Sequence[Target] | None = self.plugin.select(exchange or make_exchange(model="m"), self.targets)
        assert order is None or sorted(each.name for each in order) == sorted(each.name for each in self.targets)
        return order

    def first(self, exchange: Exchange | None = None) -> str:
        """Name of the target that is called first."""
        order = self.select(exchange)
        assert order is not None
        return order[0].name

    def names(self, exchange: Exchange | None = None) -> list[str]:
        return [target.name for target in self.select(exchange) or ()]


def check_limits(module: ModuleType, exchange: Exchange) -> None:
    """What all of them do alike: ``exchange`` is one of model ``m`` that the plugin orders."""
    targets = [Target("a"), Target("b"), Target("c")]
    assert Selecting(module, targets).select(exchange) is not None
    assert Selecting(module, targets[:1]).select(exchange) is None
    assert Selecting(module, targets, models=("gpt-*", "m")).select(exchange) is not None
    assert Selecting(module, targets, models=("gpt-*",)).select(exchange) is None
    chosen = Selecting(module, targets)
    best = chosen.names(exchange)[0]
    chosen.registry.of(Target(best)).cool(chosen.now, 5.0)
    order = chosen.names(exchange)
    assert order[2] == best
    chosen.registry.of(Target(order[0])).cool(chosen.now, 9.0)
    assert chosen.names(exchange)[1:] == [best, order[0]]
    chosen.now += 10
    assert chosen.registry.of(Target(best)).admits(chosen.now)
