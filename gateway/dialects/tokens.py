"""How many tokens a request has, where nobody can say exactly: an estimate from the bytes of its text.

Tokenisers differ between vendors and most are not public. On recorded requests of text and tools the estimate is off by
up to 40 % either way; what a picture or a file counts is a guess. Never bill by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

from gateway.dialects.tool_arguments import dump_arguments

BYTES_PER_TOKEN = 3.5
"""English prose has 4 to 4.5, code and JSON 3, Chinese and Japanese (3 bytes a character) 3 to 4."""
_PER_MESSAGE = 4  # role and separators
_PER_TOOL = 12
_FOR_TOOLS = 400  # the vendors' own prompt that explains tools: 290 to 530 at Anthropic
_FOR_SCHEMA = 100  # the same for an answer of a given shape
_IMAGE = 1600  # Anthropic's most for its usual size, OpenAI's ``high`` for a square of 1024 is 765
_DOCUMENT_BYTES_PER_TOKEN = 25  # a PDF: 2,000 tokens for a page of 50 kB
_AUDIO_BYTES_PER_TOKEN = 800  # 16 kHz, 16 bits, ten tokens to the second, in base64 or not


def estimate_tokens(chat: Mapping[str, Any]) -> int:
    """Input tokens of a canonical request, estimated. Never raises: what it does not know counts nothing."""
    tokens = 0.0
    for message in _dicts(chat.get("messages")):
        tokens += _PER_MESSAGE + _message(message)
    if tools := list(_dicts(chat.get("tools"))):
        tokens += _FOR_TOOLS + sum(_PER_TOOL + _text(_dump(tool.get("function") or tool)) for tool in tools)
    if schema := chat.get("response_format"):
        tokens += _FOR_SCHEMA + _text(_dump(schema))
    return ceil(tokens)


def _message(message: Mapping[str, Any]) -> float:
    content = message.get("content")
    tokens = _text(content) + sum(_part(part) for part in _dicts(content))
    # Of earlier reasoning providers count what is in the running turn at most; the text stands for its signature too.
    tokens += _text(message.get("reasoning_content"))
    for call in _dicts(message.get("tool_calls")):
        function = call.get("function")
        if isinstance(function, dict):
            tokens += _PER_TOOL + _text(function.get("name")) + _text(function.get("arguments"))
    return tokens


def _part(part: Mapping[str, Any]) -> float:
    kind = part.get("type")
    if kind == "image_url":
        return _IMAGE
    if kind == "file":
        return _size(part.get("file"), "file_data") / _DOCUMENT_BYTES_PER_TOKEN
    if kind == "input_audio":
        return _size(part.get("input_audio"), "data") / _AUDIO_BYTES_PER_TOKEN
    return _text(part.get("text"))


def _text(value: Any) -> float:
    return len(value.encode(errors="replace")) / BYTES_PER_TOKEN if isinstance(value, str) else 0


def _size(parent: Any, name: str) -> int:
    value = parent.get(name) if isinstance(parent, dict) else None
    return len(value) * 3 // 4 if isinstance(value, str) else 0


def _dump(value: Any) -> str:
    try:
        return dump_arguments(value)
    except ValueError:
        return ""


def _dicts(values: Any) -> Iterator[dict[str, Any]]:
    if isinstance(values, list):
        yield from (value for value in values if isinstance(value, dict))
