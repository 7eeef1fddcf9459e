"""What a plugin is given: ``Runtime``; and the times its hooks take."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Callable, Coroutine, ItemsView
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from prometheus_client import CollectorRegistry

from gateway.admission import Admission
from gateway.config import Config
from gateway.dialects.models import Models
from gateway.pricing.prices import Prices
from gateway.state.keyring import Keyring
from gateway.state.redis_link import Link, link_to
from gateway.targets import Targets

if TYPE_CHECKING:
    from aiohttp import web

    from gateway.state.ledger import Ledger
    from gateway.upstream import Upstream

log = logging.getLogger("hookgate")

Kept = dict[tuple[str, str, str], Any]
T = TypeVar("T")
_USUAL = 0.0001  # the first bound of HookStats; nearly every run is below it


class Stat:
    """How often one hook ran and how long it took.

    ``lap`` runs a dozen times a request: it only adds, and looks for the bucket of slow runs alone.
    """

    __slots__ = ("_slow", "runs", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.runs = 0
        self._slow = [0] * len(HookStats.BOUNDS)

    @property
    def buckets(self) -> list[int]:
        """Runs by duration, a number for each of ``HookStats.BOUNDS`` and one for those beyond."""
        return [self.runs - sum(self._slow), *self._slow]

    def lap(self, began: float) -> float:
        """Count a run that began at ``began`` and ends now; returns now (``perf_counter``)."""
        now = perf_counter()
        took = now - began
        self.runs += 1
        self.seconds += took
        if took > _USUAL:
            self._slow[bisect_left(HookStats.BOUNDS, took) - 1] += 1
        return now


class HookStats:
    """A ``Stat`` per (plugin, hook)."""

    BOUNDS = (0.0001, 0.001, 0.01, 0.1, 1.0)
    """Upper bounds of the buckets, seconds."""

    def __init__(self, before: HookStats | None = None) -> None:
        self._stats: dict[tuple[str, str], Stat] = {}
        self._before = before._stats if before is not None else {}

    def stat(self, plugin: str, hook: str) -> Stat:
        """The one of the generation before, where it had one: counters must not fall at a reload."""
        key = (plugin, hook)
        return self._stats.setdefault(key, self._before.get(key) or Stat())

    def items(self) -> ItemsView[tuple[str, str], Stat]:
        """Of a copy: a scrape walks them in another thread."""
        return self._stats.copy().items()


@attrs.define(eq=False)
class Services:
    """What plugins of one generation offer each other, set when they are made and to be used once it serves."""

    ledger: Ledger | None = None
    """The usage ledger, where the plugin ``ledger`` is in the chain."""


@attrs.define
class Runtime:
    """What a plugin is given: the configuration, the way out, and places to register things."""

    config: Config
    upstream: Upstream
    name: str = ""
    """The plugin's or provider's own name in ``gateway.toml``."""
    registry: CollectorRegistry = attrs.field(factory=CollectorRegistry)
    admin_routes: list[web.RouteDef] = attrs.field(factory=list)
    """Append in ``on_startup``; served on the admin listener only."""
    hook_stats: HookStats = attrs.field(factory=HookStats)
    tasks: set[asyncio.Task[Any]] = attrs.field(factory=set)
    admission: Admission = attrs.field(default=attrs.Factory(lambda self: Admission(self.config), takes_self=True))
    """How many calls run at once at each provider and target, where that is limited."""
    models: Models = attrs.field(default=attrs.Factory(lambda self: _models(self.config), takes_self=True))
    """What upstream models can take: ``models.of(name)``."""
    prices: Prices = attrs.field(default=attrs.Factory(lambda self: Prices(self.config), takes_self=True))
    """What upstream models and exchanges cost: ``prices.of(target, model)``, ``prices.settle(exchange)``."""
    targets: Targets = attrs.field(
        default=attrs.Factory(lambda self: Targets(self.config.retry, self.config.breaker), takes_self=True)
    )
    """What is known of each target: ``targets.of(target)``."""
    router: Any = None
    """The generation's ``gateway.routing.Router``, from ``on_startup`` on."""
    redis: Link | None = attrs.field(default=attrs.Factory(lambda self: link_to(self.config.state), takes_self=True))
    """The way to Redis, where ``[state] redis`` is set. Open from ``on_startup`` on."""
    keys: Keyring | None = None
    """Keys and teams of the database, where ``[state] keys`` is set. Open from ``on_startup`` on."""
    services: Services = attrs.field(factory=Services)
    folder: Path = Path()
    """Where ``gateway.toml`` lies."""
    code: str = ""
    """The plugin's module; another one when its file has changed."""
    kept: Kept = attrs.field(factory=dict, repr=False)
    kept_before: Kept = attrs.field(factory=dict, repr=False)
    """``kept`` of the generation that is replaced."""

    @property
    def links(self) -> list[Link | Keyring]:
        """What generations share where it is the same, and the server closes behind the last one."""
        return [link for link in (self.redis, self.keys) if link is not None]

    def named(self, name: str, code: str) -> Runtime:
        """The same runtime for another plugin."""
        return attrs.evolve(self, name=name, code=code)

    def keep(self, key: str, make: Callable[[], T]) -> T:
        """What ``make`` returned when this plugin first asked for ``key``, also when that was before a reload.

        For what a reload must not reset (meters, counters, caches). Until its last exchange has ended, the generation
        before uses the object, too. It is made anew when the plugin's file has changed: its classes are others then.
        """
        place = (self.name, self.code, key)
        if place not in self.kept:
            self.kept[place] = self.kept_before[place] if place in self.kept_before else make()
        return self.kept[place]  # type: ignore[no-any-return]

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run ``coro`` in the background until it ends or the generation does; a failure is logged."""
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background task %s failed", task.get_name(), exc_info=error)

    async def stop_tasks(self) -> None:
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _models(config: Config) -> Models:
    rows = []
    for glob, flags in config.capabilities.items():
        given = {name: value for name, value in attrs.asdict(flags).items() if value is not None}
        rows.append(((glob,), given))
    return Models(rows)
