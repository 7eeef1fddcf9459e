"""Where a plugin's file is: found by name in the configured folders, the shipped ones and the entry points."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import sys
import threading
from collections import Counter
from hashlib import sha256
from importlib.machinery import SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType, ModuleType

from gateway.config import Config, did_you_mean
from gateway.errors import PluginError

ENTRY_POINTS = "hookgate.plugins"


IMPORT_LIMIT = 10.0
"""Seconds an import may take while the gateway serves."""
_OWN = "hookgate_plugins"
_shipped_as: dict[str, str] = {}
"""Shipped module → SHA-256 of its file when it was first wanted."""
_users: Counter[str] = Counter()
"""Module of a user's file → how many finders found it."""
_hanging: dict[str, threading.Thread] = {}
"""SHA-256 of a file → the thread that still imports it, although nobody waits any more."""


class Finder:
    """Resolves a plugin name: folders, then the shipped ones, then entry points. Nothing else is ever run.

    A file is imported under a name made of its content: unchanged it keeps its module, changed it gets a new one beside
    the old. Plugins of entry points belong to other distributions, and stay as they were imported first.
    """

    def __init__(self, config: Config, base: Path) -> None:
        self._folders = [base / folder for folder in config.plugins.folders]
        spec = importlib.util.find_spec("gateway_plugins")
        self._shipped = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
        self._looked: dict[tuple[str, str], tuple[ModuleType, str] | PluginError] = {}
        self._modules: set[str] = set()

    def load(self, name: str, kind: str) -> tuple[ModuleType, str]:
        """The module and the file it came from. Raises ``PluginError``."""
        looked = self._looked.get((name, kind))
        if looked is None:
            looked = self._load(name, kind)
            self._use(looked[0])
        if isinstance(looked, PluginError):
            raise looked
        return looked

    def look_now(self, name: str, kind: str) -> None:
        """Let ``load`` find its answer ready."""
        try:
            self._found(name, kind, self._load(name, kind))
        except PluginError as error:
            self._found(name, kind, error)

    def _found(self, name: str, kind: str, found: tuple[ModuleType, str] | PluginError) -> None:
        self._looked[name, kind] = found
        if not isinstance(found, PluginError):
            self._use(found[0])

    def _use(self, module: ModuleType) -> None:
        name = getattr(module, "__name__", "")
        if name.startswith(_OWN) and name not in self._modules:
            self._modules.add(name)
            _users[name] += 1

    def release(self) -> None:
        """Nobody uses what this finder found any more; modules that no other finder found leave ``sys.modules``."""
        _users.subtract(self._modules)
        for name in self._modules:
            if _users[name] <= 0:
                del _users[name]
                sys.modules.pop(name, None)
        self._modules.clear()

    async def look(self, name: str, kind: str) -> None:
        """As ``look_now``, in a thread, with a limit of ``IMPORT_LIMIT`` seconds.

        Python cannot stop a thread: a file that hangs is not tried again, unless changed, before its thread has ended.
        """
        if (name, kind) in self._looked:
            return
        path = self._file(name, kind)
        file = str(path)
        version = sha256(path.read_bytes()).hexdigest() if path is not None else name
        if version in _hanging and _hanging[version].is_alive():
            self._looked[name, kind] = _failure(name, file, "an earlier import of it still runs")
            return
        known = set(sys.modules)
        thread, outcome = self._import_in_thread(name, kind, file)
        try:
            async with asyncio.timeout(IMPORT_LIMIT):
                self._found(name, kind, await outcome)
        except TimeoutError:
            _hanging[version] = thread
            self._looked[name, kind] = _failure(name, file, f"this takes longer than {IMPORT_LIMIT:g} s")
            for module in set(sys.modules) - known:
                if module.startswith(_OWN):
                    del sys.modules[module]  # half of a module

    def _import_in_thread(
        self, name: str, kind: str, file: str
    ) -> tuple[threading.Thread, asyncio.Future[tuple[ModuleType, str] | PluginError]]:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[tuple[ModuleType, str] | PluginError] = loop.create_future()

        def run() -> None:
            found: tuple[ModuleType, str] | PluginError
            try:
                found = self._load(name, kind)
            except PluginError as error:
                found = error
            except BaseException as error:  # noqa: BLE001 - told as the reason; SystemExit would end this thread unheard
                found = _failure(name, file, repr(error))
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settle, found)

        def settle(found: tuple[ModuleType, str] | PluginError) -> None:
            if not outcome.done():
                outcome.set_result(found)

        # Not one of the pool's: the interpreter waits for those when it ends.
        thread = threading.Thread(target=run, name=f"import of {name}", daemon=True)
        thread.start()
        return thread, outcome

    def _load(self, name: str, kind: str) -> tuple[ModuleType, str]:
        if not name.isidentifier():
            raise PluginError(f"'{name}' is not a plugin name")
        if (file := self._file(name, kind)) is not None:
            return self._import(name, kind, file), str(file)
        for point in entry_points(group=ENTRY_POINTS, name=name):
            try:
                module = point.load()
            except Exception as error:
                raise PluginError(f"plugin '{name}' ({point.value}) cannot be imported: {error!r}") from error
            return module, point.value
        hint = did_you_mean(name, self.names(kind))
        raise PluginError(f"there is no {kind} plugin '{name}'.{hint}")

    def _file(self, name: str, kind: str) -> Path | None:
        if not name.isidentifier():
            return None
        places = (
            place
            for folder in [*self._folders, *self._shipped]
            for place in (folder / f"{name}.py", folder / _subfolder(kind) / f"{name}.py")
        )
        return next((place for place in places if place.is_file()), None)

    def names(self, kind: str) -> list[str]:
        found: list[str] = []
        for folder in [*self._folders, *self._shipped]:
            for place in (folder, folder / _subfolder(kind)):
                found += [file.stem for file in sorted(place.glob("*.py")) if not file.stem.startswith("_")]
        return list(dict.fromkeys(found)) + [point.name for point in entry_points(group=ENTRY_POINTS)]

    def unnamed(self, config: Config) -> list[str]:
        """A warning per file lying in a plugin folder of the user's that the configuration does not name."""
        used = {*config.plugins.chain, *(provider.type for provider in config.providers.values())}
        return [
            f"{file}: not loaded, because nothing in the configuration names '{file.stem}'."
            for folder in self._folders if folder.is_dir()
            for file in sorted(_files(folder))
            if not file.stem.startswith("_") and file.stem not in used
        ]  # fmt: skip

    def _import(self, name: str, kind: str, file: Path) -> ModuleType:
        shipped = any(file.is_relative_to(place) for place in self._shipped) and file.parent.name == _subfolder(kind)
        try:
            content = file.read_bytes()
            digest = sha256(content).hexdigest()
            installed = f"gateway_plugins.{_subfolder(kind)}.{name}"
            if shipped and _shipped_as.setdefault(installed, digest) == digest:
                return importlib.import_module(installed)
            return _import_file(name, file, content)
        except Exception as error:
            raise _failure(name, str(file), repr(error)) from error


