"""OpenAI's Python client, responses."""

from __future__ import annotations

import json
from typing import Any

import report
from openai import OpenAI

TOOL: Any = {"type": "function", "name": "weather", "description": report.WEATHER, "parameters": report.SCHEMA}


def connect(key: str) -> Any:
    return OpenAI(base_url=f"{report.URL}/v1", api_key=key, max_retries=0)


client = connect(report.KEY)


def ask(key: str, model: str) -> Any:
    return connect(key).responses.create(model=model, input=report.QUESTION, store=False)


def whole(model: str, streamed: bool = False, tools: list[Any] | None = None) -> Any:
    items: list[Any] = [{"role": "user", "content": report.QUESTION}]
    calls: list[Any] = []
    while True:
        answer = _response(streamed, model=model, input=items, instructions="Be brief.", tools=tools or [], store=False)
        assert answer.status == "completed", answer
        called = [item for item in answer.output if item.type == "function_call"]
        if not called:
            return report.said(answer.output_text, (answer.usage.input_tokens, answer.usage.output_tokens), calls)
        items += answer.output
        for call in called:
            calls.append([call.name, call.arguments])
            text = report.weather(**json.loads(call.arguments))
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": text})


def _response(streamed: bool, **request: Any) -> Any:
    if not streamed:
        return client.responses.create(**request)
    with client.responses.stream(**request) as events:
        for _ in events:
            pass
        return events.get_final_response()


report.report(
    {
        "whole": whole,
        "stream": lambda model: whole(model, True),
        "tools": lambda model: whole(model, tools=[TOOL]),
        "tools stream": lambda model: whole(model, True, [TOOL]),
    },
    ask,
)
