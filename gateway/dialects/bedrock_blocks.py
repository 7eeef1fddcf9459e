"""Parts of canonical messages → Converse's content blocks: text, media, tool results, cache marks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.dialects.capabilities import Capabilities
from gateway.dialects.dropped import Dropped
from gateway.errors import InvalidRequest

FORMAT = "amazon-bedrock-v1"
"""``format`` of the ``reasoning_details`` that Converse made and takes back."""

_IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_DOCUMENTS = {
    "application/pdf": "pdf", "text/csv": "csv", "application/msword": "doc", "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html", "text/plain": "txt", "text/markdown": "md",
}  # fmt: skip
# "Alphanumeric characters, whitespace (no more than one in a row), hyphens, parentheses, square brackets".
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9\-()\[\]]+")
_LONGEST_NAME = 200


def blocks_of(content: Any, where: str, caps: Capabilities, dropped: Dropped) -> list[dict[str, Any]]:
    """The blocks of a message's ``content``; the service refuses empty texts, so there are none."""
    if content is None or isinstance(content, str):
        return [{"text": content}] if content else []
    if not isinstance(content, list):
        raise InvalidRequest(f"{where}.content: must be a string or a list of parts.")
    blocks: list[dict[str, Any]] = []
    for index, part in enumerate(content):
        if block := _block(part, f"{where}.content[{index}]", caps, dropped):
            blocks.append(block)
            if mark := cache_point(part):
                blocks.append(mark)
    return blocks


def cache_point(marked: Mapping[str, Any]) -> dict[str, Any]:
    """The block that marks what comes before it as worth keeping; empty where ``marked`` has no ``cache_control``."""
    control = marked.get("cache_control")
    if not isinstance(control, dict):
        return {}
    lifetime = {"ttl": control["ttl"]} if control.get("ttl") in ("5m", "1h") else {}
    return {"cachePoint": {"type": "default", **lifetime}}


def tool_result(
    message: Mapping[str, Any], call_id: str, where: str, caps: Capabilities, dropped: Dropped
) -> dict[str, Any]:
    content = blocks_of(message.get("content"), where, caps, dropped)
    kept = [block for block in content if "cachePoint" not in block]
    if any("audio" in block for block in kept):
        raise InvalidRequest(f"{where}.content: the result of a tool holds no sound here.")
    result: dict[str, Any] = {"toolUseId": call_id, "content": kept}
    if message.get("is_error"):
        result["status"] = "error"
    if len(kept) < len(content):
        dropped.add("messages.content.cache_control")
    return {"toolResult": result}


def _block(part: Any, where: str, caps: Capabilities, dropped: Dropped) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    value = part.get(kind) if isinstance(kind, str) else None
    if value is not None:
        dropped.others(part, ("type", str(kind), "cache_control"), "messages.content.")
    if kind in ("text", "refusal") and isinstance(value, str):
        return {"text": value} if value else {}
    if kind == "image_url" and caps.images:
        if isinstance(value, dict):
            dropped.others(value, ("url",), "messages.content.image_url.")
            value = value.get("url")
        media, data = _data_url(value, f"{where}.image_url")
        return {"image": {"format": _known(_IMAGES, media, where), "source": {"bytes": data}}}
    if kind == "file" and isinstance(value, dict) and caps.documents:
        media, data = _data_url(value.get("file_data"), f"{where}.file.file_data")
        name = _NOT_IN_NAMES.sub(" ", str(value.get("filename") or "")).strip()[:_LONGEST_NAME] or "document"
        return {"document": {"format": _known(_DOCUMENTS, media, where), "name": name, "source": {"bytes": data}}}
    if kind == "input_audio" and isinstance(value, dict) and caps.audio:
        return {"audio": {"format": value.get("format") or "wav", "source": {"bytes": value.get("data")}}}
    raise InvalidRequest(f"{where}: this model takes {_takes(caps)} parts.")


def _takes(caps: Capabilities) -> str:
    kinds = {"image_url": caps.images, "file": caps.documents, "input_audio": caps.audio}
    return ", ".join(["text", *(kind for kind, taken in kinds.items() if taken)])


def _known(formats: Mapping[str, str], media: str, where: str) -> str:
    if media not in formats:
        raise InvalidRequest(f"{where}: must be one of {', '.join(formats)}.")
    return formats[media]


def _data_url(url: Any, where: str) -> tuple[str, str]:
    """Media type and base64 of a ``data:`` URL."""
    if not isinstance(url, str) or url[:5].lower() != "data:":
        raise InvalidRequest(f"{where}: must be a data: URL in base64; the gateway fetches no addresses.")
    head, _, data = url.partition(",")
    media, *parameters = head[5:].lower().split(";")
    if "base64" not in parameters:
        raise InvalidRequest(f"{where}: the data: URL must be encoded in base64.")
    return media, data
