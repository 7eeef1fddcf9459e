"""Cohere's API v2, the way in: canonical requests → ``/v2/chat``, ``/v2/embed``, ``/v2/rerank``.

Facts: the types of the ``cohere`` SDK 7.3 and recorded traffic. What a model says before it calls tools is its
``tool_plan``. Answers are in ``cohere_reply`` and ``cohere_embed``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects.capabilities import Capabilities
from gateway.dialects.dropped import Dropped, table
from gateway.errors import InvalidRequest

# OpenAI's name, or the one other servers gave it → Cohere's; of two for the same, the last one wins.
_PLAIN = {
    "max_tokens": "max_tokens", "max_completion_tokens": "max_tokens", "seed": "seed",
    "frequency_penalty": "frequency_penalty", "presence_penalty": "presence_penalty",
}  # fmt: skip
_SAMPLING = {"temperature": "temperature", "top_p": "p", "top_k": "k"}
# Cohere's own fields, which its users send as ``extra_body``; they win over OpenAI's words for the same thing.
_OWN = ("citation_options", "documents", "k", "p", "priority", "safety_mode", "stop_sequences", "strict_tools",
        "thinking")  # fmt: skip
_READ = {
    "model", "messages", "stream", "stream_options", "stop", "tools", "tool_choice", "response_format", "reasoning",
    "reasoning_effort", *_PLAIN, *_SAMPLING, *_OWN,
}  # fmt: skip
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_EMBED = ("images", "inputs", "max_tokens", "truncate", "priority")


def request_from_chat(
    chat: Mapping[str, Any],
    model: str,
    *,
    caps: Capabilities = Capabilities(),  # noqa: B008 - frozen
) -> tuple[dict[str, Any], list[str]]:
    """A chat request, and the names of what it does not carry. Raises ``InvalidRequest``."""
    dropped = Dropped()
    request: dict[str, Any] = {"model": model, "messages": _messages(chat.get("messages"), caps, dropped)}
    if chat.get("stream"):
        request["stream"] = True
    request.update({ours: chat[name] for name, ours in _PLAIN.items() if chat.get(name) is not None})
    for name, ours in _SAMPLING.items():
        if chat.get(name) is not None:
            if caps.sampling:
                request[ours] = chat[name]
            else:
                dropped.add(name)
    if stop := chat.get("stop"):
        request["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if wanted := _format(chat.get("response_format"), dropped):
        request["response_format"] = wanted
    if thinking := _thinking(chat, caps, dropped):
        request["thinking"] = thinking
    request.update(_tools(chat, caps, dropped))
    request.update({name: chat[name] for name in _OWN if chat.get(name) is not None})
    dropped.others(chat, _READ)
    return request, dropped.names


def request_from_embeddings(
    body: Mapping[str, Any], model: str, *, input_type: str = "search_document"
) -> tuple[dict[str, Any], list[str]]:
    """An Embeddings request → ``/v2/embed``; ``input_type``, which Cohere demands, holds where the client gives none.

    Raises ``InvalidRequest``, also for token ids. ``encoding_format`` is not Cohere's affair: the answer is encoded by
    ``cohere_embed``.
    """
    texts = body.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    own = {name: body[name] for name in _EMBED if body.get(name) is not None}
    request: dict[str, Any] = {"model": model, "input_type": body.get("input_type") or input_type}
    if isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts):
        request["texts"] = texts
    elif texts or not {"images", "inputs"} & set(own):
        raise InvalidRequest("input: this provider takes a string or a list of strings; it takes no token ids.")
    if body.get("encoding_format") not in (None, "float", "base64"):
        raise InvalidRequest('encoding_format: must be "float" or "base64".')
    request["embedding_types"] = ["float"]
    if (size := body.get("dimensions")) is not None:
        request["output_dimension"] = size
    dropped = Dropped()
    dropped.others(body, {"model", "input", "input_type", "dimensions", "encoding_format", *own})
    return {**request, **own}, dropped.names


def request_from_rerank(body: Mapping[str, Any], model: str) -> tuple[dict[str, Any], list[str]]:
    """A rerank request as Jina, TEI and Cohere's v1 know it → ``/v2/rerank``, whose documents are strings.

    Raises ``InvalidRequest``. ``return_documents`` is carried out by ``cohere_embed.reply_to_rerank``.
    """
    request = {"model": model, "query": body.get("query"), "documents": documents(body)}
    if not isinstance(request["query"], str):
        raise InvalidRequest("query: must be a string.")
    own = ("top_n", "max_tokens_per_doc", "priority")
    request.update({name: body[name] for name in own if body.get(name) is not None})
    dropped = Dropped()
    dropped.others(body, {*request, "return_documents"})
    return request, dropped.names


def documents(body: Mapping[str, Any]) -> list[str]:
    """The texts to be ranked. Raises ``InvalidRequest``."""
    given = body.get("documents")
    found = [each.get("text") if isinstance(each, dict) else each for each in given] if isinstance(given, list) else []
    texts = [text for text in found if isinstance(text, str)]
    if not texts or len(texts) < len(found):
        raise InvalidRequest("documents: must be a list of strings, or of objects with a text.")
    return texts


def _messages(messages: Any, caps: Capabilities, dropped: Dropped) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages: must be a list with at least one message.")
    return [_message(message, f"messages[{index}]", caps, dropped) for index, message in enumerate(messages)]


def _message(message: Any, where: str, caps: Capabilities, dropped: Dropped) -> dict[str, Any]:
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidRequest(f"{where}.role: must be one of {', '.join(_ROLES)}.")
    known = {"role", "content"}
    content = _content(message.get("content"), where, role == "user" and caps.images, dropped)
    result: dict[str, Any] = {"role": _ROLES[role], "content": content}
    if role == "assistant":
        known |= {"refusal", "reasoning_content", "tool_calls"}
        result = _assistant(message, content, where, dropped)
    elif role == "tool":
        known |= {"tool_call_id", "name"}
        result["tool_call_id"] = message.get("tool_call_id")
    dropped.others(message, known, "messages.")
    return result


def _assistant(message: Mapping[str, Any], said: Any, where: str, dropped: Dropped) -> dict[str, Any]:
    result: dict[str, Any] = {"role": "assistant"}
    text = said or message.get("refusal") or ""
    if isinstance(text, list):
        text = "".join(part["text"] for part in text)
    thoughts = message.get("reasoning_content")
    content = [{"type": "thinking", "thinking": thoughts}] if thoughts else []
    if calls := message.get("tool_calls"):
        result["tool_calls"] = _calls(calls, where, dropped)
        if text:
            result["tool_plan"] = text
        if content:
            result["content"] = content
        return result
    result["content"] = [*content, {"type": "text", "text": text}] if content and text else content or text
    return result


def _content(content: Any, where: str, images: bool, dropped: Dropped) -> Any:
    """A string stays one; parts stay parts."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise InvalidRequest(f"{where}.content: must be a string or a list of parts.")
    parts: list[dict[str, Any]] = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        value = part.get(kind) if isinstance(kind, str) else None
        if kind in ("text", "refusal") and isinstance(value, str):
            parts.append({"type": "text", "text": value})
        elif kind == "image_url" and images:
            parts.append({"type": "image_url", "image_url": _image(value, f"{where}.content[{index}].image_url")})
        else:
            takes = "text and image_url" if images else "text"
            raise InvalidRequest(f"{where}.content[{index}]: this provider takes {takes} parts here.")
        dropped.others(part, ("type", str(kind)), "messages.content.")
    return parts


