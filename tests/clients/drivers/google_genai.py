"""Google's Python client: its own tool loop, and one by hand for streams."""

from __future__ import annotations

from typing import Any

import report
from google import genai
from google.genai import types

DECLARED = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(name="weather", description=report.WEATHER, parameters_json_schema=report.SCHEMA)
    ]
)


def connect(key: str) -> Any:
    options = types.HttpOptions(base_url=report.URL, retry_options=types.HttpRetryOptions(attempts=1))
    return genai.Client(api_key=key, http_options=options)


client = connect(report.KEY)


def ask(key: str, model: str) -> Any:
    with connect(key) as other:
        return other.models.generate_content(model=model, contents=report.QUESTION)


def counts(usage: Any) -> tuple[int, int]:
    return usage.prompt_token_count, usage.candidates_token_count


def whole(model: str, tools: bool = False) -> Any:
    calls: list[Any] = []

    def weather(city: str) -> str:
        """Get the weather of a city."""
        calls.append(["weather", {"city": city}])
        answer: str = report.weather(city)
        return answer

    config = types.GenerateContentConfig(system_instruction="Be brief.", tools=[weather] if tools else None)
    answer = client.models.generate_content(model=model, contents=report.QUESTION, config=config)
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP, answer
    return report.said(answer.text, counts(answer.usage_metadata), calls)


def stream(model: str, tools: bool = False) -> Any:
    contents: list[Any] = [types.Content(role="user", parts=[types.Part(text=report.QUESTION)])]
    calls: list[Any] = []
    config = types.GenerateContentConfig(system_instruction="Be brief.", tools=[DECLARED] if tools else None)
    while True:
        pieces = list(client.models.generate_content_stream(model=model, contents=contents, config=config))
        assert pieces[-1].candidates[0].finish_reason == types.FinishReason.STOP, pieces
        parts = [part for piece in pieces for part in piece.parts or ()]
        called = [part.function_call for part in parts if part.function_call]
        if not called:
            text = "".join(part.text or "" for part in parts)
            return report.said(text, counts(pieces[-1].usage_metadata), calls)
        calls += [[call.name, call.args] for call in called]
        contents.append(types.Content(role="model", parts=parts))
        answers = [
            types.FunctionResponse(id=call.id, name=call.name, response={"result": report.weather(**call.args)})
            for call in called
        ]
        contents.append(types.Content(role="user", parts=[types.Part(function_response=each) for each in answers]))


def count(model: str) -> int:
    total: int = client.models.count_tokens(model=model, contents=report.QUESTION).total_tokens
    return total


report.report(
    {
        "whole": whole,
        "stream": stream,
        "tools": lambda model: whole(model, True),
        "tools stream": lambda model: stream(model, True),
        "count": count,
    },
    ask,
)
