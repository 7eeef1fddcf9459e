"""``Cache-Control`` of requests: what a client asks of the response cache (RFC 9111 section 5.2.1)."""

from __future__ import annotations

import re
from functools import lru_cache
from math import inf

import attrs


@attrs.frozen
class Wish:
    """What a request's ``Cache-Control`` asks for."""

    store: bool = True
    read: bool = True
    only_cached: bool = False
    max_age: float = inf
    """Seconds."""
    asked: bool = False
    """The client wants this cached although the rules would not."""


NO_WISH = Wish()
"""Of a request without the header."""


@lru_cache(maxsize=256)
def parse_cache_control(value: str) -> Wish:
    """Read the header. Unknown directives are ignored; of two equal ones the first counts, and an age that is no number
    is 0 (RFC 9111 section 4.2.1)."""
    given: dict[str, str] = {}
    for item in value.split(","):
        name, _, argument = item.partition("=")
        given.setdefault(name.strip().lower(), argument.strip().strip('"'))
    age = given.get("max-age")
    max_age = inf if age is None else float(age) if re.fullmatch("[0-9]+", age) else 0.0
    only_cached = "only-if-cached" in given
    return Wish(
        store="no-store" not in given,
        read="no-store" not in given and "no-cache" not in given,
        only_cached=only_cached,
        max_age=max_age,
        asked=only_cached or (age is not None and max_age > 0),
    )
