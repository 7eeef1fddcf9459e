"""What a driver finds out, as JSON on its standard output: for each model what each way of asking gave, and errors.

Drivers run in the environment of the client they drive, without the gateway or the tests on their path.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

URL, KEY = os.environ["GATEWAY_URL"], os.environ["GATEWAY_KEY"]
MODELS = os.environ["GATEWAY_MODELS"].split(",")
PROVIDERS = os.environ["GATEWAY_PROVIDERS"].split(",")
# Models that are refused, of this run alone: one that was refused with 429 is left alone for a while.
REFUSED = {
    f"{provider}/status-{status}-{os.getpid()}": f"{provider} {status}"
    for provider in PROVIDERS
    for status in (429, 500, 529)
}
WRONG_KEY = "hg-nobody"
QUESTION = "What is the weather in Oslo?"
WEATHER = "Get the weather of a city."
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def weather(city: str) -> str:
    """Get the weather of a city."""
    return f"sunny in {city}"


def said(text: str | None, usage: tuple[int, int] | None = None, calls: list[Any] | None = None) -> dict[str, Any]:
    """One finding; ``usage`` is input and output, ``calls`` are names and arguments."""
    return {"text": text, "usage": usage, "calls": calls}


def report(ways: Mapping[str, Callable[[str], Any]], ask: Callable[[str, str], Any]) -> None:
    """Try each way of asking with each model, then make ``ask(key, model)`` fail in all the ways it should."""
    found: dict[str, Any] = {model: {name: _tried(way, model) for name, way in ways.items()} for model in MODELS}
    found["errors"] = {"key": _failure(ask, WRONG_KEY, MODELS[0]), "model": _failure(ask, KEY, "nobody")}
    for provider in PROVIDERS:
        found["errors"][f"{provider} cut"] = _failure(lambda _, model: ways["stream"](model), KEY, f"{provider}/cut")
    for model, name in REFUSED.items():
        found["errors"][name] = _failure(ask, KEY, model)
    json.dump(found, sys.stdout)


def _tried(way: Callable[[str], Any], model: str) -> Any:
    try:
        return way(model)
    except Exception:  # noqa: BLE001 - it is what was found, and a test says so
        return {"raised": traceback.format_exc()}


def _failure(ask: Callable[[str, str], Any], key: str, model: str) -> Any:
    try:
        return {"kind": "none", "text": repr(ask(key, model))}
    except Exception as error:  # noqa: BLE001 - likewise
        headers = getattr(error, "headers", None) or getattr(getattr(error, "response", None), "headers", None) or {}
        return {
            "kind": type(error).__name__,
            "status": getattr(error, "status_code", None) or getattr(error, "code", None),
            "retry_after": headers.get("retry-after") or headers.get("Retry-After"),
            "text": str(error),
        }
