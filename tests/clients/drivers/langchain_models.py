"""LangChain's chat models, one by its name on the command line."""

from __future__ import annotations

import sys
from typing import Any

import report
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

KINDS: Any = {
    "chat": lambda **more: ChatOpenAI(base_url=f"{report.URL}/v1", stream_usage=True, **more),
    "responses": lambda **more: ChatOpenAI(base_url=f"{report.URL}/v1", use_responses_api=True, **more),
    "anthropic": lambda **more: ChatAnthropic(base_url=report.URL, **more),
}
make = KINDS[sys.argv[1]]
weather = tool(report.weather)


def ask(key: str, model: str) -> Any:
    return make(model=model, api_key=key, max_retries=0).invoke(report.QUESTION)


def loop(model: str, streamed: bool = False, tools: bool = False) -> Any:
    chat = make(model=model, api_key=report.KEY, max_retries=0)
    chat = chat.bind_tools([weather]) if tools else chat
    messages: list[Any] = [SystemMessage("Be brief."), HumanMessage(report.QUESTION)]
    calls: list[Any] = []
    while True:
        answer = _answer(chat, streamed, messages)
        if not answer.tool_calls:
            usage = answer.usage_metadata
            return report.said(answer.text, (usage["input_tokens"], usage["output_tokens"]), calls)
        messages.append(answer)
        for call in answer.tool_calls:
            calls.append([call["name"], call["args"]])
            messages.append(ToolMessage(report.weather(**call["args"]), tool_call_id=call["id"]))


def _answer(chat: Any, streamed: bool, messages: list[Any]) -> Any:
    if not streamed:
        return chat.invoke(messages)
    first, *rest = chat.stream(messages)
    for chunk in rest:
        first = first + chunk
    return first


report.report(
    {
        "whole": loop,
        "stream": lambda model: loop(model, streamed=True),
        "tools": lambda model: loop(model, tools=True),
        "tools stream": lambda model: loop(model, streamed=True, tools=True),
    },
    ask,
)
