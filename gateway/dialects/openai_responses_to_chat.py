"""Responses requests → chat, for providers that speak only chat. Stateless: nothing is stored, nothing is looked up.

Facts: OpenAI's OpenAPI document and what Codex CLI 0.169 sends. What refers to state at OpenAI (an earlier response, a
conversation, a stored item or prompt) changes the question, so it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects.dropped import Dropped, table
from gateway.dialects.openai_responses_reasoning import CALL_EXTRA, details_of_item, text_of_item
from gateway.dialects.openai_responses_tools import ToolNames, call_of_text, tools_to_chat
from gateway.errors import InvalidRequest

_STATE = {
    "previous_response_id": "this provider stores no responses; send the whole input, with store: false.",
    "conversation": "this provider stores no conversations; send the whole input.",
    "background": "this provider has no background mode; leave it out or set it to false.",
    "prompt": "this provider stores no prompts; send instructions and input.",
}
# Named the same on both sides, and understood the same.
_SAME = (
    "temperature", "top_p", "parallel_tool_calls", "metadata", "user", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "prompt_cache_options", "service_tier", "moderation",
)  # fmt: skip
_READ = {
    *_SAME, *_STATE, "model", "input", "instructions", "stream", "stream_options", "tools", "tool_choice", "text",
    "reasoning", "include", "max_output_tokens", "top_logprobs", "truncation",
}  # fmt: skip
_LOGPROBS = "message.output_text.logprobs"
# Records of tools that ran at OpenAI; the model's own words about them stand in its messages.
_HOSTED = frozenset({
    "web_search_call", "file_search_call", "image_generation_call", "code_interpreter_call", "mcp_list_tools",
    "mcp_call", "mcp_approval_request", "tool_search_call", "tool_search_output",
})  # fmt: skip
_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
_OUTPUTS = ("function_call_output", "custom_tool_call_output")


def request_to_chat(body: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A request of ``/responses`` or ``/responses/input_tokens`` → chat, and the names of what chat cannot say.

    Raises ``InvalidRequest``.
    """
    for name, reason in _STATE.items():
        if body.get(name):
            raise InvalidRequest(f"{name}: {reason}")
    dropped = Dropped()
    names = ToolNames(body.get("tools"))
    chat: dict[str, Any] = {"model": body.get("model"), "messages": _messages(body, names, dropped)}
    chat |= tools_to_chat(body, names, dropped)
    chat |= {name: body[name] for name in _SAME if body.get(name) is not None}
    if body.get("max_output_tokens") is not None:
        chat["max_completion_tokens"] = body["max_output_tokens"]
    _text(chat, table(body, "text"), dropped)
    _reasoning(chat, table(body, "reasoning"), dropped)
    _logprobs(chat, body, dropped)
    if body.get("stream"):
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    if body.get("truncation") not in (None, "disabled"):
        dropped.add("truncation")
    dropped.others(body, _READ)
    return chat, dropped.names


def _text(chat: dict[str, Any], text: Mapping[str, Any], dropped: Dropped) -> None:
    wanted = table(text, "format", "text")
    kind = wanted.get("type")
    if kind == "json_schema":
        chat["response_format"] = {"type": kind, "json_schema": {n: v for n, v in wanted.items() if n != "type"}}
    elif kind == "json_object":
        chat["response_format"] = {"type": kind}
    elif kind not in (None, "text"):
        raise InvalidRequest('text.format.type: must be "text", "json_object" or "json_schema".')
    if text.get("verbosity") is not None:
        chat["verbosity"] = text["verbosity"]
    dropped.others(text, ("format", "verbosity"), "text.")


def _reasoning(chat: dict[str, Any], reasoning: Mapping[str, Any], dropped: Dropped) -> None:
    if reasoning.get("effort") is not None:
        chat["reasoning_effort"] = reasoning["effort"]
    # The summary is the answer's affair: whether reasoning is told as one.
    dropped.others(reasoning, ("effort", "summary", "generate_summary"), "reasoning.")


