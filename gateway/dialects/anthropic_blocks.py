"""Anthropic's ``system`` and ``messages``, block by block → canonical messages. The request is in ``anthropic_client``.

Tool results become messages of their own, in front of the rest of their turn; thinking becomes
``reasoning_content`` and ``reasoning_details``. Content that could not be shown to a model is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects.anthropic_reasoning import detail_of
from gateway.dialects.dropped import Dropped, table
from gateway.dialects.tool_arguments import dump_arguments
from gateway.errors import InvalidRequest

_BILLING = "x-anthropic-billing-header:"
"""How Claude Code begins a block for Anthropic's accounting: no instruction, and new in each version."""
_SERVER_TOOLS = ("server_tool_use", "mcp_tool_use", "fallback")  # and every block that ends in _tool_result


def messages_to_chat(body: Mapping[str, Any], dropped: Dropped) -> list[dict[str, Any]]:
    """The request's ``system`` and ``messages`` as canonical messages. Raises ``InvalidRequest``."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages: must be a list with at least one message.")
    result = _system(body.get("system"), "system", dropped)
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        if not isinstance(message, dict):
            raise InvalidRequest(f"{where}: must be an object.")
        role, content = message.get("role"), message.get("content")
        if role == "user":
            result += _user(_blocks(content, where), where, dropped)
        elif role == "assistant":
            result.append(_assistant(_blocks(content, where), where, dropped))
        elif role == "system":
            result += _system(content, where, dropped)
        else:
            raise InvalidRequest(f"{where}.role: must be user, assistant or system.")
        dropped.others(message, ("role", "content"), "messages.")
    return result


def _blocks(content: Any, where: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise InvalidRequest(f"{where}.content: must be a string or a list of blocks.")
    return content


def _system(content: Any, where: str, dropped: Dropped) -> list[dict[str, Any]]:
    if content is None:
        return []
    parts = []
    for block in _blocks(content, where):
        if block.get("type") != "text":
            raise InvalidRequest(f"{where}: takes text blocks only.")
        part = _part(block, where, dropped)
        if part["text"].startswith(_BILLING):
            dropped.add("system.billing_header")
        else:
            parts.append(part)
    return [{"role": "system", "content": _content(parts)}] if parts else []


def _user(blocks: list[dict[str, Any]], where: str, dropped: Dropped) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for block in blocks:
        if block.get("type") == "tool_result":
            results.append(_tool_result(block, where, dropped))
        else:
            parts.append(_part(block, where, dropped))
    if parts or not results:
        results.append({"role": "user", "content": _content(parts)})
    return results


def _tool_result(block: Mapping[str, Any], where: str, dropped: Dropped) -> dict[str, Any]:
    content = block.get("content")
    inner = [] if content is None else _blocks(content, f"{where}.tool_result")
    parts = [_part(each, f"{where}.tool_result", dropped) for each in inner]
    made = {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": _content(parts)}
    if block.get("is_error"):
        made["is_error"] = True
    if block.get("cache_control") is not None:
        made["cache_control"] = block["cache_control"]
    dropped.others(block, ("type", "tool_use_id", "content", "is_error", "cache_control"), "messages.content.")
    return made


def _assistant(blocks: list[dict[str, Any]], where: str, dropped: Dropped) -> dict[str, Any]:
    texts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    thoughts: list[str] = []
    details: list[dict[str, Any]] = []
    for block in blocks:
        kind = block.get("type")
        if kind == "text":
            texts.append(_part(block, where, dropped))
        elif kind == "tool_use":
            calls.append(_tool_call(block, where, dropped))
        elif kind in ("thinking", "redacted_thinking"):
            thoughts.append(block.get("thinking") or "")
            if detail := detail_of(block, len(texts) + len(calls) + len(details)):
                details.append(detail)
        elif kind == "compaction":  # Anthropic's own summary of all that went before
            texts.append({"type": "text", "text": block.get("content") or ""})
        elif kind in _SERVER_TOOLS or str(kind).endswith("_tool_result"):
            dropped.add(f"messages.content.{kind}")
        else:
            raise InvalidRequest(f"{where}.content: {kind} blocks of the assistant cannot be shown to this provider.")
    content = _content(texts)
    made: dict[str, Any] = {"role": "assistant", "content": content if content or not calls else None}
    if thought := "".join(thoughts):
        made["reasoning_content"] = thought
    _attach(made, calls, details)
    return made


def _attach(made: dict[str, Any], calls: list[dict[str, Any]], details: list[dict[str, Any]]) -> None:
    by_id = {call["id"]: call for call in calls}
    own = []
    for detail in details:
        if "tool_call" not in detail:
            own.append(detail)
        elif (call := by_id.get(detail["tool_call"])) is not None:
            call["extra_content"] = detail.get("extra_content")
    if own:
        made["reasoning_details"] = own
    if calls:
        made["tool_calls"] = calls


def _tool_call(block: Mapping[str, Any], where: str, dropped: Dropped) -> dict[str, Any]:
    name, call_id = block.get("name"), block.get("id")
    if not isinstance(name, str) or not isinstance(call_id, str):
        raise InvalidRequest(f"{where}.content: tool_use needs an id and a name.")
    try:
        arguments = dump_arguments(table(block, "input", f"{where}.content.tool_use"))
    except ValueError as error:
        raise InvalidRequest(f"{where}.content.tool_use.input: {error}.") from error
    dropped.others(block, ("type", "id", "name", "input", "cache_control", "caller"), "messages.content.")
    made = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return made if block.get("cache_control") is None else {**made, "cache_control": block["cache_control"]}


def _content(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """The parts; one plain text as a string, which is what every server takes."""
    if not parts:
        return ""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        text: str = parts[0]["text"]
        return text
    return parts


def _part(block: Mapping[str, Any], where: str, dropped: Dropped) -> dict[str, Any]:
    kind = block.get("type")
    make = _PARTS.get(str(kind))
    if make is None:
        raise InvalidRequest(f"{where}.content: {kind} blocks cannot be shown to this provider.")
    part = make(block, where, dropped)
    if block.get("cache_control") is not None:
        part["cache_control"] = block["cache_control"]
    return part


def _text(block: Mapping[str, Any], where: str, dropped: Dropped) -> dict[str, Any]:
    if not isinstance(text := block.get("text"), str):
        raise InvalidRequest(f"{where}.content: the text of a block must be a string.")
    dropped.others(block, ("type", "text", "cache_control"), "messages.content.")
    return {"type": "text", "text": text}


def _image(block: Mapping[str, Any], where: str, dropped: Dropped) -> dict[str, Any]:
    dropped.others(block, ("type", "source", "cache_control"), "messages.content.image.")
    source = table(block, "source", f"{where}.content.image")
    kind = source.get("type")
    if kind == "base64":
        return {"type": "image_url", "image_url": {"url": _data_url(source)}}
    if kind == "url":
        return {"type": "image_url", "image_url": {"url": source.get("url")}}
    if kind == "file":
        return {"type": "file", "file": {"file_id": source.get("file_id")}}
    raise InvalidRequest(f"{where}.content.image.source: must be base64, url or file.")


def _document(block: Mapping[str, Any], where: str, dropped: Dropped) -> dict[str, Any]:
    dropped.others(block, ("type", "source", "title", "cache_control"), "messages.content.document.")
    source = table(block, "source", f"{where}.content.document")
    kind, title = source.get("type"), block.get("title")
    if kind in ("text", "content"):  # no file, but words: every model can read them
        content = source.get("data") if kind == "text" else source.get("content")
        return {"type": "text", "text": _words(content, title, f"{where}.content.document.source")}
    if kind == "base64":
        file = {"filename": title or "document.pdf", "file_data": _data_url(source)}
    elif kind == "url":
        file = {"file_url": source.get("url")}
    elif kind == "file":
        file = {"file_id": source.get("file_id")}
    else:
        raise InvalidRequest(f"{where}.content.document.source: must be base64, text, content, url or file.")
    return {"type": "file", "file": file if title is None else {**file, "filename": title}}


def _search_result(block: Mapping[str, Any], where: str, dropped: Dropped) -> dict[str, Any]:
    dropped.others(block, ("type", "source", "title", "content", "cache_control"), "messages.content.search_result.")
    head = "\n".join(str(block[name]) for name in ("title", "source") if block.get(name))
    return {"type": "text", "text": _words(block.get("content"), head, f"{where}.content.search_result")}


def _tool_reference(block: Mapping[str, Any], where: str, dropped: Dropped) -> dict[str, Any]:
    return {"type": "text", "text": f"Tool found: {block.get('tool_name')}"}


def _words(content: Any, head: str | None, where: str) -> str:
    blocks = _blocks(content, where)
    if not all(block.get("type") == "text" and isinstance(block.get("text"), str) for block in blocks):
        raise InvalidRequest(f"{where}: takes text blocks only with this provider.")
    return "\n".join([*([head] if head else []), *(block["text"] for block in blocks)])


def _data_url(source: Mapping[str, Any]) -> str:
    return f"data:{source.get('media_type')};base64,{source.get('data')}"


_PARTS = {
    "text": _text,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
    "tool_reference": _tool_reference,
}
