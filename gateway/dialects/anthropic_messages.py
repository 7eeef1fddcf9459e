"""Anthropic Messages, the way in: canonical requests → ``POST /v1/messages``, which refuses any field it does not know.

Facts: the SDK's types (versions 2023-06-01 and 2026-10-21), Anthropic's own OpenAI layer, recordings. What differs
between models is asked of ``Capabilities``, never of a name. Messages are in ``anthropic_turns``, thinking in
``anthropic_thinking``, answers in ``anthropic_messages_reply`` and ``anthropic_messages_stream``; requests of clients
that speak this dialect are in ``anthropic_client``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects.anthropic_thinking import Thinking, reasoning_of
from gateway.dialects.anthropic_turns import Turns
from gateway.dialects.capabilities import Capabilities
from gateway.dialects.dropped import Dropped, table
from gateway.errors import InvalidRequest

Translated = tuple[dict[str, Any], list[str]]
"""The request for Anthropic, and what it does not carry (``x-gateway-dropped``)."""

DEFAULT_MAX_TOKENS = 4096
"""Anthropic demands ``max_tokens``; this is what a client gets that gives none, for a model of unknown limits."""
_SAMPLING_VERSION = "2023-06-01"  # from 2026-10-21 on, sampling is refused whatever the model
_READ = {
    "model", "messages", "max_tokens", "max_completion_tokens", "stop", "stream", "stream_options", "temperature",
    "top_p", "top_k", "tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning", "reasoning_effort",
    "thinking", "user", "safety_identifier", "metadata", "service_tier", "cache_control",
}  # fmt: skip
_TIERS = {"auto": "auto", "default": "standard_only"}
_JSON_ONLY = "Answer with one JSON object and nothing else, no code fence around it."


def request_from_chat(
    chat: Mapping[str, Any], model: str, *, caps: Capabilities, version: str = _SAMPLING_VERSION
) -> Translated:
    """A canonical request → one of ``/v1/messages``, to be sent with ``anthropic-version: <version>``.

    Raises ``InvalidRequest`` for content that the model cannot be shown.
    """
    dropped = Dropped()
    if chat.get("thinking") is not None:  # LiteLLM's clients send Anthropic's own field; it is the closer word
        chat = {**chat, **reasoning_of(table(chat, "thinking"), dropped)}
    turns = Turns(caps, dropped)
    turns.add_all(chat.get("messages"))
    request: dict[str, Any] = {"model": model, "max_tokens": 0, "messages": turns.messages}
    tools, choice = _tools(chat, caps, dropped)
    thinking = Thinking.asked(chat, caps, dropped)
    thinking.give_way(turns.messages, choice, dropped)
    request["max_tokens"] = _max_tokens(chat, thinking, caps, dropped)
    output = thinking.write(request, dropped)
    _format(chat, output, turns, dropped)
    if output:
        request["output_config"] = output
    if turns.system:
        request["system"] = turns.system
    if tools:
        request["tools"] = tools
        if choice:
            request["tool_choice"] = choice
    _sampling(request, chat, caps.sampling and version == _SAMPLING_VERSION, dropped)
    _rest(request, chat, dropped)
    return request, dropped.names


def _max_tokens(chat: Mapping[str, Any], thinking: Thinking, caps: Capabilities, dropped: Dropped) -> int:
    given = chat.get("max_completion_tokens")
    if given is None:
        given = chat.get("max_tokens")
    most = caps.max_output
    if given is None:
        # An answer must fit behind the thinking, which counts as well.
        wanted = DEFAULT_MAX_TOKENS + (thinking.budget or 0)
        return most or wanted
    if type(given) is not int or given < 0:
        raise InvalidRequest("max_tokens: must be a number of tokens.")
    if most is not None and given > most:
        dropped.add("max_tokens")
        return most
    return given


def _sampling(request: dict[str, Any], chat: Mapping[str, Any], allowed: bool, dropped: Dropped) -> None:
    """``temperature`` 0 to 1, ``top_p``, ``top_k``: not with thinking, and not ``top_p`` beside ``temperature``.

    The last is refused from Opus 4.1 on and advised against before; a ``top_p`` of 1 asks for nothing.
    """
    values = {name: chat[name] for name in ("temperature", "top_p", "top_k") if chat.get(name) is not None}
    if not allowed or request.get("thinking", {}).get("type") in ("enabled", "adaptive"):
        for name in values:
            if values[name] != 1 or name == "top_k":
                dropped.add(name)
        return
    if "temperature" in values and values.pop("top_p", 1) != 1:
        dropped.add("top_p")
    if isinstance(temperature := values.get("temperature"), int | float) and temperature > 1:
        values["temperature"] = 1
        dropped.add("temperature")
    request.update(values)


def _tools(
    chat: Mapping[str, Any], caps: Capabilities, dropped: Dropped
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    tools = chat.get("tools") or []
    if not isinstance(tools, list):
        raise InvalidRequest("tools: must be a list.")
    made = [one for index, tool in enumerate(tools) if (one := _tool(tool, f"tools[{index}]", dropped))]
    choice, allowed = _choice(chat.get("tool_choice"), dropped)
    if allowed is not None:
        made = [tool for tool in made if tool["name"] in allowed]
    if choice and choice["type"] in ("any", "tool") and not (caps.forced_tools and made):
        dropped.add("tool_choice")
        choice = {"type": "auto"}
    if chat.get("parallel_tool_calls") is False and (choice is None or choice["type"] != "none"):
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    return made, choice


def _tool(tool: Any, where: str, dropped: Dropped) -> dict[str, Any] | None:
    if not isinstance(tool, dict):
        raise InvalidRequest(f"{where}: must be an object.")
    if (kind := tool.get("type", "function")) != "function":
        dropped.add(f"tools.{kind}")
        return None
    function = table(tool, "function", where)
    if not isinstance(function.get("name"), str):
        raise InvalidRequest(f"{where}.function.name: must be a string.")
    made: dict[str, Any] = {"name": function["name"]}
    if function.get("description") is not None:
        made["description"] = function["description"]
    made["input_schema"] = table(function, "parameters", f"{where}.function") or {"type": "object", "properties": {}}
    if function.get("strict"):
        made["strict"] = True
    if (mark := tool.get("cache_control") or function.get("cache_control")) is not None:
        made["cache_control"] = mark
    dropped.others(tool, ("type", "function", "cache_control"), "tools.")
    dropped.others(function, ("name", "description", "parameters", "strict", "cache_control"), "tools.function.")
    return made


def _choice(choice: Any, dropped: Dropped) -> tuple[dict[str, Any] | None, set[str] | None]:
    """``tool_choice`` in Anthropic's words, and the names of the tools that may be called, where not all of them."""
    if choice is None:
        return None, None
    words = {"auto": "auto", "none": "none", "required": "any"}
    if isinstance(choice, str) and choice in words:
        return {"type": words[choice]}, None
    if not isinstance(choice, dict):
        raise InvalidRequest("tool_choice: must be none, auto, required or an object.")
    kind = choice.get("type")
    if kind == "function":
        return {"type": "tool", "name": table(choice, "function", "tool_choice").get("name")}, None
    if kind == "allowed_tools":
        allowed = table(choice, "allowed_tools", "tool_choice")
        listed = allowed.get("tools") or []
        names = {str(tool.get("function", {}).get("name")) for tool in listed if isinstance(tool, dict)}
        return {"type": "any" if allowed.get("mode") == "required" else "auto"}, names
    dropped.add(f"tool_choice.{kind}")
    return None, None


