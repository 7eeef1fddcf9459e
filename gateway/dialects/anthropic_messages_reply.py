"""Anthropic Messages, whole answers both ways: messages ↔ chat completions, errors. Streams and usage: elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Any
from uuid import uuid4

import orjson

from gateway.dialects.anthropic_reasoning import call_block, client_block, detail_of, put_back
from gateway.dialects.anthropic_usage import usage_from_chat, usage_to_chat
from gateway.dialects.tool_arguments import dump_arguments, parse_arguments
from gateway.errors import UpstreamProtocolError

_FINISH = {
    "end_turn": "stop", "stop_sequence": "stop", "pause_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls",
    "model_context_window_exceeded": "length", "refusal": "content_filter", "compaction": "stop",
}  # fmt: skip
_STOP = {
    "stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "function_call": "tool_use",
    "content_filter": "refusal",
}  # fmt: skip
_TYPES = {
    401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
    408: "timeout_error", 409: "conflict_error", 413: "request_too_large", 429: "rate_limit_error",
    503: "overloaded_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
_STATUS = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "conflict_error": 409, "request_too_large": 413, "rate_limit_error": 429, "api_error": 500,
    "timeout_error": 504, "overloaded_error": 529,
}  # fmt: skip
_CODES = {
    "rate_limit_error": "rate_limit_exceeded", "overloaded_error": "overloaded", "billing_error": "insufficient_quota",
}  # fmt: skip
_TOO_LONG = "prompt is too long"
"""How Anthropic begins to say so; Claude Code makes room by itself when it reads this."""
_LONGEST_MESSAGE = 1000  # characters of an upstream's error text that are passed on


def reply_to_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """A message as a chat completion. Raises ``UpstreamProtocolError`` for what is no message."""
    content, reason = body.get("content"), body.get("stop_reason")
    if body.get("type") == "error" or not isinstance(content, list):
        raise malformed()
    message = _message(content)
    if reason == "refusal":
        message |= {"content": message["content"] or None, "refusal": refusal_text(body.get("stop_details"))}
    choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None, **finish(body)}
    whole = {
        "id": body.get("id"),
        "object": "chat.completion",
        "created": int(time()),
        "model": body.get("model"),
        "choices": [choice],
    }
    if (used := body.get("usage")) and isinstance(used, dict):
        whole["usage"] = usage_to_chat(used)
    return whole


def _message(content: list[Any]) -> dict[str, Any]:
    texts: list[str] = []
    thoughts: list[str] = []
    details: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for block in content:
        if not isinstance(block, dict):
            raise malformed()
        kind = block.get("type")
        if kind == "text":
            texts.append(_string(block, "text"))
        elif kind == "tool_use":
            function = {"name": _string(block, "name"), "arguments": arguments_of(block)}
            calls.append({"id": _string(block, "id"), "type": "function", "function": function})
        elif kind in ("thinking", "redacted_thinking"):
            thoughts.append(block.get("thinking") or "")
            if detail := detail_of(block, bool(texts) + len(calls) + len(details)):
                details.append(detail)
    text = "".join(texts)
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
    if thought := "".join(thoughts):
        message["reasoning_content"] = thought
    if details:
        message["reasoning_details"] = details
    if calls:
        message["tool_calls"] = calls
    return message


def arguments_of(block: Mapping[str, Any]) -> str:
    """The ``input`` of a call as OpenAI's string. Raises ``UpstreamProtocolError``."""
    try:
        return dump_arguments(block.get("input") or {})
    except ValueError as error:
        raise malformed() from error


