"""Where files are, what they may import, how long they are."""

from __future__ import annotations

import ast
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.meta.sources import CORE, PLUGINS, belongs, imported, modules, tree
from tests.support.programs import ROOT

SOURCES = modules(CORE, PLUGINS)

# Longer than 350 lines, and why that is still one subject.
LONG: dict[str, str] = {}
# Without a test file of their own, and where they are tested instead.
NO_TWIN: dict[str, str] = {}

# Code that turns data into behaviour has no place on data of requests, providers or configuration.
FORBIDDEN_MODULES = ("pickle", "cPickle", "dill", "marshal", "shelve", "yaml", "jinja2", "code")
# … but PyYAML's safe loader makes plain values only, and reads an operator's file before anything is served.
SAFE_YAML = {"gateway/importing/source.py": {"yaml.SafeLoader", "yaml.YAMLError"}}
FORBIDDEN_CALLS = ("eval", "exec", "compile", "__import__", "os.system", "os.popen")
# Dialects and the vocabulary are pure: what they need comes in as arguments.
INPUT_OUTPUT = ("aiohttp", "asyncio", "socket", "os", "pathlib", "subprocess", "urllib.request")


def twin(source: Path) -> Path:
    """gateway/x.py → tests/test_x.py, plugins/middleware/x.py → tests/plugins/middleware/test_x.py."""
    folder = source.relative_to("gateway") if source.parts[0] == "gateway" else source
    return Path("tests") / folder.parent / f"test_{source.name}"


def names(paths: list[Path]) -> list[str]:
    return [str(path) for path in paths]


@pytest.mark.parametrize("source", names([path for path in SOURCES if path.name not in ("__init__.py", "__main__.py")]))
def test_every_source_file_has_its_test_file(source: str) -> None:
    if source not in NO_TWIN:
        assert (ROOT / twin(Path(source))).is_file(), f"{twin(Path(source))} is missing"


@pytest.mark.parametrize("source", names(modules(CORE)))
def test_the_core_never_imports_a_plugin(source: str) -> None:
    wrong = [name for name in imported(Path(source)) if belongs(name, "gateway_plugins") or belongs(name, "plugins")]
    assert not wrong


@pytest.mark.parametrize("source", names(modules(PLUGINS)))
def test_plugins_import_the_core_by_its_public_names(source: str) -> None:
    ours = [name for name in imported(Path(source)) if belongs(name, "gateway") or belongs(name, "plugins")]
    assert not [name for name in ours if "._" in name or belongs(name, "plugins")]


@pytest.mark.parametrize("source", ["gateway/exchange.py", "gateway/errors.py", "gateway/limits.py"])
def test_the_vocabulary_imports_nothing_of_ours_but_its_own(source: str) -> None:
    ours = [name for name in imported(Path(source)) if belongs(name, "gateway")]
    # An exchange raises one of the errors itself and holds a principal's limits; those know nothing of exchanges.
    allowed = ("gateway.errors", "gateway.limits") if source == "gateway/exchange.py" else ()
    assert not [name for name in ours if not any(belongs(name, other) for other in allowed)]


@pytest.mark.parametrize("source", names(modules(CORE / "dialects")))
def test_dialects_do_no_input_or_output(source: str) -> None:
    assert not [name for name in imported(Path(source)) if any(belongs(name, other) for other in INPUT_OUTPUT)]


@pytest.mark.parametrize("source", names(SOURCES))
def test_a_file_has_one_subject(source: str) -> None:
    lines = (ROOT / source).read_text().count("\n")
    assert lines <= 350 or source in LONG, f"{lines} lines: split it, or say in LONG why it is one subject"
    assert lines <= 750


def test_exceptions_are_still_needed() -> None:
    for source in LONG:
        assert (ROOT / source).read_text().count("\n") > 350, source
    for source in NO_TWIN:
        assert (ROOT / source).is_file() and not (ROOT / twin(Path(source))).exists(), source


@pytest.mark.parametrize("source", names(SOURCES))
def test_r64_data_never_becomes_code(source: str) -> None:
    path = Path(source)
    allowed = {"yaml"} if source in SAFE_YAML else set[str]()
    wrong = {name for name in imported(path) if any(belongs(name, other) for other in FORBIDDEN_MODULES)}
    assert wrong == allowed
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and (name := ast.unparse(node)).startswith("yaml."):
            assert name in SAFE_YAML.get(source, ()), f"{source}:{node.lineno}"
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in FORBIDDEN_CALLS, f"{source}:{node.lineno}"
            assert not [word for word in node.keywords if word.arg == "shell"], f"{source}:{node.lineno}"


def test_every_folder_is_packaged() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packaged = set(setup["options"]["packages"].split())
    found = {".".join(path.parent.parts).replace("plugins", "gateway_plugins", 1) for path in modules(PLUGINS)}
    found |= {".".join(path.parent.parts) for path in modules(CORE)}
    assert found <= packaged, "a folder is missing in setup.cfg"
    assert all((ROOT / name.replace("gateway_plugins", "plugins").replace(".", "/")).is_dir() for name in packaged)
