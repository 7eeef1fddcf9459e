"""Pydantic AI's agents, on the model named on the command line."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import report
from anthropic import AsyncAnthropic
from google.genai.types import HttpRetryOptions
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.providers.openai import OpenAIProvider


def make(model: str, key: str) -> Any:
    kind = sys.argv[1]
    if kind == "anthropic":
        client = AsyncAnthropic(base_url=report.URL, api_key=key, max_retries=0)
        return AnthropicModel(model, provider=AnthropicProvider(anthropic_client=client))
    if kind == "google":
        options = HttpRetryOptions(attempts=1)
        return GoogleModel(model, provider=GoogleProvider(base_url=report.URL, api_key=key, retry_options=options))
    once = AsyncOpenAI(base_url=f"{report.URL}/v1", api_key=key, max_retries=0)
    chosen = OpenAIChatModel if kind == "chat" else OpenAIResponsesModel
    return chosen(model, provider=OpenAIProvider(openai_client=once))


async def loop(model: str, key: str = report.KEY, streamed: bool = False, tools: bool = False) -> Any:
    calls: list[Any] = []
    agent = Agent(make(model, key), instructions="Be brief.", retries=0)

    async def weather(city: str) -> str:
        """Get the weather of a city."""
        calls.append(["weather", {"city": city}])
        answer: str = report.weather(city)
        return answer

    if tools:
        agent.tool_plain(weather)
    if streamed:
        async with agent.run_stream(report.QUESTION) as run:
            text = await run.get_output()
            messages = run.all_messages()
    else:
        run = await agent.run(report.QUESTION)
        text, messages = run.output, run.all_messages()
    usage = messages[-1].usage
    return report.said(text, (usage.input_tokens, usage.output_tokens), calls)


report.report(
    {
        "whole": lambda model: asyncio.run(loop(model)),
        "stream": lambda model: asyncio.run(loop(model, streamed=True)),
        "tools": lambda model: asyncio.run(loop(model, tools=True)),
        "tools stream": lambda model: asyncio.run(loop(model, streamed=True, tools=True)),
    },
    lambda key, model: asyncio.run(loop(model, key)),
)