def finish(part: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a choice that say why it ended; ``stop_reason`` is the sequence found, as vLLM has it."""
    reason = part.get("stop_reason")
    fields = {"finish_reason": _FINISH.get(str(reason), "stop"), "native_finish_reason": reason}
    return fields if part.get("stop_sequence") is None else {**fields, "stop_reason": part["stop_sequence"]}


def refusal_text(details: Any) -> str:
    """What the provider says of a refusal; never empty, for clients tell a refusal by its text."""
    told = details.get("explanation") if isinstance(details, dict) else None
    return told if isinstance(told, str) and told else "The model refused to answer."


def reply_from_chat(chat: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """A chat completion as the message that answers ``request``. Raises ``UpstreamProtocolError``."""
    choices = chat.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise UpstreamProtocolError("The provider's answer has no message.")
    content: list[dict[str, Any]] = []
    if text := content_text(message.get("content")):
        # Without "citations": the API leaves it out too, and Vercel's SDK takes no null there.
        content.append({"type": "text", "text": text})
    cut = choice.get("finish_reason") == "length"
    for call in message.get("tool_calls") or []:
        content += _call_blocks(call, cut)
    _put_reasoning(content, message, shows_thinking(request))
    called = any(block["type"] == "tool_use" for block in content)
    refusal = message.get("refusal")
    return {
        **head(chat, request),
        "content": content,
        **stop(choice, called, refusal if isinstance(refusal, str) else ""),
        "usage": usage_from_chat(chat.get("usage")),
    }


def head(chat: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a message that are known when it begins."""
    name = str(chat.get("id") or new_id("msg_"))
    return {
        "id": name if name.startswith("msg_") else f"msg_{name}",
        "type": "message",
        "role": "assistant",
        "model": chat.get("model") or request.get("model"),
    }


def new_id(prefix: str) -> str:
    """A name for what the provider gave none: clients tell messages and calls of a whole conversation apart by it."""
    return prefix + uuid4().hex[:24]


def stop(choice: Mapping[str, Any], called: bool, refusal: str) -> dict[str, Any]:
    """Why the message ended. ``called``: it calls a tool, which some servers say only by doing it."""
    native = choice.get("native_finish_reason")
    found = choice.get("stop_reason")
    reason = native if native in _FINISH else _STOP.get(str(choice.get("finish_reason")), "end_turn")
    if refusal:
        reason = "refusal"
    elif reason == "end_turn" and called:
        reason = "tool_use"
    elif reason == "end_turn" and isinstance(found, str):
        reason = "stop_sequence"
    details = {"type": "refusal", "category": None, "explanation": refusal or None} if reason == "refusal" else None
    return {
        "stop_reason": reason,
        "stop_sequence": found if isinstance(found, str) and reason == "stop_sequence" else None,
        "stop_details": details,
    }


def shows_thinking(request: Mapping[str, Any]) -> bool:
    """Whether the client asked to read the thinking: unsigned, it would be refused where it is sent on to Anthropic."""
    thinking = request.get("thinking")
    if not isinstance(thinking, dict):
        return False
    return thinking.get("type") in ("enabled", "adaptive") and thinking.get("display") != "omitted"


def content_text(content: Any) -> str:
    """The text of an answer's content, which some servers send in parts."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    return content if isinstance(content, str) else ""


def _put_reasoning(blocks: list[dict[str, Any]], message: Mapping[str, Any], shown: bool) -> None:
    put_back(blocks, message.get("reasoning_details"), client_block)
    thought = message.get("reasoning_content") or message.get("reasoning")
    if shown and thought and not any(block.get("thinking") for block in blocks):
        blocks.insert(0, {"type": "thinking", "thinking": thought, "signature": ""})


def _call_blocks(call: Any, cut: bool) -> list[dict[str, Any]]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise UpstreamProtocolError("The provider's answer has a tool call without a name.")
    try:
        arguments = parse_arguments(function.get("arguments"))
    except ValueError as error:
        if cut:
            return []  # torn at the limit of tokens: half a call is no call
        raise UpstreamProtocolError("The provider's answer has a tool call whose arguments are no JSON.") from error
    call_id = call.get("id") or new_id("toolu_")
    block = {"type": "tool_use", "id": call_id, "name": function["name"], "input": arguments}
    extra = call.get("extra_content")
    return [call_block(call_id, extra), block] if extra else [block]


def error_to_chat(status: int, body: bytes) -> tuple[str, str]:
    """Code and message, in OpenAI's words, of an error that Anthropic answered."""
    kind, message = "", ""
    try:
        kind, message = error_of(orjson.loads(body))
    except ValueError:
        message = body.decode(errors="replace").strip()[:_LONGEST_MESSAGE]
    return error_code(kind or error_type(status), message), message or f"The provider answered {status}."


def error_of(body: Any) -> tuple[str, str]:
    """Type and message inside an error, whole or an event's; empty where there is none."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return "", error[:_LONGEST_MESSAGE] if isinstance(error, str) else ""
    kind, message = error.get("type"), error.get("message")
    text = message[:_LONGEST_MESSAGE] if isinstance(message, str) else ""
    return (kind if isinstance(kind, str) else ""), text


def error_code(kind: str, message: str) -> str:
    """OpenAI's code for a type of Anthropic's; the type itself where OpenAI has no word."""
    if kind == "not_found_error" and message.startswith("model:"):
        return "model_not_found"
    if kind == "invalid_request_error" and message.startswith(_TOO_LONG):
        return "context_length_exceeded"
    return _CODES.get(kind, kind)


def error_type(status: int) -> str:
    """Anthropic's type for a status; it decides what its clients make of an error inside a stream."""
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def error_status(kind: str) -> int:
    """The status that an error inside a stream would have had; 502 for an unknown type."""
    return _STATUS.get(kind, 502)


def error_body(status: int, code: str, message: str, request_id: str) -> bytes:
    """A whole error. ``code`` has no place of its own here; a prompt that is too long is said in Anthropic's words."""
    if code == "context_length_exceeded" and _TOO_LONG not in message:
        message = f"{_TOO_LONG}: {message}"
    error = {"type": error_type(status), "message": message}
    return orjson.dumps({"type": "error", "error": error, "request_id": request_id or None})


def error_event(status: int, code: str, message: str, request_id: str) -> bytes:
    """The event that ends a stream in failure; the SDKs raise on its name."""
    return b"event: error\ndata: " + error_body(status, code, message, request_id) + b"\n\n"


def malformed() -> UpstreamProtocolError:
    """The error for JSON that is not what ``/v1/messages`` answers."""
    return UpstreamProtocolError("The provider's answer is not what Anthropic answers.")


def _string(block: Mapping[str, Any], name: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise malformed()
    return value
