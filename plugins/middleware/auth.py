"""Virtual keys: who is calling. Decides on headers alone, before a byte of the body is read."""

from __future__ import annotations

import hmac
from hashlib import sha256

from gateway import Exchange, Principal, Runtime, hookimpl
from gateway.errors import Unauthenticated

_LONGEST = 512
# A key longer than this is none of ours; hashing megabytes for strangers is work they should not get.


class Plugin:
    def __init__(self, settings: None, runtime: Runtime) -> None:
        self._principals: dict[bytes, tuple[bytes, Principal]] = {}
        for name, key in runtime.config.keys.items():
            digest = bytes.fromhex(key.sha256)
            self._principals[digest] = (
                digest,
                Principal(name, key.models, key.requests_per_minute, key.tokens_per_minute, key.max_concurrency),
            )

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        if not self._principals:
            return  # no keys: the gateway is open, and therefore listens on loopback only
        credential = _credential(exchange)
        if credential is None or len(credential) > _LONGEST:
            raise Unauthenticated
        digest = sha256(credential.encode("utf-8", "surrogatepass")).digest()
        stored, principal = self._principals.get(digest, (b"", None))
        # The look-up is by digest, so its timing tells nothing of a key; the comparison is constant-time besides.
        if principal is None or not hmac.compare_digest(stored, digest):
            raise Unauthenticated
        exchange.principal = principal


def _credential(exchange: Exchange) -> str | None:
    """The client's key: Bearer (OpenAI), x-api-key (Anthropic), api-key (Azure), x-goog-api-key (Gemini)."""
    headers = exchange.headers
    authorization = headers.get("Authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
    return headers.get("x-api-key") or headers.get("api-key") or headers.get("x-goog-api-key")
