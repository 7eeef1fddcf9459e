"""A generation: one loaded configuration with everything built from it. A reload builds the next one beside it."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
from aiohttp import web
from prometheus_client.core import GaugeMetricFamily, Metric

from gateway import config as configuration
from gateway import key_admin, live, plugins, surfaces
from gateway.config import Config, Document
from gateway.dispatch import Dispatcher
from gateway.errors import ConfigError, GatewayError
from gateway.front import Handler
from gateway.routing import Router, named_targets
from gateway.state.database import DatabaseError
from gateway.state.keyring import Keyring
from gateway.state.redis_link import Link, link_to
from gateway.targets import Targets
from gateway.upstream import Upstream
from gateway.watchdog import Watchdog

log = logging.getLogger("hookgate")
STARTUP_LIMIT = 30.0
"""Seconds the plugins' ``on_startup`` may take together while an older generation serves."""
# Whose change means other sockets or processes.
_FIXED = (
    ("server", "host"), ("server", "port"), ("server", "reuse_port"), ("server", "workers"),
    ("admin", "enabled"), ("admin", "host"), ("admin", "port"),
)  # fmt: skip


@attrs.frozen
class Source:
    """Where a configuration comes from, again at every reload."""

    path: Path
    environ: Mapping[str, str]
    overrides: Mapping[str, Any]
    """Settings of ``[server]`` from the command line."""


@attrs.define(eq=False)
class Reloads:
    """What the metrics tell of reloads."""

    generation: int = 0
    """Counts the generations that served; the first is 1."""
    succeeded: bool = True
    """The last attempt did."""

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "hookgate_generation", "Configurations taken into use since the start.", self.generation
        )
        text = "1 when the last reload was taken into use, 0 when it was refused."
        yield GaugeMetricFamily("hookgate_last_reload_successful", text, float(self.succeeded))


@attrs.frozen
class Host:
    """What the server has for all of its generations."""

    watchdog: Watchdog
    reloads: Reloads
    ready: Handler
    """Answers ``/health/ready``."""
    reload: Handler
    """Answers ``POST /reload`` on the admin listener."""


@attrs.frozen(eq=False)
class Generation:
    config: Config
    plugins: plugins.Plugins
    upstream: Upstream
    """Shared with the generation before where ``[pool]`` is the same, so that warm connections stay."""
    dispatcher: Dispatcher
    routes: surfaces.Routes
    admin: web.Application
    warnings: list[str]

    async def close(self) -> None:
        """Behind the last exchange. What generations share is closed by the server."""
        await self.dispatcher.router.catalog.close()
        await self.plugins.shutdown()
        self.plugins.finder.release()


async def build(source: Source, before: Generation | None, host: Host) -> Generation:
    """Load, check and start a generation that does not serve yet; on failure nothing of it is left.

    Raises ``ConfigError`` with every problem as a ``FILE:LINE: message``.
    """
    config, document = configuration.load(source.path, source.environ, source.overrides)
    stats, kept = None, {}
    if before is not None:
        _refuse_moves(before.config, config, document)
        stats, kept = before.plugins.runtime.hook_stats, dict(before.plugins.runtime.kept)
    finder = await plugins.find(config, document, serving=before is not None)
    if before is None:
        # What was imported stays for good: the collector need not look at it. A generation does not, and it must.
        gc.collect()
        gc.freeze()
    shared = before.upstream if before is not None and before.config.pool == config.pool else None
    upstream = shared or Upstream(config.pool)
    upstream.configure(config.providers)
    targets = _targets(before, config)
    redis, keys = _redis(before, config), _keys(before, config, source.path.parent)
    runtime = plugins.Runtime(
        config, upstream, hook_stats=plugins.HookStats(stats), kept_before=kept, targets=targets, redis=redis,
        keys=keys, folder=source.path.parent,
    )  # fmt: skip
    loaded = plugins.load(config, document, runtime, finder)
    started = False
    try:
        document.raise_problems()
        router = Router(config, loaded)
        for each in loaded.loaded:
            each.runtime.router = router
        dispatcher = Dispatcher(config, loaded, router, host.watchdog)
        runtime.registry.register(host.reloads)
        for link in runtime.links:
            runtime.registry.register(link)
            await link.open()
        started = True
        await _start(loaded, document, STARTUP_LIMIT if before is not None else None)
        routes = _routes(dispatcher, document, host.ready)
        admin = _admin(runtime, host)
        if keys is not None:
            keys.configure(config)  # last: it is the one that serves now
        return Generation(config, loaded, upstream, dispatcher, routes, admin, document.warnings)
    except BaseException:
        await (loaded.shutdown() if started else runtime.stop_tasks())
        loaded.finder.release()
        if shared is None:
            await upstream.close()
        for link in runtime.links:
            if before is None or link not in before.plugins.runtime.links:
                await link.close()
        raise


def _redis(before: Generation | None, config: Config) -> Link | None:
    """The link of the generation before where it goes to the same Redis, so that it stays connected."""
    old = None if before is None else before.plugins.runtime.redis
    return old if old is not None and old.serves(config.state) else link_to(config.state)


def _keys(before: Generation | None, config: Config, folder: Path) -> Keyring | None:
    """Likewise. What is known of the keys stays then, also where the database is away."""
    old = None if before is None else before.plugins.runtime.keys
    if old is not None and old.serves(config, folder):
        return old
    try:
        return Keyring(config, folder) if config.state.keys else None
    except DatabaseError:
        return None  # a problem of the configuration, and told as one


def _targets(before: Generation | None, config: Config) -> Targets:
    """What is known of the targets, without those whose provider is another one now."""
    targets = Targets(config.retry, config.breaker) if before is None else before.plugins.runtime.targets
    old = {} if before is None else before.config.providers
    same = {name for name, provider in config.providers.items() if name in old and old[name].digest == provider.digest}
    targets.configure(config.retry, config.breaker)
    targets.prune(same)
    targets.keep(named_targets(config))
    return targets


def _refuse_moves(before: Config, after: Config, document: Document) -> None:
    for section, name in _FIXED:
        old, new = (getattr(getattr(config, section), name) for config in (before, after))
        if old != new:
            change = f"changed from {json.dumps(old)} to {json.dumps(new)}"
            document.problem((section, name), f"{section}.{name}: {change}, which needs a restart.")


async def _start(loaded: plugins.Plugins, document: Document, limit: float | None) -> None:
    try:
        async with asyncio.timeout(limit):
            await loaded.startup()
    except plugins.StartupFailed as error:
        place = ("providers", error.plugin, "type")
        document.problem(place if error.plugin in loaded.providers else ("plugins", "chain"), error.message)
        if not isinstance(error.__cause__, GatewayError):
            log.error("%s", error.message, exc_info=error.__cause__)
    except TimeoutError:
        document.problem(("plugins", "chain"), f"the plugins' on_startup takes longer than {limit:g} s.")
    document.raise_problems()


def _routes(dispatcher: Dispatcher, document: Document, ready: Handler) -> surfaces.Routes:
    try:
        return surfaces.build(dispatcher, ready)
    except Exception as error:
        log.exception("the plugins' routes cannot be served")
        document.problem(("plugins", "chain"), f"the plugins' routes cannot be served: {error!r}")
        raise ConfigError(document.problems) from error


def _admin(runtime: plugins.Runtime, host: Host) -> web.Application:
    application = web.Application()
    application.router.add_post("/reload", host.reload)
    application.add_routes([*runtime.admin_routes, live.route(runtime), *key_admin.routes(runtime)])
    application.freeze()
    return application
