"""Model name → targets: configured names, ``provider/model``, the providers' own lists, the default provider."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from time import monotonic
from typing import Any
from urllib.parse import unquote

from gateway.config import Config, Model
from gateway.dialects.ollama_models import LATEST
from gateway.errors import Forbidden, InvalidRequest, ModelNotFound, RouteNotFound
from gateway.exchange import Exchange, Target
from gateway.plugins import Call, Plugins
from gateway.selection import weighted

log = logging.getLogger("hookgate")
MEDIA = re.compile(rb'"(?:data:[^,"]{0,200},)?[A-Za-z0-9+/=]{1024,}+"')
"""Base64 in a JSON body."""
_INSIDE_MEDIA = re.compile(rb"[A-Za-z0-9+/=]*+")
_WINDOW, _WINDOWS = 1 << 12, 64  # bytes of a long request that are looked at in one place; places
LIST_LIMIT = 5.0
"""Seconds one provider may take for its model list."""


class Catalog:
    """What the providers say they serve: fetched in parallel, kept for ``ttl`` seconds, never waiting for the dead."""

    def __init__(self, listers: dict[str, Call], ttl: float) -> None:
        self._listers = listers
        self._ttl = ttl
        self._lists: dict[str, list[dict[str, Any]]] = {}
        self._until: dict[str, float] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    def _refresh(self) -> list[asyncio.Task[None]]:
        """Start fetching every list that is too old; the fetches under way."""
        now = monotonic()
        for provider in self._listers:
            if self._until.get(provider, 0.0) <= now and provider not in self._running:
                task = asyncio.get_running_loop().create_task(self._fetch(provider))
                self._running[provider] = task
                task.add_done_callback(lambda _, name=provider: self._running.pop(name, None))  # type: ignore[misc]
        return list(self._running.values())

    async def _fetch(self, provider: str) -> None:
        try:
            async with asyncio.timeout(LIST_LIMIT):
                self._lists[provider] = [dict(model) for model in await self._listers[provider]()]
            self._until[provider] = monotonic() + self._ttl
        except Exception as error:  # noqa: BLE001 - a provider plugin's, of whatever kind
            # The last known list stays; a dead provider is asked again soon, not on every request.
            self._until[provider] = monotonic() + min(self._ttl, 30.0)
            log.warning("model list of provider %s: %s", provider, _reason(error))

    async def models(self) -> dict[str, list[dict[str, Any]]]:
        """Provider → its model objects. Lists already known are not waited for."""
        missing = [task for task in self._refresh() if task in self._unknown()]
        if missing:
            await asyncio.wait(missing)
        return {name: self._lists.get(name, []) for name in self._listers}

    async def provider_of(self, model: str) -> str | None:
        """The first provider, in the order of the configuration, that lists ``model``."""
        found = self._known_by(model)
        tasks = set(self._refresh()) if found is None else set()
        pending = {task for task in tasks if task in self._unknown()}
        while found is None and pending:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            found = self._known_by(model)
        return found

    def _unknown(self) -> set[asyncio.Task[None]]:
        return {task for name, task in self._running.items() if name not in self._lists}

    def _known_by(self, model: str) -> str | None:
        for name in self._listers:
            if any(item.get("id") == model for item in self._lists.get(name, ())):
                return name
        return None

    async def close(self) -> None:
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class Router:
    """Chooses the targets of an exchange. Built once per generation."""

    def __init__(self, config: Config, plugins: Plugins) -> None:
        self._models = config.models
        self._globs = [name for name in config.models if any(char in name for char in "*?[")]
        self._default = config.default_provider or None
        self._providers = {name for name, calls in plugins.providers.items() if "forward" in calls}
        self._select = plugins.select
        listers = {name: calls["list_models"] for name, calls in plugins.providers.items() if "list_models" in calls}
        self.catalog = Catalog(listers, config.models_ttl)
        self._single = (
            {}
            if self._select
            else {
                name: model.targets
                for name, model in config.models.items()
                if len(model.targets) == 1 and name not in self._globs
            }
        )
        self.names = [name for name in config.models if name not in self._globs]

    def ready(self, exchange: Exchange) -> Sequence[Target] | None:
        """``targets`` for a model with one target and nothing to choose; ``None`` for any other."""
        return self._single.get(exchange.model) if exchange.model is not None else None

    async def targets(self, exchange: Exchange) -> Sequence[Target]:
        """Candidates, best first. Raises ``ModelNotFound`` or ``RouteNotFound``."""
        model = exchange.model
        if model is None:
            if exchange.surface.body == "json":
                raise InvalidRequest("The request names no model.")
            if self._default is None:
                raise RouteNotFound("No provider serves this path.")
            return (Target(self._default),)
        tags = exchange.surface.dialect.startswith("ollama")
        return await self._ordered(exchange, await self._resolve(model, tags))

    async def candidates(self, exchange: Exchange) -> Sequence[Target]:
        """Every target the exchange may be sent to, those of fallbacks included. Raises as ``targets`` does."""
        if exchange.path.startswith("/p/"):
            return (Target(unquote(exchange.path.split("/", 3)[2])),)
        if exchange.model is None:
            return await self.targets(exchange)
        found = list(await self._resolve(exchange.model, exchange.surface.dialect.startswith("ollama")))
        entry = self.entry(exchange.model)
        for name in self._models[entry].fallbacks if entry is not None else ():
            if (fallback := self.entry(name)) is not None:
                found += as_fallback(name, self._models[fallback].targets)
        return found

    async def _ordered(self, exchange: Exchange, candidates: Sequence[Target]) -> Sequence[Target]:
        """As a plugin with a ``select`` hook orders them, else by weighted chance."""
        for call in self._select:
            chosen = await call(exchange, candidates)
            if chosen is not None:
                return chosen or candidates
        return weighted(candidates)

    async def fallbacks(self, exchange: Exchange) -> Sequence[Target]:
        """What may be called when the targets of the exchange's model cannot: the targets of its fallbacks, those that
        its key may use and that can take a request of this length."""
        entry = self.entry(exchange.model) if exchange.model is not None else None
        if entry is None:
            return ()
        found: list[Target] = []
        for name in self._models[entry].fallbacks:
            fallback = self.entry(name)
            if fallback is None or not self._may_fall_back(exchange, name, self._models[fallback]):
                continue
            found += as_fallback(name, await self._ordered(exchange, self._models[fallback].targets))
        return found

    def _may_fall_back(self, exchange: Exchange, name: str, model: Model) -> bool:
        if exchange.principal is not None and not exchange.principal.allows(name):
            return False
        return not model.context or estimated_tokens(exchange.payload) <= model.context

    def written(self, model: str) -> Sequence[Target] | None:
        """Targets of ``model`` by the configuration alone; ``None``: the providers' lists must be asked."""
        entry = self.entry(model)
        if entry is not None:
            return self._models[entry].targets
        provider, slash, rest = model.partition("/")
        return (Target(provider, rest),) if slash and rest and provider in self._providers else None

    async def _resolve(self, model: str, tags: bool) -> Sequence[Target]:
        """``tags``: a name without a tag may be listed with ``latest``, which was taken off it (``gateway.intake``)."""
        targets = self.written(model)
        if targets is not None:
            return targets
        found = await self.catalog.provider_of(model)
        if found is not None:
            return (Target(found),)
        if tags and (found := await self.catalog.provider_of(model + LATEST)) is not None:
            return (Target(found, model + LATEST),)
        if self._default is None:
            raise ModelNotFound("The model does not exist or is not served here.")
        return (Target(self._default),)

    def entry(self, model: str) -> str | None:
        """The name in ``[models]`` that decides on ``model``."""
        if model in self._models:
            return model
        return next((glob for glob in self._globs if fnmatchcase(model, glob)), None)