def _logprobs(chat: dict[str, Any], body: Mapping[str, Any], dropped: Dropped) -> None:
    include = body.get("include") or []
    if not isinstance(include, list):
        raise InvalidRequest("include: must be a list.")
    if _LOGPROBS in include:
        chat["logprobs"] = True
        if body.get("top_logprobs"):
            chat["top_logprobs"] = body["top_logprobs"]
    elif body.get("top_logprobs"):
        dropped.add("top_logprobs")
    if any(name not in (_LOGPROBS, "reasoning.encrypted_content") for name in include):
        dropped.add("include")


def _messages(body: Mapping[str, Any], names: ToolNames, dropped: Dropped) -> list[dict[str, Any]]:
    history = _History(names, dropped)
    instructions = body.get("instructions")
    if isinstance(instructions, str) and instructions:
        history.messages.append({"role": "system", "content": instructions})
    elif instructions is not None and not isinstance(instructions, str):
        raise InvalidRequest("instructions: must be a string.")
    items = body.get("input")
    if isinstance(items, str):
        history.messages.append({"role": "user", "content": items})
    elif isinstance(items, list):
        for index, item in enumerate(items):
            history.add(item, f"input[{index}]")
    elif items is not None:
        raise InvalidRequest("input: must be a string or a list of items.")
    history.turn = None
    if not history.messages:
        raise InvalidRequest("input: there is nothing to answer.")
    return history.messages


class _History:
    """Input items become messages; what the model said in one turn becomes one message."""

    __slots__ = ("_dropped", "_extra", "_names", "_pending", "messages", "turn")

    def __init__(self, names: ToolNames, dropped: Dropped) -> None:
        self._names = names
        self._dropped = dropped
        self._extra: dict[Any, Any] = {}
        self._pending: dict[str, Any] = {}
        self.messages: list[dict[str, Any]] = []
        self.turn: dict[str, Any] | None = None
        """The model's message that its next item may join."""

    def add(self, item: Any, where: str) -> None:
        if not isinstance(item, dict):
            raise InvalidRequest(f"{where}: must be an object.")
        kind = str(item.get("type") or ("message" if "role" in item else "item_reference"))
        if kind == "message":
            self._message(item, where)
        elif kind == "reasoning":
            self._reasoning(item)
        elif kind in _CALLS:
            self._call(item, kind, where)
        elif kind in _OUTPUTS:
            self._output(item, where)
        elif kind in _HOSTED:
            self._dropped.add(f"input.{kind}")
        elif kind == "item_reference":
            raise InvalidRequest(f"{where}: this provider stores no items; send the item itself.")
        else:
            raise InvalidRequest(f"{where}.type: this provider does not know {kind[:64]!r}.")

    def _speak(self) -> dict[str, Any]:
        """The model's message of this turn, begun with what it thought before."""
        if self.turn is None:
            self.turn = {"role": "assistant", "content": None}
            self.messages.append(self.turn)
        for name, value in self._pending.items():
            if isinstance(value, list):
                self.turn.setdefault(name, []).extend(value)
            else:
                self.turn[name] = f"{self.turn[name]}\n\n{value}" if self.turn.get(name) else value
        self._pending = {}
        return self.turn

    def _listen(self, message: dict[str, Any]) -> None:
        """A message that is not the model's ends its turn."""
        if self._pending:
            self._dropped.add("input.reasoning")  # thoughts that led to nothing
            self._pending = {}
        self.turn = None
        self.messages.append(message)

    def _message(self, item: Mapping[str, Any], where: str) -> None:
        role, content = item.get("role"), item.get("content")
        if role not in ("user", "assistant", "system", "developer"):
            raise InvalidRequest(f'{where}.role: must be "user", "assistant", "system" or "developer".')
        if role != "assistant":
            self._listen({"role": role, "content": parts_to_chat(content, f"{where}.content", self._dropped)})
            return
        text, refusal = _said(content, f"{where}.content")
        if self.turn is not None and self.turn["content"] is not None and not self.turn.get("tool_calls"):
            self.turn = None
        message = self._speak()
        if refusal:
            message["refusal"] = refusal
        if text or not refusal:
            message["content"] = (message["content"] or "") + text

    def _reasoning(self, item: Mapping[str, Any]) -> None:
        details = []
        for detail in details_of_item(item):
            if detail.get("type") == CALL_EXTRA:
                self._extra[detail.get("id")] = detail.get("extra_content")
            else:
                details.append(detail)
        if text := text_of_item(item):
            known = self._pending.get("reasoning_content")
            self._pending["reasoning_content"] = f"{known}\n\n{text}" if known else text
        if details:
            self._pending.setdefault("reasoning_details", []).extend(details)

    def _call(self, item: Mapping[str, Any], kind: str, where: str) -> None:
        name, call_id, told = item.get("name"), item.get("call_id"), item.get(_CALLS[kind])
        if not isinstance(name, str) or not isinstance(call_id, str) or not isinstance(told, str):
            raise InvalidRequest(f"{where}: name, call_id and {_CALLS[kind]} must be strings.")
        flat = self._names.flat(name, item.get("namespace"))
        arguments = call_of_text(told) if kind == "custom_tool_call" else told or "{}"
        call = {"id": call_id, "type": "function", "function": {"name": flat, "arguments": arguments}}
        if extra := self._extra.get(call_id):
            call["extra_content"] = extra
        self._speak().setdefault("tool_calls", []).append(call)

    def _output(self, item: Mapping[str, Any], where: str) -> None:
        if not isinstance(call_id := item.get("call_id"), str):
            raise InvalidRequest(f"{where}.call_id: must be a string.")
        content = parts_to_chat(item.get("output"), f"{where}.output", self._dropped)
        self._listen({"role": "tool", "tool_call_id": call_id, "content": content})


