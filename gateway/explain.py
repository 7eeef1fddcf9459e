"""Why a request for a model goes where it goes, or is refused: what ``gateway explain`` finds out.

From the configuration alone, as the gateway would read it; nothing is called but, on request, the providers' lists of
models. ``gateway.explain_text`` says it in words.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import attrs

from gateway.admission import Admission
from gateway.config import Config, Document, Timeouts, did_you_mean
from gateway.document import dotted
from gateway.errors import ConfigError
from gateway.exchange import Principal, Target
from gateway.explain_limits import Limit, limits_of
from gateway.plugins import Plugins
from gateway.routing import Router, as_fallback
from gateway.selection import matcher

Rule = Literal["exact", "glob", "provider", "list", "default", "unknown", "nowhere"]


@attrs.frozen
class Access:
    """Whether the caller may use the model."""

    allowed: bool
    why: str


@attrs.frozen
class Resolution:
    """How the model's name leads to targets."""

    rule: Rule
    """``exact``, ``glob``: an entry of ``[models]``; ``provider``: the name begins with one's; ``list``: a provider
    lists it; ``default``: ``default_provider``; ``unknown``: the providers' lists would have to be asked; ``nowhere``:
    404."""
    why: str


@attrs.frozen
class Hop:
    """A target with what holds for calls to it. Times are seconds, 0 is no limit."""

    target: str
    type: str
    """Plugin of its provider."""
    model: str
    """The name it is sent."""
    weight: int
    share: float
    """Of the requests, that the weights send here first."""
    at_once: dict[str, int]
    """Gate → calls at once, those to be passed before a call."""
    queue: int
    queue_timeout: float
    timeouts: dict[str, float] | None
    """``None``: the provider's plugin has no such settings."""
    retry_ambiguous: bool
    price: Mapping[str, str] | None = None
    """USD for a million tokens of ``input`` and of ``output`` in usual requests, and ``source``; ``None``: unknown."""
    now: Any = None
    """What the running gateway knows of it (``TargetState.snapshot``); ``None``: nothing, or none was asked."""
    gates: dict[str, Any] = attrs.field(factory=dict)
    """State of the gates of ``at_once`` in the running gateway."""


@attrs.frozen
class Fallback:
    """Another model, tried when all targets have failed."""

    model: str
    skipped: str
    """Why this caller's requests never go there; empty if they may."""
    targets: tuple[Hop, ...] = ()


@attrs.frozen
class Policy:
    """A plugin of the chain that can order the targets; the first one with an opinion decides, without any the
    weights do."""

    plugin: str
    asked: bool
    """It looks after this model."""
    about: str
    """What it does, in its own words."""


@attrs.frozen
class Cache:
    may: bool
    """Answers could be kept and used again."""
    why: str


@attrs.frozen(kw_only=True)
class Explanation:
    """All of it; as JSON for machines."""

    key: str | None
    """``None``: the gateway is open."""
    model: str
    answer: Literal["forwarded", "refused", "undecided"]
    status: int | None
    """Of the refusal."""
    access: Access
    limits: tuple[Limit, ...]
    resolution: Resolution
    policies: tuple[Policy, ...]
    targets: tuple[Hop, ...]
    fallbacks: tuple[Fallback, ...]
    retry: dict[str, float]
    breaker: dict[str, float]
    cache: Cache
    running: str | None
    """Address of the running gateway that was asked."""


