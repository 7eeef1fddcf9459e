"""The public keys of whoever issues tokens (a JSON Web Key Set, RFC 7517): fetched in the background, kept in failures.

Needs PyJWT (``pip install 'hookgate[jwt]'``), which is imported with the first set of keys.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import attrs
import orjson
from yarl import URL

from gateway.errors import GatewayError
from gateway.upstream import Upstream

log = logging.getLogger("hookgate")

PAUSE = 10.0
"""Seconds between two fetches that failures or unknown keys cause: strangers can make up as many names as they like."""
PATIENCE = 15.0
"""Seconds one fetch may take."""

Keys = Mapping[tuple[str | None, str], Any]
"""PyJWT's keys by ``kid`` and ``alg`` of the tokens they verify; those of tokens without ``kid`` under ``None``."""
Fetch = Callable[[], Awaitable[Any]]
"""Gets the document of a key set. Raises ``GatewayError``, ``OSError`` or ``ValueError``."""

# What a key may be used for where it does not say so (RFC 7518 section 3.1, RFC 8037). An "oct" key is a secret: a
# verifier that took one would take tokens "signed" with a public key (RFC 8725 section 2.1).
_OF_KIND: dict[tuple[Any, Any], frozenset[str]] = {
    ("RSA", None): frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
_LEAST_RSA = 2048  # bits; RFC 7518 section 3.3


def keys_of(document: Any, algorithms: Collection[str]) -> Keys:
    """The keys of a set that verify signatures by one of ``algorithms``; others, and broken ones, are passed over.

    Raises ``ValueError`` when there is none.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("this is no JSON Web Key Set.")
    keys: dict[tuple[str | None, str], Any] = {}
    for algorithm in algorithms:
        usable = list(_usable(entries, algorithm))
        for kid, key in usable:
            if kid is not None:
                keys.setdefault((kid, algorithm), key)
        if len(usable) == 1:  # no other can be meant by a token that names none
            keys[None, algorithm] = usable[0][1]
    if not keys:
        raise ValueError("there is no key in it for any of the algorithms.")
    return keys


def _usable(entries: list[Any], algorithm: str) -> Iterator[tuple[str | None, Any]]:
    import jwt

    for entry in entries:
        if not isinstance(entry, dict) or not _is_meant_for(entry, algorithm):
            continue
        try:
            key = jwt.PyJWK(entry, algorithm)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        if getattr(key.key, "key_size", _LEAST_RSA) < _LEAST_RSA and entry["kty"] == "RSA":
            continue
        kid = entry.get("kid")
        yield (kid if isinstance(kid, str) else None), key


def _is_meant_for(entry: dict[str, Any], algorithm: str) -> bool:
    kind = (str(entry.get("kty")), None if entry.get("kty") == "RSA" else str(entry.get("crv")))
    operations = entry.get("key_ops", ["verify"])
    return (
        algorithm in _OF_KIND.get(kind, ())
        and entry.get("alg", algorithm) == algorithm
        and entry.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and "d" not in entry  # a private key that is lying about is nobody's proof of anything
    )


@attrs.define
class Known:
    """What was fetched last."""

    keys: Keys = attrs.field(factory=dict)
    """Replaced, never changed, and only when the document is another."""
    document: Any = None

    def take(self, document: Any, algorithms: Collection[str]) -> None:
        """Raises ``ValueError``, and keeps what there was, when no key of ``document`` can be used."""
        if document != self.document:
            self.keys = keys_of(document, algorithms)
            self.document = document


class Jwks:
    """Keeps ``known`` up to date. ``spawn`` runs a fetch as a task of its own, which outlives whoever waits for it."""

    def __init__(
        self,
        known: Known,
        fetch: Fetch,
        algorithms: Collection[str],
        refresh: float,
        spawn: Callable[[Coroutine[Any, Any, Any], str], asyncio.Task[Any]],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.known = known
        self._fetch = fetch
        self._algorithms = algorithms
        self._refresh = refresh
        self._spawn = spawn
        self._clock = clock
        self._began = float("-inf")
        self._task: asyncio.Task[bool] | None = None

    async def keep_fresh(self) -> None:
        """Fetch now and every ``refresh`` seconds, sooner after a failure; never ends by itself."""
        while True:
            renewed = await self._renew()
            await asyncio.sleep(self._refresh if renewed else min(PAUSE, self._refresh))

    async def look_again(self) -> None:
        """Fetch because a key is unknown, or wait for the fetch that is under way; nothing so soon after another."""
        if self._task is not None or self._clock() - self._began >= PAUSE:
            await self._renew()

    async def _renew(self) -> bool:
        if self._task is None:
            self._began = self._clock()
            self._task = self._spawn(self._renewed(), "keys of tokens")
        return await asyncio.shield(self._task)

    async def _renewed(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                document = await self._fetch()
            self.known.take(document, self._algorithms)
        except (GatewayError, OSError, ValueError) as error:
            kept = "the last ones stay in use" if self.known.keys else "no token can be checked"
            log.warning("keys of tokens: %s; %s.", str(error).rstrip(".") or "it took too long", kept)
            return False
        except Exception:
            log.exception("keys of tokens")
            return False
        finally:
            self._task = None
        return True


def from_file(path: Path) -> Fetch:
    def read() -> Any:
        return orjson.loads(path.read_bytes())

    return lambda: asyncio.to_thread(read)


def from_url(upstream: Upstream, url: str, ca_file: str | None = None) -> Fetch:
    """Raises ``ValueError`` for what is no ``https`` URL (or ``http`` on loopback, where nobody can change the keys on
    their way)."""
    parts = URL(url, encoded=True)
    if not _is_safe(parts):
        raise ValueError("the address of keys must be an https URL.")
    endpoint = upstream.endpoint("issuer", str(parts.origin()), ca_file=ca_file)
    return lambda: endpoint.get_json(parts.raw_path_qs, 0.0)


def from_issuer(upstream: Upstream, issuer: str, ca_file: str | None = None) -> Fetch:
    """By OpenID Connect Discovery 1.0 (section 4). Raises ``ValueError`` as ``from_url`` does."""
    configuration = from_url(upstream, f"{issuer.rstrip('/')}/.well-known/openid-configuration", ca_file)

    async def fetch() -> Any:
        told = await configuration()
        if not isinstance(told, dict) or told.get("issuer") != issuer:
            raise ValueError("the issuer's configuration is another issuer's.")  # section 4.3
        return await from_url(upstream, str(told.get("jwks_uri")), ca_file)()

    return fetch


def _is_safe(url: URL) -> bool:
    return bool(url.host) and (
        url.scheme == "https" or (url.scheme == "http" and url.host in ("localhost", "127.0.0.1", "::1"))
    )
