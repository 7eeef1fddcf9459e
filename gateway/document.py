"""One ``gateway.toml`` with what overrides it: values, the line of each, and the problems found in it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import tomli
from cattrs.errors import CattrsError

from gateway import secret
from gateway.errors import ConfigError
from gateway.secret import Secret, StoreUrl
from gateway.structure import make_converter, mistakes
from gateway.toml_lines import KeyPath, locate

T = TypeVar("T")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_PLACE = re.compile(r"(.*?):([0-9]+): ")


class Document:
    """A TOML file and the environment. Mistakes are collected, each with its place, and raised all at once."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path = path
        self.environ = environ
        self.problems: list[str] = []
        """``FILE:LINE: message``, or ``environment:NAME: message``."""
        self.warnings: list[str] = []
        self._data: dict[str, Any] = {}
        self._lines: dict[KeyPath, int] = {}
        self._origins: dict[KeyPath, str] = {}
        self._converter = make_converter()
        self._converter.register_structure_hook(Secret, lambda value, _: self._demanded(value))
        self._converter.register_structure_hook(Secret | None, lambda value, _: self._secret(value))
        self._converter.register_structure_hook(StoreUrl, lambda value, _: self._store_url(value))
        self._converter.register_structure_hook(str | Secret, lambda value, _: self._text_or_secret(value))
        self._converter.register_structure_hook(IPv4Network | IPv6Network, lambda value, _: _network(value))
        self._read()

    def _read(self) -> None:
        try:
            content = self.path.read_bytes()
        except OSError as error:
            self.problem((), f"cannot be read: {error.strerror}.")
            return
        try:
            text = content.decode()
            self._data, self._lines = tomli.loads(text), locate(text)
        except tomli.TOMLDecodeError as error:
            self.problems.append(f"{self.path}:{error.lineno}: {error.msg} (column {error.colno}).")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            self.problems.append(f"{self.path}:{line}: not UTF-8 text.")
        except (RecursionError, ValueError) as error:  # nested too deep, or a number of thousands of digits
            self.problem((), f"cannot be read: {error}.")

    def set(self, path: tuple[str, ...], value: Any, origin: str) -> None:
        """Override one value; its problems are reported at ``origin`` instead of a line."""
        table = self._data
        for depth, part in enumerate(path[:-1], 1):
            if part not in table:
                self._origins[path[:depth]] = origin
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                self.problems.append(f"{origin}: '{part}' is not a table.")
                return
        table[path[-1]] = value
        self._lines = {known: line for known, line in self._lines.items() if known[: len(path)] != path}
        self._origins[path] = origin

    def where(self, path: KeyPath) -> str:
        """``FILE:LINE`` of a key, or of the nearest table around it that is written down."""
        while path:
            if path in self._origins:
                return self._origins[path]
            if path in self._lines:
                return f"{self.path}:{self._lines[path]}"
            path = path[:-1]
        return f"{self.path}:1"

    def problem(self, path: KeyPath, message: str) -> None:
        self.problems.append(f"{self.where(path)}: {message}")

    def warn(self, path: KeyPath, message: str) -> None:
        self.warnings.append(f"{self.where(path)}: {message}")

    def raise_problems(self) -> None:
        """Raise ``ConfigError`` with all problems, in the order of their lines, if there are any."""
        if self.problems:
            raise ConfigError(sorted(dict.fromkeys(self.problems), key=_place))

    def table(self, *path: str) -> dict[str, Any]:
        """The raw table at ``path``, overrides applied; empty if there is none. Not to be changed."""
        value = self._value(path)
        return value if isinstance(value, dict) else {}

    def _value(self, path: tuple[str, ...]) -> Any:
        value: Any = self._data
        for part in path:
            value = value.get(part, {}) if isinstance(value, dict) else {}
        return value

    def find(self, *pattern: str) -> Iterator[tuple[KeyPath, Any]]:
        """Raw values with their paths; ``*`` in ``pattern`` stands for every key of a table or element of a list.

        Checks across tables look at these, so that they do not depend on what else is broken.
        """
        found: list[tuple[KeyPath, Any]] = [((), self._data)]
        for part in pattern:
            found = [
                ((*path, key), inner)
                for path, value in found
                for key, inner in _members(value)
                if part in ("*", key)
            ]  # fmt: skip
        yield from found

    def structure(self, cls: type[T], path: tuple[str, ...], *, ignore: Collection[str] = ()) -> T | None:
        """The value at ``path`` as ``cls``, without its keys ``ignore``; a table that is not there is an empty one.

        Every mistake becomes a problem, and the result is ``None``.
        """
        value = self._value(path)
        if isinstance(value, dict):
            value = {key: inner for key, inner in value.items() if key not in ignore}
        try:
            return self._converter.structure(value, cls)
        except (CattrsError, ValueError, TypeError, NameError) as error:
            for inner, message in mistakes(error, path, ignore):
                self.problem(inner, f"{dotted(inner)}: {message}")
        return None

    def _secret(self, value: Any) -> Secret | None:
        if not isinstance(value, str):
            raise ValueError('expected a reference to a secret, "env:NAME" or "file:/path".')
        try:
            return secret.resolve(value, self.environ)
        except secret.InlineSecret as error:
            if self._data.get("allow_inline_secrets") is not True:
                raise ValueError(f"{error} Secrets in this file need allow_inline_secrets = true.") from None
            if (fault := secret.exposure(os.stat(self.path))) is not None:
                raise ValueError(f"this file holds secrets and {fault}") from None
            return Secret(value)

    def _demanded(self, value: Any) -> Secret:
        found = self._secret(value)
        if found is None:
            raise ValueError(f"{value.removesuffix('?')} is not there, and this setting cannot do without it.")
        return found

    def _store_url(self, value: Any) -> Secret | None:
        if isinstance(value, str) and not secret.is_reference(value):
            if not value:
                return None  # how the environment turns it off
            if "://" not in value:
                raise ValueError("expected a URL such as redis://localhost:6379/0, or a reference to one.")
            place = urlsplit(value)
            if place.password is None and "password" not in place.query:
                return Secret(value)
        return self._secret(value)

    def _text_or_secret(self, value: Any) -> str | Secret:
        if not isinstance(value, str):
            raise ValueError("expected a string.")
        return self._demanded(value) if secret.is_reference(value) else value


def _place(problem: str) -> tuple[str, int]:
    match = _PLACE.match(problem)
    return (match[1], int(match[2])) if match else (problem, 0)


def _members(value: Any) -> list[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


def _network(value: Any) -> IPv4Network | IPv6Network:
    if not isinstance(value, str):
        raise ValueError('expected an address or network such as "10.0.0.0/8".')
    return ip_network(value)


def dotted(path: KeyPath) -> str:
    """A key path as TOML writes it: ``models."gpt 4".targets[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += "." * bool(text) + (part if _BARE.fullmatch(part) else f'"{part}"')
    return text
