"""Canonical messages → Gemini's ``contents`` and ``systemInstruction``; the rest of the request is in ``gemini``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from mimetypes import guess_type
from typing import Any

from gateway.dialects import gemini_thoughts as thoughts
from gateway.dialects.capabilities import Capabilities
from gateway.dialects.dropped import Dropped
from gateway.errors import InvalidRequest

_ROLES = ("system", "developer", "user", "assistant", "tool")
_READ = {
    "user": {"role", "content"},
    "assistant": {
        "role", "content", "tool_calls", "refusal", "reasoning", "reasoning_content", "reasoning_details",
        "extra_content", "annotations", "images",
    },
    "tool": {"role", "content", "name", "tool_call_id", "is_error"},
}  # fmt: skip
_AUDIO = {"mp3": "audio/mp3", "wav": "audio/wav"}  # others are audio/<format>
_Part = dict[str, Any]


class Contents:
    """Walks over the messages once. ``contents`` and ``system`` are the result."""

    __slots__ = ("_answered", "_caps", "_dropped", "_pending", "contents", "system")

    def __init__(self, messages: Any, caps: Capabilities, dropped: Dropped) -> None:
        """Raises ``InvalidRequest``."""
        if not isinstance(messages, list) or not messages:
            raise InvalidRequest("messages: must be a list with at least one message.")
        self._caps = caps
        self._dropped = dropped
        self._pending: dict[str, dict[str, Any]] = {}  # functionCalls without a result, by id, in order
        self._answered: dict[str, dict[str, Any]] = {}
        self.contents: list[_Part] = []
        self.system: list[str] = []
        for index, message in enumerate(messages):
            self._message(message, f"messages[{index}]")
        if not self.contents:  # Gemini demands something to answer to
            self.contents = [{"role": "user", "parts": [{"text": text} for text in self.system]}]
            self.system = []

    def _message(self, message: Any, where: str) -> None:
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES:
            raise InvalidRequest(f"{where}.role: must be one of {', '.join(_ROLES)}.")
        if role in ("system", "developer"):
            self._instruct(message, where)
            return
        self._dropped.others(message, _READ[role], "messages.")
        if role == "user":
            if parts := self._parts(message.get("content"), where):
                self.contents.append({"role": "user", "parts": parts})
        elif role == "assistant":
            if parts := self._assistant(message, where):
                self.contents.append({"role": "model", "parts": parts})
        else:
            self._result(message, where)

    def _instruct(self, message: Mapping[str, Any], where: str) -> None:
        self._dropped.others(message, ("role", "content"), "messages.")
        parts = self._parts(message.get("content"), where)
        if any("text" not in part for part in parts):
            raise InvalidRequest(f"{where}.content: this provider takes only text here.")
        if self.contents and parts:
            self._dropped.add("messages.system.position")  # Gemini has one place, before all contents
        self.system += [part["text"] for part in parts]

    def _parts(self, content: Any, where: str) -> list[_Part]:
        if content is None or isinstance(content, str):
            return [{"text": content}] if content else []
        if not isinstance(content, list):
            raise InvalidRequest(f"{where}.content: must be a string or a list of parts.")
        return [self._part(part, f"{where}.content[{index}]") for index, part in enumerate(content)]

    def _part(self, part: Any, where: str) -> _Part:
        kind = part.get("type") if isinstance(part, dict) else None
        value = part.get(kind) if isinstance(kind, str) else None
        if isinstance(kind, str):
            self._dropped.others(part, ("type", kind), "messages.content.")
        if kind in ("text", "refusal") and isinstance(value, str):
            return {"text": value}
        if kind in ("image_url", "video_url") and isinstance(value, str | dict):
            return self._address(value if isinstance(value, dict) else {"url": value}, kind, where)
        if kind == "input_audio" and isinstance(value, dict) and isinstance(value.get("data"), str):
            self._allow(self._caps.audio, where)
            form = str(value.get("format") or "wav")
            return {"inlineData": {"mimeType": _AUDIO.get(form, f"audio/{form}"), "data": value["data"]}}
        if kind == "file" and isinstance(value, dict):
            return self._file(value, where)
        raise InvalidRequest(f"{where}: this provider takes text, image_url, input_audio and file parts.")

    def _address(self, value: Mapping[str, Any], kind: str, where: str) -> _Part:
        self._allow(self._caps.images, where)
        self._dropped.others(value, ("url",), f"messages.content.{kind}.")
        url = value.get("url")
        if not isinstance(url, str) or not url:
            raise InvalidRequest(f"{where}.{kind}.url: must be a string.")
        return _located(url, f"{where}.{kind}.url")

    def _file(self, file: Mapping[str, Any], where: str) -> _Part:
        self._allow(self._caps.documents, where)
        self._dropped.others(file, ("file_data", "file_url", "file_id", "format"), "messages.content.file.")
        data = file.get("file_data") or file.get("file_url")
        own = file.get("file_id")
        if isinstance(own, str) and own.startswith(("https://", "gs://")):
            data = data or own  # the address of a file in Gemini's own store
        if not isinstance(data, str):
            raise InvalidRequest(f"{where}.file: this provider takes file_data or file_url, no file_id of another one.")
        if ":" in data[:8]:
            made = _located(data, f"{where}.file")
            if isinstance(kind := file.get("format"), str):
                next(iter(made.values())).setdefault("mimeType", kind)
            return made
        kind = file.get("format") or guess_type(str(file.get("filename")))[0]  # base64 alone
        if not isinstance(kind, str):
            raise InvalidRequest(f"{where}.file.file_data: must be a data: URL, or the filename must tell the type.")
        return {"inlineData": {"mimeType": kind, "data": data}}

    def _allow(self, able: bool, where: str) -> None:
        if not able:
            raise InvalidRequest(f"{where}: this model does not take parts of this type.")

    def _assistant(self, message: Mapping[str, Any], where: str) -> list[_Part]:
        details = message.get("reasoning_details")
        details = details if isinstance(details, list) else []
        ours = [detail for detail in details if thoughts.is_ours(detail)]
        if len(ours) < len(details):
            self._dropped.add("messages.reasoning_details")
        thought = [_thought(detail) for detail in ours if isinstance(detail.get("text"), str)]
        if not thought and not ours and (message.get("reasoning_content") or message.get("reasoning")):
            self._dropped.add("messages.reasoning_content")
        said = self._parts(message.get("content"), where) or self._parts(message.get("refusal"), where)
        said += self._parts(message.get("images"), f"{where}.images")
        calls = self._calls(message.get("tool_calls"), where)
        _sign(said, calls, ours, thoughts.signature_of(message))
        if self._caps.signed_calls and calls and "thoughtSignature" not in calls[0]:
            calls[0]["thoughtSignature"] = thoughts.DUMMY  # of parallel calls, Gemini signs the first one
        return [*thought, *said, *calls]

    def _calls(self, calls: Any, where: str) -> list[_Part]:
        if calls is not None and not isinstance(calls, list):
            raise InvalidRequest(f"{where}.tool_calls: must be a list.")
        made = [self._call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(calls or ())]
        for part in made:
            call = part["functionCall"]
            self._pending[call.get("id", f"{where}.{len(self._pending)}")] = call
        return made

    def _call(self, call: Any, where: str) -> _Part:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(name := function.get("name"), str):
            raise InvalidRequest(f"{where}.function.name: must be a string.")
        made: _Part = {"name": name, "args": _arguments(function.get("arguments"), f"{where}.function.arguments")}
        if isinstance(call_id := call.get("id"), str) and call_id:
            made["id"] = call_id
        part: _Part = {"functionCall": made}
        if signature := thoughts.signature_of(call):
            part["thoughtSignature"] = signature
        return part

    def _answers(self, message: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The call it answers: that of its id, else the first one still open; of its name, where it has one."""
        key = message.get("tool_call_id")
        if not isinstance(key, str) or (key not in self._pending and key not in self._answered):
            name = message.get("name")
            still = (each for each, call in self._pending.items() if not name or call["name"] == name)
            key = next(still, None)
            if key is None:
                raise InvalidRequest(f"{where}.tool_call_id: answers no tool call before it.")
        call = self._pending.pop(key, None) or self._answered[key]
        self._answered[key] = call
        return call

    def _result(self, message: Mapping[str, Any], where: str) -> None:
        call = self._answers(message, where)
        response: _Part = {"name": call["name"], "response": {}}
        if "id" in call:
            response["id"] = call["id"]
        parts = self._parts(message.get("content"), where)
        text = "\n".join(part["text"] for part in parts if "text" in part)
        response["response"] = _output(text, bool(message.get("is_error")))
        if shown := [part for part in parts if "text" not in part]:
            response["parts"] = shown
        last = self.contents[-1] if self.contents else {}
        if last.get("role") == "user" and "functionResponse" in last["parts"][0]:
            last["parts"].append({"functionResponse": response})  # results of one turn belong together
        else:
            self.contents.append({"role": "user", "parts": [{"functionResponse": response}]})


