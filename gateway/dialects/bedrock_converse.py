"""Amazon Bedrock's Converse API, the way in: canonical requests → ``/model/{id}/converse`` and ``/converse-stream``.

Facts: botocore's model of ``bedrock-runtime``. Turns of one role in a row become one message (models refuse two), and
tool results come first in theirs. Answers are in ``bedrock_converse_stream``.

Bedrock's own fields (``guardrailConfig``, ``additionalModelRequestFields``, …) pass as a client sends them and win over
what is made of OpenAI's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

import orjson

from gateway.dialects.bedrock_blocks import FORMAT, blocks_of, cache_point, tool_result
from gateway.dialects.capabilities import Capabilities
from gateway.dialects.dropped import Dropped, table
from gateway.errors import InvalidRequest

_OWN = (
    "additionalModelRequestFields", "additionalModelResponseFieldPaths", "guardrailConfig", "outputConfig",
    "performanceConfig", "promptVariables", "requestMetadata", "serviceTier",
)  # fmt: skip
_READ = {
    "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p",
    "top_k", "stop", "tools", "tool_choice", "response_format", "reasoning", "reasoning_effort", "service_tier", *_OWN,
}  # fmt: skip
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "user"}
_TOOL_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_TIERS = ("default", "flex", "priority")
# Tokens an effort stands for where a model wants a number: pydantic-ai's.
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 10_000, "high": 16_384, "xhigh": 32_768, "max": 32_768}
_LEAST = 1024  # tokens; smaller budgets are refused


def request_from_chat(
    chat: Mapping[str, Any],
    model: str,
    *,
    caps: Capabilities = Capabilities(),  # noqa: B008 - frozen
) -> tuple[dict[str, Any], list[str]]:
    """The request's body and the names of what it does not carry; the model goes into the path.

    Raises ``InvalidRequest``, also for images and files known only by their address.
    """
    dropped = Dropped()
    request = _messages(chat.get("messages"), caps, dropped)
    inference, more = _inference(chat, caps, dropped)
    output = _output_format(chat.get("response_format"), dropped)
    _reasoning(chat, caps, inference, more, output, dropped)
    if tools := _tool_config(chat, request["messages"], caps, dropped):
        request["toolConfig"] = tools
    tier = chat.get("service_tier")
    if tier in _TIERS[1:]:
        request["serviceTier"] = {"type": tier}
    elif tier not in (None, "auto", "default"):
        dropped.add("service_tier")
    made = {"inferenceConfig": inference, "additionalModelRequestFields": more, "outputConfig": output}
    request.update({name: fields for name, fields in made.items() if fields})
    for name in _OWN:
        own = chat.get(name)
        if own is not None:
            request[name] = {**made.get(name, {}), **own} if isinstance(own, dict) else own
    dropped.others(chat, _READ)
    return request, dropped.names


def _messages(messages: Any, caps: Capabilities, dropped: Dropped) -> dict[str, Any]:
    """``messages`` and, where there is any, ``system``."""
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages: must be a list with at least one message.")
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in _ROLES:
            raise InvalidRequest(f"{where}.role: must be one of {', '.join(_ROLES)}.")
        blocks = _blocks(message, role, where, caps, dropped)
        if not blocks:
            continue
        ours = _ROLES[role]
        if ours == "system" and not (turns and caps.mid_system):
            if turns:
                dropped.add("messages.system.position")  # said to the model, but ahead of the conversation
            system += blocks
        elif turns and turns[-1]["role"] == ours:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": ours, "content": blocks})
    if turns and turns[-1]["role"] == "assistant" and not caps.prefill:
        raise InvalidRequest(
            "messages: this model continues no message of the assistant; the last one must be another's."
        )
    return {"messages": turns, "system": system} if system else {"messages": turns}


def _blocks(
    message: Mapping[str, Any], role: str, where: str, caps: Capabilities, dropped: Dropped
) -> list[dict[str, Any]]:
    known = {"role", "content", "cache_control"}
    if role == "tool":
        known |= {"tool_call_id", "is_error", "name"}
        blocks = [tool_result(message, _tool_id(message.get("tool_call_id"), where), where, caps, dropped)]
    else:
        blocks = blocks_of(message.get("content"), where, caps, dropped)
    if _ROLES[role] == "system" and not all("text" in block or "cachePoint" in block for block in blocks):
        raise InvalidRequest(f"{where}.content: a {role} message holds text only.")
    if role == "assistant":
        known |= {"refusal", "reasoning_content", "reasoning_details", "tool_calls"}
        if (refusal := message.get("refusal")) and not blocks:
            blocks = [{"text": refusal}]
        blocks = [*_thoughts(message, dropped), *blocks, *_calls(message.get("tool_calls"), where, dropped)]
    if blocks and (mark := cache_point(message)):
        blocks.append(mark)
    dropped.others(message, known, "messages.")
    return blocks


def _thoughts(message: Mapping[str, Any], dropped: Dropped) -> list[dict[str, Any]]:
    """Reasoning this service has signed itself; other reasoning it would refuse."""
    blocks: dict[Any, dict[str, Any]] = {}
    details = message.get("reasoning_details")
    for position, item in enumerate(details if isinstance(details, list) else ()):
        if not isinstance(item, dict) or item.get("format") != FORMAT:
            dropped.add("messages.reasoning_details")
        elif item.get("type") == "reasoning.encrypted":
            blocks["encrypted", position] = {"redactedContent": item.get("data")}
        else:
            # The pieces of a stream are one block as long as they have one index.
            text = blocks.setdefault(item.get("index", ("text", position)), {"reasoningText": {"text": ""}})
            text["reasoningText"]["text"] += item.get("text") or ""
            if item.get("signature"):
                text["reasoningText"]["signature"] = item["signature"]
    if message.get("reasoning_content") and not blocks:
        dropped.add("messages.reasoning_content")
    return [{"reasoningContent": block} for block in blocks.values()]


def _tool_id(call_id: Any, where: str) -> str:
    """The id, or where it has letters or a length the service refuses, another one that is always the same."""
    if not isinstance(call_id, str):
        raise InvalidRequest(f"{where}: the id of a tool call must be a string.")
    return (
        call_id if _TOOL_ID.fullmatch(call_id) else f"call_{sha256(call_id.encode(errors='replace')).hexdigest()[:32]}"
    )


def _calls(calls: Any, where: str, dropped: Dropped) -> Iterable[dict[str, Any]]:
    if calls is not None and not isinstance(calls, list):
        raise InvalidRequest(f"{where}.tool_calls: must be a list.")
    for index, call in enumerate(calls or ()):
        place = f"{where}.tool_calls[{index}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(name := function.get("name"), str):
            raise InvalidRequest(f"{place}.function.name: must be a string.")
        dropped.others(call, ("id", "type", "function", "index"), "messages.tool_calls.")
        made = {"name": name, "input": _arguments(function.get("arguments"), f"{place}.function.arguments")}
        yield {"toolUse": {"toolUseId": _tool_id(call.get("id"), f"{place}.id"), **made}}


def _arguments(arguments: Any, where: str) -> Any:
    """The object in OpenAI's string of JSON. The standard parser keeps integers of any size."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"{where}: is not valid JSON.") from error
    if arguments is not None and not isinstance(arguments, dict):
        raise InvalidRequest(f"{where}: must be a JSON object.")
    return arguments or {}


