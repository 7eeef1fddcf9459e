"""Virtual keys as such: how they are made, and the digest that is all anybody keeps of one."""

from __future__ import annotations

import secrets
from hashlib import sha256

PREFIX = "hg-"
"""What the keys we make begin with."""


def make() -> str:
    """A new one. Its 256 random bits cannot be guessed, so a plain digest protects it as well as a slow one would."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(key: str) -> bytes:
    """SHA-256 of all of it, of whatever text a stranger sends in a key's place."""
    return sha256(key.encode("utf-8", "surrogatepass")).digest()
