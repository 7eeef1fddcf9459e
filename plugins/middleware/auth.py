"""Virtual keys: who is calling. Decides on headers alone, before a byte of the body is read."""

from __future__ import annotations

import hmac
from hashlib import sha256

from gateway import Exchange, Principal, Runtime, hookimpl
from gateway.authenticators import is_last
from gateway.credential import credential
from gateway.errors import Unauthenticated

_LONGEST = 512
# A key longer than this is none of ours; hashing megabytes for strangers is work they should not get.


class Plugin:
    def __init__(self, settings: None, runtime: Runtime) -> None:
        self._principals: dict[bytes, tuple[bytes, Principal]] = {}
        self._is_last = is_last(runtime.config.plugins.chain, "auth")
        self._is_open = self._is_last and not runtime.config.keys
        for name, key in runtime.config.keys.items():
            if digest := bytes.fromhex(key.sha256):
                self._principals[digest] = (digest, key.principal(name))

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        if self._is_open:
            return  # and listens on loopback only
        given = credential(exchange)
        principal = self._holder(given) if given is not None and len(given) <= _LONGEST else None
        if principal is not None:
            exchange.principal = principal
        elif self._is_last:
            raise Unauthenticated

    def _holder(self, key: str) -> Principal | None:
        digest = sha256(key.encode("utf-8", "surrogatepass")).digest()
        stored, principal = self._principals.get(digest, (b"", None))
        # The look-up is by digest, so its timing tells nothing of a key; the comparison is constant-time besides.
        return principal if hmac.compare_digest(stored, digest) else None
