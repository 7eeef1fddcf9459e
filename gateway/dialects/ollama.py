"""Ollama's own wire format, the way in: OpenAI requests → ``/api/chat``, ``/api/generate``, ``/api/embed``.

Facts: Ollama's OpenAPI document and its own OpenAI converter (``openai/openai.go``). Two choices differ from that one:
an absent ``temperature`` or ``top_p`` stays absent, so that the model's own default holds (it forces 1.0), and the
parts of a message stay one message. Answers are in ``ollama_reply`` and ``ollama_embed``.

Each function returns the request and the names of what it could not carry. What would change the question itself (a
file, an image known only by its address) is refused with ``InvalidRequest`` instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dialects.dropped import Dropped, table
from gateway.errors import InvalidRequest

Translated = tuple[dict[str, Any], list[str]]
"""The request for Ollama, and what it does not carry (``x-gateway-dropped``)."""

_THINK: dict[str, bool | str] = {
    "none": False, "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "max", "ultra": "max",
    "max": "max",
}  # fmt: skip
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
# OpenAI's name, or the one other servers gave it → Ollama's in ``options``; of two for the same, the last one wins.
_OPTIONS = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p", "seed": "seed",
    "presence_penalty": "presence_penalty", "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repeat_penalty", "repeat_penalty": "repeat_penalty", "num_ctx": "num_ctx",
    "max_tokens": "num_predict", "max_completion_tokens": "num_predict",
}  # fmt: skip
# Ollama's own fields, which its users send as ``extra_body``; they win over OpenAI's words for the same thing.
_OWN = ("format", "keep_alive", "shift", "think", "truncate")
_READ = {
    "model", "stream", "stream_options", "stop", "options", "reasoning", "reasoning_effort", "response_format",
    *_OWN, *_OPTIONS,
}  # fmt: skip


def chat_request(
    chat: Mapping[str, Any], model: str, *, options: Mapping[str, Any] = {}, keep_alive: str | None = None
) -> Translated:
    """A Chat Completions request → ``/api/chat``. ``options`` and ``keep_alive`` hold where the client says nothing.

    Raises ``InvalidRequest``.
    """
    dropped = Dropped()
    request: dict[str, Any] = {"model": model, "messages": _messages(chat.get("messages"), dropped)}
    if tools := _tools(chat, dropped):
        request["tools"] = tools
    _common(request, chat, options, keep_alive, dropped)
    if chat.get("logprobs"):
        request["logprobs"] = True
        if (top := chat.get("top_logprobs")) is not None:
            request["top_logprobs"] = top
    dropped.others(chat, {*_READ, *request, "tools", "tool_choice"})
    return request, dropped.names


def generate_request(
    completion: Mapping[str, Any], model: str, *, options: Mapping[str, Any] = {}, keep_alive: str | None = None
) -> Translated:
    """A legacy Completions request → ``/api/generate``. Raises ``InvalidRequest``."""
    prompt = completion.get("prompt", "")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise InvalidRequest("prompt: this provider takes one string; it takes no token ids and no list of prompts.")
    dropped = Dropped()
    request: dict[str, Any] = {"model": model, "prompt": prompt}
    own = ("suffix", "system", "template", "raw")
    request.update({name: completion[name] for name in own if completion.get(name) is not None})
    _common(request, completion, options, keep_alive, dropped)
    dropped.others(completion, {*_READ, *request})
    return request, dropped.names


def embed_request(
    embeddings: Mapping[str, Any], model: str, *, options: Mapping[str, Any] = {}, keep_alive: str | None = None
) -> Translated:
    """An Embeddings request → ``/api/embed``. Raises ``InvalidRequest``, also for token ids.

    ``encoding_format`` is not the provider's affair: the answer is encoded by ``ollama_embed``.
    """
    texts = embeddings.get("input")
    if not isinstance(texts, str) and not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        raise InvalidRequest("input: this provider takes a string or a list of strings; it takes no token ids.")
    if embeddings.get("encoding_format") not in (None, "float", "base64"):
        raise InvalidRequest('encoding_format: must be "float" or "base64".')
    request: dict[str, Any] = {"model": model, "input": texts}
    own = ("dimensions", "truncate", "keep_alive")
    request.update({name: embeddings[name] for name in own if embeddings.get(name) is not None})
    _defaults(request, {**options, **table(embeddings, "options")}, keep_alive)
    dropped = Dropped()
    dropped.others(embeddings, {*request, "encoding_format", "options"})
    return request, dropped.names


def encode(request: Mapping[str, Any]) -> bytes:
    """The request as JSON. Raises ``InvalidRequest`` if it is nested too deeply."""
    try:
        return orjson.dumps(request)
    except TypeError:  # what orjson does not write: integers beyond 64 bits, half surrogate pairs, depth beyond 254
        try:
            return json.dumps(request, separators=(",", ":")).encode()
        except RecursionError as error:
            raise InvalidRequest("The request is nested too deeply.") from error


def _common(
    request: dict[str, Any],
    body: Mapping[str, Any],
    options: Mapping[str, Any],
    keep_alive: str | None,
    dropped: Dropped,
) -> None:
    """What chat and completions share: sampling options, output format, thinking, ``stream``."""
    chosen = {**options, **{ours: body[name] for name, ours in _OPTIONS.items() if body.get(name) is not None}}
    stop = body.get("stop")
    if stop is not None:
        chosen["stop"] = [stop] if isinstance(stop, str) else stop
    chosen.update(table(body, "options"))
    request["stream"] = bool(body.get("stream"))  # Ollama streams unless told not to
    if (wanted := _format(body.get("response_format"), dropped)) is not None:
        request["format"] = wanted
    if (think := _think(body, dropped)) is not None:
        request["think"] = think
    request.update({name: body[name] for name in _OWN if body.get(name) is not None})
    _defaults(request, chosen, keep_alive)


def _defaults(request: dict[str, Any], options: Mapping[str, Any], keep_alive: str | None) -> None:
    if options:
        request["options"] = options
    if keep_alive is not None:
        request.setdefault("keep_alive", keep_alive)


def _format(wanted: Any, dropped: Dropped) -> Any:
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_object":
        return "json"
    if kind == "json_schema":
        schema = table(wanted, "json_schema", "response_format").get("schema")
        if not isinstance(schema, dict):
            raise InvalidRequest("response_format.json_schema.schema: must be an object.")
        return schema
    if wanted is not None and kind != "text":
        dropped.add("response_format")
    return None


def _think(body: Mapping[str, Any], dropped: Dropped) -> bool | str | None:
    reasoning = table(body, "reasoning")
    dropped.others(reasoning, {"effort", "enabled"}, "reasoning.")
    effort = body.get("reasoning_effort") or reasoning.get("effort")
    if effort is None:
        enabled = reasoning.get("enabled", True if reasoning.get("max_tokens") else None)
        return enabled if isinstance(enabled, bool) else None
    if not isinstance(effort, str) or effort not in _THINK:
        raise InvalidRequest(f"reasoning_effort: must be one of {', '.join(_THINK)}.")
    return _THINK[effort]


def _tools(chat: Mapping[str, Any], dropped: Dropped) -> list[dict[str, Any]]:
    tools = chat.get("tools") or []
    choice = chat.get("tool_choice")
    if choice == "none":
        return []
    if choice not in (None, "auto"):
        dropped.add("tool_choice")  # Ollama has no word for it: the model chooses
    if not isinstance(tools, list):
        raise InvalidRequest("tools: must be a list.")
    return [made for index, tool in enumerate(tools) if (made := _tool(tool, f"tools[{index}]", dropped))]


def _tool(tool: Any, where: str, dropped: Dropped) -> dict[str, Any] | None:
    if not isinstance(tool, dict):
        raise InvalidRequest(f"{where}: must be an object.")
    if (kind := tool.get("type", "function")) != "function":
        dropped.add(f"tools.{kind}")
        return None
    function = table(tool, "function", where)
    if not isinstance(function.get("name"), str):
        raise InvalidRequest(f"{where}.function.name: must be a string.")
    kept = {name: function[name] for name in ("name", "description") if function.get(name) is not None}
    # A schema is required here and optional at OpenAI (a function without parameters).
    kept["parameters"] = function.get("parameters") or {"type": "object", "properties": {}}
    dropped.others(tool, ("type", "function", "cache_control"), "tools.")
    dropped.others(function, kept, "tools.function.")
    return {"type": "function", "function": kept}


def _messages(messages: Any, dropped: Dropped) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages: must be a list with at least one message.")
    called: dict[str, str] = {}  # tool call id → function name: Ollama's tool results carry the name
    return [_message(message, f"messages[{index}]", called, dropped) for index, message in enumerate(messages)]


def _message(message: Any, where: str, called: dict[str, str], dropped: Dropped) -> dict[str, Any]:
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidRequest(f"{where}.role: must be one of {', '.join(_ROLES)}.")
    known = {"role", "content", "cache_control"}  # prompts are cached by themselves
    text, images = _content(message.get("content"), where, dropped)
    result: dict[str, Any] = {"role": _ROLES[role], "content": text}
    if images:
        result["images"] = images
    if role == "assistant":
        known |= {"refusal", "reasoning", "reasoning_content", "tool_calls"}
        result["content"] = text or message.get("refusal") or ""
        if thinking := message.get("reasoning_content") or message.get("reasoning"):
            result["thinking"] = thinking
        if calls := message.get("tool_calls"):
            result["tool_calls"] = _tool_calls(calls, where, called, dropped)
    elif role == "tool":
        known |= {"name", "tool_call_id"}
        if (call_id := message.get("tool_call_id")) is not None:
            result["tool_call_id"] = call_id
        if name := called.get(str(call_id)) or message.get("name"):
            result["tool_name"] = name
    dropped.others(message, known, "messages.")
    return result


def _content(content: Any, where: str, dropped: Dropped) -> tuple[str, list[str]]:
    """The text, and in base64 the images; recorded sound travels as one of them."""
    if content is None or isinstance(content, str):
        return content or "", []
    if not isinstance(content, list):
        raise InvalidRequest(f"{where}.content: must be a string or a list of parts.")
    texts: list[str] = []
    images: list[str] = []
    for index, part in enumerate(content):
        place = f"{where}.content[{index}]"
        kind = part.get("type") if isinstance(part, dict) else None
        value = part.get(kind) if isinstance(kind, str) else None
        if kind in ("text", "refusal") and isinstance(value, str):
            texts.append(value)
        elif kind == "image_url":
            images.append(_image(value, f"{place}.image_url", dropped))
        elif kind == "input_audio" and isinstance(value, dict) and isinstance(value.get("data"), str):
            images.append(value["data"])
        else:
            raise InvalidRequest(f"{place}: this provider takes text, image_url and input_audio parts.")
        dropped.others(part, ("type", kind, "cache_control"), "messages.content.")
    return "\n".join(texts), images


def _image(image: Any, where: str, dropped: Dropped) -> str:
    url = image
    if isinstance(image, dict):
        url = image.get("url")
        dropped.others(image, ("url",), "messages.content.image_url.")
    if not isinstance(url, str) or url[:5].lower() != "data:":
        raise InvalidRequest(
            f"{where}: must be a data: URL with the image in base64; the gateway fetches no addresses."
        )
    head, _, data = url.partition(",")
    if not head.lower().endswith(";base64"):
        raise InvalidRequest(f"{where}: the data: URL must be encoded in base64.")
    return data


def _tool_calls(calls: Any, where: str, called: dict[str, str], dropped: Dropped) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise InvalidRequest(f"{where}.tool_calls: must be a list.")
    result: list[dict[str, Any]] = []
    for index, call in enumerate(calls):
        place = f"{where}.tool_calls[{index}].function"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(name := function.get("name"), str):
            raise InvalidRequest(f"{place}.name: must be a string.")
        dropped.others(call, ("id", "type", "function", "index"), "messages.tool_calls.")
        made: dict[str, Any] = {"function": {"name": name, "arguments": _arguments(function.get("arguments"), place)}}
        if (call_id := call.get("id")) is not None:
            made["id"] = call_id
            called[str(call_id)] = name
        result.append(made)
    return result


def _arguments(arguments: Any, where: str) -> dict[str, Any]:
    """The object in OpenAI's string of JSON. The standard parser keeps integers of any size."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments, parse_constant=_no_number) if arguments.strip() else {}
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"{where}.arguments: is not valid JSON.") from error
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise InvalidRequest(f"{where}.arguments: must be a JSON object.")
    return arguments


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
