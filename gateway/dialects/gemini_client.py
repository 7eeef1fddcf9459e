"""Google Gemini's own wire format for our clients: ``generateContent`` and ``countTokens`` → canonical requests.

Protocol buffers take JSON names in camelCase and snake_case, and so do we; the keys of arguments, results and schemas
belong to the client and stay what they are. ``contents`` are translated in ``gemini_history``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects.dropped import Dropped, table
from gateway.dialects.gemini_history import History, content_text
from gateway.dialects.gemini_schema import camel, from_openapi
from gateway.errors import InvalidRequest

Translated = tuple[dict[str, Any], list[str]]
"""The canonical request, without ``model`` and ``stream``, and what it does not carry."""

_CONFIG = {
    "temperature": "temperature", "topP": "top_p", "topK": "top_k", "seed": "seed", "candidateCount": "n",
    "presencePenalty": "presence_penalty", "frequencyPenalty": "frequency_penalty", "stopSequences": "stop",
    "maxOutputTokens": "max_completion_tokens",
}  # fmt: skip
_FORMAT = ("responseMimeType", "responseSchema", "responseJsonSchema")
_LOGPROBS = ("responseLogprobs", "logprobs")
_SEARCH = ("googleSearch", "googleSearchRetrieval")
# Values the client owns; schemas of the OpenAPI subset are renamed by from_openapi.
_OPAQUE = frozenset({
    "args", "response", "parameters", "parametersJsonSchema", "responseSchema", "responseJsonSchema", "labels",
})  # fmt: skip
_DEEPEST = 100


def renamed(value: Any, depth: int = 0) -> Any:
    """``value`` with the names of Gemini's fields in camelCase. Raises ``InvalidRequest`` beyond 100 levels."""
    if depth > _DEEPEST:
        raise InvalidRequest("The request is nested too deeply.")
    if isinstance(value, list):
        return [renamed(each, depth + 1) for each in value]
    if not isinstance(value, dict):
        return value
    named = [(camel(key), inner) for key, inner in value.items()]
    return {name: inner if name in _OPAQUE else renamed(inner, depth + 1) for name, inner in named}


