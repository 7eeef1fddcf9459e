"""What the claims of a token say, once its signature holds: where a claim is, and what may be read out of it.

All of it raises ``ValueError`` for what is not as it should be: a claim nobody can read is not one that is absent.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

LONGEST_NAME = 255
"""Characters of a principal or team; OpenID Connect Core 1.0 section 2 has no longer ``sub``."""
_WORDS = ("scope", "scp")
"""Claims that are lists written as a string with spaces: RFC 8693 section 4.2, and what Microsoft calls the same."""


def find(claims: Any, path: str | None) -> Any:
    """The claim called ``path``, or where there is none the one that its dots lead to; ``None`` if there is neither.

    Names have dots of their own (``https://example.com/roles``), so the longest name that is there is followed.
    """
    if path is None or claims is None:
        return None
    if not isinstance(claims, dict):
        raise ValueError("no table of claims")
    if path in claims:
        return claims[path]
    head = path
    while "." in head:
        head = head.rpartition(".")[0]
        if head in claims:
            return find(claims[head], path[len(head) + 1 :])
    return None


def holds(claims: Any, path: str, wanted: Collection[Any]) -> bool:
    """Whether the claim is one of ``wanted``, or a list that has one of them in it."""
    value = find(claims, path)
    if isinstance(value, str) and path in _WORDS:
        value = value.split()
    given = value if isinstance(value, list) else [value]
    # For Python, True is 1.
    return any(type(one) is type(other) and one == other for one in given for other in wanted)


def as_name(value: Any) -> str:
    """Of a principal or team."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME or not value.isprintable():
        raise ValueError("no name")
    return value


def as_globs(value: Any) -> tuple[str, ...]:
    """A list of them, or a string with spaces between."""
    globs = value.split() if isinstance(value, str) else value
    if not isinstance(globs, list) or not all(isinstance(glob, str) for glob in globs):
        raise ValueError("no globs")
    return tuple(globs)


def as_limit(value: Any) -> int:
    """A whole number; 0 is no limit."""
    if type(value) is not int or value < 0:
        raise ValueError("no limit")
    return value