def estimated_tokens(payload: Any) -> int:
    """About how many tokens a request's texts are: four bytes each. For choices, and where there is no better guess."""
    if payload is None or payload.raw is None:
        return 0
    raw: bytes = payload.raw
    if len(raw) <= _WINDOW * _WINDOWS:
        # Media in data: URLs are no text.
        return sum(map(len, MEDIA.split(raw))) // 4
    # All of 50 MB would be half a second of the event loop.
    windows = [raw[at : at + _WINDOW] for at in range(0, len(raw) - _WINDOW, len(raw) // _WINDOWS)]
    texts = sum(_INSIDE_MEDIA.fullmatch(window) is None for window in windows)
    return texts * len(raw) // len(windows) // 4


def as_fallback(name: str, targets: Sequence[Target]) -> Sequence[Target]:
    """The targets of the fallback ``name``. One without a model of its own would send the name of the model that just
    failed."""
    return [target if target.model else Target(target.provider, name, target.weight) for target in targets]


def named_targets(config: Config) -> dict[str, Target]:
    """Target name → target, for all that a configuration names: by itself, or by its models and their fallbacks."""
    models = config.models
    found = [Target(provider) for provider in config.providers]
    for model in models.values():
        found += model.targets
        for name in model.fallbacks:
            entry = name if name in models else next((glob for glob in models if fnmatchcase(name, glob)), None)
            if entry is not None:
                found += as_fallback(name, models[entry].targets)
    return {target.name: target for target in found}


def authorise(exchange: Exchange, model: str) -> None:
    """Raise ``Forbidden`` unless the exchange's principal may use ``model``."""
    if exchange.principal is not None and not exchange.principal.allows(model):
        raise Forbidden("This key may not use this model.")


def _reason(error: Exception) -> str:
    """Our words for the log, and the operating system's behind them: they name the address and what is wrong there."""
    words = str(error) or type(error).__name__
    return f"{words} ({error.__cause__})" if isinstance(error.__cause__, OSError) else words
