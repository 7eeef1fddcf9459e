"""Where a plugin's file is: found by name in the configured folders, the shipped ones and the entry points."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from gateway.config import Config, did_you_mean
from gateway.errors import PluginError

ENTRY_POINTS = "hookgate.plugins"


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
        return [
            f"{file}: not loaded, because nothing in the configuration names '{file.stem}'."
            for folder in self._folders if folder.is_dir()
            for file in sorted(_files(folder))
            if not file.stem.startswith("_") and file.stem not in used
        ]  # fmt: skip

    def _import(self, name: str, kind: str, file: Path) -> ModuleType:
        shipped = any(file.is_relative_to(place) for place in self._shipped) and file.parent.name == _subfolder(kind)
        try:
            if shipped:
                return importlib.import_module(f"gateway_plugins.{_subfolder(kind)}.{name}")
            return _import_file(name, file)
        except Exception as error:
            raise PluginError(f"plugin '{name}' ({file}) cannot be imported: {error!r}") from error


def _import_file(name: str, file: Path) -> ModuleType:
    # A name of its own in sys.modules: a plugin called logging must never answer `import logging`.
    qualified = f"hookgate_plugins.{abs(hash(str(file.resolve()))):x}.{name}"
    if qualified in sys.modules:
        return sys.modules[qualified]
    spec = importlib.util.spec_from_file_location(qualified, file)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[qualified] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[qualified]
        raise
    return module


def _subfolder(kind: str) -> str:
    return "providers" if kind == "provider" else "middleware"


def _files(folder: Path) -> list[Path]:
    """The user's plugins in a folder. Where the shipped ones are, those lie in its subfolders."""
    places = ("*.py",) if (folder / "__init__.py").is_file() else ("*.py", "middleware/*.py", "providers/*.py")
    return [file for place in places for file in folder.glob(place)]
