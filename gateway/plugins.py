"""Plugins: find, load, validate, and compile their hooks into tuples. One ``Plugins`` per loaded configuration.

pluggy declares, validates and orders. It does not call: its call is synchronous, so an ``async def`` hook could neither
short-circuit nor be awaited in order. Requests walk the compiled tuples instead.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import logging
import sys
from bisect import bisect_left
from collections.abc import Callable, Coroutine, ItemsView
from importlib.metadata import entry_points
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any

import attrs
import pluggy
from prometheus_client import CollectorRegistry

from gateway import hookspecs
from gateway.config import Config, Document, did_you_mean
from gateway.errors import PluginError

if TYPE_CHECKING:
    from aiohttp import web

    from gateway.upstream import Upstream

log = logging.getLogger("hookgate")

REQUEST_HOOKS = ("on_request", "select", "on_reply", "on_event", "on_error", "on_finish")
PROVIDER_HOOKS = ("forward", "list_models", "check_health")
_SYNC_ONLY = ("on_event", "routes", "commands")
ENTRY_POINTS = "hookgate.plugins"
_USUAL = 0.0001  # the first bound of HookStats; nearly every run is below it


class Stat:
    """How often one hook ran and how long it took."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.buckets = [0] * (len(HookStats.BOUNDS) + 1)

    @property
    def count(self) -> int:
        return sum(self.buckets)

    def lap(self, began: float) -> float:
        """Count a run that began at ``began`` and ends now; returns now (``perf_counter``)."""
        now = perf_counter()
        self.add(now - began)
        return now

    def add(self, seconds: float) -> None:
        self.seconds += seconds
        self.buckets[bisect_left(HookStats.BOUNDS, seconds) if seconds > _USUAL else 0] += 1


class HookStats:
    """A ``Stat`` per (plugin, hook)."""

    BOUNDS = (0.0001, 0.001, 0.01, 0.1, 1.0)
    """Upper bounds of the buckets, seconds."""

    def __init__(self) -> None:
        self._stats: dict[tuple[str, str], Stat] = {}

    def stat(self, plugin: str, hook: str) -> Stat:
        return self._stats.setdefault((plugin, hook), Stat())

    def items(self) -> ItemsView[tuple[str, str], Stat]:
        return self._stats.items()


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

    def named(self, name: str) -> Runtime:
        """The same runtime for another plugin: only the name differs."""
        return attrs.evolve(self, name=name)

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run ``coro`` in the background until it ends or the generation does; a failure is logged."""
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background task %s failed: %r", task.get_name(), error)

    async def stop_tasks(self) -> None:
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
    hooks: tuple[str, ...] = ()


class Plugins:
    """The loaded plugins and their compiled hooks."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
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
        for call in self.on_startup:
            await call(self.runtime.named(call.plugin))

    async def shutdown(self) -> None:
        for call in self.on_shutdown:
            try:
                await call()
            except Exception:
                log.exception("plugin %s failed in on_shutdown", call.plugin)
        await self.runtime.stop_tasks()


def _fit(impl: pluggy.HookImpl, spec: inspect.Signature) -> Callable[..., Any]:
    """The bound function, taking all of the spec's parameters even where the implementation left some out."""
    wanted = tuple(spec.parameters)
    function: Callable[..., Any] = impl.function
    if tuple(impl.argnames) == wanted:
        return function
    kept = [wanted.index(name) for name in impl.argnames]
    return lambda *args: function(*[args[index] for index in kept])


def load(config: Config, document: Document, runtime: Runtime) -> Plugins:
    """Load what ``chain`` and ``[providers]`` name. Every mistake becomes a problem of ``document``; none is raised."""
    plugins = Plugins(runtime)
    finder = Finder(config, document.path.parent)
    chosen: list[tuple[str, str, Any, str]] = []
    for name in config.plugins.chain:
        if (made := _make(finder, document, runtime, name, "middleware", name, ("plugins", name))) is not None:
            chosen.append((name, "middleware", *made))
    for name, provider in config.providers.items():
        if (made := _make(finder, document, runtime, name, "provider", provider.type, ("providers", name))) is not None:
            chosen.append((name, "provider", *made))
    for name in set(config.plugins.tables) - set(config.plugins.chain):
        document.problem(
            ("plugins", name), f"[plugins.{name}] has no effect: '{name}' is not in chain."
            + did_you_mean(name, config.plugins.chain)
        )  # fmt: skip
    for name, kind, plugin, file in reversed(chosen):
        try:
            _register(plugins.manager, plugin, f"{name}")
            if kind == "provider" and not hasattr(plugin, "forward") and not hasattr(plugin, "check_health"):
                raise PluginError("a provider needs a forward or check_health hook")
        except (PluginError, pluggy.PluginValidationError, ValueError) as error:
            document.problem(_place(kind, name), f"plugin '{name}' ({file}): {error}")
            continue
        hooks = tuple(
            hook for hook, spec in inspect.getmembers(hookspecs, inspect.isfunction)
            if getattr(type(plugin), hook, None) is not None and hasattr(spec, f"{hookspecs.PROJECT}_spec")
        )  # fmt: skip
        plugins.loaded.insert(0, Loaded(name, kind, file, plugin, hooks))
    plugins.compile()
    document.warnings.extend(finder.unnamed(config))
    return plugins


def _place(kind: str, name: str) -> tuple[str, ...]:
    return ("providers", name) if kind == "provider" else ("plugins", "chain")


