"""The arguments of a tool call: a string of JSON at OpenAI, an object in most other formats."""

from __future__ import annotations

import json
from typing import Any

import orjson


def parse_arguments(arguments: Any) -> dict[str, Any]:
    """The object in OpenAI's string; ``{}`` for nothing. Raises ``ValueError`` if it is no JSON object.

    The standard parser keeps integers of any size.
    """
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments, parse_constant=_no_number) if arguments.strip() else {}
        except RecursionError as error:
            raise ValueError("is nested too deeply") from error
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise ValueError("is no object")
    return arguments


def dump_arguments(arguments: Any) -> str:
    """The object as OpenAI's string, its order of keys kept. Raises ``ValueError`` if it is nested too deeply."""
    try:
        return orjson.dumps(arguments).decode()
    except TypeError:  # what orjson does not write: integers beyond 64 bits, half surrogate pairs, depth beyond 254
        try:
            return json.dumps(arguments, separators=(",", ":"))
        except RecursionError as error:
            raise ValueError("is nested too deeply") from error


def is_whole(arguments: str) -> bool:
    """Whether the string, which may still be growing, is a whole JSON object by now."""
    try:
        parse_arguments(arguments)
    except ValueError:
        return False
    return bool(arguments.strip())


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
