"""Whole answers of the Responses API, both ways: a provider's → chat, chat → a client's."""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Any

import orjson

from gateway.dialects.openai_chat import read_usage
from gateway.dialects.openai_responses_body import error_of, finish_of, usage_to_chat
from gateway.dialects.openai_responses_output import Output
from gateway.dialects.openai_responses_reasoning import details_of_item, text_of_item
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage

CALLS = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}
"""Type of a call's item → its type in chat, and what both call that which it carries."""
CONFUSED = (AttributeError, KeyError, TypeError, IndexError, ValueError)
"""What reading JSON raises that has another shape than it ought to have."""


def malformed() -> UpstreamProtocolError:
    """The error for JSON that is no answer."""
    return UpstreamProtocolError("The provider's answer is not what its protocol says.")


def reply_from_chat(chat: Mapping[str, Any], request: Mapping[str, Any], *, answer_id: str = "") -> dict[str, Any]:
    """A chat completion → the response to ``request``. Raises ``UpstreamProtocolError`` if it is none.

    ``answer_id`` stands in the ids of the response and of its items; random by default.
    """
    output = Output(request, answer_id)
    try:
        choice = chat["choices"][0]
        message = choice["message"]
        calls = [{**call, "index": index} for index, call in enumerate(message.get("tool_calls") or ())]
        output.chunk({**chat, "choices": [{**choice, "index": 0, "delta": {**message, "tool_calls": calls}}]})
        output.end()
        return output.response()
    except CONFUSED as error:
        raise malformed() from error


def count_reply(tokens: int) -> dict[str, Any]:
    """The answer of ``/responses/input_tokens``."""
    return {"object": "response.input_tokens", "input_tokens": tokens}


def reply_to_chat(body: Any) -> dict[str, Any]:
    """A response → a chat completion.

    Raises ``StreamError`` for a failed or cancelled response, ``UpstreamProtocolError`` for one that is not finished or
    is none.
    """
    if not isinstance(body, dict):
        raise malformed()
    if body.get("status") in ("failed", "cancelled") or body.get("error"):
        raise StreamError(*error_of(body))
    if not isinstance(body.get("output"), list) or body.get("status") in ("in_progress", "queued"):
        raise malformed()
    message = Message()
    try:
        for place, item in enumerate(body["output"]):
            message.add(item, place)
    except CONFUSED as error:
        raise malformed() from error
    choice = {
        "index": 0,
        "message": message.fields(),
        "logprobs": {"content": message.logprobs, "refusal": None} if message.logprobs else None,
        "finish_reason": finish_of(body, bool(message.calls)),
    }
    whole = {**head(body), "object": "chat.completion", "choices": [choice]}
    if (usage := usage_to_chat(body)) is not None:
        whole["usage"] = usage
    return whole


def usage_of(body: Mapping[str, Any]) -> Usage | None:
    """Usage of a whole response."""
    return read_usage(body)


def error_to_chat(status: int, body: bytes) -> tuple[str, str]:
    """Code and message of a whole error answer."""
    try:
        told = orjson.loads(body)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        return "upstream_error", body.decode(errors="replace").strip()[:1000] or f"The provider answered {status}."
    return error_of(told)[1:]


class Message:
    """What the items of a whole response say together."""

    __slots__ = ("_annotations", "_details", "_refusals", "_texts", "_thoughts", "calls", "logprobs")

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._thoughts: list[str] = []
        self._details: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []
        self.logprobs: list[Any] = []

    def add(self, item: Mapping[str, Any], place: int) -> None:
        kind = item["type"]
        if kind == "message":
            self._said(item["content"])
        elif kind == "reasoning":
            if text := text_of_item(item):
                self._thoughts.append(text)
            self._details += details_of_item(item, len(self._details), output_index=place)
        elif kind in CALLS:
            chat, told = CALLS[kind]
            inner = {"name": item["name"], told: item[told] or ("{}" if chat == "function" else "")}
            self.calls.append({"id": item["call_id"], "type": chat, chat: inner})

    def _said(self, parts: list[dict[str, Any]]) -> None:
        self._texts.append("".join([part["text"] for part in parts if part["type"] == "output_text"]))
        self._refusals += [part["refusal"] for part in parts if part["type"] == "refusal"]
        for part in parts:
            self._annotations += [annotation(each) for each in part.get("annotations") or ()]
            self.logprobs += part.get("logprobs") or ()

    def fields(self) -> dict[str, Any]:
        content = "\n\n".join([text for text in self._texts if text])
        silent = self.calls or self._refusals
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if silent and not content else content,
            "refusal": "".join(self._refusals) or None,
        }
        optional = {
            "reasoning_content": "\n\n".join(self._thoughts),
            "reasoning_details": self._details,
            "annotations": self._annotations,
            "tool_calls": self.calls,
        }
        return message | {name: value for name, value in optional.items() if value}


def annotation(flat: Mapping[str, Any]) -> dict[str, Any]:
    """A citation in chat's shape."""
    return {"type": flat["type"], flat["type"]: {name: value for name, value in flat.items() if name != "type"}}


def head(response: Mapping[str, Any]) -> dict[str, Any]:
    """What every chunk of an answer has in common with the response."""
    created = response.get("created_at")
    created = int(created) if isinstance(created, int | float) else int(time())
    return {"id": response.get("id") or "", "created": created, "model": response.get("model") or ""}
