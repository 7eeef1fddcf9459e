"""An answer in no dialect: what it says, why it ended, what it used."""

from __future__ import annotations

from typing import Any

import attrs

Json = Any
_FINISH = {
    # OpenAI's own words are themselves
    "end_turn": "stop", "stop_sequence": "stop", "pause_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length",
    "refusal": "content_filter", "STOP": "stop", "MAX_TOKENS": "length", "SAFETY": "content_filter",
    "COMPLETE": "stop", "TOOL_CALL": "tool_calls", "STOP_SEQUENCE": "stop", "completed": "stop",
    "max_output_tokens": "length", "guardrail_intervened": "content_filter", "RECITATION": "content_filter",
    "model_context_window_exceeded": "length",
}  # fmt: skip


@attrs.frozen
class Counts:
    """Tokens in OpenAI's counting (PROTOCOLS, part 9): input with what was cached and written, output with reasoning.

    ``None``: not said.
    """

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    written: int | None = None
    reasoning: int | None = None

    def known(self) -> Counts:
        """With zeros for what was not said: some dialects demand a number."""
        return Counts(*(value or 0 for value in attrs.astuple(self)))


@attrs.define
class Told:
    """One answer."""

    text: str = ""
    calls: list[tuple[str, Json]] = attrs.field(factory=list)
    """Name and arguments of each."""
    reason: str | None = None
    """Why it ended, in its own dialect's word."""
    counts: Counts | None = None
    error: bool = False
    """It ends in an error event."""

    @property
    def finish(self) -> str:
        """``reason`` in OpenAI's word; what calls tools and ended well ended for that."""
        word = _FINISH.get(self.reason or "", self.reason) or "stop"  # some servers never say
        return "tool_calls" if self.calls and word == "stop" else word
