"""The list of hooks is what authors read: every one says what it is, takes and returns."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from aiohttp import web

from gateway import hookspecs, plugins

SPECS = [item for item in vars(hookspecs).values() if hasattr(item, f"{hookspecs.PROJECT}_spec")]
spec = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)


@spec
def test_every_hook_says_what_it_is(spec: Callable[..., Any]) -> None:
    first = (inspect.getdoc(spec) or "").split("\n")[0]
    assert len(first) > 20 and first[0].isupper() and first.endswith(".")


@spec
def test_every_parameter_and_return_value_has_a_type(spec: Callable[..., Any]) -> None:
    hints = typing.get_type_hints(spec, {**vars(hookspecs), "Runtime": plugins.Runtime, "web": web})
    assert set(hints) == {*inspect.signature(spec).parameters, "return"}


@spec
def test_every_hook_has_a_caller(spec: Callable[..., Any]) -> None:
    name = spec.__name__
    compiled = {*plugins.REQUEST_HOOKS, *plugins.PROVIDER_HOOKS, "on_startup", "on_shutdown"}
    assert (name in compiled) != (name in ("routes", "commands"))


def test_what_the_core_calls_is_specified() -> None:
    names = [spec.__name__ for spec in SPECS]
    called: Iterable[str] = (*plugins.REQUEST_HOOKS, *plugins.PROVIDER_HOOKS)
    assert set(called) <= set(names)
    assert len(names) == len(set(names)) == 13


def test_hooks_stand_in_the_order_they_run() -> None:
    names = [spec.__name__ for spec in SPECS]
    order = ("on_startup", "on_request", "select", "forward", "on_reply", "on_event", "on_finish", "on_shutdown")
    places = [names.index(name) for name in order]
    assert places == sorted(places)


def test_only_hooks_that_nobody_awaits_are_plain() -> None:
    assert {spec.__name__ for spec in SPECS if not inspect.iscoroutinefunction(spec)} == {
        "on_event",
        "routes",
        "commands",
    }
