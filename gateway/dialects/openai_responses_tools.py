"""Tools of the Responses API and of chat, both ways.

Namespaces (Codex's way to offer MCP servers) become flat names, ``namespace__name``, and calls get theirs back. A
custom tool, which takes free text, becomes a function with one string: few chat servers know custom tools. Hosted
tools run at OpenAI and have no counterpart: they are dropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from gateway.dialects.capabilities import Capabilities
from gateway.dialects.dropped import Dropped, table
from gateway.errors import InvalidRequest

_LONGEST_NAME = 64  # of a function, in chat
_TEXT = {
    "type": "object",
    "properties": {"input": {"type": "string", "description": "All of the tool's input, as plain text."}},
    "required": ["input"],
    "additionalProperties": False,
}


class ToolNames:
    """Which flat name in chat stands for which tool of a Responses request."""

    __slots__ = ("_flat", "_full", "custom")

    def __init__(self, tools: Any) -> None:
        self._flat: dict[tuple[str, str], str] = {}
        self._full: dict[str, tuple[str, str]] = {}
        self.custom: set[str] = set()
        """Flat names of the tools that take free text."""
        named = list(_each(tools))
        plain = {tool.get("name") for namespace, tool in named if not namespace}
        for namespace, tool in named:
            name = str(tool.get("name"))
            if namespace:
                flat = _joined(namespace, name)
                if flat in plain:
                    flat = _shortened(flat)
                self._flat[namespace, name] = flat
                self._full[flat] = (namespace, name)
            if tool.get("type") == "custom":
                self.custom.add(self.flat(name, namespace))

    def flat(self, name: str, namespace: Any = None) -> str:
        """The name in chat, also of a tool that an earlier request offered."""
        if not isinstance(namespace, str) or not namespace:
            return name
        return self._flat.get((namespace, name)) or _joined(namespace, name)

    def full(self, flat: str) -> dict[str, str]:
        """``name``, and ``namespace`` where there is one."""
        if (found := self._full.get(flat)) is None:
            return {"name": flat}
        return {"name": found[1], "namespace": found[0]}


def _each(tools: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Functions and custom tools, each with its namespace or ``""``; whatever is malformed is not among them."""
    for tool in tools if isinstance(tools, list) else ():
        if not isinstance(tool, dict):
            continue
        if tool.get("type") == "namespace" and isinstance(tool.get("tools"), list):
            yield from [(str(tool.get("name")), inner) for inner in tool["tools"] if isinstance(inner, dict)]
        elif tool.get("type") in ("function", "custom"):
            yield "", tool


def _joined(namespace: str, name: str) -> str:
    flat = f"{namespace}__{name}"
    return flat if len(flat) <= _LONGEST_NAME else _shortened(flat)


def _shortened(flat: str) -> str:
    return f"{flat[: _LONGEST_NAME - 9]}_{hashlib.sha256(flat.encode()).hexdigest()[:8]}"


def text_of_call(arguments: str) -> str:
    """The free text in the arguments of a custom tool that was offered as a function."""
    try:
        told = orjson.loads(arguments)
    except ValueError:
        return arguments
    text = told.get("input") if isinstance(told, dict) else None
    return text if isinstance(text, str) else arguments


def call_of_text(text: str) -> str:
    """The arguments that say ``text``; the other way of ``text_of_call``."""
    return orjson.dumps({"input": text}).decode()


def tools_to_chat(body: Mapping[str, Any], names: ToolNames, dropped: Dropped) -> dict[str, Any]:
    """``tools`` and ``tool_choice`` for chat, where there are any. Raises ``InvalidRequest``."""
    offered = body.get("tools") or []
    if not isinstance(offered, list):
        raise InvalidRequest("tools: must be a list.")
    tools: list[dict[str, Any]] = []
    for index, tool in enumerate(offered):
        where = f"tools[{index}]"
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str):
            raise InvalidRequest(f"{where}.type: must be a string.")
        if kind == "namespace":
            tools += _namespace(tool, where, names, dropped)
        elif kind in ("function", "custom"):
            tools.append(_tool_to_chat(tool, where, "", names, dropped))
        else:
            dropped.add(f"tools.{kind}")
    tools, choice = _choice_to_chat(body.get("tool_choice"), tools, names, dropped)
    if not tools:
        return {}
    return {"tools": tools} if choice is None else {"tools": tools, "tool_choice": choice}


def _namespace(tool: Mapping[str, Any], where: str, names: ToolNames, dropped: Dropped) -> list[dict[str, Any]]:
    name, inner = tool.get("name"), tool.get("tools")
    if not isinstance(name, str) or not name or not isinstance(inner, list):
        raise InvalidRequest(f"{where}: a namespace must have a name and a list of tools.")
    made: list[dict[str, Any]] = []
    for index, each in enumerate(inner):
        place = f"{where}.tools[{index}]"
        if not isinstance(each, dict) or each.get("type") not in ("function", "custom"):
            raise InvalidRequest(f"{place}: must be a function or a custom tool.")
        made.append(_tool_to_chat(each, place, name, names, dropped))
    if made and (about := tool.get("description")):
        # Chat has no word about several tools together; the first one tells it.
        first = made[0]["function"]
        first["description"] = f"{name}: {about}\n\n{first.get('description') or ''}".rstrip()
    return made


