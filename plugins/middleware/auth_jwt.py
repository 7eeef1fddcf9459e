"""JSON Web Tokens: who is calling, by the word of an issuer. Decides on headers alone, before the body is read.

Needs PyJWT (``pip install 'hookgate[jwt]'``). Stands alone or directly behind ``auth`` and ``auth_mtls``, which leave
it whom they do not know.
"""

from __future__ import annotations

import logging
from base64 import urlsafe_b64decode
from collections.abc import Awaitable
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from time import time
from typing import Any, Literal

import attrs
import orjson
from attrs.validators import and_, deep_iterable, ge, gt, le, min_len, optional

from gateway import Duration, Exchange, Principal, Runtime, hookimpl
from gateway.claims import as_globs, as_limit, as_name, find, holds
from gateway.credential import credential
from gateway.errors import Overloaded, Unauthenticated
from gateway.jwks import PAUSE, Fetch, Jwks, Known, from_file, from_issuer, from_url

log = logging.getLogger("hookgate")

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Those with a public key. An ``HS…`` would be "verified" with what everybody knows; ``none`` is no signature."""

_LONGEST = 8192  # characters of a token; issuers that list all of a user's groups come near
_LONGEST_HEADER = 2048  # of its first part, which is read before anything is verified
_REMEMBERED = 4096  # tokens that need no second verification
_CLAIM = optional(min_len(1))
_LIMIT = optional(ge(0))
_SOME: Any = gt(0)
_SMALL: Any = le(600)


@attrs.frozen(kw_only=True)
class Limits:
    """The claims that hold a principal's limits: whole numbers, 0 is no limit."""

    requests_per_minute: str | None = attrs.field(default=None, validator=_CLAIM)
    """In its absence the setting ``requests_per_minute`` counts."""
    tokens_per_minute: str | None = attrs.field(default=None, validator=_CLAIM)
    """In its absence the setting ``tokens_per_minute`` counts."""
    max_concurrency: str | None = attrs.field(default=None, validator=_CLAIM)
    """In its absence the setting ``max_concurrency`` counts."""


def _are_demands(_: Any, field: Any, value: dict[str, Any]) -> None:
    for claim, wanted in value.items():
        if not (alternatives := _alternatives(wanted)) or {type(one) for one in alternatives} - {str, int, bool}:
            raise ValueError(
                f"'{claim}' must be a string, a whole number, true or false, or a list of these; a name "
                "with dots stands in quotes."
            )


def _alternatives(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]


