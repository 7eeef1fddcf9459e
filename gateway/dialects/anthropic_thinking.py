"""Canonical reasoning → Anthropic's ``thinking`` and ``output_config.effort``, by what the model can; and the way back.

Newer models are asked for ``adaptive`` thinking with an effort, older ones for a number of tokens. What the same
request cannot have beside it decides which of the two gives way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from gateway.dialects.capabilities import Capabilities
from gateway.dialects.dropped import Dropped, table
from gateway.errors import InvalidRequest

EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "max")
"""OpenAI's words, weakest first; ``none`` is the seventh."""
# Tokens for a model that knows no effort; the figures pydantic-ai uses.
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 10_000, "high": 16_384, "xhigh": 32_768, "max": 32_768}
_LEAST = 1024
_READ = ("effort", "max_tokens", "enabled", "exclude", "summary")


@attrs.define
class Thinking:
    """What the request will say about thinking. ``kind`` is Anthropic's; ``None`` says nothing."""

    kind: str | None = None
    budget: int | None = None
    effort: str | None = None
    hidden: bool = False

    @classmethod
    def asked(cls, chat: Mapping[str, Any], caps: Capabilities, dropped: Dropped) -> Thinking:
        """What the client asks for, as far as the model can. Raises ``InvalidRequest``."""
        reasoning = table(chat, "reasoning")
        dropped.others(reasoning, _READ, "reasoning.")
        effort = chat.get("reasoning_effort") or reasoning.get("effort")
        budget, enabled = reasoning.get("max_tokens"), reasoning.get("enabled")
        if effort is not None and effort not in (*EFFORTS, "none"):
            raise InvalidRequest(f"reasoning_effort: must be one of none, {', '.join(EFFORTS)}.")
        if budget is not None and (type(budget) is not int or budget < 0):
            raise InvalidRequest("reasoning.max_tokens: must be a number of tokens.")
        if effort == "none" or enabled is False or budget == 0:
            return cls._off(caps, dropped)
        if effort is None and budget is None and not enabled:
            return cls()
        thinking = cls._on(effort, budget, caps, dropped)
        thinking.hidden = bool(reasoning.get("exclude"))
        return thinking

    @classmethod
    def _on(cls, effort: str | None, budget: int | None, caps: Capabilities, dropped: Dropped) -> Thinking:
        if budget is not None and caps.budget_thinking:
            strength = effort if caps.adaptive_thinking else None  # the budget says it already
            known = _known(strength, caps.efforts, dropped)
            return cls("enabled", max(budget, _LEAST), known)
        if caps.adaptive_thinking:
            if budget is not None:
                dropped.add("reasoning.max_tokens")
                effort = effort or _nearest(budget)
            return cls("adaptive", None, _known(effort, caps.efforts, dropped))
        if caps.budget_thinking:
            return cls("enabled", _BUDGETS[effort or "medium"])
        dropped.add("reasoning_effort")
        return cls()

    @classmethod
    def _off(cls, caps: Capabilities, dropped: Dropped) -> Thinking:
        if caps.always_thinks:
            dropped.add("reasoning_effort")
            return cls()
        # A model without any thinking need not be told.
        return cls("disabled") if caps.adaptive_thinking or caps.budget_thinking else cls()

    def give_way(self, messages: list[dict[str, Any]], choice: Mapping[str, Any] | None, dropped: Dropped) -> None:
        """Thinking by budget goes where a tool is forced, or where the running turn began without its signed thinking.

        Both are refused together with it; a forced tool is what the answer's shape depends on, thinking is a wish.
        """
        if self.kind != "enabled":
            return
        forced = choice is not None and choice["type"] in ("any", "tool")
        if forced or _unsigned_turn(messages):
            dropped.add("reasoning_effort")
            self.kind = self.budget = None

    def write(self, request: dict[str, Any], dropped: Dropped) -> dict[str, Any]:
        """Sets ``thinking``; returns the beginning of ``output_config``.

        The budget must be below ``max_tokens``, which at OpenAI is for both: half of it is left to the answer.
        """
        if self.budget is not None and self.budget >= request["max_tokens"]:
            self.budget = request["max_tokens"] // 2
            if self.budget < _LEAST:
                dropped.add("reasoning_effort")
                self.kind = self.budget = None
        if self.kind is not None:
            request["thinking"] = {"type": self.kind}
            if self.budget is not None:
                request["thinking"]["budget_tokens"] = self.budget
            if self.hidden:
                request["thinking"]["display"] = "omitted"
        return {"effort": self.effort} if self.effort is not None else {}


def reasoning_of(thinking: Mapping[str, Any], dropped: Dropped) -> dict[str, Any]:
    """Anthropic's ``thinking`` in canonical fields."""
    dropped.others(thinking, ("type", "budget_tokens", "display"), "thinking.")
    kind = thinking.get("type")
    if kind == "disabled":
        return {"reasoning_effort": "none"}
    if kind not in ("enabled", "adaptive"):
        if thinking:
            dropped.add("thinking")
        return {}
    reasoning: dict[str, Any] = {"enabled": True}
    if (budget := thinking.get("budget_tokens")) is not None:
        reasoning["max_tokens"] = budget
    if thinking.get("display") == "omitted":
        reasoning["exclude"] = True
    return {"reasoning": reasoning}


def _unsigned_turn(messages: list[dict[str, Any]]) -> bool:
    """Whether the answer will go on from tool results whose calls lack the thinking in front of them."""
    if messages[-1]["role"] != "user" or messages[-1]["content"][0]["type"] != "tool_result":
        return False
    calls = next((message["content"] for message in reversed(messages) if message["role"] == "assistant"), None)
    return calls is not None and calls[0]["type"] not in ("thinking", "redacted_thinking")


def _nearest(budget: int) -> str:
    return next((effort for effort, tokens in _BUDGETS.items() if budget <= tokens), "max")


def _known(effort: str | None, efforts: tuple[str, ...], dropped: Dropped) -> str | None:
    """The effort, or the strongest one below it that the model knows, or its weakest. Anthropic has no ``minimal``."""
    known = [each for each in EFFORTS if each in efforts and each != "minimal"]
    if effort is None or effort in known:
        return effort
    dropped.add("reasoning_effort")
    if not known:
        return None
    weaker = [each for each in known if EFFORTS.index(each) < EFFORTS.index(effort)]
    return weaker[-1] if weaker else known[0]
