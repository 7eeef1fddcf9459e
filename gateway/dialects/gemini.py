"""Google Gemini's own wire format, the way in: canonical requests → ``generateContent`` and ``countTokens``.

The same bodies serve Vertex. Facts: google-genai 3.6, the API's documentation and recorded traffic. The model and
whether the answer is streamed stand in the path, not in the body. Messages are translated in ``gemini_content``, the
opposite direction is ``gemini_client``, answers are ``gemini_reply`` and ``gemini_stream``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects.capabilities import Capabilities
from gateway.dialects.dropped import Dropped, table
from gateway.dialects.gemini_content import Contents
from gateway.dialects.gemini_schema import camel, to_openapi
from gateway.errors import InvalidRequest

Translated = tuple[dict[str, Any], list[str]]
"""The request for Gemini, and what it does not carry (``x-gateway-dropped``)."""

_SAMPLING = {"temperature": "temperature", "top_p": "topP", "top_k": "topK"}
_CONFIG = {
    "max_tokens": "maxOutputTokens", "max_completion_tokens": "maxOutputTokens", "n": "candidateCount", "seed": "seed",
    "presence_penalty": "presencePenalty", "frequency_penalty": "frequencyPenalty",
}  # fmt: skip
_READ = {
    "model", "messages", "stream", "stream_options", "stop", "tools", "tool_choice", "response_format", "logprobs",
    "top_logprobs", "reasoning", "reasoning_effort", "modalities", "web_search_options", "extra_body",
    *_SAMPLING, *_CONFIG,
}  # fmt: skip
# Google's own table for its OpenAI-compatible surface; stronger words get what every model takes at most.
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
_EFFORTS = tuple(_BUDGETS)
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_DEFAULT = Capabilities()


def request_from_chat(chat: Mapping[str, Any], model: str, *, caps: Capabilities = _DEFAULT) -> Translated:
    """A canonical request → ``generateContent``. Raises ``InvalidRequest``.

    ``caps.budget_thinking`` asks for thinking by ``thinkingBudget`` (2.5), else by ``thinkingLevel`` out of
    ``caps.efforts`` (3); ``caps.json_schema`` chooses ``parametersJsonSchema`` and ``responseJsonSchema``;
    ``caps.signed_calls`` gives calls of the history without a signature Google's documented dummy (3).
    """
    dropped = Dropped()
    said = Contents(chat.get("messages"), caps, dropped)
    request: dict[str, Any] = {"contents": said.contents}
    if said.system:
        request["systemInstruction"] = {"parts": [{"text": "\n\n".join(said.system)}]}
    if tools := _tools(chat, caps, dropped):
        request["tools"] = tools
        if "functionDeclarations" in tools[0] and (chosen := _tool_choice(chat, caps, dropped)):
            request["toolConfig"] = {"functionCallingConfig": chosen}
    config = _config(chat, caps, dropped)
    if thinking := _thinking(chat, caps, dropped):
        config["thinkingConfig"] = thinking
    _own(request, config, chat, dropped)
    if config:
        request["generationConfig"] = config
    dropped.others(chat, _READ)
    return request, dropped.names


def count_from_chat(chat: Mapping[str, Any], model: str, *, caps: Capabilities = _DEFAULT) -> Translated:
    """A canonical request whose tokens are asked for → ``countTokens``. Raises ``InvalidRequest``."""
    request, dropped = request_from_chat(chat, model, caps=caps)
    request.pop("generationConfig", None)
    return {"generateContentRequest": {"model": f"models/{model}", **request}}, dropped


def _config(chat: Mapping[str, Any], caps: Capabilities, dropped: Dropped) -> dict[str, Any]:
    config = {ours: chat[name] for name, ours in _CONFIG.items() if chat.get(name) is not None}
    if config.get("candidateCount") == 1:
        del config["candidateCount"]
    for name, ours in _SAMPLING.items():
        if chat.get(name) is not None:
            if caps.sampling:
                config[ours] = chat[name]
            else:
                dropped.add(name)
    if (stop := chat.get("stop")) is not None:
        config["stopSequences"] = [stop] if isinstance(stop, str) else stop
    if chat.get("logprobs"):
        config["responseLogprobs"] = True
        if (top := chat.get("top_logprobs")) is not None:
            config["logprobs"] = top
    _modalities(config, chat.get("modalities"), dropped)
    _format(config, chat.get("response_format"), caps, dropped)
    return config


def _modalities(config: dict[str, Any], wanted: Any, dropped: Dropped) -> None:
    if isinstance(wanted, list) and wanted != ["text"]:
        known = [each.upper() for each in wanted if each in ("text", "image")]
        if len(known) < len(wanted):
            dropped.add("modalities")
        if "IMAGE" in known:
            config["responseModalities"] = known


def _format(config: dict[str, Any], wanted: Any, caps: Capabilities, dropped: Dropped) -> None:
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in ("json_object", "json_schema"):
        if wanted is not None and kind != "text":
            dropped.add("response_format")
        return
    config["responseMimeType"] = "application/json"
    if kind == "json_schema":
        schema = table(wanted, "json_schema", "response_format").get("schema")
        if not isinstance(schema, dict):
            raise InvalidRequest("response_format.json_schema.schema: must be an object.")
        if caps.json_schema:
            config["responseJsonSchema"] = schema
        else:
            config["responseSchema"] = to_openapi(schema, dropped, "response_format.")


def _thinking(chat: Mapping[str, Any], caps: Capabilities, dropped: Dropped) -> dict[str, Any]:
    reasoning = table(chat, "reasoning")
    dropped.others(reasoning, ("effort", "max_tokens", "enabled", "exclude"), "reasoning.")
    effort = chat.get("reasoning_effort") or reasoning.get("effort")
    if effort is not None and effort not in _EFFORTS:
        raise InvalidRequest(f"reasoning_effort: must be one of {', '.join(_EFFORTS)}.")
    budget = reasoning.get("max_tokens")
    if budget is not None and (type(budget) is not int or budget < 0):
        raise InvalidRequest("reasoning.max_tokens: must be a whole number.")
    if reasoning.get("enabled") is False:
        effort, budget = "none", None
    if effort is budget is None and not reasoning.get("enabled"):
        return {}
    asked = _amount(effort, budget, caps, dropped)
    if asked is None:
        return {}
    if asked.get("thinkingBudget") != 0 and not reasoning.get("exclude"):
        asked["includeThoughts"] = True
    return asked


def _amount(effort: str | None, budget: int | None, caps: Capabilities, dropped: Dropped) -> dict[str, Any] | None:
    """How much thinking, in the words of the model; ``None`` if it has none for that."""
    if not caps.budget_thinking and not caps.efforts:
        if effort != "none":
            dropped.add("reasoning_effort" if budget is None else "reasoning.max_tokens")
        return None
    if caps.budget_thinking:
        if budget is None and effort is not None:
            budget = _BUDGETS[effort]
        if budget == 0 and caps.always_thinks:
            dropped.add("reasoning_effort")
            return None
        return {} if budget is None else {"thinkingBudget": budget}
    if budget is not None:  # a number becomes the weakest word that stands for as much
        dropped.add("reasoning.max_tokens")
        effort = next((word for word in caps.efforts if _BUDGETS.get(word, 0) >= budget), caps.efforts[-1])
    if effort is None:
        return {}
    return {"thinkingLevel": _level(effort, caps, dropped).upper()}


def _level(effort: str, caps: Capabilities, dropped: Dropped) -> str:
    """The nearest word the model knows: the next weaker one, else its weakest."""
    if effort in caps.efforts:
        return effort
    if effort not in ("xhigh", "max"):
        dropped.add("reasoning_effort")
    weaker = [word for word in _EFFORTS[: _EFFORTS.index(effort)] if word in caps.efforts and word != "none"]
    return weaker[-1] if weaker else caps.efforts[0]


def _own(request: dict[str, Any], config: dict[str, Any], chat: Mapping[str, Any], dropped: Dropped) -> None:
    """Gemini's own fields, where clients of its OpenAI-compatible surface put them: ``extra_body.google``."""
    extra = table(chat, "extra_body")
    dropped.others(extra, ("google",), "extra_body.")
    for key, value in table(extra, "google", "extra_body").items():
        name = camel(key)
        if name == "thinkingConfig" and isinstance(value, dict):
            config[name] = {camel(each): inner for each, inner in value.items()}
        elif name in ("cachedContent", "safetySettings", "labels", "serviceTier"):
            request[name] = value
        elif value is not None:
            dropped.add(f"extra_body.google.{key}")


