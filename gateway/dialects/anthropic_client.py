"""Anthropic Messages, clients that speak it: their requests → canonical ones, and the list of models they read.

Both published versions, 2023-06-01 and 2026-10-21, are one language here: what the later one forbids, the earlier one
allows. Messages and their blocks are in ``anthropic_blocks``, the other direction is in ``anthropic_messages``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from gateway.dialects.anthropic_blocks import messages_to_chat
from gateway.dialects.anthropic_thinking import reasoning_of
from gateway.dialects.dropped import Dropped, table
from gateway.errors import InvalidRequest

Translated = tuple[dict[str, Any], list[str]]
"""The canonical request, and what it does not carry (``x-gateway-dropped``)."""

_SAME = ("model", "temperature", "top_p", "top_k", "cache_control")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_TIERS = {"auto": "auto", "standard_only": "default"}
_READ = {
    *_SAME, "max_tokens", "messages", "metadata", "output_config", "service_tier", "stop_sequences", "stream", "system",
    "thinking", "tool_choice", "tools",
}  # fmt: skip
_TOOL = {"type", "name", "description", "input_schema", "cache_control", "strict"}
# OpenAI refuses longer ones, others any sign beyond these; Claude Code sends 150 characters of JSON.
_USER = re.compile(r"[A-Za-z0-9_-]{1,64}")


def request_to_chat(body: Mapping[str, Any]) -> Translated:
    """A request of ``/v1/messages`` → the canonical one; a stream is asked for with its usage.

    Raises ``InvalidRequest``, also where ``max_tokens`` is missing, as Anthropic does.
    """
    most = body.get("max_tokens")
    if type(most) is not int or most < 0:
        raise InvalidRequest("max_tokens: must be a number of tokens.")
    chat, dropped = count_to_chat(body)
    chat["max_completion_tokens"] = most
    if body.get("stream"):
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    return chat, dropped


def count_to_chat(body: Mapping[str, Any]) -> Translated:
    """A request of ``/v1/messages/count_tokens``, which has no ``max_tokens``, → a canonical one. Raises as above."""
    dropped = Dropped()
    chat: dict[str, Any] = {name: body[name] for name in _SAME if body.get(name) is not None}
    chat["messages"] = messages_to_chat(body, dropped)
    if stop := body.get("stop_sequences"):
        chat["stop"] = stop
    _tools(chat, body, dropped)
    _output(chat, table(body, "output_config"), dropped)
    chat |= reasoning_of(table(body, "thinking"), dropped)
    _metadata(chat, table(body, "metadata"), dropped)
    if (tier := body.get("service_tier")) in _TIERS:
        chat["service_tier"] = _TIERS[tier]
    elif tier is not None:
        dropped.add("service_tier")
    dropped.others(body, _READ)
    return chat, dropped.names


def models_from_chat(models: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """OpenAI's model objects as an answer of ``GET /v1/models``: all of them, on one page."""
    data = [model_from_chat(model) for model in models]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"data": data, "has_more": False, "first_id": first, "last_id": last}


def model_from_chat(model: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's model object as an answer of ``GET /v1/models/{id}``; an unknown date is the epoch, as Anthropic has it.

    Clients of 2026-10-21 demand ``lifecycle``; the others do not know it.
    """
    created = model.get("created")
    moment = datetime.fromtimestamp(created if isinstance(created, int) and 0 < created < 2**35 else 0, UTC)
    return {
        "type": "model",
        "id": model["id"],
        "display_name": model.get("name") or model["id"],
        "created_at": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
    }


def _tools(chat: dict[str, Any], body: Mapping[str, Any], dropped: Dropped) -> None:
    tools = body.get("tools") or []
    if not isinstance(tools, list):
        raise InvalidRequest("tools: must be a list.")
    made = [one for index, tool in enumerate(tools) if (one := _tool(tool, f"tools.{index}", dropped))]
    choice = table(body, "tool_choice")
    if not made:
        if choice.get("type") not in (None, "auto", "none"):
            dropped.add("tool_choice")
        return
    chat["tools"] = made
    kind, name = choice.get("type"), choice.get("name")
    if kind in _CHOICES:
        chat["tool_choice"] = _CHOICES[kind]
    elif kind == "tool" and any(tool["function"]["name"] == name for tool in made):
        chat["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif kind == "tool" and any(isinstance(tool, dict) and tool.get("name") == name for tool in tools):
        dropped.add("tool_choice")  # a tool of Anthropic's own, which is dropped as well
    elif choice:
        raise InvalidRequest("tool_choice: must be auto, any, none, or a tool of this request.")
    if choice.get("disable_parallel_tool_use"):
        chat["parallel_tool_calls"] = False


def _tool(tool: Any, where: str, dropped: Dropped) -> dict[str, Any] | None:
    if not isinstance(tool, dict):
        raise InvalidRequest(f"{where}: must be an object.")
    if (kind := tool.get("type") or "custom") != "custom":
        dropped.add(f"tools.{kind}")  # run by Anthropic, or known to its models by name alone
        return None
    name = tool.get("name")
    if not isinstance(name, str):
        raise InvalidRequest(f"{where}.name: must be a string.")
    function: dict[str, Any] = {"name": name}
    if (description := tool.get("description")) is not None:
        function["description"] = description
    function["parameters"] = table(tool, "input_schema", where) or {"type": "object", "properties": {}}
    if tool.get("strict"):
        function["strict"] = True
    dropped.others(tool, _TOOL, "tools.")
    made = {"type": "function", "function": function}
    return made if tool.get("cache_control") is None else {**made, "cache_control": tool["cache_control"]}


def _output(chat: dict[str, Any], config: Mapping[str, Any], dropped: Dropped) -> None:
    if config.get("effort") is not None:
        chat["reasoning_effort"] = config["effort"]
    wanted = table(config, "format", "output_config")
    if wanted.get("type") == "json_schema":
        schema = table(wanted, "schema", "output_config.format")
        # Anthropic always holds the model to the schema, and gives it no name.
        shape = {"name": "response", "schema": schema, "strict": True}
        chat["response_format"] = {"type": "json_schema", "json_schema": shape}
    elif wanted:
        dropped.add("output_config.format")
    dropped.others(config, ("effort", "format"), "output_config.")


def _metadata(chat: dict[str, Any], metadata: Mapping[str, Any], dropped: Dropped) -> None:
    """``user_id`` stays an opaque name that stands for the user: hashed where others would refuse it."""
    user = metadata.get("user_id")
    if isinstance(user, str) and user:
        chat["user"] = user if _USER.fullmatch(user) else sha256(user.encode(errors="replace")).hexdigest()
    dropped.others(metadata, ("user_id",), "metadata.")
