"""The project's own source files, for tests that read them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support.programs import ROOT

CORE = ROOT / "gateway"
PLUGINS = ROOT / "plugins"


def modules(*folders: Path) -> list[Path]:
    """Python files below ``folders``, as paths relative to the repository, without empty ones."""
    files = (path for folder in folders for path in folder.rglob("*.py"))
    return sorted(path.relative_to(ROOT) for path in files if path.stat().st_size)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), str(path))


def imported(path: Path) -> Iterator[str]:
    """Dotted names a module imports, wherever it does; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def belongs(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")
