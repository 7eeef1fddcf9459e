"""What is asked of reasoning → Anthropic's thinking and effort, by what a model can."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.anthropic_messages import request_from_chat
from gateway.dialects.capabilities import Capabilities

ADAPTIVE = Capabilities(
    adaptive_thinking=True, budget_thinking=False, efforts=("low", "medium", "high", "max"), max_output=128_000
)
BUDGET = Capabilities(max_output=64_000)
PLAIN = Capabilities(budget_thinking=False)
ALWAYS = Capabilities(adaptive_thinking=True, budget_thinking=False, always_thinks=True, efforts=("low", "high"))
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def asked(caps: Capabilities, **fields: Any) -> tuple[Any, Any, list[str]]:
    chat = {"messages": [{"role": "user", "content": "hi"}], **fields}
    request, dropped = request_from_chat(chat, "m", caps=caps)
    return request.get("thinking"), request.get("output_config", {}).get("effort"), dropped


def budget(tokens: int) -> dict[str, Any]:
    return {"type": "enabled", "budget_tokens": tokens}


@pytest.mark.parametrize(
    ("caps", "fields", "thinking", "effort", "dropped"),
    [
        (ADAPTIVE, {}, None, None, []),
        (ADAPTIVE, {"reasoning_effort": "high"}, {"type": "adaptive"}, "high", []),
        (ADAPTIVE, {"reasoning_effort": "xhigh"}, {"type": "adaptive"}, "high", ["reasoning_effort"]),
        (ADAPTIVE, {"reasoning": {"effort": "minimal"}}, {"type": "adaptive"}, "low", ["reasoning_effort"]),
        (ADAPTIVE, {"reasoning": {"enabled": True}}, {"type": "adaptive"}, None, []),
        (ADAPTIVE, {"reasoning": {"max_tokens": 20_000}}, {"type": "adaptive"}, "high",
         ["reasoning.max_tokens", "reasoning_effort"]),
        (ADAPTIVE, {"reasoning_effort": "none"}, {"type": "disabled"}, None, []),
        (ADAPTIVE, {"reasoning": {"enabled": False}}, {"type": "disabled"}, None, []),
        (ALWAYS, {"reasoning_effort": "none"}, None, None, ["reasoning_effort"]),
        (ALWAYS, {"reasoning_effort": "medium"}, {"type": "adaptive"}, "low", ["reasoning_effort"]),
        (BUDGET, {"reasoning_effort": "minimal"}, budget(1024), None, []),
        (BUDGET, {"reasoning_effort": "high"}, budget(16_384), None, []),
        (BUDGET, {"reasoning": {"enabled": True}}, budget(10_000), None, []),
        (BUDGET, {"reasoning": {"max_tokens": 7}}, budget(1024), None, []),
        (BUDGET, {"reasoning": {"max_tokens": 5000, "exclude": True}}, budget(5000) | {"display": "omitted"}, None, []),
        (BUDGET, {"reasoning_effort": "high", "max_tokens": 4000}, budget(2000), None, []),
        (BUDGET, {"reasoning_effort": "high", "max_tokens": 1500}, None, None, ["reasoning_effort"]),
        (PLAIN, {"reasoning_effort": "high"}, None, None, ["reasoning_effort"]),
        (PLAIN, {"reasoning_effort": "none"}, None, None, []),
        (Capabilities(adaptive_thinking=True, efforts=()), {"reasoning_effort": "low"}, {"type": "adaptive"}, None,
         ["reasoning_effort"]),
        (Capabilities(adaptive_thinking=True, efforts=("low",)), {"reasoning": {"max_tokens": 2000, "effort": "low"}},
         budget(2000), "low", []),
    ],
)  # fmt: skip
def test_asked(caps: Capabilities, fields: Any, thinking: Any, effort: str | None, dropped: list[str]) -> None:
    assert asked(caps, **fields) == (thinking, effort, dropped)


def test_anthropic_s_own_field_from_an_openai_client_wins() -> None:
    own = {"thinking": {"type": "enabled", "budget_tokens": 3000}, "reasoning": {"max_tokens": 9000}}
    assert asked(BUDGET, **own) == (budget(3000), None, [])
    assert asked(BUDGET, thinking={"type": "disabled"}, reasoning_effort="high") == ({"type": "disabled"}, None, [])
    assert asked(BUDGET, thinking={"type": "between_tools"}) == (None, None, ["thinking"])


def test_a_forced_tool_wins_over_thinking_by_budget() -> None:
    forced = {"tools": TOOLS, "tool_choice": "required", "reasoning_effort": "low"}
    assert asked(BUDGET, **forced) == (None, None, ["reasoning_effort"])
    assert asked(ADAPTIVE, **forced)[0] == {"type": "adaptive"}
    assert asked(BUDGET, **{**forced, "tool_choice": "auto"})[0] == budget(2048)


def test_a_tool_loop_that_began_without_signed_thinking_goes_on_without_it() -> None:
    detail = {"type": "reasoning.text", "text": "Hm.", "signature": "s", "format": "anthropic-claude-v1", "index": 0}

    def loop(**signed: Any) -> Any:
        messages = [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "tool_calls": [CALL], **signed},
            {"role": "tool", "tool_call_id": "1", "content": "x"},
        ]
        return asked(BUDGET, messages=messages, tools=TOOLS, reasoning_effort="low")

    assert loop() == (None, None, ["reasoning_effort"])
    assert loop(reasoning_details=[detail]) == (budget(2048), None, [])
