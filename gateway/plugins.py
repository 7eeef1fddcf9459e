"""Plugins: load, validate, and compile their hooks into tuples. One ``Plugins`` per loaded configuration.

pluggy declares, validates and orders. It does not call: its call is synchronous, so an ``async def`` hook could neither
short-circuit nor be awaited in order. Requests walk the compiled tuples instead.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import attrs
import pluggy

from gateway import hookspecs
from gateway.config import CORE_KEYS, Config, Document, did_you_mean
from gateway.errors import GatewayError, PluginError
from gateway.finder import Finder
from gateway.runtime import HookStats, Runtime, Stat

__all__ = [
    "HOOKS", "PROVIDER_HOOKS", "REQUEST_HOOKS", "Call", "HookStats", "Loaded", "NoSettings", "Plugins", "Runtime",
    "StartupFailed", "Stat", "find", "load",
]  # fmt: skip

log = logging.getLogger("hookgate")

REQUEST_HOOKS = ("on_request", "select", "on_reply", "on_event", "on_error", "on_finish")
PROVIDER_HOOKS = ("forward", "list_models", "check_health")
_SYNC_ONLY = ("on_event", "routes", "commands")
HOOKS = tuple(name for name, _ in inspect.getmembers(hookspecs, inspect.isfunction))


class Call:
    """One compiled hook implementation."""

    __slots__ = ("function", "hook", "is_async", "plugin", "stat")

    def __init__(self, plugin: str, hook: str, function: Callable[..., Any], is_async: bool, stat: Stat) -> None:
        self.plugin = plugin
        self.hook = hook
        self.function = function
        self.is_async = is_async
        self.stat = stat

    async def __call__(self, *args: Any) -> Any:
        began = perf_counter()
        try:
            result = self.function(*args)
            return await result if self.is_async else result
        finally:
            self.stat.lap(began)


@attrs.frozen
class Loaded:
    """A plugin that is in: for ``gateway plugins`` and error messages."""

    name: str
    kind: str
    """``middleware`` or ``provider``."""
    file: str
    plugin: Any
    runtime: Runtime = attrs.field(repr=False)
    """As the plugin was given it."""
    hooks: tuple[str, ...] = ()
    settings: Any = None
    """What the plugin was given."""


class Plugins:
    """The loaded plugins and their compiled hooks."""

    def __init__(self, runtime: Runtime, finder: Finder) -> None:
        self.runtime = runtime
        self.finder = finder
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.loaded: list[Loaded] = []
        self.on_request: tuple[Call, ...] = ()
        self.select: tuple[Call, ...] = ()
        self.on_reply: tuple[Call, ...] = ()
        self.on_event: tuple[Call, ...] = ()
        self.on_error: tuple[Call, ...] = ()
        self.on_finish: tuple[Call, ...] = ()
        self.on_startup: tuple[Call, ...] = ()
        self.on_shutdown: tuple[Call, ...] = ()
        self.providers: dict[str, dict[str, Call]] = {}
        """Provider name → its ``forward``, ``list_models`` and ``check_health``, those it has."""

    def compile(self) -> None:
        """Freeze the chain. Implementations come in chain order, ``tryfirst`` and ``trylast`` respected."""
        for hook in (*REQUEST_HOOKS, "on_startup", "on_shutdown"):
            # pluggy calls the last registered first; plugins are registered last to first, so this is chain order.
            impls = reversed(getattr(self.manager.hook, hook).get_hookimpls())
            calls = tuple(self._call(hook, impl) for impl in impls)
            setattr(self, hook, calls[::-1] if hook in ("on_reply", "on_finish", "on_shutdown") else calls)
        for item in self.loaded:
            if item.kind == "provider":
                self.providers[item.name] = {}
        for hook in PROVIDER_HOOKS:
            for impl in getattr(self.manager.hook, hook).get_hookimpls():
                self.providers.setdefault(impl.plugin_name, {})[hook] = self._call(hook, impl)

    def _call(self, hook: str, impl: pluggy.HookImpl) -> Call:
        function = _fit(impl, inspect.signature(getattr(hookspecs, hook)))
        is_async = inspect.iscoroutinefunction(impl.function)
        return Call(impl.plugin_name, hook, function, is_async, self.runtime.hook_stats.stat(impl.plugin_name, hook))

    async def startup(self) -> None:
        """Raises ``StartupFailed`` for the first plugin that fails."""
        runtimes = {item.name: item.runtime for item in self.loaded}
        for call in self.on_startup:
            try:
                await call(runtimes[call.plugin])
            except Exception as error:
                raise StartupFailed(call.plugin, error) from error

    async def shutdown(self) -> None:
        for call in self.on_shutdown:
            try:
                await call()
            except Exception:
                log.exception("plugin %s failed in on_shutdown", call.plugin)
        await self.runtime.stop_tasks()


class StartupFailed(PluginError):
    def __init__(self, plugin: str, error: Exception) -> None:
        said = error.message if isinstance(error, GatewayError) else repr(error)
        super().__init__(f"plugin '{plugin}' failed in on_startup: {said}")
        self.plugin = plugin


def _fit(impl: pluggy.HookImpl, spec: inspect.Signature) -> Callable[..., Any]:
    """The bound function, taking all of the spec's parameters even where the implementation left some out."""
    wanted = tuple(spec.parameters)
    function: Callable[..., Any] = impl.function
    if tuple(impl.argnames) == wanted:
        return function
    kept = [wanted.index(name) for name in impl.argnames]
    return lambda *args: function(*[args[index] for index in kept])


