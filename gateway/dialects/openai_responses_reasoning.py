"""Reasoning between Responses items and the canonical ``reasoning_content`` and ``reasoning_details``.

A Responses client keeps one opaque string per reasoning item, ``encrypted_content``, and sends it back unread. In front
of a provider with signatures of its own (Anthropic's, Gemini's) that string is our packing of its details, so that
they come back byte for byte, whatever else the client leaves out. OpenAI's own string passes as it is.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

FORMAT = "openai-responses-v1"
"""What OpenRouter calls reasoning encrypted by OpenAI."""
CALL_EXTRA = "tool_call.extra_content"
"""Our own detail, packed only: ``extra_content`` of the tool call ``id`` (Gemini's thought signature stands there)."""
_MARK = "gateway1."  # OpenAI's strings are Fernet tokens, "gAAAA…"; no dot is in their alphabet
_PLAIN = {"reasoning.text", "reasoning.summary"}
_TEXTS = ("text", "summary")


def pack(details: list[dict[str, Any]]) -> str | None:
    """``encrypted_content`` for details; ``None`` where the text alone says all of them."""
    if all(detail.get("type") in _PLAIN and not detail.get("signature") for detail in details):
        return None
    return _MARK + base64.urlsafe_b64encode(orjson.dumps(details)).decode()


def unpack(encrypted: Any) -> list[dict[str, Any]] | None:
    """The details in a string of ``pack``; ``None`` for anything else."""
    if not isinstance(encrypted, str) or not encrypted.startswith(_MARK):
        return None
    try:
        details = orjson.loads(base64.urlsafe_b64decode(encrypted.removeprefix(_MARK)))
    except ValueError:
        return None
    return details if isinstance(details, list) and all(isinstance(detail, dict) for detail in details) else None


def merge(known: list[dict[str, Any]], new: Iterable[Mapping[str, Any]]) -> None:
    """Add a stream's ``new`` details to the ``known``: pieces of one text have its type and index in common."""
    for detail in new:
        whole = next((old for old in reversed(known) if _continues(old, detail)), None)
        if whole is None:
            known.append(dict(detail))
            continue
        for name, value in detail.items():
            if name in _TEXTS and isinstance(value, str):
                whole[name] = (whole.get(name) or "") + value
            elif value is not None:
                whole[name] = value


def _continues(old: Mapping[str, Any], detail: Mapping[str, Any]) -> bool:
    if detail.get("type") not in _PLAIN or old.get("type") != detail.get("type"):
        return False
    return old.get("index") == detail.get("index") and not old.get("signature")


def text_of_details(details: Iterable[Mapping[str, Any]]) -> str:
    """What details say in plain words; for providers that fill in nothing else."""
    return "".join([str(detail.get("text") or detail.get("summary") or "") for detail in details])


def text_of_item(item: Mapping[str, Any]) -> str:
    """What a reasoning item says in plain words: its own text, else its summary."""
    for name in ("content", "summary"):
        parts = item.get(name)
        texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        if text := "\n\n".join([text for text in texts if isinstance(text, str)]):
            return text
    return ""


def details_of_item(item: Mapping[str, Any], first: int = 0, **more: Any) -> list[dict[str, Any]]:
    """Details of a reasoning item, numbered from ``first``; none where its text says all. ``more`` goes on each."""
    encrypted = item.get("encrypted_content")
    if (packed := unpack(encrypted)) is not None:
        return packed
    if not encrypted:
        return []
    summary = item.get("summary") or []
    details = [{"type": "reasoning.summary", "summary": part.get("text")} for part in summary if isinstance(part, dict)]
    details.append({"type": "reasoning.encrypted", "data": encrypted})
    named = {"id": item["id"]} if item.get("id") else {}
    return [
        {**detail, **named, "format": FORMAT, "index": first + number, **more} for number, detail in enumerate(details)
    ]


def items_of_details(details: Any) -> tuple[list[tuple[int | None, dict[str, Any]]], bool]:
    """Reasoning items of a message's details, each with its place in the output where it is known; whether some of
    the details belong to another provider and stay behind."""
    items: dict[Any, tuple[int | None, dict[str, Any]]] = {}
    foreign = False
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, dict) or detail.get("format") != FORMAT:
            foreign = True
            continue
        name = detail.get("id")
        place = detail.get("output_index")
        blank = {"type": "reasoning", **({"id": name} if name else {}), "summary": []}
        _, item = items.setdefault(name, (place if isinstance(place, int) else None, blank))
        if detail.get("type") == "reasoning.summary":
            item["summary"].append({"type": "summary_text", "text": detail.get("summary") or ""})
        elif detail.get("type") == "reasoning.encrypted":
            item["encrypted_content"] = detail.get("data")
    # Without its encrypted text an item is only a name, and nothing is stored under it.
    usable = [each for each in items.values() if each[1].get("encrypted_content")]
    return usable, foreign or len(usable) < len(items)