def _failure(name: str, file: str, reason: str) -> PluginError:
    return PluginError(f"plugin '{name}' ({file}) cannot be imported: {reason}")


class _Loader(SourceFileLoader):
    """Runs the text that gave the module its name, never byte code that lies about."""

    def __init__(self, name: str, path: str, content: bytes) -> None:
        super().__init__(name, path)
        self._content = content

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self._content, self.path)
        return code


def _import_file(name: str, file: Path, content: bytes) -> ModuleType:
    # A name of its own in sys.modules: a plugin called logging must never answer `import logging`.
    origin = sha256(str(file.resolve()).encode() + b"\0" + content).hexdigest()[:16]
    qualified = f"{_OWN}.{origin}.{name}"
    if qualified in sys.modules:
        return sys.modules[qualified]
    spec = importlib.util.spec_from_file_location(qualified, file, loader=_Loader(qualified, str(file), content))
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[qualified] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(qualified, None)
        raise
    return module


def _subfolder(kind: str) -> str:
    return "providers" if kind == "provider" else "middleware"


def _files(folder: Path) -> list[Path]:
    """The user's plugins in a folder. Where the shipped ones are, those lie in its subfolders."""
    places = ("*.py",) if (folder / "__init__.py").is_file() else ("*.py", "middleware/*.py", "providers/*.py")
    return [file for place in places for file in folder.glob(place)]
