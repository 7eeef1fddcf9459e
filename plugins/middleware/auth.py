"""Virtual keys: who is calling. Decides on headers alone, before a byte of the body is read."""

from __future__ import annotations

import hmac
from hashlib import sha256
from time import time

from gateway import Exchange, Principal, Runtime, hookimpl
from gateway.authenticators import is_last
from gateway.credential import credential
from gateway.errors import Overloaded, Unauthenticated
from gateway.state.keyring import POLL, Keyring, has_its_team
from gateway.virtual_key import PREFIX

_LONGEST = 512
# A key longer than this is none of ours; hashing megabytes for strangers is work they should not get.
_NOBODY: tuple[bytes, None] = (b"", None)


class Plugin:
    def __init__(self, settings: None, runtime: Runtime) -> None:
        config = runtime.config
        self._keyring = runtime.keys
        self._is_last = is_last(config.plugins.chain, "auth")
        self._is_open = self._is_last and not config.keys and not config.state.keys
        self._inline: dict[bytes, tuple[bytes, Principal]] = {}
        for name, key in config.keys.items():
            if (digest := bytes.fromhex(key.sha256)) and has_its_team(key, config):
                self._inline[digest] = (digest, key.principal(name))

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        if self._is_open:
            return  # and listens on loopback only
        given = credential(exchange)
        principal = self._holder(given) if given is not None and len(given) <= _LONGEST else None
        if principal is not None:
            exchange.principal = principal
        elif given is not None and self._is_unread and (self._is_last or given.startswith(PREFIX)):
            raise Overloaded("The gateway cannot check keys at the moment.", retry_after=POLL)
        elif self._is_last:
            raise Unauthenticated

    @property
    def _is_unread(self) -> bool:
        """There may be keys in the database, and nobody could look yet."""
        return self._keyring is not None and not self._keyring.known

    def _holder(self, key: str) -> Principal | None:
        digest = sha256(key.encode("utf-8", "surrogatepass")).digest()
        stored, principal = self._inline.get(digest, _NOBODY)
        if principal is None and self._keyring is not None:
            stored, principal = _stored(self._keyring, digest)
        # The look-up is by digest, so its timing tells nothing of a key; the comparison is constant-time besides.
        return principal if hmac.compare_digest(stored, digest) else None


def _stored(keyring: Keyring, digest: bytes) -> tuple[bytes, Principal | None]:
    """As the keyring has it now: a key of the database may have ended since the last request."""
    found = keyring.holders.get(digest)
    return _NOBODY if found is None or found[2] <= time() else found[:2]