def _format(chat: Mapping[str, Any], output: dict[str, Any], turns: Turns, dropped: Dropped) -> None:
    wanted = table(chat, "response_format")
    kind = wanted.get("type")
    if kind == "json_schema":
        schema = table(wanted, "json_schema", "response_format").get("schema")
        if not isinstance(schema, dict):
            raise InvalidRequest("response_format.json_schema.schema: must be an object.")
        output["format"] = {"type": "json_schema", "schema": _closed(schema)}
    elif kind == "json_object":  # Anthropic has no word for it: the model is told
        turns.system.append({"type": "text", "text": _JSON_ONLY})
        dropped.add("response_format")
    elif wanted and kind != "text":
        dropped.add("response_format")


def _closed(schema: Any) -> Any:
    """The schema with every object closed, which Anthropic demands and OpenAI only where it is strict."""
    if not isinstance(schema, dict):
        return schema
    closed = dict(schema)
    for name, value in schema.items():
        if name in ("properties", "$defs", "definitions") and isinstance(value, dict):
            closed[name] = {key: _closed(each) for key, each in value.items()}
        elif name in ("anyOf", "allOf", "oneOf", "prefixItems") and isinstance(value, list):
            closed[name] = [_closed(each) for each in value]
        elif name == "items":
            closed[name] = _closed(value)
    if closed.get("type") == "object" or "properties" in closed:
        closed.setdefault("additionalProperties", False)
    return closed


def _rest(request: dict[str, Any], chat: Mapping[str, Any], dropped: Dropped) -> None:
    stop = chat.get("stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(each, str) for each in stops):
        raise InvalidRequest("stop: must be a string or a list of strings.")
    if kept := [each for each in stops if each.strip()]:
        request["stop_sequences"] = kept
    if len(kept) < len(stops):
        dropped.add("stop")  # Anthropic refuses white space alone
    if chat.get("stream"):
        request["stream"] = True
    if chat.get("cache_control") is not None:
        request["cache_control"] = chat["cache_control"]
    metadata = table(chat, "metadata")
    user = chat.get("safety_identifier") or chat.get("user") or metadata.get("user_id")
    if isinstance(user, str) and "@" not in user:  # Anthropic refuses names that identify a person
        request["metadata"] = {"user_id": user}
    elif user:
        dropped.add("user")
    dropped.others(metadata, ("user_id",), "metadata.")
    if (tier := chat.get("service_tier")) in _TIERS:
        request["service_tier"] = _TIERS[tier]
    elif tier is not None:
        dropped.add("service_tier")
    dropped.others(chat, _READ)