def _said(content: Any, where: str) -> tuple[str, str]:
    """Text and refusal of a message of the model's."""
    if isinstance(content, str):
        return content, ""
    if not isinstance(content, list):
        raise InvalidRequest(f"{where}: must be a string or a list of parts.")
    said: dict[str, list[str]] = {"text": [], "refusal": []}
    for index, part in enumerate(content):
        name = "refusal" if isinstance(part, dict) and part.get("type") == "refusal" else "text"
        text = part.get(name) if isinstance(part, dict) else None
        if not isinstance(text, str):
            raise InvalidRequest(f"{where}[{index}]: must be a part of type output_text or refusal.")
        said[name].append(text)
    return "".join(said["text"]), "".join(said["refusal"])


def parts_to_chat(content: Any, where: str, dropped: Dropped) -> str | list[dict[str, Any]]:
    """Content of a message or of a tool's output; a single text becomes a string. Raises ``InvalidRequest``."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest(f"{where}: must be a string or a list of parts.")
    parts = [_part(part, f"{where}[{index}]", dropped) for index, part in enumerate(content)]
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and set(parts[0]) == {"type", "text"} else parts


def _part(part: Any, where: str, dropped: Dropped) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("input_text", "output_text", "text"):
        if not isinstance(part.get("text"), str):
            raise InvalidRequest(f"{where}.text: must be a string.")
        made: dict[str, Any] = {"type": "text", "text": part["text"]}
    elif kind == "input_image":
        if not isinstance(url := part.get("image_url"), str):
            raise InvalidRequest(f"{where}.image_url: must be a URL; this provider stores no files.")
        detail = {"detail": part["detail"]} if part.get("detail") not in (None, "auto") else {}
        made = {"type": "image_url", "image_url": {"url": url, **detail}}
    elif kind == "input_file":
        names = ("filename", "file_data", "file_url", "file_id")
        made = {"type": "file", "file": {name: part[name] for name in names if part.get(name) is not None}}
        if part.get("detail") not in (None, "auto"):
            dropped.add("input_file.detail")
    elif kind == "input_audio":
        made = {"type": "input_audio", "input_audio": table(part, "input_audio", where)}
    else:
        raise InvalidRequest(f"{where}.type: must be input_text, input_image, input_file or input_audio.")
    marks = ("cache_control", "prompt_cache_breakpoint")
    return made | {name: part[name] for name in marks if part.get(name) is not None}
