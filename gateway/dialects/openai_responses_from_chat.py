"""Chat requests → Responses, for providers that have no chat. Nothing is stored there: ``store`` is false unless asked.

Facts: OpenAI's OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.dialects.capabilities import Capabilities
from gateway.dialects.dropped import Dropped, table
from gateway.dialects.openai_responses_reasoning import items_of_details
from gateway.dialects.openai_responses_tools import tools_from_chat
from gateway.errors import InvalidRequest

_SAME = (
    "parallel_tool_calls", "metadata", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "prompt_cache_options", "service_tier", "moderation",
)  # fmt: skip
_SAMPLING = ("temperature", "top_p")
_READ = {
    *_SAME, *_SAMPLING, "model", "messages", "tools", "tool_choice", "web_search_options", "max_tokens",
    "max_completion_tokens", "response_format", "verbosity", "reasoning_effort", "reasoning", "logprobs",
    "top_logprobs", "stream", "stream_options", "store",
}  # fmt: skip
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_ENCRYPTED = "reasoning.encrypted_content"
_COUNTED = frozenset({"model", "input", "tools", "tool_choice", "text", "reasoning", "parallel_tool_calls"})
_CALLS = {"function": ("function_call", "arguments"), "custom": ("custom_tool_call", "input")}


def request_from_chat(chat: Mapping[str, Any], model: str, *, caps: Capabilities) -> tuple[dict[str, Any], list[str]]:
    """A chat request → ``/responses``, and the names of what that cannot say. Raises ``InvalidRequest``."""
    dropped = Dropped()
    request: dict[str, Any] = {"model": model, "input": list(_items(chat.get("messages"), caps, dropped))}
    request |= tools_from_chat(chat, caps, dropped)
    request |= {name: chat[name] for name in _SAME if chat.get(name) is not None}
    request["store"] = bool(chat.get("store"))  # the default is yes here and no in chat
    for name in _SAMPLING:
        if chat.get(name) is not None:
            if caps.sampling:
                request[name] = chat[name]
            else:
                dropped.add(name)
    most = chat.get("max_completion_tokens") or chat.get("max_tokens")
    if most is not None:
        request["max_output_tokens"] = most
    if text := _text(chat):
        request["text"] = text
    _reasoning(request, chat, caps, dropped)
    _logprobs(request, chat)
    _stream(request, chat)
    dropped.others(chat, _READ)
    return request, dropped.names


def count_from_chat(chat: Mapping[str, Any], model: str, *, caps: Capabilities) -> tuple[dict[str, Any], list[str]]:
    """A chat request → ``/responses/input_tokens``: what the model would read. Raises ``InvalidRequest``."""
    request, dropped = request_from_chat(chat, model, caps=caps)
    return {name: value for name, value in request.items() if name in _COUNTED}, dropped


def _stream(request: dict[str, Any], chat: Mapping[str, Any]) -> None:
    if not chat.get("stream"):
        return
    request["stream"] = True
    padding = table(chat, "stream_options").get("include_obfuscation")
    if padding is not None:
        request["stream_options"] = {"include_obfuscation": padding}


def _logprobs(request: dict[str, Any], chat: Mapping[str, Any]) -> None:
    if not chat.get("logprobs"):
        return
    request.setdefault("include", []).append("message.output_text.logprobs")
    if chat.get("top_logprobs") is not None:
        request["top_logprobs"] = chat["top_logprobs"]


def _text(chat: Mapping[str, Any]) -> dict[str, Any]:
    text: dict[str, Any] = {}
    wanted = table(chat, "response_format")
    if wanted.get("type") == "json_schema":
        schema = table(wanted, "json_schema", "response_format")
        if not isinstance(schema.get("schema"), dict):
            raise InvalidRequest("response_format.json_schema.schema: must be an object.")
        text["format"] = {"type": "json_schema", **schema, "name": schema.get("name") or "answer"}
    elif wanted:
        text["format"] = {"type": wanted.get("type")}
    if chat.get("verbosity") is not None:
        text["verbosity"] = chat["verbosity"]
    return text


def _reasoning(request: dict[str, Any], chat: Mapping[str, Any], caps: Capabilities, dropped: Dropped) -> None:
    asked = table(chat, "reasoning")
    effort = chat.get("reasoning_effort") or asked.get("effort")
    if asked.get("enabled") is False:
        effort = "none"
    reasoning: dict[str, Any] = {}
    if effort is not None and (known := _effort(effort, caps, dropped)):
        reasoning["effort"] = known
    if asked and effort != "none" and not asked.get("exclude"):
        reasoning["summary"] = asked.get("summary") or "auto"
    dropped.others(asked, ("effort", "enabled", "exclude", "summary"), "reasoning.")
    if reasoning and caps.efforts:
        request["reasoning"] = reasoning
    resent = any(item.get("type") == "reasoning" for item in request["input"])
    if caps.efforts and (resent or (reasoning and effort != "none")):
        request.setdefault("include", []).append(_ENCRYPTED)


def _effort(effort: Any, caps: Capabilities, dropped: Dropped) -> str | None:
    """The effort, or the nearest one that the model knows."""
    if effort not in _EFFORTS:
        raise InvalidRequest(f"reasoning_effort: must be one of {', '.join(_EFFORTS)}.")
    if effort in caps.efforts:
        return str(effort)
    dropped.add("reasoning_effort")
    wanted = _EFFORTS.index(effort)
    known = [name for name in caps.efforts if name in _EFFORTS]
    return min(known, key=lambda name: abs(_EFFORTS.index(name) - wanted), default=None)


def _items(messages: Any, caps: Capabilities, dropped: Dropped) -> Iterator[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages: must be a list with at least one message.")
    custom: set[Any] = set()  # ids of calls whose answer has a type of its own
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role == "assistant":
            yield from _turn(message, where, custom, dropped)
        elif role == "tool":
            call_id = message.get("tool_call_id")
            if not isinstance(call_id, str):
                raise InvalidRequest(f"{where}.tool_call_id: must be a string.")
            kind = "custom_tool_call_output" if call_id in custom else "function_call_output"
            output = _content(message.get("content"), f"{where}.content", caps, dropped)
            dropped.others(message, ("role", "content", "tool_call_id", "name"), "messages.")
            yield {"type": kind, "call_id": call_id, "output": output}
        elif role in ("system", "developer", "user"):
            content = _content(message.get("content"), f"{where}.content", caps, dropped)
            dropped.others(message, ("role", "content"), "messages.")
            yield {"type": "message", "role": role, "content": content}
        else:
            raise InvalidRequest(f"{where}.role: this provider takes system, developer, user, assistant and tool.")


def _turn(message: Mapping[str, Any], where: str, custom: set[Any], dropped: Dropped) -> Iterator[dict[str, Any]]:
    """What the model said in one turn: reasoning, text, calls, in the order in which it said them where that is
    known."""
    thoughts, foreign = items_of_details(message.get("reasoning_details"))
    if foreign:
        dropped.add("messages.reasoning_details")
    elif not thoughts and message.get("reasoning_content"):
        dropped.add("messages.reasoning_content")
    said = [*_said(message, where), *_calls(message.get("tool_calls"), where, custom)]
    kept = ("role", "content", "refusal", "tool_calls", "reasoning_content", "reasoning_details", "reasoning")
    dropped.others(message, (*kept, "annotations", "name"), "messages.")
    if not said:
        return  # reasoning without what it led to is refused there
    place = 0
    for item in said:
        while thoughts and (thoughts[0][0] is None or thoughts[0][0] <= place or item is said[-1]):
            yield thoughts.pop(0)[1]
            place += 1
        yield item
        place += 1


def _said(message: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    content = message.get("content")
    parts: list[dict[str, Any]] = []
    if isinstance(content, str):
        if content:
            parts.append({"type": "output_text", "text": content})
    elif isinstance(content, list):
        for index, part in enumerate(content):
            kind = part.get("type") if isinstance(part, dict) else None
            if kind not in ("text", "refusal") or not isinstance(part.get(kind), str):
                raise InvalidRequest(f"{where}.content[{index}]: must be a text or a refusal.")
            parts.append({"type": "output_text" if kind == "text" else kind, kind: part[kind]})
    elif content is not None:
        raise InvalidRequest(f"{where}.content: must be a string or a list of parts.")
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        parts.append({"type": "refusal", "refusal": message["refusal"]})
    if parts:
        yield {"type": "message", "role": "assistant", "content": parts}


def _calls(calls: Any, where: str, custom: set[Any]) -> Iterator[dict[str, Any]]:
    for index, call in enumerate(calls if isinstance(calls, list) else ()):
        place = f"{where}.tool_calls[{index}]"
        kind = call.get("type") or "function" if isinstance(call, dict) else None
        if kind not in _CALLS or not isinstance(call.get("id"), str):
            raise InvalidRequest(f"{place}: must be a call of a function or a custom tool, with an id.")
        item, told = _CALLS[kind]
        inner = table(call, kind, place)
        if not isinstance(inner.get("name"), str) or not isinstance(inner.get(told) or "", str):
            raise InvalidRequest(f"{place}.{kind}: name and {told} must be strings.")
        if kind == "custom":
            custom.add(call["id"])
        text = inner.get(told) or ("{}" if kind == "function" else "")
        yield {"type": item, "call_id": call["id"], "name": inner["name"], told: text}


def _content(content: Any, where: str, caps: Capabilities, dropped: Dropped) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if not isinstance(content, list):
        raise InvalidRequest(f"{where}: must be a string or a list of parts.")
    return [_part(part, f"{where}[{index}]", caps, dropped) for index, part in enumerate(content)]


def _part(part: Any, where: str, caps: Capabilities, dropped: Dropped) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        made: dict[str, Any] = {"type": "input_text", "text": part["text"]}
    elif kind == "image_url" and caps.images:
        image = part.get("image_url")
        image = {"url": image} if isinstance(image, str) else table(part, "image_url", where)
        made = {"type": "input_image", "image_url": image.get("url"), "detail": image.get("detail") or "auto"}
    elif kind == "file" and caps.documents:
        file = table(part, "file", where)
        names = ("filename", "file_data", "file_url", "file_id")
        made = {"type": "input_file"} | {name: file[name] for name in names if file.get(name) is not None}
    elif kind == "input_audio" and caps.audio:
        made = {"type": "input_audio", "input_audio": table(part, "input_audio", where)}
    else:
        raise InvalidRequest(f"{where}: this model takes no part of type {str(kind)[:64]!r}.")
    if part.get("prompt_cache_breakpoint") is not None:
        made["prompt_cache_breakpoint"] = part["prompt_cache_breakpoint"]
    if part.get("cache_control"):
        dropped.add("cache_control")
    return made