def _tools(chat: Mapping[str, Any], caps: Capabilities, dropped: Dropped) -> list[dict[str, Any]]:
    tools = chat.get("tools") or []
    if not isinstance(tools, list):
        raise InvalidRequest("tools: must be a list.")
    made = [declared for index, tool in enumerate(tools) if (declared := _tool(tool, f"tools[{index}]", caps, dropped))]
    found: list[dict[str, Any]] = [{"functionDeclarations": made}] if made else []
    if isinstance(search := chat.get("web_search_options"), dict):
        dropped.others(search, (), "web_search_options.")
        found.append({"googleSearch": {}})
    return found


def _tool(tool: Any, where: str, caps: Capabilities, dropped: Dropped) -> dict[str, Any] | None:
    if not isinstance(tool, dict):
        raise InvalidRequest(f"{where}: must be an object.")
    if (kind := tool.get("type", "function")) != "function":
        dropped.add(f"tools.{kind}")
        return None
    function = table(tool, "function", where)
    if not isinstance(function.get("name"), str):
        raise InvalidRequest(f"{where}.function.name: must be a string.")
    made = {name: function[name] for name in ("name", "description") if function.get(name) is not None}
    parameters = table(function, "parameters", f"{where}.function")
    if parameters.get("properties") or parameters.get("type", "object") != "object" or "$ref" in parameters:
        if caps.json_schema:
            made["parametersJsonSchema"] = parameters
        else:
            made["parameters"] = to_openapi(parameters, dropped, "tools.function.parameters.")
    dropped.others(tool, ("type", "function"), "tools.")
    dropped.others(function, ("name", "description", "parameters", "strict"), "tools.function.")
    return made