def _inference(chat: Mapping[str, Any], caps: Capabilities, dropped: Dropped) -> tuple[dict[str, Any], dict[str, Any]]:
    """``inferenceConfig`` and the fields beyond it."""
    inference: dict[str, Any] = {}
    more: dict[str, Any] = {}
    most = chat.get("max_completion_tokens") or chat.get("max_tokens")
    if most is not None:
        inference["maxTokens"] = most
    for name, place, ours in (
        ("temperature", inference, "temperature"), ("top_p", inference, "topP"), ("top_k", more, "top_k"),
    ):  # fmt: skip
        if (value := chat.get(name)) is None:
            continue
        if not caps.sampling:
            dropped.add(name)
            continue
        if name == "temperature" and isinstance(value, int | float) and value > 1:
            dropped.add(name)  # 1 is the most there is
            value = 1
        place[ours] = value
    stop = chat.get("stop")
    if stop:
        inference["stopSequences"] = [stop] if isinstance(stop, str) else stop
    return inference, more


def _reasoning(
    chat: Mapping[str, Any],
    caps: Capabilities,
    inference: dict[str, Any],
    more: dict[str, Any],
    output: dict[str, Any],
    dropped: Dropped,
) -> None:
    reasoning = table(chat, "reasoning")
    dropped.others(reasoning, {"effort", "max_tokens", "enabled"}, "reasoning.")
    effort, budget = chat.get("reasoning_effort") or reasoning.get("effort"), reasoning.get("max_tokens")
    if effort is not None and effort != "none" and effort not in _BUDGETS:
        raise InvalidRequest(f"reasoning_effort: must be one of none, {', '.join(_BUDGETS)}.")
    if effort == "none" or reasoning.get("enabled") is False:
        if caps.always_thinks:
            dropped.add("reasoning_effort")
        return  # nobody thinks here unasked
    if effort is None and budget is None and not reasoning.get("enabled"):
        return
    if caps.adaptive_thinking:
        more["thinking"] = {"type": "adaptive"}
        if effort is not None:
            output["effort"] = "low" if effort == "minimal" else effort
        elif budget is not None:
            dropped.add("reasoning.max_tokens")
    elif caps.budget_thinking and (tokens := _budget(budget or _BUDGETS[effort or "medium"], inference)):
        more["thinking"] = {"type": "enabled", "budget_tokens": tokens}
    else:
        dropped.add("reasoning_effort" if effort is not None else "reasoning")