def _thought(detail: Mapping[str, Any]) -> _Part:
    part: _Part = {"text": detail["text"], "thought": True}
    if isinstance(signature := detail.get("signature"), str) and signature:
        part["thoughtSignature"] = signature
    return part


def _sign(said: list[_Part], calls: list[_Part], ours: list[dict[str, Any]], google: str | None) -> None:
    """Puts opaque signatures back: on the call they name, else on the last text; ahead of it where there are more."""
    by_id = {part["functionCall"].get("id"): part for part in calls}
    loose: list[str] = []
    for detail in ours:
        signature = detail.get("data")
        if not isinstance(signature, str) or not signature or "text" in detail:
            continue
        if (part := by_id.get(detail.get("id") or "")) is not None:
            part.setdefault("thoughtSignature", signature)
        else:
            loose.append(signature)
    if google and google not in loose:
        # Google's compatible answers repeat there what is signed on the first call of an older model.
        loose.append(google)
    if loose and not said:
        said.append({"text": ""})
    for signature in loose[:-1]:
        said.insert(len(said) - 1, {"text": "", "thoughtSignature": signature})
    if loose:
        said[-1]["thoughtSignature"] = loose[-1]


def _located(url: str, where: str) -> _Part:
    if url[:5].lower() != "data:":
        if not url.lower().startswith(("https://", "http://", "gs://")):
            raise InvalidRequest(f"{where}: must be a data:, http(s): or gs: URL.")
        kind = guess_type(url.partition("?")[0])[0]
        return {"fileData": {"fileUri": url, **({"mimeType": kind} if kind else {})}}
    head, _, data = url.partition(",")
    if not head.lower().endswith(";base64"):
        raise InvalidRequest(f"{where}: the data: URL must be encoded in base64.")
    return {"inlineData": {"mimeType": head[5:].partition(";")[0].lower() or "text/plain", "data": data}}


def _arguments(arguments: Any, where: str) -> dict[str, Any]:
    """The object in OpenAI's string of JSON. The standard parser keeps integers of any size."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments, parse_constant=_no_number) if arguments.strip() else {}
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"{where}: is not valid JSON.") from error
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise InvalidRequest(f"{where}: must be a JSON object.")
    return arguments


def _output(text: str, failed: bool) -> dict[str, Any]:
    """Gemini takes objects: what is one stays it, the rest goes under the names its documentation gives."""
    if failed:
        return {"error": text}
    try:
        value = json.loads(text, parse_constant=_no_number) if text.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"output": text}


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
