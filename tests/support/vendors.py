"""A provider of three vendors in one: OpenAI's chat, Anthropic's Messages and Gemini's API, scripted by one plan.

It calls the tools of its plan, those of one round together, and after the last round says what that one gave. The
conversation it is sent is all it remembers: the number of tool results in there says where in the plan it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from gateway.testing import Call, event
from gateway.testing.answers import JSON, SSE
from gateway.testing.wire import json_bytes

INPUT, OUTPUT = 11, 7
"""Tokens every answer reports."""
PLAIN = "Hello from the provider."
"""What it says where no tools are offered."""
RETRY_AFTER = "7"
_STATUS = re.compile(r"status-(\d{3})")


@attrs.frozen
class Step:
    """A tool to call."""

    arguments: dict[str, Any]
    name: str = ""
    """As the client calls it; empty: the first one it offers."""


Plan = Sequence[Sequence[Step]]
"""Rounds of tools to call together."""


@attrs.frozen
class ToolCall:
    """A call as it is sent."""

    id: str
    name: str
    arguments: str


@attrs.frozen
class Turn:
    """What the provider says next: a text, or else tool calls."""

    text: str = ""
    calls: Sequence[ToolCall] = ()


@attrs.frozen
class Asked:
    """What a request comes to, whatever its dialect."""

    model: str
    tools: list[str]
    results: list[str]
    stream: bool


CITIES = ((Step({"city": "Oslo"}), Step({"city": "Bergen"})),)


class Vendors:
    """The script of a ``ScriptedUpstream``.

    A model called ``…status-529…`` is refused with that status; the stream of one called ``…cut…`` breaks off.
    """

    def __init__(self, plan: Plan = CITIES) -> None:
        self.plan = plan
        self.asked: list[Asked] = []

    async def __call__(self, call: Call) -> None:
        if call.request.target.partition("?")[0].endswith(("/count_tokens", ":countTokens")):
            await call.answer(200, json_bytes({"input_tokens": INPUT, "totalTokens": INPUT}), JSON)
            return
        read, whole, events, refusal = _dialect(call)
        asked = read(call.request.json, call.request.target)
        self.asked.append(asked)
        if refused := _STATUS.search(asked.model):
            status = int(refused[1])
            headers = {**JSON, **({"Retry-After": RETRY_AFTER} if status == 429 else {})}
            await call.answer(status, json_bytes(refusal(status)), headers)
            return
        turn = self._turn(asked)
        if not asked.stream:
            await call.answer(200, json_bytes(whole(turn, asked.model)), JSON)
            return
        await call.head(200, SSE)
        pieces = list(events(turn, asked.model))
        if cut := "cut" in asked.model:
            del pieces[-3:]  # the last word and the end, in all dialects
        for piece in pieces:
            await call.chunk(piece)
        if cut:
            call.close()
        else:
            await call.chunk(b"")

    def _turn(self, asked: Asked) -> Turn:
        done, latest = len(asked.results), 0
        for steps in self.plan if asked.tools else ():
            if not done:
                return Turn(calls=[_called(step, asked, index) for index, step in enumerate(steps)])
            assert done >= len(steps), f"not every call of a round has its result: {asked.results}"
            done, latest = done - len(steps), len(steps)
        return Turn(text=f"The tools said: {' and '.join(asked.results[-latest:])}" if latest else PLAIN)


def _called(step: Step, asked: Asked, index: int) -> ToolCall:
    name = step.name or asked.tools[0]
    assert name in asked.tools, f"{name} is not among {asked.tools}"
    return ToolCall(f"call_{len(asked.results) + index}", name, json.dumps(step.arguments))


_Dialect = tuple[
    Callable[[Any, str], Asked],
    Callable[[Turn, str], Any],
    Callable[[Turn, str], Iterator[bytes]],
    Callable[[int], Any],
]


def _dialect(call: Call) -> _Dialect:
    path = call.request.target.partition("?")[0]
    if path.endswith("/chat/completions"):
        return _read_chat, _chat, _chat_events, _chat_error
    if path.endswith("/messages"):
        return _read_messages, _message, _message_events, _message_error
    if "enerateContent" in path:
        return _read_contents, _candidate, _candidate_events, _candidate_error
    raise LookupError(f"nothing is served at {path}")


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return str(content)


def _words(text: str) -> list[str]:
    return re.findall(r"\S*\s*", text)[:-1]


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


# OpenAI chat


def _read_chat(body: Any, _: str) -> Asked:
    tools = [tool["function"]["name"] for tool in body.get("tools") or ()]
    results = [_text(message["content"]) for message in body["messages"] if message["role"] == "tool"]
    return Asked(body["model"], tools, results, bool(body.get("stream")))


_CHAT_USAGE = {"prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}


def _chat(turn: Turn, model: str) -> Any:
    message: dict[str, Any] = {"role": "assistant", "content": turn.text or None}
    if turn.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.calls
        ]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if turn.calls else "stop"}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": model}
    return {**head, "choices": [choice], "usage": _CHAT_USAGE}


def _chat_events(turn: Turn, model: str) -> Iterator[bytes]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": model}
    deltas: list[Any] = [{"role": "assistant", "content": None if turn.calls else ""}]
    for index, call in enumerate(turn.calls):
        function = {"name": call.name, "arguments": ""}
        deltas.append({"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": function}]})
        for half in _halves(call.arguments):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": half}}]})
    deltas += [{"content": word} for word in _words(turn.text)]
    for delta in deltas:
        yield event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    reason = "tool_calls" if turn.calls else "stop"
    yield event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    yield event({**head, "choices": [], "usage": _CHAT_USAGE})
    yield event(b"[DONE]")


def _chat_error(status: int) -> Any:
    return {"error": {"message": "Not now.", "type": "server_error", "param": None, "code": None}}


# Anthropic Messages


def _read_messages(body: Any, _: str) -> Asked:
    blocks = [
        block for message in body["messages"] if isinstance(message["content"], list) for block in message["content"]
    ]
    results = [_text(block.get("content", "")) for block in blocks if block["type"] == "tool_result"]
    return Asked(body["model"], [tool["name"] for tool in body.get("tools") or ()], results, bool(body.get("stream")))


def _message(turn: Turn, model: str) -> Any:
    blocks: list[Any] = [{"type": "text", "text": turn.text}] if turn.text else []
    for call in turn.calls:
        blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)})
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": blocks,
        "stop_reason": "tool_use" if turn.calls else "end_turn", "stop_sequence": None,
        "usage": {"input_tokens": INPUT, "output_tokens": OUTPUT},
    }  # fmt: skip


def _message_events(turn: Turn, model: str) -> Iterator[bytes]:
    whole = _message(turn, model)
    start = {**whole, "content": [], "stop_reason": None, "usage": {"input_tokens": INPUT, "output_tokens": 1}}
    yield _named({"type": "message_start", "message": start})
    yield _named({"type": "ping"})
    for index, block in enumerate(whole["content"]):
        empty: dict[str, Any]
        deltas: list[Any]
        if block["type"] == "text":
            empty, deltas = {"text": ""}, [{"type": "text_delta", "text": word} for word in _words(block["text"])]
        else:
            halves = _halves(json.dumps(block["input"]))
            empty, deltas = (
                {"input": {}},
                [{"type": "input_json_delta", "partial_json": part} for part in ("", *halves)],
            )
        yield _named({"type": "content_block_start", "index": index, "content_block": {**block, **empty}})
        for delta in deltas:
            yield _named({"type": "content_block_delta", "index": index, "delta": delta})
        yield _named({"type": "content_block_stop", "index": index})
    ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield _named({"type": "message_delta", "delta": ending, "usage": whole["usage"]})
    yield _named({"type": "message_stop"})


def _named(data: Any) -> bytes:
    return b"event: %b\n" % data["type"].encode() + event(data)


def _message_error(status: int) -> Any:
    kind = {429: "rate_limit_error", 529: "overloaded_error"}.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": "Not now."}, "request_id": "req_1"}


# Gemini


def _read_contents(body: Any, target: str) -> Asked:
    model, _, action = target.partition("?")[0].rpartition("/models/")[2].rpartition(":")
    declared = [each for tool in body.get("tools") or () for each in tool.get("functionDeclarations") or ()]
    parts = [part for content in body["contents"] for part in content.get("parts") or ()]
    results = [json.dumps(part["functionResponse"]["response"]) for part in parts if "functionResponse" in part]
    return Asked(model, [each["name"] for each in declared], results, action == "streamGenerateContent")


_GEMINI_USAGE = {"promptTokenCount": INPUT, "candidatesTokenCount": OUTPUT, "totalTokenCount": INPUT + OUTPUT}


def _contents(parts: list[Any], reason: str | None, model: str) -> Any:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if reason is not None:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], "usageMetadata": _GEMINI_USAGE, "modelVersion": model, "responseId": "r1"}


def _parts(turn: Turn) -> list[Any]:
    return [{"text": word} for word in _words(turn.text)] + [
        {"functionCall": {"id": call.id, "name": call.name, "args": json.loads(call.arguments)}} for call in turn.calls
    ]


def _candidate(turn: Turn, model: str) -> Any:
    return _contents(_parts(turn) if turn.calls else [{"text": turn.text}], "STOP", model)


def _candidate_events(turn: Turn, model: str) -> Iterator[bytes]:
    *rest, last = _parts(turn)
    for part in rest:
        yield event(_contents([part], None, model))
    yield event(_contents([last], "STOP", model))


def _candidate_error(status: int) -> Any:
    word = {429: "RESOURCE_EXHAUSTED", 529: "UNAVAILABLE"}.get(status, "INTERNAL")
    return {"error": {"code": status, "message": "Not now.", "status": word}}