def request_to_chat(body: Mapping[str, Any]) -> Translated:
    """A body of ``generateContent`` or ``streamGenerateContent`` → the canonical request.

    Raises ``InvalidRequest``, also for ``cachedContent``: what is cached at Google cannot be shown to another model.
    """
    body = renamed(body)
    if body.get("cachedContent"):
        raise InvalidRequest("cachedContent: this model cannot see what is cached at another provider.")
    dropped = Dropped()
    history = History(dropped)
    if instruction := content_text(body.get("systemInstruction"), "systemInstruction"):
        history.messages.append({"role": "system", "content": instruction})
    history.read(body.get("contents"))
    chat: dict[str, Any] = {"messages": history.messages}
    _tools(chat, body.get("tools"), dropped)
    choice = table(body, "toolConfig")
    dropped.others(choice, ("functionCallingConfig",), "toolConfig.")
    _tool_choice(chat, table(choice, "functionCallingConfig", "toolConfig"), dropped)
    _config(chat, table(body, "generationConfig"), dropped)
    dropped.others(
        body, ("model", "contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "cachedContent")
    )
    return chat, dropped.names


def count_to_chat(body: Mapping[str, Any]) -> Translated:
    """A body of ``countTokens``, in either of its two forms. Raises ``InvalidRequest``."""
    body = renamed(body)
    return request_to_chat(table(body, "generateContentRequest") or body)


def count_body(tokens: int) -> dict[str, Any]:
    """The answer to ``countTokens``."""
    return {"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]}


def asks_for_thoughts(request: Mapping[str, Any]) -> bool:
    """Whether the client of this ``generateContent`` body wants to read the model's thoughts."""
    config: Any = request
    for first, second in (("generationConfig", "generation_config"), ("thinkingConfig", "thinking_config")):
        config = config.get(first, config.get(second)) if isinstance(config, dict) else None
    return isinstance(config, dict) and config.get("includeThoughts", config.get("include_thoughts")) is True


def _config(chat: dict[str, Any], config: Mapping[str, Any], dropped: Dropped) -> None:
    chat.update({ours: config[name] for name, ours in _CONFIG.items() if config.get(name) not in (None, [])})
    if config.get("responseLogprobs"):
        chat["logprobs"] = True
        if config.get("logprobs") is not None:
            chat["top_logprobs"] = config["logprobs"]
    _format(chat, config, dropped)
    _thinking(chat, table(config, "thinkingConfig", "generationConfig"), dropped)
    modalities = config.get("responseModalities")
    if isinstance(modalities, list) and all(isinstance(each, str) for each in modalities):
        wanted = [each.lower() for each in modalities]
        if wanted not in ([], ["text"]):
            chat["modalities"] = wanted
    known = (*_CONFIG, *_FORMAT, *_LOGPROBS, "thinkingConfig", "responseModalities")
    dropped.others(config, known, "generationConfig.")


def _format(chat: dict[str, Any], config: Mapping[str, Any], dropped: Dropped) -> None:
    schema = config.get("responseJsonSchema")
    if schema is None and config.get("responseSchema") is not None:
        schema = from_openapi(config["responseSchema"])
    kind = config.get("responseMimeType")
    if kind == "application/json":
        chat["response_format"] = {"type": "json_object"}
        if isinstance(schema, dict):
            chat["response_format"] = {"type": "json_schema", "json_schema": {"name": "response", "schema": schema}}
    elif kind not in (None, "text/plain"):
        dropped.add("generationConfig.responseMimeType")  # text/x.enum


def _thinking(chat: dict[str, Any], config: Mapping[str, Any], dropped: Dropped) -> None:
    """``includeThoughts`` alone changes nothing about how much is thought: it is the encoder's to obey."""
    dropped.others(config, ("includeThoughts", "thinkingBudget", "thinkingLevel"), "generationConfig.thinkingConfig.")
    level, budget = config.get("thinkingLevel"), config.get("thinkingBudget")
    if isinstance(level, str) and level.lower() != "thinking_level_unspecified":
        chat["reasoning_effort"] = level.lower()
    elif budget == 0:
        chat["reasoning_effort"] = "none"
    elif type(budget) is int and budget > 0:
        chat["reasoning"] = {"max_tokens": budget}
    elif budget is not None or config.get("includeThoughts") is True:  # -1: as much as the model likes
        chat["reasoning"] = {"enabled": True}


def _tools(chat: dict[str, Any], tools: Any, dropped: Dropped) -> None:
    if tools is not None and not isinstance(tools, list):
        raise InvalidRequest("tools: must be a list.")
    functions: list[dict[str, Any]] = []
    for index, tool in enumerate(tools or ()):
        where = f"tools[{index}]"
        if not isinstance(tool, dict):
            raise InvalidRequest(f"{where}: must be an object.")
        declared = tool.get("functionDeclarations") or []
        if not isinstance(declared, list):
            raise InvalidRequest(f"{where}.functionDeclarations: must be a list.")
        functions += [_function(each, f"{where}.functionDeclarations", dropped) for each in declared]
        if any(tool.get(name) is not None for name in _SEARCH):
            chat["web_search_options"] = {}
        for name, value in tool.items():  # {"codeExecution": {}} asks for something, empty as it is
            if name not in ("functionDeclarations", *_SEARCH) and value is not None:
                dropped.add(f"tools.{name}")
    if functions:
        chat["tools"] = functions


def _function(declared: Any, where: str, dropped: Dropped) -> dict[str, Any]:
    if not isinstance(declared, dict) or not isinstance(declared.get("name"), str):
        raise InvalidRequest(f"{where}.name: must be a string.")
    function = {name: declared[name] for name in ("name", "description") if declared.get(name) is not None}
    schema = declared.get("parametersJsonSchema")
    if schema is None and declared.get("parameters") is not None:
        schema = from_openapi(declared["parameters"])
    if schema is not None:
        if not isinstance(schema, dict):
            raise InvalidRequest(f"{where}.parameters: must be an object.")
        function["parameters"] = schema
    dropped.others(declared, ("name", "description", "parameters", "parametersJsonSchema"), "tools.function.")
    return {"type": "function", "function": function}


def _tool_choice(chat: dict[str, Any], config: Mapping[str, Any], dropped: Dropped) -> None:
    dropped.others(config, ("mode", "allowedFunctionNames"), "toolConfig.")
    if "tools" not in chat:
        return
    mode = config.get("mode")
    names = config.get("allowedFunctionNames") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidRequest("toolConfig.functionCallingConfig.allowedFunctionNames: must be a list of strings.")
    if mode == "NONE":
        chat["tool_choice"] = "none"
    elif mode == "ANY" and len(names) == 1:
        chat["tool_choice"] = {"type": "function", "function": {"name": names[0]}}
    elif mode in ("ANY", "VALIDATED") and names:
        tools = [{"type": "function", "function": {"name": name}} for name in names]
        allowed = {"mode": "required" if mode == "ANY" else "auto", "tools": tools}
        chat["tool_choice"] = {"type": "allowed_tools", "allowed_tools": allowed}
    elif mode == "ANY":
        chat["tool_choice"] = "required"
    elif mode in ("AUTO", "VALIDATED"):
        chat["tool_choice"] = "auto"
    if mode == "VALIDATED":
        dropped.add("toolConfig.mode")