def _tool_choice(chat: Mapping[str, Any], caps: Capabilities, dropped: Dropped) -> dict[str, Any]:
    """``VALIDATED`` holds the model to the schemas of its calls: what ``strict`` asks for."""
    mode, names = _chosen(chat.get("tool_choice"))
    if mode == "ANY" and not caps.forced_tools:
        dropped.add("tool_choice")
        mode, names = "AUTO", []
    if mode == "AUTO" and (names or any(table(tool, "function").get("strict") for tool in chat.get("tools") or ())):
        mode = "VALIDATED"
    if mode == "AUTO" and chat.get("tool_choice") is None:
        return {}
    return {"mode": mode, **({"allowedFunctionNames": names} if names else {})}


def _chosen(choice: Any) -> tuple[str, list[str]]:
    if choice is None or (isinstance(choice, str) and choice in _MODES):
        return _MODES[choice or "auto"], []
    if isinstance(choice, dict) and choice.get("type") == "function":
        name = table(choice, "function", "tool_choice").get("name")
        if isinstance(name, str):
            return "ANY", [name]
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = table(choice, "allowed_tools", "tool_choice")
        tools = allowed.get("tools")
        functions = (
            [tool.get("function") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
        )
        names = [each["name"] for each in functions if isinstance(each, dict) and isinstance(each.get("name"), str)]
        if names:
            return "ANY" if allowed.get("mode") == "required" else "AUTO", names
    raise InvalidRequest("tool_choice: must be none, auto, required, or an object that names functions.")
