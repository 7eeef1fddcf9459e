"""Sends the requests of a session to one target while that may be called, so that the provider's prompt cache is warm.

Nothing is remembered: weighted rendezvous hashing ranks the targets anew each time (Thaler, Ravishankar 1998; weights
as by Schindelhauer, Schomaker 2005). When targets come or go, only the sessions that were or will be theirs move.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import log
from time import monotonic

import attrs
from multidict import istr

from gateway import Exchange, Runtime, Target, hookimpl
from gateway.selection import available, matcher


@attrs.frozen(kw_only=True)
class Settings:
    models: tuple[str, ...] = ("*",)
    """Globs of the models, by the names clients send, whose targets are ordered here."""
    headers: tuple[str, ...] = ("session-id", "x-session-id", "thread-id", "x-claude-code-session-id", "session_id")
    """Where clients name their session; the first that is there counts. Requests without one are not ordered here."""


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._decides = matcher(settings.models)
        self._headers = tuple(map(istr, settings.headers))
        self._targets = runtime.targets
        self.clock = monotonic

    @hookimpl
    def select(self, exchange: Exchange, targets: Sequence[Target]) -> Sequence[Target] | None:
        if len(targets) < 2 or not self._decides(exchange.model):
            return None
        session = next((value for name in self._headers if (value := exchange.headers.get(name))), None)
        if session is None:
            return None
        # Two principals' sessions of one name are two sessions.
        principal = exchange.principal.name if exchange.principal is not None else ""
        key = blake2b(f"{len(principal)}:{principal}{session}".encode("utf-8", "surrogatepass"), digest_size=8)
        ready, others = available(targets, self._targets, self.clock())
        ready.sort(key=lambda target: _rank(key.copy(), target))
        return ready + others


def _rank(key: blake2b, target: Target) -> float:
    """Lowest first: -ln(h) / weight for a hash h in (0, 1), which is first with the chance of the weight's share."""
    key.update(b"\0" + target.name.encode())
    h = ((int.from_bytes(key.digest(), "big") >> 12) + 0.5) / (1 << 52)  # 53 bits, so that it is below 1.0
    return -log(h) / target.weight