def _image(image: Any, where: str) -> Any:
    """As it is: the provider takes data: URLs and fetches others itself."""
    image = {"url": image} if isinstance(image, str) else image
    if not isinstance(image, dict) or not isinstance(image.get("url"), str):
        raise InvalidRequest(f"{where}.url: must be a string.")
    return image


def _calls(calls: Any, where: str, dropped: Dropped) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise InvalidRequest(f"{where}.tool_calls: must be a list.")
    made: list[dict[str, Any]] = []
    for index, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(name := function.get("name"), str):
            raise InvalidRequest(f"{where}.tool_calls[{index}].function.name: must be a string.")
        dropped.others(call, ("id", "type", "function", "index"), "messages.tool_calls.")
        arguments = function.get("arguments") or "{}"
        made.append({"id": call.get("id"), "type": "function", "function": {"name": name, "arguments": arguments}})
    return made


def _format(wanted: Any, dropped: Dropped) -> dict[str, Any]:
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_object":
        return {"type": "json_object"}
    if kind == "json_schema":
        schema = table(wanted, "json_schema", "response_format").get("schema")
        if not isinstance(schema, dict):
            raise InvalidRequest("response_format.json_schema.schema: must be an object.")
        return {"type": "json_object", "json_schema": schema}
    if wanted is not None and kind != "text":
        dropped.add("response_format")
    return {}