def _budget(tokens: Any, inference: Mapping[str, Any]) -> int:
    """Tokens to think with below the client's limit, which holds for thoughts and answer together; 0 for too few."""
    if not isinstance(tokens, int):
        raise InvalidRequest("reasoning.max_tokens: must be a number of tokens.")
    most = inference.get("maxTokens")
    if isinstance(most, int):
        tokens = min(tokens, most - 1)
    return tokens if tokens >= _LEAST else 0


def _output_format(wanted: Any, dropped: Dropped) -> dict[str, Any]:
    """``outputConfig``; its schema is a string."""
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_schema":
        given = table(wanted, "json_schema", "response_format")
        if not isinstance(schema := given.get("schema"), dict):
            raise InvalidRequest("response_format.json_schema.schema: must be an object.")
        made = {"schema": orjson.dumps(schema).decode()}
        made.update({name: given[name] for name in ("name", "description") if isinstance(given.get(name), str)})
        return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": made}}}
    if wanted is not None and kind != "text":
        dropped.add("response_format")
    return {}


def _tool_config(
    chat: Mapping[str, Any], messages: Iterable[Mapping[str, Any]], caps: Capabilities, dropped: Dropped
) -> dict[str, Any]:
    tools = chat.get("tools") or []
    if not isinstance(tools, list):
        raise InvalidRequest("tools: must be a list.")
    made: list[dict[str, Any]] = []
    for index, tool in enumerate(tools):
        made += _tool(tool, f"tools[{index}]", dropped)
    choice = chat.get("tool_choice")
    used = [block["toolUse"]["name"] for turn in messages for block in turn["content"] if "toolUse" in block]
    if choice == "none":
        if not used:
            return {}
        dropped.add("tool_choice")  # whoever has called tools has to be told them, and may call them again
    if not made:
        made = [{"toolSpec": {"name": name, "inputSchema": _NO_PARAMETERS}} for name in dict.fromkeys(used)]
    wanted = _choice(choice, caps, dropped)
    if not made:
        return {}
    return {"tools": made, "toolChoice": wanted} if wanted else {"tools": made}


_NO_PARAMETERS = {"json": {"type": "object", "properties": {}}}


def _tool(tool: Any, where: str, dropped: Dropped) -> list[dict[str, Any]]:
    if not isinstance(tool, dict):
        raise InvalidRequest(f"{where}: must be an object.")
    if (kind := tool.get("type", "function")) != "function":
        dropped.add(f"tools.{kind}")
        return []
    function = table(tool, "function", where)
    if not isinstance(function.get("name"), str):
        raise InvalidRequest(f"{where}.function.name: must be a string.")
    spec = {"name": function["name"]}
    if function.get("description"):
        spec["description"] = function["description"]
    spec["inputSchema"] = {"json": parameters} if (parameters := function.get("parameters")) else _NO_PARAMETERS
    if function.get("strict"):
        spec["strict"] = True
    dropped.others(tool, ("type", "function", "cache_control"), "tools.")
    dropped.others(function, ("name", "description", "parameters", "strict"), "tools.function.")
    mark = cache_point(tool)
    return [{"toolSpec": spec}, mark] if mark else [{"toolSpec": spec}]


def _choice(choice: Any, caps: Capabilities, dropped: Dropped) -> dict[str, Any]:
    if choice in (None, "none", "auto"):
        return {"auto": {}} if choice == "auto" else {}
    name = table(choice, "function", "tool_choice").get("name") if isinstance(choice, dict) else None
    if caps.forced_tools and choice == "required":
        return {"any": {}}
    if caps.forced_tools and isinstance(name, str):
        return {"tool": {"name": name}}
    dropped.add("tool_choice")
    return {}
