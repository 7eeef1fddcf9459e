"""Anthropic's thinking blocks ↔ canonical ``reasoning_details``; what is signed keeps every byte of its signature.

Anthropic's format has no place for another vendor's opaque reasoning. It travels in the field that clients send back
untouched, a ``signature`` or the ``data`` of a ``redacted_thinking`` block, behind a mark of ours, and is taken out
again when the conversation comes back. Anthropic itself refuses such a block, as it refuses any signature but its own.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any

import orjson

FORMAT = "anthropic-claude-v1"
"""``format`` of a detail that Anthropic signed."""
_MARK = "hookgate1:"


def detail_of(block: Mapping[str, Any], index: int) -> dict[str, Any] | None:
    """A ``thinking`` or ``redacted_thinking`` block as a detail; ``index`` is its place among the blocks that are kept.

    ``None`` where it says nothing: text without a signature is already the ``reasoning_content``.
    """
    redacted = block.get("type") == "redacted_thinking"
    seal = block.get("data" if redacted else "signature")
    if not isinstance(seal, str) or not seal:
        return None
    text = {} if redacted else {"text": block.get("thinking") or ""}
    if seal.startswith(_MARK):
        foreign = _open(seal)
        return None if foreign is None else {**text, **foreign}
    if redacted:
        return {"type": "reasoning.encrypted", "data": seal, "format": FORMAT, "index": index}
    return {"type": "reasoning.text", **text, "signature": seal, "format": FORMAT, "index": index}


def block_of(detail: Mapping[str, Any]) -> dict[str, Any] | None:
    """A detail as the block that Anthropic itself will take; ``None`` if it did not make it."""
    if detail.get("format") != FORMAT:
        return None
    signature, data = detail.get("signature"), detail.get("data")
    if isinstance(data, str) and data:
        return {"type": "redacted_thinking", "data": data}
    if isinstance(signature, str) and signature:
        return {"type": "thinking", "thinking": detail.get("text") or "", "signature": signature}
    return None


def client_block(detail: Mapping[str, Any]) -> dict[str, Any] | None:
    """A detail of any format as a block for a client; ``None`` if it holds nothing to be sent back."""
    if block := block_of(detail):
        return block
    if detail.get("signature"):
        text = detail.get("text") or ""
        return {"type": "thinking", "thinking": text, "signature": seal_of(detail)}
    if detail.get("data"):
        return {"type": "redacted_thinking", "data": seal_of(detail)}
    return None


def seal_of(detail: Mapping[str, Any]) -> str:
    """What a client has to send back: Anthropic's own signature as it is, another one behind our mark."""
    signature = detail.get("signature")
    if detail.get("format") == FORMAT and isinstance(signature, str):
        return signature
    return _MARK + _pack({name: value for name, value in detail.items() if name != "text"})


def put_back(
    blocks: list[dict[str, Any]], details: Any, make: Callable[[Mapping[str, Any]], dict[str, Any] | None]
) -> list[Any]:
    """Puts the blocks ``make`` makes of ``details`` among ``blocks``, in order, each where its ``index`` says.

    Returns the details of which nothing was made.
    """
    left: list[Any] = []
    place = 0
    for detail in details if isinstance(details, list) else ():
        block = make(detail) if isinstance(detail, dict) else None
        if block is None:
            left.append(detail)
            continue
        index = detail.get("index")
        place = min(max(place, index if type(index) is int else 0), len(blocks))
        blocks.insert(place, block)
        place += 1
    return left


def call_block(call_id: str, extra: Any) -> dict[str, Any]:
    """A block that carries ``extra_content`` of a tool call (Gemini's thought signature) to the client and back."""
    return {"type": "redacted_thinking", "data": _MARK + _pack({"tool_call": call_id, "extra_content": extra})}


def _pack(item: Mapping[str, Any]) -> str:
    return urlsafe_b64encode(orjson.dumps(item)).decode()


def _open(seal: str) -> dict[str, Any] | None:
    try:
        item = orjson.loads(urlsafe_b64decode(seal[len(_MARK) :]))
    except ValueError:
        return None
    return item if isinstance(item, dict) else None