def _register(manager: pluggy.PluginManager, plugin: Any, name: str) -> None:
    manager.register(plugin, name=name)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        unknown = str(error).split("'")[1] if "'" in str(error) else ""
        known = [hook.name for hook in manager.get_hookcallers(plugin) or [] if hook.has_spec()]
        manager.unregister(plugin)
        names = [n for n, f in inspect.getmembers(hookspecs, inspect.isfunction) if n not in known]
        raise PluginError(f"there is no hook '{unknown}'.{did_you_mean(unknown, names)}") from error
    for caller in manager.get_hookcallers(plugin) or []:
        for impl in caller.get_hookimpls():
            if impl.plugin is not plugin:
                continue
            if impl.wrapper or impl.hookwrapper:
                raise PluginError(f"{caller.name}: wrappers are not supported; they could not await")
            if caller.name in _SYNC_ONLY and inspect.iscoroutinefunction(impl.function):
                raise PluginError(f"{caller.name} must be a plain function, not async")


def _make(
    finder: Finder, document: Document, runtime: Runtime, name: str, kind: str, module_name: str, path: tuple[str, ...]
) -> tuple[Any, str] | None:
    """Import the module, structure its settings, make its ``Plugin``; ``None`` after reporting a problem."""
    where = _place(kind, name) if kind == "middleware" else (*path, "type")
    try:
        module, file = finder.load(module_name, kind)
    except PluginError as error:
        document.problem(where, str(error))
        return None
    ignore = ("type",) if kind == "provider" else ()
    settings_class = getattr(module, "Settings", None)
    plugin_class = getattr(module, "Plugin", None)
    if plugin_class is None:
        document.problem(where, f"plugin '{name}' ({file}) has no class Plugin.")
        return None
    settings = None
    if settings_class is None:
        if set(document.table(*path)) - set(ignore):
            document.problem(path, f"plugin '{name}' takes no settings.")
            return None
    elif document.table(*path):
        if (settings := document.structure(settings_class, path, ignore=ignore)) is None:
            return None
    else:
        try:
            settings = settings_class()
        except TypeError as error:
            document.problem(where, f"plugin '{name}' needs settings: {error}")
            return None
    try:
        return plugin_class(settings, runtime.named(name)), file
    except Exception as error:
        document.problem(where, f"plugin '{name}' ({file}): {error}")
        return None


class Finder:
    """Resolves a plugin name: folders, then the shipped ones, then entry points. Nothing else is ever run."""

    def __init__(self, config: Config, base: Path) -> None:
        self._folders = [base / folder for folder in config.plugins.folders]
        spec = importlib.util.find_spec("gateway_plugins")
        self._shipped = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []

    def load(self, name: str, kind: str) -> tuple[ModuleType, str]:
        """The module and the file it came from. Raises ``PluginError``."""
        if not name.isidentifier():
            raise PluginError(f"'{name}' is not a plugin name")
        for folder in [*self._folders, *self._shipped]:
            for place in (folder / f"{name}.py", folder / _subfolder(kind) / f"{name}.py"):
                if place.is_file():
                    return self._import(name, kind, place), str(place)
        for point in entry_points(group=ENTRY_POINTS, name=name):
            try:
                module = point.load()
            except Exception as error:
                raise PluginError(f"plugin '{name}' ({point.value}) cannot be imported: {error!r}") from error
            return module, point.value
        hint = did_you_mean(name, self.names(kind))
        raise PluginError(f"there is no {kind} plugin '{name}'.{hint}")

    def names(self, kind: str) -> list[str]:
        found: list[str] = []
        for folder in [*self._folders, *self._shipped]:
            for place in (folder, folder / _subfolder(kind)):
                found += [file.stem for file in sorted(place.glob("*.py")) if not file.stem.startswith("_")]
        return list(dict.fromkeys(found)) + [point.name for point in entry_points(group=ENTRY_POINTS)]

    def unnamed(self, config: Config) -> list[str]:
        """A warning per file lying in a plugin folder of the user's that the configuration does not name."""
        used = {*config.plugins.chain, *(provider.type for provider in config.providers.values())}
        shipped = {place.resolve() for place in self._shipped}
        return [
            f"{file}: not loaded, because nothing in the configuration names '{file.stem}'."
            for folder in self._folders if folder.is_dir() and folder.resolve() not in shipped
            for file in sorted([*folder.glob("*.py"), *folder.glob("middleware/*.py"), *folder.glob("providers/*.py")])
            if not file.stem.startswith("_") and file.stem not in used and not (folder / "__init__.py").is_file()
        ]  # fmt: skip

    def _import(self, name: str, kind: str, file: Path) -> ModuleType:
        # A name of its own in sys.modules: plugins/middleware/logging.py must never answer `import logging`.
        shipped = any(file.is_relative_to(place) for place in self._shipped)
        qualified = (
            f"gateway_plugins.{_subfolder(kind)}.{name}" if shipped and file.parent.name == _subfolder(kind)
            else f"hookgate_plugins.{abs(hash(str(file.resolve()))):x}.{name}"
        )  # fmt: skip
        if qualified in sys.modules:
            return sys.modules[qualified]
        spec = importlib.util.spec_from_file_location(qualified, file)
        if spec is None or spec.loader is None:
            raise PluginError(f"plugin '{name}' ({file}) cannot be imported")
        module = importlib.util.module_from_spec(spec)
        sys.modules[qualified] = module
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[qualified]
            if not isinstance(error, Exception):
                raise
            raise PluginError(f"plugin '{name}' ({file}) cannot be imported: {error!r}") from error
        return module


def _subfolder(kind: str) -> str:
    return "providers" if kind == "provider" else "middleware"
