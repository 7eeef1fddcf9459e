"""Gemini's ``contents`` → canonical messages; the rest of a client's request is in ``gemini_client``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.dialects import gemini_thoughts as thoughts
from gateway.dialects.dropped import Dropped
from gateway.errors import InvalidRequest

_AUDIO = {"audio/mp3": "mp3", "audio/mpeg": "mp3", "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav"}
_PARTS = ("text", "inlineData", "fileData", "functionCall", "functionResponse", "executableCode", "codeExecutionResult")
_Message = dict[str, Any]


class History:
    """Walks over the contents once. ``messages`` is the result."""

    __slots__ = ("_calls", "_dropped", "_open", "messages")

    def __init__(self, dropped: Dropped) -> None:
        self._dropped = dropped
        self._open: dict[str, str] = {}  # calls without a result, by id → function name, in order
        self._calls = 0
        self.messages: list[_Message] = []

    def read(self, contents: Any) -> None:
        """Raises ``InvalidRequest``."""
        if isinstance(contents, dict):
            contents = [contents]  # protocol buffers take one for a list of one
        if not isinstance(contents, list) or not contents:
            raise InvalidRequest("contents: must be a list with at least one content.")
        for index, content in enumerate(contents):
            where = f"contents[{index}]"
            role = content.get("role") or "user" if isinstance(content, dict) else None
            if role not in ("user", "model", "function"):
                raise InvalidRequest(f"{where}.role: must be user or model.")
            parts = parts_of(content, where)
            if role == "model":
                self._model(parts, where)
            else:
                self._user(parts, where)
            self._dropped.others(content, ("role", "parts"), "contents.")
        if all(message["role"] == "system" for message in self.messages):
            raise InvalidRequest("contents: must hold at least one part.")

    def _user(self, parts: list[_Message], where: str) -> None:
        shown: list[_Message] = []
        for index, part in enumerate(parts):
            place = f"{where}.parts[{index}]"
            self._others(part)
            if isinstance(response := part.get("functionResponse"), dict):
                self._result(response, place)
            else:
                shown.append(_shown(part, place))
        if shown:
            alone = len(shown) == 1 and shown[0]["type"] == "text"
            self.messages.append({"role": "user", "content": shown[0]["text"] if alone else shown})

    def _model(self, parts: list[_Message], where: str) -> None:
        said: list[str] = []
        thought: list[str] = []
        images: list[_Message] = []
        details: list[_Message] = []
        calls: list[_Message] = []
        for index, part in enumerate(parts):
            self._others(part)
            place = f"{where}.parts[{index}]"
            if (foreign := thoughts.unwrap(part.get("thoughtSignature"))) is not None:
                details += foreign
                part = {name: value for name, value in part.items() if name != "thoughtSignature"}
            call = part.get("functionCall")
            if not isinstance(call, dict) and (detail := thoughts.detail_of(part, len(details))):
                details.append(detail)
            if isinstance(call, dict):
                calls.append(self._call(call, part, place))
            elif part.get("thought") is True:
                thought.append(_text(part.get("text"), place))
            elif (code := code_text(part)) is not None:
                said.append(code)
            else:
                made = _shown(part, place)
                if made["type"] == "text":
                    said.append(made["text"])
                else:
                    images.append(made)
        message = {"reasoning_content": "".join(thought), "reasoning_details": details, "images": images,
                   "tool_calls": calls}  # fmt: skip
        content = "".join(said) or (None if calls else "")
        filled = {name: value for name, value in message.items() if value}
        if content or filled:
            self.messages.append({"role": "assistant", "content": content, **filled})

    def _others(self, part: Mapping[str, Any]) -> None:
        self._dropped.others(part, (*_PARTS, "thought", "thoughtSignature"), "contents.parts.")

    def _call(self, call: Mapping[str, Any], part: Mapping[str, Any], where: str) -> _Message:
        name, args = call.get("name"), call.get("args")
        if not isinstance(name, str):
            raise InvalidRequest(f"{where}.functionCall.name: must be a string.")
        if args is not None and not isinstance(args, dict):
            raise InvalidRequest(f"{where}.functionCall.args: must be an object.")
        self._calls += 1
        call_id = call.get("id")
        if not isinstance(call_id, str) or not call_id:
            call_id = f"call_{self._calls}"
        self._open[call_id] = name
        made: _Message = {
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": written(args or {})},
        }
        signature = part.get("thoughtSignature")
        if isinstance(signature, str) and signature and signature != thoughts.DUMMY:
            made["extra_content"] = thoughts.extra_content(signature)
        return made

    def _result(self, response: Mapping[str, Any], where: str) -> None:
        """A result without an id answers the first open call of its name; without such a one, the first open call."""
        given, name = response.get("id"), response.get("name")
        if not isinstance(given, str) or given not in self._open:
            same = [each for each, called in self._open.items() if called == name]
            given = next(iter(same or self._open), None)
            if given is None:
                raise InvalidRequest(f"{where}.functionResponse: answers no functionCall before it.")
        del self._open[given]
        value = response.get("response")
        message: _Message = {"role": "tool", "tool_call_id": given}
        text, failed = _output(value if isinstance(value, dict) else {})
        parts = response.get("parts")
        if isinstance(parts, list) and parts:
            shown = [_shown(part, f"{where}.functionResponse.parts") for part in parts if isinstance(part, dict)]
            message["content"] = [{"type": "text", "text": text}, *shown]
        else:
            message["content"] = text
        if failed:
            message["is_error"] = True
        self._dropped.others(response, ("id", "name", "response", "parts"), "contents.parts.functionResponse.")
        self.messages.append(message)


def parts_of(content: Mapping[str, Any], where: str) -> list[_Message]:
    """The parts of a content. Raises ``InvalidRequest``."""
    parts = content.get("parts")
    if isinstance(parts, dict):
        parts = [parts]
    if not isinstance(parts, list | None) or not all(isinstance(part, dict) for part in parts or ()):
        raise InvalidRequest(f"{where}.parts: must be a list of objects.")
    return parts or []


def content_text(content: Any, where: str) -> str:
    """The text of a content, which some clients write as a string. Raises ``InvalidRequest`` for other parts."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, dict):
        raise InvalidRequest(f"{where}: must be an object.")
    parts = parts_of(content, where)
    return "\n\n".join([_text(part.get("text"), f"{where}.parts[{index}]") for index, part in enumerate(parts)])


