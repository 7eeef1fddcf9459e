"""Whose answer to which request a cache entry is: its key."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

    from multidict import CIMultiDictProxy

    from gateway.exchange import Exchange, Principal

Scope = Literal["key", "team", "global"]
# Request headers a provider gets that can change its answer. Credentials are the gateway's own.
_HEADERS = ("accept", "accept-language", "anthropic-beta", "anthropic-version", "content-type", "openai-beta")


def digest(fields: Iterable[str], body: bytes) -> str:
    """SHA-256 over the fields, each behind its length, and the body: different input never encodes alike.

    The body counts byte for byte. The same JSON written in another way is another request; telling that two texts mean
    the same to every provider is not ours to do.
    """
    hashed = _begun(tuple(fields)).copy()
    hashed.update(body)
    return hashed.hexdigest()


@lru_cache(maxsize=1024)
def _begun(fields: tuple[str, ...]) -> Hash:
    """The hash with the fields in it: a client's differ seldom from one request to the next."""
    # surrogatepass: aiohttp decodes headers with surrogateescape, and every byte must count.
    encoded = "".join([f"{len(field)}:{field}" for field in fields])
    return sha256(encoded.encode("utf-8", "surrogatepass") + b"|")  # no digit: the fields end here


class Keys:
    """``routes`` tells the routes that answers come by: where those change, so do all keys."""

    def __init__(self, scope: Scope, routes: str) -> None:
        self._scope = scope
        self._realm = digest([scope, routes], b"")

    def of(self, exchange: Exchange, headers: CIMultiDictProxy[str], body: bytes) -> str:
        # Model and mode stand in the body.
        fields = [self._realm, exchange.surface.name, exchange.path, exchange.query]
        if self._scope != "global":
            fields += self._owner(exchange.principal)
        for name in _HEADERS:
            values: list[str] | None = headers.getall(name, None)
            if values is not None:
                fields += (name, str(len(values)), *values)
        return digest(fields, body)

    def _owner(self, principal: Principal | None) -> tuple[str, ...]:
        if principal is None:
            return ("nobody",)  # not a principal whose name is empty
        if self._scope == "team" and principal.team is not None:
            return ("team", principal.team)
        return ("key", principal.name)