@attrs.frozen
class _Wanted:
    """A plugin the configuration names."""

    name: str
    kind: str
    file: str
    """The name of its file, without ``.py``."""
    named_at: tuple[str, ...]
    """Where problems with the plugin itself are told."""
    table: tuple[str, ...]
    """Where its settings stand."""


def _wanted(config: Config) -> Iterator[_Wanted]:
    for name in config.plugins.chain:
        yield _Wanted(name, "middleware", name, ("plugins", "chain"), ("plugins", name))
    for name, provider in config.providers.items():
        yield _Wanted(name, "provider", provider.type, ("providers", name, "type"), ("providers", name))


@attrs.frozen
class NoSettings:
    """What a module without a class ``Settings`` takes."""


async def find(config: Config, document: Document, *, serving: bool) -> Finder:
    """A finder that has imported what the configuration names; while serving, in threads, so that no file hangs us."""
    finder = Finder(config, document.path.parent)
    for wanted in _wanted(config):
        if serving:
            await finder.look(wanted.file, wanted.kind)
        else:
            finder.look_now(wanted.file, wanted.kind)
    return finder


def load(config: Config, document: Document, runtime: Runtime, finder: Finder | None = None) -> Plugins:
    """Load what ``chain`` and ``[providers]`` name. Every mistake becomes a problem of ``document``; none is raised."""
    finder = finder or Finder(config, document.path.parent)
    plugins = Plugins(runtime, finder)
    made = [(wanted, _make(wanted, finder, document, runtime)) for wanted in _wanted(config)]
    for wanted, loaded in reversed(made):  # pluggy calls the last registered first
        if loaded is None:
            continue
        try:
            _register(plugins.manager, loaded)
        except (PluginError, pluggy.PluginValidationError, ValueError) as error:
            document.problem(wanted.named_at, f"plugin '{loaded.name}' ({loaded.file}): {error}")
        else:
            plugins.loaded.insert(0, loaded)
    plugins.compile()
    for name in set(config.plugins.tables) - set(config.plugins.chain):
        hint = did_you_mean(name, config.plugins.chain)
        document.problem(("plugins", name), f"[plugins.{name}] has no effect: '{name}' is not in chain.{hint}")
    document.warnings.extend(finder.unnamed(config))
    return plugins


def _make(wanted: _Wanted, finder: Finder, document: Document, runtime: Runtime) -> Loaded | None:
    """Import the module, structure its settings, make its ``Plugin``; ``None`` after reporting a problem."""
    name = wanted.name
    try:
        module, file = finder.load(wanted.file, wanted.kind)
    except PluginError as error:
        document.problem(wanted.named_at, str(error))
        return None
    if not hasattr(module, "Plugin"):
        document.problem(wanted.named_at, f"plugin '{name}' ({file}) has no class Plugin.")
        return None
    settings_class = getattr(module, "Settings", NoSettings)
    ignore = CORE_KEYS if wanted.kind == "provider" else ()
    for taken in set(ignore) & {field.name for field in getattr(settings_class, "__attrs_attrs__", ())}:
        document.problem(wanted.named_at, f"plugin '{name}' ({file}): the core has a setting '{taken}' of its own.")
    settings = document.structure(settings_class, wanted.table, ignore=ignore)
    if settings is None:
        return None
    try:
        plugin = module.Plugin(settings, own := runtime.named(name, getattr(module, "__name__", "")))
    except Exception as error:  # noqa: BLE001 - told with the other problems, all at once
        document.problem(wanted.named_at, f"plugin '{name}' ({file}): {error}")
        return None
    return Loaded(
        name, wanted.kind, file, plugin, own, tuple(hook for hook in HOOKS if hasattr(plugin, hook)), settings
    )


def _register(manager: pluggy.PluginManager, loaded: Loaded) -> None:
    """Raises ``PluginError``, ``PluginValidationError``, or ``ValueError`` where two plugins have one name."""
    plugin = loaded.plugin
    if loaded.kind == "provider" and not {"forward", "check_health"} & set(loaded.hooks):
        raise PluginError("a provider needs a forward or check_health hook")
    manager.register(plugin, name=loaded.name)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        unknown = str(error).split("'")[1] if "'" in str(error) else ""
        known = [hook.name for hook in manager.get_hookcallers(plugin) or [] if hook.has_spec()]
        manager.unregister(plugin)
        names = [name for name in HOOKS if name not in known]
        raise PluginError(f"there is no hook '{unknown}'.{did_you_mean(unknown, names)}") from error
    for caller in manager.get_hookcallers(plugin) or []:
        for impl in caller.get_hookimpls():
            if impl.plugin is not plugin:
                continue
            if impl.wrapper or impl.hookwrapper:
                raise PluginError(f"{caller.name}: wrappers are not supported; they could not await")
            if caller.name in _SYNC_ONLY and inspect.iscoroutinefunction(impl.function):
                raise PluginError(f"{caller.name} must be a plain function, not async")
