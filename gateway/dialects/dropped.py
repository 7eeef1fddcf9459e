"""What a translation leaves behind, for the ``x-gateway-dropped`` header; and what it cannot work with at all."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from gateway.errors import InvalidRequest

_NAME = re.compile(
    r"[A-Za-z0-9_.-]{1,64}"
)  # clients choose the names of unknown fields, and a header has to carry them
_MOST = 32
# Values of OpenAI's fields that ask for nothing but what happens anyway.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,), "detail": ("auto",), "echo": (False,), "logprobs": (False,), "modalities": (["text"],), "n": (1,),
    "parallel_tool_calls": (True,), "service_tier": ("auto", "default"), "store": (False,), "strict": (False,),
    "verbosity": ("medium",),
}  # fmt: skip


class Dropped:
    """Collects the names of fields that a request could not carry over."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def add(self, name: str) -> None:
        self._names[name if _NAME.fullmatch(name) else "unknown"] = None

    def others(self, table: Mapping[str, Any], known: Collection[str], prefix: str = "") -> None:
        """Add the fields of ``table`` that are not ``known``, where their value asks for something."""
        for name, value in table.items():
            if name not in known and value is not None and value not in ([], {}, *_NEUTRAL.get(name, ())):
                self.add(prefix + name)

    @property
    def names(self) -> list[str]:
        """Each once, in order; past 32 only ``more``."""
        names = list(self._names)
        return [*names[:_MOST], "more"] if len(names) > _MOST else names


def table(parent: Mapping[str, Any], name: str, where: str = "") -> dict[str, Any]:
    """``parent[name]``, an object where it is given. Raises ``InvalidRequest``; ``where`` names the parent."""
    value = parent.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where}{'.' if where else ''}{name}: must be an object.")
    return value
