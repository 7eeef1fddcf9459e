"""Client certificates: who is calling, by a certificate that nginx has verified. Decides on headers alone, before the
body is read.

What is said of a certificate is believed where the peer is one of ``[server] trusted_proxies``, and from nobody else.
Stands alone or directly behind ``auth``; whoever has no certificate is left to whom comes next.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import attrs
from attrs.validators import and_, matches_re, min_len

from gateway import Exchange, Principal, Runtime, hookimpl
from gateway.authenticators import is_last
from gateway.config import Key, Server, did_you_mean
from gateway.errors import Unauthenticated
from gateway.proxies import Proxies

log = logging.getLogger("hookgate")

_HEADER = matches_re(r"[A-Za-z0-9-]+")
# As RFC 2253 writes names: the attribute first, no slash before it.
_SUBJECT = re.compile(r"[A-Za-z0-9.]+=[ -~]*")
# Of SHA-1 or SHA-256. The former will do: who wants to pass for another needs a certificate that the authority has
# signed and that has the digest of one he did not choose, a second preimage.
_FINGERPRINT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def _are_certificates(_: Any, field: Any, value: dict[str, str]) -> None:
    for name in value:
        # A comma in a value has a backslash in front; one that separates has no space behind it.
        is_subject = _SUBJECT.fullmatch(name) and ", " not in name.replace("\\,", "")
        if not is_subject and not _FINGERPRINT.fullmatch(_digits(name)):
            raise ValueError(
                f"{name!r} is neither a subject such as 'CN=alice,O=Example' (RFC 2253, no space behind "
                "the comma) nor the hexadecimal digits of a fingerprint."
            )


@attrs.frozen(kw_only=True)
class Settings:
    principals: dict[str, str] = attrs.field(validator=and_(min_len(1), _are_certificates))
    """Certificates, and each one's holder: the NAME of a ``[keys.NAME]``, where models and limits stand. A certificate
    is named by its whole subject as nginx writes it, ``"CN=alice,O=Example"``, or by its fingerprint in hexadecimal."""
    verify_header: str = attrs.field(default="x-ssl-client-verify", validator=_HEADER)
    """``$ssl_client_verify``: ``SUCCESS``; ``NONE`` for a client without a certificate."""
    subject_header: str = attrs.field(default="x-ssl-client-s-dn", validator=_HEADER)
    """``$ssl_client_s_dn``."""
    fingerprint_header: str = attrs.field(default="x-ssl-client-fingerprint", validator=_HEADER)
    """``$ssl_client_fingerprint``, a SHA-1; a SHA-256 will do, too."""


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._proxies = _proxies(runtime.config.server)
        self._is_last = is_last(runtime.config.plugins.chain, "auth_mtls")
        self._headers = (settings.verify_header, settings.subject_header, settings.fingerprint_header)
        self._subjects: dict[str | None, Principal] = {}
        self._fingerprints: dict[str | None, Principal] = {}
        for certificate, name in settings.principals.items():
            principal = _holder(name, runtime.config.keys)
            if "=" in certificate:
                self._subjects[certificate] = principal
            elif self._fingerprints.setdefault(_digits(certificate), principal) is not principal:
                raise ValueError(f"principals: {certificate!r} stands there twice.")

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        if exchange.principal is not None:
            return  # auth knows the key
        if self._proxies.vouch_for(exchange.request):
            exchange.principal = self._told(exchange)
        if exchange.principal is None and self._is_last:
            raise Unauthenticated

    def _told(self, exchange: Exchange) -> Principal | None:
        """Whose certificate the proxy has seen; ``None`` if it has seen none, or nobody's.

        Raises ``Unauthenticated`` for one that it has not accepted, and where it is not clear what it says.
        """
        verified, subject, fingerprint = [_one(exchange.request.headers.getall(name, ())) for name in self._headers]
        if verified is None or verified == "NONE":
            return None
        if verified != "SUCCESS":
            raise Unauthenticated
        by_subject = self._subjects.get(subject)
        by_fingerprint = self._fingerprints.get(_digits(fingerprint or ""))
        if by_subject and by_fingerprint and by_subject.name != by_fingerprint.name:
            raise Unauthenticated
        if not by_subject and not by_fingerprint:
            log.debug("a certificate is nobody's: %r, %r", subject, fingerprint)
        return by_subject or by_fingerprint


def _one(values: list[str]) -> str | None:
    """The value of a header that may be there once, in the characters nginx writes. Raises ``Unauthenticated``."""
    if not values:
        return None
    (value, *others) = values
    if others or not value.isascii() or not value.isprintable():
        raise Unauthenticated
    return value


def _digits(fingerprint: str) -> str:
    """As nginx writes them; openssl sets colons between."""
    return fingerprint.replace(":", "").lower()


def _holder(name: str, keys: dict[str, Key]) -> Principal:
    if name not in keys:
        raise ValueError(f"principals: there is no [keys.{name}].{did_you_mean(name, keys)}")
    return keys[name].principal(name)


def _proxies(server: Server) -> Proxies:
    """Raises ``ValueError`` where everybody or nobody would be believed."""
    proxies = Proxies(server.trusted_proxies)
    if not server.trusted_proxies or (server.host.startswith("unix:") and not proxies.have("127.0.0.1")):
        raise ValueError(
            "[server] trusted_proxies must have the address of the proxy that verifies certificates (of one on a unix "
            "socket 127.0.0.1), because nobody else is believed."
        )
    if any(network.prefixlen == 0 for network in server.trusted_proxies):
        raise ValueError("[server] trusted_proxies has every address there is, so anybody could say who he is.")
    return proxies
