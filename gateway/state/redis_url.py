"""Where Redis is, out of a URL: ``redis://``, ``rediss://`` (TLS) or ``unix://``, spelt as other clients spell it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import attrs

from gateway.tls import Contexts

P = TypeVar("P", bound=asyncio.BaseProtocol)
_OPTIONS = {
    "redis": ("db",),
    "rediss": ("db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"),
    "unix": ("db",),
}  # fmt: skip
_PORT = 6379


@attrs.frozen
class Address:
    host: str
    port: int
    path: str
    """Of a unix socket; else empty."""
    db: int
    user: str
    password: str = attrs.field(repr=False)
    tls: ssl.SSLContext | bool | None = attrs.field(repr=False)

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    @property
    def greeting(self) -> list[tuple[str | int, ...]]:
        """What is said first on a connection."""
        said: list[tuple[str | int, ...]] = []
        if self.password:
            said.append(("AUTH", self.user, self.password) if self.user else ("AUTH", self.password))
        if self.db:
            said.append(("SELECT", self.db))
        return said

    async def connect(self, protocol: Callable[[], P]) -> P:
        """Raises ``OSError``."""
        loop = asyncio.get_running_loop()
        if self.path:
            return (await loop.create_unix_connection(protocol, self.path))[1]
        return (await loop.create_connection(protocol, self.host, self.port, ssl=self.tls))[1]


def parse(url: str) -> Address:
    """Raises ``ValueError``, which repeats nothing of the URL, and ``OSError`` for TLS files."""
    parts = _split(url)
    if parts.scheme not in _OPTIONS:
        raise ValueError("expected redis://HOST[:PORT][/DB], rediss://… or unix:///PATH.")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if set(options) - set(_OPTIONS[parts.scheme]) or parts.fragment:
        raise ValueError(f"{parts.scheme}:// takes no options but {', '.join(_OPTIONS[parts.scheme])}.")
    path = unquote(parts.path) if parts.scheme == "unix" else ""
    if (parts.scheme == "unix") != (path != "") or (path and parts.hostname):
        raise ValueError("expected unix:///PATH, the absolute path of a socket.")
    tls = None
    if parts.scheme == "rediss":
        files = [options.get(f"ssl_{name}") for name in ("ca_certs", "certfile", "keyfile")]
        tls = Contexts().of(*files)
    return Address(
        parts.hostname or "localhost", _port(parts), path, _db(parts, options),
        unquote(parts.username or ""), unquote(parts.password or ""), tls,
    )  # fmt: skip


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        # Not the library's words, nor below: they hold what stands there, which may be a password.
        raise ValueError("this is not a URL.") from None


def _port(parts: SplitResult) -> int:
    try:
        return parts.port or _PORT
    except ValueError:
        raise ValueError("the port is not a number up to 65535.") from None


def _db(parts: SplitResult, options: dict[str, str]) -> int:
    text = "" if parts.scheme == "unix" else parts.path.strip("/")
    text = options.get("db", text) or "0"
    if not (text.isascii() and text.isdigit()):
        raise ValueError("the database behind the / must be a number.")
    return int(text)
