"""What a model can take, as data: translations ask these flags, never the model's name."""

from __future__ import annotations

from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class Capabilities:
    """What one upstream model can take. The defaults suit most; ``gateway.dialects.models`` lists what differs."""

    sampling: bool = True
    """``temperature``, ``top_p``, ``top_k``; refused even at their defaults where false."""
    prefill: bool = True
    """A last message of the assistant is continued."""
    forced_tools: bool = True
    """``tool_choice`` may force a tool."""
    adaptive_thinking: bool = False
    """Thinking is asked for as ``adaptive`` with an effort."""
    budget_thinking: bool = True
    """Thinking is asked for with a number of tokens."""
    always_thinks: bool = False
    """Thinking cannot be switched off."""
    efforts: tuple[str, ...] = ("minimal", "low", "medium", "high")
    """Values of ``reasoning_effort`` it knows, weakest first; empty: none."""
    mid_system: bool = False
    """``system`` messages between others are taken where they stand."""
    json_schema: bool = True
    """Tools and answers are described in JSON Schema; false: in Gemini's subset of OpenAPI, which says less."""
    signed_calls: bool = False
    """Tool calls of the history must carry the provider's signature (Gemini 3)."""
    max_output: int | None = None
    """Most tokens of an answer; the default where the dialect demands a number and the client gives none."""
    max_completion_tokens: bool = True
    """OpenAI-compatible servers: knows ``max_completion_tokens``; else ``max_tokens``."""
    images: bool = True
    documents: bool = True
    audio: bool = True


def _or_none(kind: Any) -> Any:
    return kind | None


Flags: Any = attrs.make_class(
    "Flags",
    {
        field.name: attrs.field(default=None, type=_or_none(field.type))
        for field in attrs.fields(attrs.resolve_types(Capabilities))
    },
    frozen=True,
    kw_only=True,
)
"""``[capabilities."GLOB"]``: what upstream models of such names can take, where the built-in table is wrong or silent.
The keys are those of ``gateway.dialects.capabilities.Capabilities``."""
