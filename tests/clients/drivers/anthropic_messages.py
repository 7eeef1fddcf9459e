"""Anthropic's Python client, of either major version."""

from __future__ import annotations

from typing import Any

import report
from anthropic import Anthropic

TOOL: Any = {"name": "weather", "description": report.WEATHER, "input_schema": report.SCHEMA}


def connect(key: str) -> Any:
    return Anthropic(base_url=report.URL, api_key=key, max_retries=0)


client = connect(report.KEY)


def ask(key: str, model: str) -> Any:
    messages: list[Any] = [{"role": "user", "content": report.QUESTION}]
    return connect(key).messages.create(model=model, max_tokens=100, messages=messages)


def whole(model: str, streamed: bool = False, tools: list[Any] | None = None) -> Any:
    messages: list[Any] = [{"role": "user", "content": report.QUESTION}]
    more = {"tools": tools} if tools else {}
    calls: list[Any] = []
    while True:
        answer = _message(streamed, model=model, max_tokens=100, system="Be brief.", messages=messages, **more)
        called = [block for block in answer.content if block.type == "tool_use"]
        if not called:
            assert answer.stop_reason == "end_turn", answer
            text = "".join(block.text for block in answer.content if block.type == "text")
            return report.said(text, (answer.usage.input_tokens, answer.usage.output_tokens), calls)
        assert answer.stop_reason == "tool_use", answer
        messages.append({"role": "assistant", "content": answer.content})
        results = []
        for call in called:
            calls.append([call.name, call.input])
            results.append({"type": "tool_result", "tool_use_id": call.id, "content": report.weather(**call.input)})
        messages.append({"role": "user", "content": results})


def _message(streamed: bool, **request: Any) -> Any:
    if not streamed:
        return client.messages.create(**request)
    with client.messages.stream(**request) as events:
        text = "".join(events.text_stream)
        message = events.get_final_message()
    assert text == "".join(block.text for block in message.content if block.type == "text")
    return message


report.report(
    {
        "whole": whole,
        "stream": lambda model: whole(model, True),
        "tools": lambda model: whole(model, tools=[TOOL]),
        "tools stream": lambda model: whole(model, True, [TOOL]),
        "count": lambda model: (
            client.messages.count_tokens(
                model=model, messages=[{"role": "user", "content": report.QUESTION}]
            ).input_tokens
        ),
    },
    ask,
)
