"""Simon Willison's llm, its models those of its ``extra-openai-models.yaml``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import openai
import report

os.environ["LLM_USER_PATH"] = str(Path.home())
EXTRA = {"api_base": f"{report.URL}/v1", "supports_tools": True}
NAMES = [*report.MODELS, "nobody", *report.REFUSED, *(f"{provider}/cut" for provider in report.PROVIDERS)]
(Path.home() / "extra-openai-models.yaml").write_text(
    # JSON is YAML.
    json.dumps([
        {"model_id": name, "model_name": name, "api_key_name": "gateway", **EXTRA} for name in NAMES
    ])
)  # fmt: skip

# It has no setting for how often it tries, and waits as long as a provider asks.
defaults: Any = openai.OpenAI.__init__.__kwdefaults__
defaults["max_retries"] = 0

import llm  # noqa: E402 - it reads where its configuration is when it is imported


def get(name: str, key: str = report.KEY) -> Any:
    model = llm.get_model(name)
    model.key = key
    return model


def ask(key: str, model: str) -> Any:
    return get(model, key).prompt(report.QUESTION, stream=False).text()


def plain(model: str, streamed: bool) -> Any:
    answer = get(model).prompt(report.QUESTION, system="Be brief.", stream=streamed)
    text = answer.text()
    usage = answer.usage()
    return report.said(text, (usage.input, usage.output))


def chain(model: str, streamed: bool) -> Any:
    calls: list[Any] = []

    def weather(city: str) -> str:
        """Get the weather of a city."""
        calls.append(["weather", {"city": city}])
        answer: str = report.weather(city)
        return answer

    answers = list(get(model).chain(report.QUESTION, tools=[weather], stream=streamed).responses())
    usage = answers[-1].usage()
    return report.said(answers[-1].text(), (usage.input, usage.output), calls)


report.report(
    {
        "whole": lambda model: plain(model, False),
        "stream": lambda model: plain(model, True),
        "tools": lambda model: chain(model, False),
        "tools stream": lambda model: chain(model, True),
    },
    ask,
)