def _thinking(chat: Mapping[str, Any], caps: Capabilities, dropped: Dropped) -> dict[str, Any]:
    """Cohere thinks or does not, with a number of tokens at most; it knows no degrees."""
    reasoning = table(chat, "reasoning")
    dropped.others(reasoning, {"effort", "max_tokens", "enabled"}, "reasoning.")
    effort = chat.get("reasoning_effort") or reasoning.get("effort")
    budget, enabled = reasoning.get("max_tokens"), reasoning.get("enabled")
    if effort is None and budget is None and enabled is None:
        return {}
    if effort == "none" or enabled is False:
        return {"type": "disabled"}
    if not caps.budget_thinking:
        dropped.add("reasoning_effort" if effort is not None else "reasoning")
        return {}
    if effort is not None:
        dropped.add("reasoning_effort")
    return {"type": "enabled"} if budget is None else {"type": "enabled", "token_budget": budget}


def _tools(chat: Mapping[str, Any], caps: Capabilities, dropped: Dropped) -> dict[str, Any]:
    tools = chat.get("tools") or []
    if not isinstance(tools, list):
        raise InvalidRequest("tools: must be a list.")
    made = [function for index, tool in enumerate(tools) if (function := _tool(tool, f"tools[{index}]", dropped))]
    if not made:
        return {}
    choice = chat.get("tool_choice")
    request: dict[str, Any] = {}
    if choice == "none":
        request["tool_choice"] = "NONE"
    elif choice not in (None, "auto"):
        named = table(choice, "function", "tool_choice").get("name") if isinstance(choice, dict) else None
        # Cohere cannot be told one of several: it is shown the one.
        chosen = [tool for tool in made if tool["name"] == named] if named else made
        if caps.forced_tools and chosen and (named or choice == "required"):
            made = chosen
            request["tool_choice"] = "REQUIRED"
        else:
            dropped.add("tool_choice")
    strict = [bool(tool.pop("strict", False)) for tool in made]
    if all(strict):
        request["strict_tools"] = True
    elif any(strict):
        dropped.add("tools.function.strict")  # all or none
    request["tools"] = [{"type": "function", "function": function} for function in made]
    return request


def _tool(tool: Any, where: str, dropped: Dropped) -> dict[str, Any]:
    if not isinstance(tool, dict):
        raise InvalidRequest(f"{where}: must be an object.")
    if (kind := tool.get("type", "function")) != "function":
        dropped.add(f"tools.{kind}")
        return {}
    function = table(tool, "function", where)
    if not isinstance(function.get("name"), str):
        raise InvalidRequest(f"{where}.function.name: must be a string.")
    known = ("name", "description", "parameters", "strict")
    kept = {name: function[name] for name in known if function.get(name) is not None}
    kept.setdefault("parameters", {"type": "object", "properties": {}})
    dropped.others(tool, ("type", "function"), "tools.")
    dropped.others(function, known, "tools.function.")
    return kept