class Explainer:
    """Explains one configuration. ``live`` is what the running gateway at ``running`` told (``gateway.live``)."""

    def __init__(
        self,
        document: Document,
        plugins: Plugins,
        router: Router,
        live: Mapping[str, Any] | None = None,
        running: str | None = None,
    ) -> None:
        self._document = document
        self._plugins = plugins
        self._router = router
        self._config: Config = plugins.runtime.config
        self._live: Mapping[str, Any] = live or {"targets": {}, "gates": {}}
        self._running = running
        self._gates = Admission(self._config).gates
        self._settings = {item.name: item.settings for item in plugins.loaded if item.kind == "middleware"}
        self._providers = {item.name: item.settings for item in plugins.loaded if item.kind == "provider"}

    async def explain(self, key: str | None, model: str, ask: bool = False) -> Explanation:
        """``key`` is the name of a virtual key. ``ask`` the providers for their lists of models where they decide.

        Raises ``ConfigError`` for a key that is not there, or is missing.
        """
        principal = self._principal(key)
        access = self._access(principal, model)
        resolution, targets = await self._resolution(model, ask)
        status = 403 if not access.allowed else 404 if resolution.rule == "nowhere" else None
        rate_limit = self._settings.get("rate_limit")
        return Explanation(
            key=principal.name if principal is not None else None,
            model=model,
            answer="refused" if status else "undecided" if resolution.rule == "unknown" else "forwarded",
            status=status,
            access=access,
            limits=tuple(limits_of(self._document, self._config, rate_limit, principal, model)),
            resolution=resolution,
            policies=tuple(self._policies(model)),
            targets=self._hops(model, targets),
            fallbacks=tuple(self._fallbacks(principal, model)),
            retry=attrs.asdict(self._config.retry),
            breaker=attrs.asdict(self._config.breaker),
            cache=self._cache(model),
            running=self._running,
        )

    def _principal(self, name: str | None) -> Principal | None:
        keys, stored = self._config.keys, self._config.state.keys
        if name is not None and name not in keys:
            is_open = " There are no [keys]: the gateway is open, leave --key out."
            raise ConfigError([f"there is no key '{name}'.{did_you_mean(name, keys) if keys or stored else is_open}"])
        if not (keys or stored) or {"auth", "auth_mtls"}.isdisjoint(self._config.plugins.chain):
            return None
        if name is None:
            names = [*keys, *(["one of gateway keys list"] if stored else ())]
            raise ConfigError([f"401: this gateway asks for a key; name one with --key: {', '.join(names)}."])
        return Principal(name, keys[name].models)

    def _access(self, principal: Principal | None, model: str) -> Access:
        if principal is None:
            if "auth_jwt" in self._config.plugins.chain:
                return Access(True, "its token has no narrower claim ([plugins.auth_jwt])")
            why = "'auth' is not in the chain" if self._config.keys else "there are no [keys]"
            return Access(True, f"the gateway is open: {why}")
        place = dotted(("keys", principal.name, "models"))
        where = self._document.where(("keys", principal.name, "models"))
        decides = next((glob for glob in principal.models if fnmatchcase(model, glob)), None)
        if decides is None:
            return Access(False, f"none of {_quoted(principal.models)} matches, {place} ({where})")
        if not self._document.table("keys", principal.name).get("models"):
            return Access(True, f"key '{principal.name}' may use all models: it has no {place}")
        return Access(True, f"'{decides}' matches, {place} ({where})")

    async def _resolution(self, model: str, ask: bool) -> tuple[Resolution, Sequence[Target]]:
        targets, router = self._router.written(model), self._router
        if targets is not None:
            entry = router.entry(model)
            if entry is None:
                provider = targets[0].provider
                return Resolution(
                    "provider", f"'{provider}/…' is a model of {self._at('providers', provider)}"
                ), targets
            return Resolution("exact" if entry == model else "glob", self._at("models", entry)), targets
        listers = [name for name, calls in self._plugins.providers.items() if "list_models" in calls]
        if listers and not ask:
            last = f"default_provider '{self._config.default_provider}'" if self._config.default_provider else "404"
            why = (
                f"no entry of [models] matches; the lists of {_quoted(listers)} decide (--live asks them), else {last}"
            )
            return Resolution("unknown", f"{why}.{self._hint(model, ())}"), ()
        found = await router.catalog.provider_of(model)
        if found is not None:
            return Resolution("list", f"it is in the list of {self._at('providers', found)}"), (Target(found),)
        if self._config.default_provider:
            why = (
                f"no provider that answered lists it; default_provider ({self._document.where(('default_provider',))})"
            )
            return Resolution("default", why), (Target(self._config.default_provider),)
        lists = await router.catalog.models()
        hint = self._hint(model, [item["id"] for models in lists.values() for item in models])
        why = f"not in [models], no provider that answered lists it, and there is no default_provider.{hint}"
        return Resolution("nowhere", why), ()

    def _at(self, *path: str) -> str:
        return f"[{dotted(path)}] ({self._document.where(path)})"

    def _hint(self, model: str, listed: Sequence[str]) -> str:
        provider, slash, rest = model.partition("/")
        if slash and (close := did_you_mean(provider, self._config.providers)):
            return close.replace("'?", f"/{rest}'?")
        return did_you_mean(model, [*self._config.models, *listed])

    def _policies(self, model: str) -> Iterator[Policy]:
        for call in self._plugins.select:
            globs = getattr(self._settings.get(call.plugin), "models", ("*",))
            plugin = self._plugins.manager.get_plugin(call.plugin)
            about = sys.modules[type(plugin).__module__].__doc__ or ""
            yield Policy(call.plugin, matcher(globs)(model), " ".join(about.split("\n\n")[0].split()))

    def _hops(self, model: str, targets: Sequence[Target]) -> tuple[Hop, ...]:
        weights = sum(target.weight for target in targets)
        return tuple(self._hop(model, target, target.weight / weights) for target in targets)

    def _hop(self, model: str, target: Target, share: float) -> Hop:
        provider = self._config.providers[target.provider]
        sent = target.model or model
        gates = [name for name in (f"{target.provider}/{sent}", target.provider) if name in self._gates]
        timeouts = getattr(self._providers.get(target.provider), "timeouts", None)
        return Hop(
            target=target.name,
            type=provider.type,
            model=sent,
            weight=target.weight,
            share=share,
            at_once={name: self._gates[name].limit for name in gates},
            queue=provider.queue,
            queue_timeout=provider.queue_timeout,
            timeouts={field.name: getattr(timeouts, field.name) for field in attrs.fields(Timeouts)}
            if isinstance(timeouts, Timeouts)
            else None,
            retry_ambiguous=provider.retry_ambiguous,
            price=self._price(target, model),
            now=self._live["targets"].get(target.name),
            gates={name: self._live["gates"][name] for name in gates if name in self._live["gates"]},
        )

    def _price(self, target: Target, model: str) -> Mapping[str, str] | None:
        price = self._plugins.runtime.prices.of(target, model)
        if price is None:
            return None
        read, made = (f"{usd.normalize():f}" for usd in price.per_million())
        return {"input": read, "output": made, "source": price.source}

    def _fallbacks(self, principal: Principal | None, model: str) -> Iterator[Fallback]:
        entry = self._router.entry(model)
        for name in self._config.models[entry].fallbacks if entry is not None else ():
            access = self._access(principal, name)
            found = self._router.entry(name)
            if not access.allowed or found is None:
                yield Fallback(name, access.why)
            else:
                yield Fallback(name, "", self._hops(name, as_fallback(name, self._config.models[found].targets)))

    def _cache(self, model: str) -> Cache:
        settings = self._settings.get("cache")
        if settings is None:
            return Cache(False, "'cache' is not in the chain")
        if not matcher(getattr(settings, "models", ("*",)))(model):
            return Cache(False, f"none of {_quoted(settings.models)} matches, plugins.cache.models")
        what = "what has temperature 0, embeddings, moderations, rerank, and what asks for it (Cache-Control: max-age)"
        if getattr(settings, "always", False):
            what = "every complete answer (plugins.cache.always)"
        ttl, scope = getattr(settings, "ttl", None), getattr(settings, "scope", "key")
        shared = "for all keys together" if scope == "global" else "each key's for itself"
        return Cache(True, f"{what}; {f'for {ttl:g} s, ' if ttl is not None else ''}{shared}")


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)
