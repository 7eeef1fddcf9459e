"""Ollama's own wire format for our clients: ``/api/chat`` and ``/api/generate`` → canonical requests, and errors.

Facts: Ollama's API documents and its official Python client 0.6. That client sends ``tools: []`` always; older ones
``format: ""`` and ``options: {}``, which ask for nothing. Answers are in ``ollama_encoder``.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dialects.dropped import Dropped, table
from gateway.dialects.ollama_reply import error_status, usage
from gateway.dialects.openai_chat import ERROR, PASS
from gateway.dialects.tool_arguments import dump_arguments
from gateway.errors import InvalidRequest
from gateway.exchange import Usage

Translated = tuple[dict[str, Any], list[str]]
"""The canonical request, and what it does not carry."""

_ROLES = ("system", "user", "assistant", "tool")
_OPTIONS = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p", "seed": "seed",
    "presence_penalty": "presence_penalty", "frequency_penalty": "frequency_penalty",
    "repeat_penalty": "repetition_penalty",
}  # fmt: skip
# How Ollama cuts a conversation that is too long: others have their own way, and no word for it.
_SILENT = ("truncate", "shift")
_COMMON = ("model", "stream", "options", "format", "think", "logprobs", "top_logprobs", *_SILENT)
# First bytes → what they are; sound travels among the images.
_KINDS = (
    (b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"), (b"BM", "image/bmp"),
)  # fmt: skip


def request_to_chat(body: Mapping[str, Any]) -> Translated:
    """A body of ``/api/chat`` → the canonical request. Raises ``InvalidRequest``.

    A body without messages, by which Ollama's clients have a model loaded, is refused: there is nothing to load here.
    """
    dropped = Dropped()
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages: must be a list with at least one message.")
    history = _History(dropped)
    for index, message in enumerate(messages):
        history.add(message, f"messages[{index}]")
    chat: dict[str, Any] = {"model": body.get("model"), "messages": history.messages}
    if tools := body.get("tools"):
        if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
            raise InvalidRequest("tools: must be a list of objects.")
        chat["tools"] = tools
    return _finished(chat, body, ("messages", "tools"), dropped)


def generate_to_chat(body: Mapping[str, Any]) -> Translated:
    """A body of ``/api/generate`` → the canonical request, its prompt the last message. Raises ``InvalidRequest``."""
    dropped = Dropped()
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise InvalidRequest("prompt: must be a string that is not empty.")
    messages: list[dict[str, Any]] = []
    if system := body.get("system"):
        messages.append({"role": "system", "content": system})
    messages.append({"role": "user", "content": _content(prompt, body.get("images"), "images")})
    # What is left: suffix, template, raw and the tokens of an earlier answer, none of which a chat can say.
    return _finished({"model": body.get("model"), "messages": messages}, body, ("prompt", "system", "images"), dropped)


def _finished(chat: dict[str, Any], body: Mapping[str, Any], read: tuple[str, ...], dropped: Dropped) -> Translated:
    chat["stream"] = body.get("stream") is not False
    _options(chat, table(body, "options"), dropped)
    _format(chat, body.get("format"))
    _think(chat, body.get("think"))
    if body.get("logprobs"):
        chat["logprobs"] = True
    if body.get("top_logprobs"):
        chat |= {"logprobs": True, "top_logprobs": body["top_logprobs"]}
    dropped.others(_asked(body), (*_COMMON, *read))
    return chat, dropped.names


def _asked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that say nothing: Go does not tell an empty text or ``false`` from an absent field."""
    return {name: value for name, value in fields.items() if value not in ("", False) or type(value) is int}


def _options(chat: dict[str, Any], options: Mapping[str, Any], dropped: Dropped) -> None:
    chat.update({ours: options[name] for name, ours in _OPTIONS.items() if options.get(name) is not None})
    if chat.get("seed") == -1:
        del chat["seed"]  # any
    stop = options.get("stop")
    if stop not in (None, [], ""):
        chat["stop"] = stop
    most = options.get("num_predict")
    if type(most) is int and most > 0:  # -1 and -2: as many as there is room for
        chat["max_completion_tokens"] = most
    dropped.others(_asked(options), (*_OPTIONS, "stop", "num_predict"), "options.")


def _format(chat: dict[str, Any], wanted: Any) -> None:
    if wanted == "json":
        chat["response_format"] = {"type": "json_object"}
    elif isinstance(wanted, dict) and wanted:
        chat["response_format"] = {"type": "json_schema", "json_schema": {"name": "response", "schema": wanted}}
    elif wanted:
        raise InvalidRequest('format: must be "json" or a JSON schema.')


def _think(chat: dict[str, Any], think: Any) -> None:
    if think is True:
        chat["reasoning"] = {"enabled": True}
    elif think is False:
        chat["reasoning_effort"] = "none"
    elif isinstance(think, str) and think:
        chat["reasoning_effort"] = think
    elif think:
        raise InvalidRequest('think: must be true, false, "low", "medium", "high" or "max".')