def _tool_to_chat(
    tool: Mapping[str, Any], where: str, namespace: str, names: ToolNames, dropped: Dropped
) -> dict[str, Any]:
    if not isinstance(name := tool.get("name"), str) or not name:
        raise InvalidRequest(f"{where}.name: must be a string.")
    function: dict[str, Any] = {"name": names.flat(name, namespace)}
    about = tool.get("description")
    if tool["type"] == "custom":
        style = table(tool, "format", where)
        if style.get("type") == "grammar":
            # Nothing enforces the grammar here; the model is asked to keep to it.
            dropped.add("tools.format")
            about = (
                f"{about or ''}\n\nThe input must match this {style.get('syntax')} grammar:\n{style.get('definition')}"
            )
        function |= {"description": (about or "").strip(), "parameters": _TEXT}
        dropped.others(tool, ("type", "name", "description", "format"), "tools.")
        return {"type": "function", "function": function}
    if about is not None:
        function["description"] = about
    function["parameters"] = table(tool, "parameters", where) or {"type": "object", "properties": {}}
    if tool.get("strict") is not None:
        function["strict"] = tool["strict"]
    made = {"type": "function", "function": function}
    if tool.get("cache_control"):
        made["cache_control"] = tool["cache_control"]
    dropped.others(tool, ("type", "name", "description", "parameters", "strict", "cache_control"), "tools.")
    return made


def _choice_to_chat(
    choice: Any, tools: list[dict[str, Any]], names: ToolNames, dropped: Dropped
) -> tuple[list[dict[str, Any]], Any]:
    """The tools that may be called, and the choice among them."""
    if choice is None or isinstance(choice, str):
        return tools, choice
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind in ("function", "custom") and isinstance(choice.get("name"), str):
        name = names.flat(choice["name"], choice.get("namespace"))
        return tools, {"type": "function", "function": {"name": name}}
    if kind == "allowed_tools" and isinstance(choice.get("tools"), list):
        # OpenAI alone knows the list; everybody understands fewer tools.
        allowed = {
            names.flat(str(tool.get("name")), tool.get("namespace"))
            for tool in choice["tools"]
            if isinstance(tool, dict)
        }
        return [tool for tool in tools if tool["function"]["name"] in allowed], choice.get("mode", "auto")
    dropped.add("tool_choice")
    return tools, None


def tools_from_chat(chat: Mapping[str, Any], caps: Capabilities, dropped: Dropped) -> dict[str, Any]:
    """``tools`` and ``tool_choice`` for Responses, where there are any. Raises ``InvalidRequest``."""
    offered = chat.get("tools") or []
    if not isinstance(offered, list):
        raise InvalidRequest("tools: must be a list.")
    tools = [_tool_from_chat(tool, f"tools[{index}]", dropped) for index, tool in enumerate(offered)]
    if search := table(chat, "web_search_options"):
        tools.append(_web_search(search))
    if not tools:
        return {}
    choice = _choice_from_chat(chat.get("tool_choice"), dropped)
    if choice not in (None, "auto", "none") and not caps.forced_tools:
        dropped.add("tool_choice")
        choice = None
    return {"tools": tools} if choice is None else {"tools": tools, "tool_choice": choice}


def _tool_from_chat(tool: Any, where: str, dropped: Dropped) -> dict[str, Any]:
    kind = tool.get("type", "function") if isinstance(tool, dict) else None
    if kind not in ("function", "custom"):
        raise InvalidRequest(f"{where}: must be a function or a custom tool.")
    inner = table(tool, kind, where)
    if not isinstance(inner.get("name"), str):
        raise InvalidRequest(f"{where}.{kind}.name: must be a string.")
    made: dict[str, Any] = {"type": kind, "name": inner["name"]}
    if inner.get("description") is not None:
        made["description"] = inner["description"]
    if kind == "function":
        # Required here; a missing "strict" would mean yes here and means no in chat.
        made["parameters"] = table(inner, "parameters", where) or {"type": "object", "properties": {}}
        made["strict"] = bool(inner.get("strict"))
    elif style := table(inner, "format", where):
        made["format"] = {"type": style.get("type"), **table(style, "grammar", where)}
    dropped.others(tool, ("type", kind), "tools.")
    dropped.others(inner, ("name", "description", "parameters", "strict", "format"), f"tools.{kind}.")
    return made


def _web_search(options: Mapping[str, Any]) -> dict[str, Any]:
    tool: dict[str, Any] = {"type": "web_search"}
    if options.get("search_context_size") is not None:
        tool["search_context_size"] = options["search_context_size"]
    if place := table(options, "user_location", "web_search_options"):
        tool["user_location"] = {"type": "approximate", **table(place, "approximate", "user_location")}
    return tool


def _choice_from_chat(choice: Any, dropped: Dropped) -> Any:
    if choice is None or isinstance(choice, str):
        return choice
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind in ("function", "custom"):
        return {"type": kind, "name": table(choice, kind, "tool_choice").get("name")}
    if kind == "allowed_tools":
        allowed = table(choice, "allowed_tools", "tool_choice")
        tools = [_choice_from_chat(tool, dropped) for tool in allowed.get("tools") or ()]
        return {"type": kind, "mode": allowed.get("mode", "auto"), "tools": tools}
    dropped.add("tool_choice")
    return None
