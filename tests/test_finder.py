"""Finding a plugin by its name: the user's folders, then the shipped ones, then entry points."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from gateway import finder
from gateway.config import Config
from gateway.errors import PluginError
from gateway.finder import Finder
from gateway.settings import Plugins


@pytest.fixture
def find(tmp_path: Path) -> Finder:
    (tmp_path / "mine/providers").mkdir(parents=True)
    return Finder(Config(plugins=Plugins(folders=("mine",))), tmp_path)


def test_a_folder_is_relative_to_the_configuration_and_wins_over_what_is_shipped(find: Finder, tmp_path: Path) -> None:
    (tmp_path / "mine/logging.py").write_text("X = 'mine'\n")
    module, file = find.load("logging", "middleware")
    assert (module.X, file) == ("mine", str(tmp_path / "mine/logging.py"))
    assert sys.modules["logging"] is logging


def test_a_subfolder_is_searched_for_its_kind_only(find: Finder, tmp_path: Path) -> None:
    (tmp_path / "mine/providers/acme.py").write_text("")
    assert find.load("acme", "provider")[1] == str(tmp_path / "mine/providers/acme.py")
    with pytest.raises(PluginError, match="there is no middleware plugin 'acme'"):
        find.load("acme", "middleware")


def test_a_shipped_plugin_is_the_installed_module(find: Finder) -> None:
    import gateway_plugins.providers.echo as installed

    assert find.load("echo", "provider")[0] is installed


def test_a_file_runs_once(find: Finder, tmp_path: Path) -> None:
    (tmp_path / "mine/once.py").write_text("")
    assert find.load("once", "middleware")[0] is find.load("once", "middleware")[0]


@pytest.mark.parametrize("name", ["../outside", "a.b", "a/b", "", "a-b", "1a"])
def test_a_name_is_never_a_path(find: Finder, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside.py").write_text("raise SystemExit\n")
    with pytest.raises(PluginError, match="is not a plugin name"):
        find.load(name, "middleware")


def test_a_file_that_breaks_leaves_nothing_behind(find: Finder, tmp_path: Path) -> None:
    (tmp_path / "mine/torn.py").write_text("1 / 0\n")
    with pytest.raises(PluginError, match=r"torn\.py\) cannot be imported: ZeroDivisionError"):
        find.load("torn", "middleware")
    (tmp_path / "mine/torn.py").write_text("X = 1\n# another size: the cached byte code is not taken for this\n")
    assert find.load("torn", "middleware")[0].X == 1


def test_an_entry_point_is_the_last_resort(find: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    points = {"far": "string", "gone": "no_such_module_at_all"}

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        assert group == finder.ENTRY_POINTS
        return [EntryPoint(each, value, group) for each, value in points.items() if name in (None, each)]

    monkeypatch.setattr(finder, "entry_points", entry_points)
    assert find.load("far", "middleware")[1] == "string"
    with pytest.raises(PluginError, match="no_such_module_at_all"):
        find.load("gone", "middleware")
    with pytest.raises(PluginError, match=r"Did you mean 'gone'\?"):
        find.load("gonee", "middleware")


def test_a_file_that_nothing_names_is_a_warning(find: Finder, tmp_path: Path) -> None:
    for name in ("used.py", "lying.py", "_helper.py", "providers/lost.py"):
        (tmp_path / "mine" / name).write_text("")
    warnings = find.unnamed(Config(plugins=Plugins(chain=("used",))))
    assert [Path(warning.partition(": ")[0]).name for warning in warnings] == ["lying.py", "lost.py"]


def test_a_changed_file_is_another_module_beside_the_old(find: Finder, tmp_path: Path) -> None:
    file = tmp_path / "mine/changing.py"
    file.write_text("X = 1\n")
    old, _ = find.load("changing", "middleware")
    file.write_text("X = 2\n")  # of the same size, within the same second
    later = Finder(Config(plugins=Plugins(folders=("mine",))), tmp_path)
    new, _ = later.load("changing", "middleware")
    assert (old.X, new.X) == (1, 2)
    assert sys.modules[old.__name__] is old and sys.modules[new.__name__] is new
    find.release()
    assert old.__name__ not in sys.modules and sys.modules[new.__name__] is new
    later.release()
    assert new.__name__ not in sys.modules


def test_a_module_stays_as_long_as_anybody_uses_it(find: Finder, tmp_path: Path) -> None:
    (tmp_path / "mine/shared.py").write_text("X = 1\n")
    module, _ = find.load("shared", "middleware")
    later = Finder(Config(plugins=Plugins(folders=("mine",))), tmp_path)
    assert later.load("shared", "middleware")[0] is module
    find.release()
    find.release()
    assert sys.modules[module.__name__] is module
    later.release()
    assert module.__name__ not in sys.modules


def test_no_byte_code_is_read_or_written(find: Finder, tmp_path: Path) -> None:
    (tmp_path / "mine/plain.py").write_text("X = 1\n")
    find.load("plain", "middleware")
    assert not list((tmp_path / "mine").rglob("*.pyc"))
    find.release()


async def test_what_was_looked_for_is_not_run_again(find: Finder, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "mine/torn.py").write_text(f"with open({str(ran)!r}, 'a') as file:\n    file.write('x')\n1 / 0\n")
    await find.look("torn", "middleware")
    await find.look("torn", "middleware")
    for _ in range(2):
        with pytest.raises(PluginError, match="ZeroDivisionError"):
            find.load("torn", "middleware")
    assert ran.read_text() == "x"
