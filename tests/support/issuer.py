"""An issuer of tokens: real keys, made for the test, and a script that publishes them."""

from __future__ import annotations

import base64
import json
from time import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.testing import Call, whole

AUDIENCE = "hookgate"


class SigningKey:
    """A pair of keys: ``jwk`` is published, ``sign`` makes tokens."""

    def __init__(self, algorithm: str, kid: str | None, *, bits: int = 2048) -> None:
        self.algorithm = algorithm
        self.kid = kid
        self.private: Any
        if algorithm[:2] in ("RS", "PS"):
            self.private = rsa.generate_private_key(65537, bits)
        elif algorithm == "EdDSA":
            self.private = ed25519.Ed25519PrivateKey.generate()
        else:
            self.private = ec.generate_private_key({"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1()}[algorithm])
        codec: Any = jwt.get_algorithm_by_name(algorithm)
        self.jwk: dict[str, Any] = codec.to_jwk(self.private.public_key(), as_dict=True)
        self.private_jwk: dict[str, Any] = codec.to_jwk(self.private, as_dict=True)
        for one in (self.jwk, self.private_jwk):
            one.pop("key_ops", None)
            if kid is not None:
                one["kid"] = kid

    @property
    def pem(self) -> bytes:
        return bytes(self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def sign(self, claims: dict[str, Any], *, algorithm: str | None = None, **header: Any) -> str:
        """A token; a header given as ``None`` is left out."""
        headers = {"kid": self.kid} | header
        given = {name: value for name, value in headers.items() if value is not None}
        # Not by jwt.encode, which refuses to write what a verifier must refuse to read.
        payload = json.dumps(claims).encode()
        return str(jwt.PyJWS().encode(payload, self.private, algorithm or self.algorithm, given))


def claims(**more: Any) -> dict[str, Any]:
    """Claims of a good token, good for an hour; one given as ``None`` is left out."""
    now = int(time())
    all_of_them = {"sub": "alice", "aud": AUDIENCE, "iat": now, "exp": now + 3600} | more
    return {name: value for name, value in all_of_them.items() if value is not None}


def segment(value: Any) -> str:
    """A part of a token: bytes as they are, anything else as JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def key_set(*keys: SigningKey) -> dict[str, Any]:
    return {"keys": [key.jwk for key in keys]}


class Issuer:
    """The script of an issuer with discovery; ``url`` must be set to the address it is served at."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys)
        self.url = ""
        self.told: dict[str, Any] = {}
        """What its configuration says otherwise."""

    async def __call__(self, call: Call) -> None:
        if call.request.target == "/.well-known/openid-configuration":
            await whole(200, {"issuer": self.url, "jwks_uri": f"{self.url}/keys?tenant=1"} | self.told)(call)
        elif call.request.target == "/keys?tenant=1":
            await whole(200, key_set(*self.keys))(call)
        else:
            await whole(404, {})(call)