def code_text(part: Mapping[str, Any]) -> str | None:
    """Code that Google ran for the model, or what came of it, as text; ``None`` for any other part."""
    if isinstance(code := part.get("executableCode"), dict):
        return f"\n```{str(code.get('language') or '').lower()}\n{code.get('code') or ''}\n```\n"
    if isinstance(result := part.get("codeExecutionResult"), dict):
        return f"\n```\n{result.get('output') or ''}\n```\n"
    return None


def written(value: Any) -> str:
    """Arguments as OpenAI has them: a string of JSON."""
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    except RecursionError as error:
        raise InvalidRequest("The request is nested too deeply.") from error


def _shown(part: Mapping[str, Any], where: str) -> _Message:
    """A part that is shown to the model: text, image, sound, document."""
    inline, file = part.get("inlineData"), part.get("fileData")
    if isinstance(inline, dict):
        kind, data = _text(inline.get("mimeType"), where), inline.get("data")
        if not isinstance(data, str):
            raise InvalidRequest(f"{where}.inlineData.data: must be a string.")
        if kind in _AUDIO:
            return {"type": "input_audio", "input_audio": {"data": data, "format": _AUDIO[kind]}}
        return _media(kind, f"data:{kind};base64,{data}", "file_data", inline)
    if isinstance(file, dict):
        return _media(str(file.get("mimeType") or ""), _text(file.get("fileUri"), where), "file_url", file)
    if "text" not in part:
        raise InvalidRequest(f"{where}: must be text, inlineData, fileData, functionCall or functionResponse.")
    return {"type": "text", "text": _text(part["text"], where)}


def _media(kind: str, url: str, field: str, source: Mapping[str, Any]) -> _Message:
    if kind.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    made: _Message = {field: url}
    if field == "file_url" and kind:
        made["format"] = kind
    if isinstance(name := source.get("displayName"), str):
        made["filename"] = name
    return {"type": "file", "file": made}


def _output(value: dict[str, Any]) -> tuple[str, bool]:
    """``output`` and ``error`` are the names Google documents; anything else is the output as a whole."""
    if len(value) == 1:
        (name, inner), *_ = value.items()
        if name in ("output", "error") and isinstance(inner, str):
            return inner, name == "error"
    return written(value), False


def _text(value: Any, where: str) -> str:
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{where}: must be a string.")
    return value or ""
