"""The proxies in front: whose word is believed when they say for whom they ask."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address

from aiohttp import web


class Proxies:
    """``[server] trusted_proxies``. Whoever connects by way of a unix socket counts as 127.0.0.1."""

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        self._networks = tuple(networks)

    def vouch_for(self, request: web.Request) -> bool:
        """Whether it came from one of them, so that its headers are theirs and not a client's."""
        return bool(self._networks) and self.have(_peer(request) or "127.0.0.1")

    def have(self, address: str) -> bool:
        """Whether ``address`` is one of theirs."""
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)

    def client_ip(self, request: web.Request) -> str:
        """The peer, or what trusted proxies say of it: the right-most address that is not a trusted proxy's."""
        address = _peer(request)
        if "X-Forwarded-For" not in request.headers or not self.vouch_for(request):
            return address
        hops = [hop.strip() for value in request.headers.getall("X-Forwarded-For") for hop in value.split(",")]
        for hop in reversed(hops):
            plain = _plain_address(hop)
            if plain is None:
                return address  # junk: nothing beyond it can be believed
            address = plain
            if not self.have(plain):
                break
        return address


def _peer(request: web.Request) -> str:
    """Its address; empty on a unix socket."""
    peer: str = request.protocol.peer  # type: ignore[attr-defined]
    return peer


def _plain_address(hop: str) -> str | None:
    """The address in one X-Forwarded-For item, without brackets and port; ``None`` for junk."""
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    try:
        return str(ip_address(hop))
    except ValueError:
        return None