@attrs.frozen(kw_only=True)
class Settings:
    """Claims are named as they stand in the token; dots lead into one that is a table (``realm_access.roles``)."""

    audience: str | tuple[str, ...] = attrs.field(validator=and_(min_len(1), deep_iterable(min_len(1))))
    """What ``aud`` of a token must be or hold, or a list of which one will do: a token made for another service is none
    for this one."""
    issuer: str | None = attrs.field(default=None, validator=_CLAIM)
    """What ``iss`` of a token must be. Without ``jwks`` its keys are found by OpenID Connect Discovery."""
    jwks: str | None = attrs.field(default=None, validator=_CLAIM)
    """Where the keys are: an ``https`` URL, or ``file:/path``. Without ``issuer`` nobody looks at ``iss``."""
    ca_file: str | None = None
    """Certificates of the authorities that vouch for the issuer's address, where the system's do not."""
    algorithms: tuple[Algorithm, ...] = attrs.field(default=("RS256", "ES256", "EdDSA"), validator=min_len(1))
    """Signatures that are taken. A key is only used with those that are meant for its kind."""
    leeway: Duration = attrs.field(default=Duration(30.0), validator=_SMALL)
    """By how much the issuer's clock and ours may differ."""
    refresh: Duration = attrs.field(default=Duration(600.0), validator=_SOME)
    """How often the keys are fetched: a key the issuer has withdrawn is in use at most so long."""
    principal_claim: str = attrs.field(default="sub", validator=min_len(1))
    """The claim that says who is calling. The principal is called ``jwt:`` and this, so that it is nobody in
    ``[keys]``."""
    team_claim: str | None = attrs.field(default=None, validator=_CLAIM)
    """The claim that says to whom the principal belongs; it stands in the log."""
    models_claim: str | None = attrs.field(default=None, validator=_CLAIM)
    """The claim that says which models it may call: a list of globs, or a string of them with spaces between."""
    models: tuple[str, ...] = ("*",)
    """Models of tokens without that claim."""
    limits: Limits = Limits()
    """The claims that say how much it may call."""
    requests_per_minute: int | None = attrs.field(default=None, validator=_LIMIT)
    """0 is no limit; without it the setting of ``[plugins.rate_limit]`` counts."""
    tokens_per_minute: int | None = attrs.field(default=None, validator=_LIMIT)
    """Likewise."""
    max_concurrency: int | None = attrs.field(default=None, validator=_LIMIT)
    """Likewise."""
    required_claims: dict[str, Any] = attrs.field(factory=dict, validator=_are_demands)
    """Claims and what each must be, or hold where it is a list (also ``scope``); of several values one will do:
    ``{ tier = "gold", "realm_access.roles" = ["llm", "admin"] }``. Other tokens are refused."""

    def __attrs_post_init__(self) -> None:
        if self.issuer is None and self.jwks is None:
            raise ValueError("issuer: one of issuer and jwks is required.")


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        _demand_pyjwt()
        import jwt

        self.clock = time
        self._settings = settings
        self._decode = jwt.decode
        # What goes wrong with a token, and what Python makes of numbers and nestings nobody should write.
        self._bad = (jwt.PyJWTError, ValueError, TypeError, KeyError, ArithmeticError, RecursionError)
        self._options = {"require": ["exp", "aud", *(["iss"] if settings.issuer is not None else [])]}
        self._demands = {claim: _alternatives(wanted) for claim, wanted in settings.required_claims.items()}
        # Limit → the claim that holds it, and what counts without that.
        self._limits = {
            field.name: (getattr(settings.limits, field.name), getattr(settings, field.name))
            for field in attrs.fields(Limits)
        }
        # The keys of before a reload: until the first fetch, every token would be refused.
        source = f"{settings.issuer} {settings.jwks} {settings.algorithms}"
        self._known = runtime.keep(source, Known)
        self._jwks = Jwks(self._known, self._source(runtime), settings.algorithms, settings.refresh, runtime.spawn)
        # By the digest of the whole token: principal, and until when.
        self._verified: dict[bytes, tuple[Principal, float]] = {}
        self._verified_with = self._known.keys

    def _source(self, runtime: Runtime) -> Fetch:
        settings = self._settings
        if settings.jwks is None:
            assert settings.issuer is not None  # see Settings
            return from_issuer(runtime.upstream, settings.issuer, settings.ca_file)
        scheme, _, path = settings.jwks.partition(":")
        if scheme != "file":
            return from_url(runtime.upstream, settings.jwks, settings.ca_file)
        # What lies on our own disk must be right at the start; what becomes of it later does no harm.
        self._known.take(orjson.loads(Path(path).read_bytes()), settings.algorithms)
        return from_file(Path(path))

    @hookimpl
    def on_startup(self, runtime: Runtime) -> None:
        runtime.spawn(self._jwks.keep_fresh(), "keep the keys of tokens")

    @hookimpl
    def on_request(self, exchange: Exchange) -> Awaitable[None] | None:
        if exchange.principal is not None:
            return None  # one before it knows who that is
        token = credential(exchange)
        if token is None or len(token) > _LONGEST:
            raise Unauthenticated
        digest = sha256(token.encode("utf-8", "surrogatepass")).digest()
        principal = self._remembered(digest)
        if principal is None:
            name = self._key_name(token)
            key = self._known.keys.get(name)
            if key is None:
                return self._look_again(exchange, token, digest, name)
            principal = self._verify(token, digest, key)
        exchange.principal = principal
        return None

    def _remembered(self, digest: bytes) -> Principal | None:
        if self._verified_with is not self._known.keys:
            # The key that signed it may have been withdrawn.
            self._verified_with = self._known.keys
            self._verified.clear()
        principal, ends = self._verified.get(digest, (None, 0.0))
        return principal if self.clock() < ends else None

    def _key_name(self, token: str) -> tuple[str | None, str]:
        """``kid`` and ``alg``, from a header nobody has vouched for.

        All else in it (``jku``, ``jwk``, ``x5c``) would let the token say by which key it wants to be judged.
        """
        head, *others = token.split(".", 3)
        if len(others) != 2 or len(head) > _LONGEST_HEADER:
            raise Unauthenticated
        try:
            header = orjson.loads(urlsafe_b64decode(head + "=" * (-len(head) % 4)))
        except ValueError:
            raise Unauthenticated from None
        if not isinstance(header, dict) or header.get("alg") not in self._settings.algorithms or "crit" in header:
            raise Unauthenticated
        kid = header.get("kid")
        if kid is not None and not isinstance(kid, str):
            raise Unauthenticated
        return kid, header["alg"]

    async def _look_again(self, exchange: Exchange, token: str, digest: bytes, name: tuple[str | None, str]) -> None:
        """The issuer may have a new key; or there are none yet, and then nobody is let in."""
        if self._known.keys:
            await self._jwks.look_again()
        key = self._known.keys.get(name)
        if key is not None:
            exchange.principal = self._verify(token, digest, key)
        elif self._known.keys:
            raise Unauthenticated
        else:
            raise Overloaded("The gateway cannot check tokens at the moment.", retry_after=PAUSE)

    def _verify(self, token: str, digest: bytes, key: Any) -> Principal:
        settings = self._settings
        try:
            claims = self._decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway,
                options=self._options,
            )
            principal, ends = self._principal(claims), int(claims["exp"]) + settings.leeway
        except self._bad as error:
            # Texts may quote claims; the kind is what an operator looks for.
            log.debug("a token was refused: %s", type(error).__name__)
            raise Unauthenticated from None
        if len(self._verified) >= _REMEMBERED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = (principal, ends)
        return principal

    def _principal(self, claims: dict[str, Any]) -> Principal:
        """Raises ``ValueError`` for claims that are not what they should be."""
        settings = self._settings
        if not all(holds(claims, claim, wanted) for claim, wanted in self._demands.items()):
            raise ValueError("a claim that is demanded")
        models, team = find(claims, settings.models_claim), find(claims, settings.team_claim)
        limits: dict[str, Any] = {
            name: default if (value := find(claims, claim)) is None else as_limit(value)
            for name, (claim, default) in self._limits.items()
        }
        return Principal(
            f"jwt:{as_name(find(claims, settings.principal_claim))}",
            settings.models if models is None else as_globs(models),
            team=None if team is None else as_name(team),
            **limits,
        )


def _demand_pyjwt() -> None:
    if not (find_spec("jwt") and find_spec("cryptography")):
        raise ValueError("needs PyJWT: pip install 'hookgate[jwt]'")
