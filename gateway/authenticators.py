"""The plugins that find out who is calling, each by a proof of its own, and what they agree on.

They stand directly behind one another. Each sets ``exchange.principal`` where the proof is of its kind and good, leaves
alone whom one before it has found, and passes by what is not its kind. The last one in the chain refuses whom none of
them has found.
"""

from __future__ import annotations

from collections.abc import Sequence

AUTHENTICATORS = ("auth", "auth_mtls", "auth_jwt")
"""In the order in which they stand: tokens come last, because a token may have to wait for its issuer's keys, and all
that is left by then is a token or nothing."""


def is_last(chain: Sequence[str], name: str) -> bool:
    """Whether the plugin ``name`` refuses whom it does not know."""
    return set(chain[chain.index(name) + 1 :]).isdisjoint(AUTHENTICATORS)


def misplaced(chain: Sequence[str]) -> str:
    """What is wrong with their places; empty if nothing is."""
    there = [name for name in AUTHENTICATORS if name in chain]
    first = min((chain.index(name) for name in there), default=0)
    if list(chain[first : first + len(there)]) == there:
        return ""
    # Between them, requests pass that none of them has accepted yet.
    return f"{', '.join(map(repr, there))} must stand directly behind one another, in this order."
