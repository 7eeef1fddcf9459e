"""In which order targets are called: what the core and the plugins with a ``select`` hook share."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate

from gateway.exchange import Target
from gateway.targets import Targets


def weighted(targets: Sequence[Target]) -> Sequence[Target]:
    """A random order in which each target's chance to be first is its weight's share (Efraimidis, Spirakis 2006)."""
    if len(targets) == 1:
        return targets
    return sorted(targets, key=lambda target: random.random() ** (1 / target.weight), reverse=True)


def available(targets: Iterable[Target], registry: Targets, now: float) -> tuple[list[Target], list[Target]]:
    """Those that may be called ``now``, in the order given, and the others, the one that may be soonest first."""
    ready: list[Target] = []
    others: list[Target] = []
    for target in targets:
        (ready if registry.of(target).admits(now) else others).append(target)
    if len(others) > 1:
        others.sort(key=lambda target: registry.of(target).wait(now))
    return ready, others


def matcher(globs: Sequence[str]) -> Callable[[str | None], bool]:
    """Whether a model name matches one of ``globs``; ``None``, no model at all, matches ``*`` only."""
    if "*" in globs:
        return lambda model: True
    match = re.compile("|".join(map(translate, globs)) or r"(?!)").match
    return lambda model: model is not None and match(model) is not None
