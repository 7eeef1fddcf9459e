"""Secrets are references in ``gateway.toml`` and a type of their own afterwards, so that they never show."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Callable, Mapping
from time import monotonic
from typing import NewType, NoReturn

log = logging.getLogger("hookgate")

REFRESH = 30.0
"""Seconds after which a secret file is read again; a rotated secret is in use at most this late."""
_LARGEST = 1 << 20
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Secret:
    """A value that prints as ``***``, cannot be pickled or turned into JSON, and is given out by ``reveal()`` alone."""

    __slots__ = ("_source",)

    def __init__(self, value: str | Callable[[], str]) -> None:
        self._source: Callable[[], str] = value if callable(value) else lambda: value

    def reveal(self) -> str:
        """The value now. One that came from a file follows the file, at most ``REFRESH`` seconds late."""
        return self._source()

    def prefixed(self, prefix: str) -> Secret:
        """The same secret behind a fixed text, as in ``Bearer …``."""
        return Secret(lambda: prefix + self.reveal())

    def __repr__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")


StoreUrl = NewType("StoreUrl", Secret)
"""Where a database is. Without a password in it, it may stand in ``gateway.toml`` as it is."""


def resolve(text: str, environ: Mapping[str, str]) -> Secret | None:
    """The secret a reference stands for; ``None`` if it is marked optional (``env:NAME?``) and not there.

    Raises ``ValueError``, which names the reference and never a value, and ``InlineSecret`` if ``text`` is none.
    """
    scheme, _, rest = text.partition(":")
    name = rest.removesuffix("?")
    if scheme == "env":
        value = _variable(name, environ)
        secret = Secret(value) if value else None
        missing = f"the environment variable {name} is not set."
    elif scheme == "file":
        secret = _from_file(name)
        missing = f"there is no file {name}."
    else:
        raise InlineSecret('expected a reference to a secret, "env:NAME" or "file:/path".')
    if secret is None and name == rest:
        raise ValueError(missing)
    return secret


def is_reference(text: str) -> bool:
    return text.startswith(("env:", "file:"))


class InlineSecret(ValueError):
    """A secret stands where a reference should."""


def _variable(name: str, environ: Mapping[str, str]) -> str:
    if not _VARIABLE.fullmatch(name):
        # Not repeated in the message: this is where a hasty hand puts the secret itself.
        raise ValueError('"env:" must be followed by the name of an environment variable.')
    return environ.get(name, "")


def _from_file(name: str) -> Secret | None:
    if not name.startswith("/"):
        raise ValueError('"file:" must be followed by an absolute path.')
    try:
        return Secret(_SecretFile(name))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}.") from None


class _SecretFile:
    """The content of a file, read again when it is older than ``REFRESH``."""

    __slots__ = ("_path", "_read_at", "_value")

    def __init__(self, path: str) -> None:
        self._path = path
        self._value = read_private(path)
        self._read_at = monotonic()

    def __call__(self) -> str:
        now = monotonic()
        if now - self._read_at >= REFRESH:
            self._read_at = now
            try:
                self._value = read_private(self._path)
            except (OSError, ValueError) as error:
                # Half-way through a rotation the file may be gone or empty: the last value stays until it is back.
                log.warning("secret file %s: %s The last value stays in use.", self._path, error)
        return self._value


def read_private(path: str) -> str:
    """The text of a file that is its owner's alone, without white space around it.

    Raises ``OSError``, or ``ValueError`` if others may read it or there is nothing in it to use.
    """
    # Non-blocking, so that a named pipe is refused below instead of stopping the start.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is not a file.")
        if (fault := exposure(status)) is not None:
            raise ValueError(f"{path} {fault}")
        content = os.read(descriptor, _LARGEST)
    finally:
        os.close(descriptor)
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text.") from None
    if not text:
        raise ValueError(f"{path} is empty.")
    return text


def exposure(status: os.stat_result) -> str | None:
    """Why a file with this status is no place for a secret; ``None`` if only we (and root) can get at it."""
    if status.st_uid not in (os.geteuid(), 0):
        return f"belongs to another user (uid {status.st_uid})."
    if status.st_mode & 0o066:
        return f"can be read or written by others (mode {stat.S_IMODE(status.st_mode):04o}): chmod 600."
    return None
