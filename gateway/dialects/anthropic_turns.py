"""Canonical messages → Anthropic's ``system`` and turns. The rest of the request is in ``anthropic_messages``.

Anthropic's rules that OpenAI's messages do not keep: neighbours of one role are one turn, tool results come first in
theirs, there is no empty text, and what the assistant signed goes back in its place or not at all.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from gateway.dialects.anthropic_reasoning import block_of, put_back
from gateway.dialects.capabilities import Capabilities
from gateway.dialects.dropped import Dropped, table
from gateway.dialects.tool_arguments import parse_arguments
from gateway.errors import InvalidRequest

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "user"}
_KNOWN = {
    "system": {"role", "content", "cache_control"},
    "developer": {"role", "content", "cache_control"},
    "user": {"role", "content", "cache_control"},
    "assistant": {
        "role", "content", "cache_control", "tool_calls", "refusal", "reasoning", "reasoning_content",
        "reasoning_details", "annotations",
    },
    "tool": {"role", "content", "cache_control", "tool_call_id", "is_error", "name"},
}  # fmt: skip
_NO_ID = re.compile(r"[^A-Za-z0-9_-]")  # Anthropic refuses them in the id of a tool call
_DATA_URL = re.compile(r"data:([^;,]*+)(?:;[^;,]*+)*?(;base64)?,", re.IGNORECASE)
_IMAGES = {"image/jpg": "image/jpeg"}
_WHERE = "messages.content."

Blocks = list[dict[str, Any]]


class Turns:
    """Takes the messages one after another; ``system`` and ``messages`` are what Anthropic gets."""

    __slots__ = ("_caps", "_dropped", "messages", "system")

    def __init__(self, caps: Capabilities, dropped: Dropped) -> None:
        self._caps = caps
        self._dropped = dropped
        self.system: Blocks = []
        self.messages: list[dict[str, Any]] = []

    def add_all(self, messages: Any) -> None:
        """Raises ``InvalidRequest`` for what Anthropic cannot be shown."""
        if not isinstance(messages, list) or not messages:
            raise InvalidRequest("messages: must be a list with at least one message.")
        for index, message in enumerate(messages):
            role = message.get("role") if isinstance(message, dict) else None
            if not isinstance(role, str) or role not in _ROLES:
                raise InvalidRequest(f"messages[{index}].role: must be one of {', '.join(_ROLES)}.")
            last = index == len(messages) - 1
            self._add(role, message, f"messages[{index}]", last and not self.messages)
            self._dropped.others(message, _KNOWN[role], "messages.")
        self._end()

    def _add(self, role: str, message: Mapping[str, Any], where: str, alone: bool) -> None:
        if role == "assistant":
            self._turn("assistant", self._assistant(message, where), message)
        elif role == "tool":
            self._result(message, where)
        elif role == "user":
            self._turn("user", self._content(message.get("content"), where), message)
        else:
            self._instruct(message, where, alone)

    def _instruct(self, message: Mapping[str, Any], where: str, alone: bool) -> None:
        blocks = self._content(message.get("content"), where, texts_only=True)
        if not self.messages and not alone:
            self.system += _marked(blocks, message)
        elif self._caps.mid_system and self.messages:
            self._turn("system", blocks, message)
        else:  # a turn of its own place beats an earlier place of its own rank: "from now on" must not come first
            self._dropped.add("messages.system")
            for block in [] if alone else blocks:
                block["text"] = f"<system>\n{block['text']}\n</system>"
            self._turn("user", blocks, message)

    def _turn(self, role: str, blocks: Blocks, message: Mapping[str, Any]) -> None:
        if not blocks:
            return
        _marked(blocks, message)
        if self.messages and self.messages[-1]["role"] == role:
            self.messages[-1]["content"] += blocks
        else:
            self.messages.append({"role": role, "content": blocks})

    def _result(self, message: Mapping[str, Any], where: str) -> None:
        content = message.get("content")
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": _call_id(message.get("tool_call_id"))}
        if inner := content if isinstance(content, str) else self._content(content, where):
            block["content"] = inner
        if message.get("is_error"):
            block["is_error"] = True
        _marked([block], message)
        if not self.messages or self.messages[-1]["role"] != "user":
            self.messages.append({"role": "user", "content": []})
        blocks = self.messages[-1]["content"]
        blocks.insert(sum(each["type"] == "tool_result" for each in blocks), block)

    def _end(self) -> None:
        if not self.messages:
            raise InvalidRequest("messages: have no content.")
        last = self.messages[-1]
        if last["role"] != "assistant":
            return
        if not self._caps.prefill:
            self._dropped.add("messages.prefill")
            self.messages.append({"role": "user", "content": [{"type": "text", "text": "Continue."}]})
        elif last["content"][-1]["type"] == "text":  # a beginning that ends in white space is refused
            last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()

    def _assistant(self, message: Mapping[str, Any], where: str) -> Blocks:
        blocks = self._content(message.get("content"), where)
        if (refusal := message.get("refusal")) and not blocks:
            blocks = [{"type": "text", "text": refusal}]
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list):
            raise InvalidRequest(f"{where}.tool_calls: must be a list.")
        blocks += [self._call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(calls)]
        self._think(blocks, message)
        return blocks

    def _think(self, blocks: Blocks, message: Mapping[str, Any]) -> None:
        before = len(blocks)
        if put_back(blocks, message.get("reasoning_details"), block_of):
            self._dropped.add("messages.reasoning_details")
        if len(blocks) == before and (message.get("reasoning_content") or message.get("reasoning")):
            self._dropped.add("messages.reasoning_content")  # what is not signed is refused

    def _call(self, call: Any, where: str) -> dict[str, Any]:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(name := function.get("name"), str):
            raise InvalidRequest(f"{where}.function.name: must be a string.")
        try:
            arguments = parse_arguments(function.get("arguments"))
        except ValueError as error:
            raise InvalidRequest(f"{where}.function.arguments: must be a JSON object in a string.") from error
        self._dropped.others(call, ("id", "type", "index", "function", "cache_control"), "messages.tool_calls.")
        return _marked([{"type": "tool_use", "id": _call_id(call.get("id")), "name": name, "input": arguments}], call)[
            0
        ]

    def _content(self, content: Any, where: str, texts_only: bool = False) -> Blocks:
        if isinstance(content, str):
            return [{"type": "text", "text": content}] if content.strip() else []
        if content is None:
            return []
        if not isinstance(content, list):
            raise InvalidRequest(f"{where}.content: must be a string or a list of parts.")
        blocks: Blocks = []
        for index, part in enumerate(content):
            block = self._part(part, f"{where}.content[{index}]", texts_only)
            if block["type"] != "text" or block["text"].strip():
                blocks += _marked([block], part)
        return blocks

    def _part(self, part: Any, where: str, texts_only: bool) -> dict[str, Any]:
        kind = part.get("type") if isinstance(part, dict) else None
        value = part.get(kind) if isinstance(kind, str) else None
        if kind in ("text", "refusal") and isinstance(value, str):
            block: dict[str, Any] = {"type": "text", "text": value}
        elif kind == "image_url" and self._caps.images and not texts_only:
            block = {"type": "image", "source": self._image(value, f"{where}.image_url")}
        elif kind == "file" and not texts_only:
            block = self._file(table(part, "file", where), f"{where}.file")
        else:
            raise InvalidRequest(f"{where}: this model takes no {kind} here.")
        self._dropped.others(part, ("type", kind, "cache_control", "prompt_cache_breakpoint", "annotations"), _WHERE)
        return block

    def _image(self, image: Any, where: str) -> dict[str, Any]:
        url = image
        if isinstance(image, dict):
            url = image.get("url")
            self._dropped.others(image, ("url",), f"{_WHERE}image_url.")
        if not isinstance(url, str):
            raise InvalidRequest(f"{where}: must be a URL.")
        return _source(url, where) or {"type": "url", "url": url}

    def _file(self, file: Mapping[str, Any], where: str) -> dict[str, Any]:
        if not self._caps.documents:
            raise InvalidRequest(f"{where}: this model takes no documents.")
        self._dropped.others(file, ("file_data", "file_url", "file_id", "filename"), f"{_WHERE}file.")
        source: dict[str, Any] | None = None
        if isinstance(data := file.get("file_data"), str):
            source = _source(data, where)
        elif isinstance(url := file.get("file_url"), str):
            source = _source(url, where) or {"type": "url", "url": url}
        elif isinstance(file_id := file.get("file_id"), str):
            source = {"type": "file", "file_id": file_id}
        if source is None:
            raise InvalidRequest(f"{where}: must have file_data (a data: URL), file_url or file_id.")
        if str(source.get("media_type")).startswith("image/"):
            return {"type": "image", "source": source}
        block = {"type": "document", "source": source}
        return {**block, "title": file["filename"]} if file.get("filename") else block


def _source(url: str, where: str) -> dict[str, Any] | None:
    """The source in a ``data:`` URL: text as text, all else in base64 as it is; ``None`` for an address."""
    head = _DATA_URL.match(url)
    if head is None:
        return None
    media, data = head[1].lower(), url[head.end() :]
    if not head[2]:
        raise InvalidRequest(f"{where}: the data: URL must be encoded in base64.")
    if not media.startswith("text/"):
        return {"type": "base64", "media_type": _IMAGES.get(media, media), "data": data}
    try:
        return {"type": "text", "media_type": "text/plain", "data": b64decode(data, validate=True).decode()}
    except ValueError as error:
        raise InvalidRequest(f"{where}: is not text in UTF-8, encoded in base64.") from error


def _call_id(value: Any) -> str:
    return _NO_ID.sub("_", str(value))


def _marked(blocks: Blocks, marked: Mapping[str, Any]) -> Blocks:
    """Carries a mark for the cache, Anthropic's or OpenAI's, to the last of the blocks."""
    mark = marked.get("cache_control")
    if mark is None and marked.get("prompt_cache_breakpoint"):
        mark = {"type": "ephemeral"}
    if mark is not None and blocks and blocks[-1]["type"] not in ("thinking", "redacted_thinking"):
        blocks[-1]["cache_control"] = mark
    return blocks