class _History:
    """The messages. Ollama's calls and results may go without ids: they answer to each other by name and order."""

    def __init__(self, dropped: Dropped) -> None:
        self.messages: list[dict[str, Any]] = []
        self._dropped = dropped
        self._open: dict[str, str] = {}  # calls that have no result yet: id → name
        self._calls = 0

    def add(self, message: Any, where: str) -> None:
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES:
            raise InvalidRequest(f"{where}.role: must be one of {', '.join(_ROLES)}.")
        content = message.get("content")
        if not isinstance(content, str | None):
            raise InvalidRequest(f"{where}.content: must be a string.")
        made = {"role": role, "content": _content(content or "", message.get("images"), f"{where}.images")}
        read = ["role", "content", "images"]
        if role == "assistant":
            read += ["thinking", "tool_calls"]
            if message.get("thinking"):
                made["reasoning_content"] = message["thinking"]
            if calls := self._tool_calls(message.get("tool_calls"), f"{where}.tool_calls"):
                made["tool_calls"] = calls
        elif role == "tool":
            read += ["tool_name", "tool_call_id", "name"]
            made["tool_call_id"] = self._answered(message, where)
        self._dropped.others(_asked(message), read, "messages.")
        self.messages.append(made)

    def _tool_calls(self, calls: Any, where: str) -> list[dict[str, Any]]:
        if not isinstance(calls, list | None):
            raise InvalidRequest(f"{where}: must be a list.")
        return [self._tool_call(call, f"{where}[{index}].function") for index, call in enumerate(calls or ())]

    def _tool_call(self, call: Any, where: str) -> dict[str, Any]:
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str):
            raise InvalidRequest(f"{where}.name: must be a string.")
        arguments = function.get("arguments") or {}
        if not isinstance(arguments, dict):
            raise InvalidRequest(f"{where}.arguments: must be an object.")
        call_id = str(call.get("id") or f"call_{self._calls}")
        self._calls += 1
        self._open[call_id] = name
        return {"id": call_id, "type": "function", "function": {"name": name, "arguments": dump_arguments(arguments)}}

    def _answered(self, message: Mapping[str, Any], where: str) -> str:
        """The id of the call that a result answers: its own, else the first open one of its name, or of any."""
        call_id = message.get("tool_call_id")
        if not call_id:
            name = message.get("tool_name") or message.get("name")
            same = (each for each, called in self._open.items() if not name or called == name)
            call_id = next(same, None)
        if call_id is None:
            raise InvalidRequest(f"{where}: answers no tool call of the messages before it.")
        self._open.pop(str(call_id), None)
        return str(call_id)


def _content(text: str, images: Any, where: str) -> Any:
    if not images:
        return text
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise InvalidRequest(f"{where}: must be a list of images in base64.")
    parts = [{"type": "text", "text": text}] if text else []
    return [*parts, *(_media(image, f"{where}[{index}]") for index, image in enumerate(images))]


def _media(data: str, where: str) -> dict[str, Any]:
    try:
        head = b64decode(data[:16], validate=True)
    except ValueError as error:
        raise InvalidRequest(f"{where}: is not base64.") from error
    if head[:4] == b"RIFF" and head[8:12] != b"WEBP":
        return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    if head[:3] == b"ID3":
        return {"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}
    kind = "image/webp" if head[:4] == b"RIFF" else next((kind for mark, kind in _KINDS if head.startswith(mark)), None)
    return {"type": "image_url", "image_url": {"url": f"data:{kind or 'image/jpeg'};base64,{data}"}}


class Reader:
    """Reads the lines of a stream that passes through unchanged, of either form."""

    __slots__ = ("done", "finished", "started", "usage")
    until_eof = False

    def __init__(self) -> None:
        self.done = False
        """The line with ``done`` came."""
        self.finished = False
        self.started = False
        self.usage: Usage | None = None

    def event(self, name: str | None, data: bytes) -> int:
        """Verdict on one line. Raises ``ValueError`` if it is no JSON object."""
        line = orjson.loads(data)
        if not isinstance(line, dict):
            raise ValueError("not an object")
        if "error" in line:
            return ERROR
        if line.get("done"):
            self.done = self.finished = True
            self.usage = usage(line) or self.usage
        self.started = self.started or self.done or _says_something(line)
        return PASS

    def refusal(self, data: bytes) -> tuple[int, bytes]:
        """Status and body of a whole answer that tells the error of a line."""
        return error_status(orjson.loads(data)), data


def _says_something(line: Mapping[str, Any]) -> bool:
    message = line.get("message")
    said = message if isinstance(message, dict) else line
    return any(said.get(name) for name in ("content", "response", "thinking", "tool_calls", "images"))


def error_body(status: int, code: str, message: str, request_id: str) -> bytes:
    """A whole error answer. The official clients raise for the status and show the text."""
    return orjson.dumps({"error": _told(message, request_id)})


def error_event(status: int, code: str, message: str, request_id: str) -> bytes:
    """The error as the last line of a stream: the official clients raise for a line with an ``error``."""
    return orjson.dumps({"error": _told(message, request_id), "status": status}) + b"\n"


def _told(message: str, request_id: str) -> str:
    return f"{message} (request id: {request_id})" if request_id else message
