"""OpenAI's Python client, chat completions."""

from __future__ import annotations

import json
from typing import Any

import report
from openai import OpenAI

TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "description": report.WEATHER, "parameters": report.SCHEMA},
}


def connect(key: str) -> Any:
    return OpenAI(base_url=f"{report.URL}/v1", api_key=key, max_retries=0)


client = connect(report.KEY)


def ask(key: str, model: str) -> Any:
    return connect(key).chat.completions.create(model=model, messages=[{"role": "user", "content": report.QUESTION}])


def whole(model: str, streamed: bool = False, tools: list[Any] | None = None) -> Any:
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": report.QUESTION}]
    more = {"tools": tools} if tools else {}
    calls: list[Any] = []
    while True:
        answer = _completion(streamed, model=model, messages=messages, **more)
        message = answer.choices[0].message
        if not message.tool_calls:
            assert answer.choices[0].finish_reason == "stop", answer
            usage = answer.usage.prompt_tokens, answer.usage.completion_tokens
            return report.said(message.content, usage, calls)
        assert answer.choices[0].finish_reason == "tool_calls", answer
        messages.append(message)
        for call in message.tool_calls:
            calls.append([call.function.name, call.function.arguments])
            text = report.weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": text})


def _completion(streamed: bool, **request: Any) -> Any:
    if not streamed:
        return client.chat.completions.create(**request)
    with client.chat.completions.stream(**request, stream_options={"include_usage": True}) as events:
        for _ in events:
            pass
        return events.get_final_completion()


report.report(
    {
        "whole": whole,
        "stream": lambda model: whole(model, True),
        "tools": lambda model: whole(model, tools=[TOOL]),
        "tools stream": lambda model: whole(model, True, [{**TOOL, "function": {**TOOL["function"], "strict": True}}]),
    },
    ask,
)
