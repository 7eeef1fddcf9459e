"""Which models take what: the table behind ``Capabilities``. ``[capabilities."GLOB"]`` in gateway.toml comes on top.

Facts: Anthropic's API reference and model pages (versions of 2026), OpenAI's reference, as of November 2026.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import attrs

from gateway.dialects.capabilities import Capabilities

Row = tuple[tuple[str, ...], Mapping[str, Any]]

_CLAUDE_EFFORTS = ("low", "medium", "high", "max")
_ALL_EFFORTS = ("low", "medium", "high", "xhigh", "max")
# Names as the vendors' own; clouds put a region or vendor in front (``us.anthropic.claude-…``) and a version behind.
TABLE: tuple[Row, ...] = (
    (("*claude*",), {"efforts": (), "max_output": 8192}),
    (("*claude-3-haiku*",), {"max_output": 4096}),
    (("*claude-[a-z]*-4*", "*claude-[a-z]*-5*", "*claude-fable*", "*claude-mythos*"), {"max_output": 32000}),
    (("*claude-opus-4-[5-9]*",), {"efforts": ("low", "medium", "high")}),
    (
        ("*claude-opus-4-[6-9]*", "*claude-opus-5*", "*claude-sonnet-4-[6-9]*", "*claude-sonnet-5*", "*claude-haiku-5*",
         "*claude-fable*", "*claude-mythos*"),
        {"adaptive_thinking": True, "prefill": False, "efforts": _CLAUDE_EFFORTS},
    ),
    (
        ("*claude-opus-4-[7-9]*", "*claude-opus-5*", "*claude-sonnet-5*", "*claude-haiku-5-5*", "*claude-fable*",
         "*claude-mythos*"),
        {"sampling": False, "budget_thinking": False, "efforts": _ALL_EFFORTS},
    ),
    (
        ("*claude-opus-4-8*", "*claude-opus-5*", "*claude-sonnet-5*", "*claude-haiku-5-5*", "*claude-fable*",
         "*claude-mythos*"),
        {"mid_system": True},
    ),
    (
        ("*claude-fable*", "*claude-mythos*", "*claude-opus-5-5*", "*claude-sonnet-5-5*"),
        {"always_thinks": True},
    ),
    (
        ("*claude-fable-5-1*", "*claude-mythos-5-1*", "*claude-opus-5-5*", "*claude-sonnet-5-5*"),
        {"forced_tools": False},
    ),
    (("o1*", "o3*", "o4*", "gpt-5*"), {"sampling": False}),
    (("gpt-5*",), {"efforts": ("minimal", "low", "medium", "high", "xhigh")}),
    (("gpt-3.5*", "gpt-4*", "chatgpt*"), {"efforts": ()}),
    (("*gemini-3*",), {"budget_thinking": False, "signed_calls": True}),
    (("*gemini-2.0*", "*gemini-1*"), {"efforts": (), "budget_thinking": False}),
)  # fmt: skip


class Models:
    """Looks capabilities up; ``overrides`` are the configuration's, glob → flags, later ones on top."""

    def __init__(self, overrides: Iterable[Row] = ()) -> None:
        rows = (*TABLE, *overrides)
        self.of = lru_cache(maxsize=1024)(lambda model: _merged(rows, model))
        """The capabilities of an upstream model, by its name."""


def _merged(rows: Iterable[Row], model: str) -> Capabilities:
    flags: dict[str, Any] = {}
    for globs, more in rows:
        if any(fnmatchcase(model, glob) for glob in globs):
            flags |= more
    return attrs.evolve(Capabilities(), **flags)
