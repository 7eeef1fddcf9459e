"""Thought signatures of Gemini in the canonical form, and signatures of others in Gemini's.

A ``thoughtSignature`` on a tool call travels as ``extra_content.google.thought_signature`` of the call, as in Google's
own OpenAI-compatible answers; on any other part as an item of ``reasoning_details``, as OpenRouter has it: with its
text on a thought, ``reasoning.encrypted`` on the rest.

A client that speaks Gemini sends every ``thoughtSignature`` back as it came and knows no other place for opaque data.
So what other providers signed travels in one, as JSON behind a mark. SDKs decode and encode signatures, some of them
with the URL alphabet of base64.
"""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64decode
from collections.abc import Mapping
from typing import Any

import orjson

FORMAT = "google-gemini-v1"
DUMMY = "skip_thought_signature_validator"
"""Google's documented stand-in for the signature of a call that Gemini did not make."""
_MARK = b"hookgate1:"
_MARK_BASE64 = b64encode(_MARK)[:12].decode()  # base64 cuts at whole triples of bytes


def signature_of(call: Mapping[str, Any]) -> str | None:
    """The signature on a canonical tool call."""
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) and signature else None


def extra_content(signature: str) -> dict[str, Any]:
    return {"google": {"thought_signature": signature}}


def detail_of(part: Mapping[str, Any], index: int) -> dict[str, Any] | None:
    """A signed part of Gemini's as an item of ``reasoning_details``; ``None`` if it is not signed."""
    signature = part.get("thoughtSignature")
    if not isinstance(signature, str) or not signature:
        return None
    if part.get("thought") is True:
        return {"type": "reasoning.text", "text": part.get("text") or "", "signature": signature,
                "format": FORMAT, "index": index}  # fmt: skip
    return {"type": "reasoning.encrypted", "data": signature, "format": FORMAT, "index": index}


def is_ours(detail: Any) -> bool:
    """Whether an item of ``reasoning_details`` is Gemini's."""
    return isinstance(detail, dict) and detail.get("format") == FORMAT


def wrap(details: list[dict[str, Any]]) -> str:
    """Items of other providers as one ``thoughtSignature``."""
    return b64encode(_MARK + orjson.dumps(details)).decode()


def unwrap(signature: Any) -> list[dict[str, Any]] | None:
    """The items that ``wrap`` hid in ``signature``; ``None`` if it is no work of ``wrap``."""
    if not isinstance(signature, str) or not signature.startswith(_MARK_BASE64):
        return None
    try:
        plain = urlsafe_b64decode(signature.replace("+", "-").replace("/", "_") + "==")
        details = orjson.loads(plain.removeprefix(_MARK)) if plain.startswith(_MARK) else None
    except ValueError:
        return None
    if not isinstance(details, list) or not all(isinstance(detail, dict) for detail in details):
        return None
    return details


class Foreign:
    """Collects other providers' items out of whole answers and streams; fragments of one item become one."""

    __slots__ = ("_items",)

    def __init__(self) -> None:
        self._items: list[dict[str, Any]] = []

    def add(self, details: Any) -> None:
        for detail in details if isinstance(details, list) else ():
            if isinstance(detail, dict) and not is_ours(detail):
                self._add(detail)

    def _add(self, detail: dict[str, Any]) -> None:
        last = self._items[-1] if self._items else None
        index = detail.get("index")
        if last is None or index is None or (last.get("type"), last.get("index")) != (detail.get("type"), index):
            self._items.append(dict(detail))
            return
        for name, value in detail.items():
            if name in ("text", "summary", "data") and isinstance(last.get(name), str) and isinstance(value, str):
                last[name] += value
            elif value is not None:
                last[name] = value

    def take(self) -> str | None:
        """What has come as one ``thoughtSignature``, once; ``None`` where nothing of it is signed or opaque."""
        items, self._items = self._items, []
        signed = any(item.get("signature") or item.get("data") for item in items)
        return wrap(items) if signed else None
