"""Canonical messages and deltas → the parts of Gemini's candidates, for our clients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.dialects import gemini_thoughts as thoughts
from gateway.errors import UpstreamProtocolError

_Part = dict[str, Any]
_FINISH = {"length": "MAX_TOKENS", "content_filter": "SAFETY"}  # Gemini stops for tool calls, too
_NATIVE = frozenset({
    "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "LANGUAGE", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII",
    "MALFORMED_FUNCTION_CALL", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "IMAGE_OTHER",
    "NO_IMAGE", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE", "MALFORMED_RESPONSE",
    "MODEL_ARMOR",
})  # fmt: skip


class CandidateWriter:
    """One choice. Tool calls are kept until they are whole: Gemini's clients read arguments as an object."""

    __slots__ = ("_calls", "_foreign", "_index", "_thoughts")

    def __init__(self, index: int, show_thoughts: bool) -> None:
        self._index = index
        self._thoughts = show_thoughts
        self._foreign = thoughts.Foreign()
        self._calls: dict[int, dict[str, Any]] = {}

    def parts(self, delta: Mapping[str, Any]) -> list[_Part]:
        """What can be shown of a message or a delta at once."""
        parts, loose = self._reasoning(delta)
        text = delta.get("content")
        if isinstance(text, list):  # some servers answer with parts
            text = "".join(str(each.get("text") or "") for each in text if isinstance(each, dict))
        text = text or delta.get("refusal")
        if isinstance(text, str) and text:
            parts.append({"text": text})
        for image in delta.get("images") or ():
            if made := _image(image):
                parts.append(made)
        for signature in loose:
            if not parts or "thoughtSignature" in parts[-1] or parts[-1].get("thought"):
                parts.append({"text": ""})
            parts[-1]["thoughtSignature"] = signature
        calls = delta.get("tool_calls") or ()
        for position, call in enumerate(calls):
            self._call(call, position)
        return parts

    def rest(self) -> list[_Part]:
        """The tool calls, now that nothing follows; and what other providers signed, on the first part that can."""
        parts = [_function_call(call) for call in self._calls.values()]
        self._calls = {}
        if (signature := self._foreign.take()) is not None:
            if not parts or "thoughtSignature" in parts[0]:
                parts.insert(0, {"text": ""})
            parts[0]["thoughtSignature"] = signature
        return parts

    def candidate(self, parts: list[_Part], reason: str | None = None, native: Any = None) -> dict[str, Any]:
        content = {"parts": parts, "role": "model"}
        made: dict[str, Any] = {"content": content, "index": self._index}
        if reason is not None:
            made["finishReason"] = (
                native if isinstance(native, str) and native in _NATIVE else _FINISH.get(reason, "STOP")
            )
        return made

    def _reasoning(self, delta: Mapping[str, Any]) -> tuple[list[_Part], list[str]]:
        """Thoughts as parts, and signatures that belong on the text."""
        details = delta.get("reasoning_details")
        details = [each for each in details if isinstance(each, dict)] if isinstance(details, list) else []
        self._foreign.add(details)
        shown: list[_Part] = []
        loose: list[str] = []
        for detail in details:
            if not thoughts.is_ours(detail):
                continue
            signature = detail.get("signature")
            if isinstance(detail.get("text"), str) and (signature or self._thoughts):
                signed = {"thoughtSignature": signature} if signature else {}
                shown.append({"text": detail["text"], "thought": True, **signed})
            elif isinstance(data := detail.get("data"), str):
                loose.append(data)
        text = delta.get("reasoning_content") or delta.get("reasoning")
        told = "".join(part["text"] for part in shown)
        if isinstance(text, str) and text and self._thoughts and told != text:
            # A whole message tells all thoughts as text, and those that are signed once more.
            rest = text.replace(told, "", 1) if told else text
            shown.insert(0, {"text": rest, "thought": True})
        return shown, loose

    def _call(self, call: Mapping[str, Any], position: int) -> None:
        index = call.get("index", position)
        known = self._calls.setdefault(index, {"id": None, "name": "", "arguments": "", "signature": None})
        function = call.get("function") or {}
        known["id"] = call.get("id") or known["id"]
        known["name"] = function.get("name") or known["name"]
        known["arguments"] += function.get("arguments") or ""
        known["signature"] = thoughts.signature_of(call) or known["signature"]


def _function_call(call: Mapping[str, Any]) -> _Part:
    try:
        args = json.loads(call["arguments"]) if call["arguments"].strip() else {}
    except (ValueError, RecursionError) as error:
        raise UpstreamProtocolError("The model's tool call has arguments that are not JSON.") from error
    made: _Part = {"name": call["name"], "args": args if isinstance(args, dict) else {"value": args}}
    if call["id"]:
        made = {"id": call["id"], **made}
    part: _Part = {"functionCall": made}
    if call["signature"]:
        part["thoughtSignature"] = call["signature"]
    return part


def _image(image: Any) -> _Part | None:
    url = image.get("image_url") if isinstance(image, dict) else None
    url = url.get("url") if isinstance(url, dict) else url
    if not isinstance(url, str):
        return None
    head, _, data = url.partition(";base64,")
    if head.startswith("data:") and data:
        return {"inlineData": {"mimeType": head[5:], "data": data}}
    return {"fileData": {"fileUri": url}}


def logprobs_from_chat(logprobs: Any) -> dict[str, Any] | None:
    """OpenAI's logprobs as ``logprobsResult`` and their mean."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list) or not content:
        return None
    chosen = [_logprob(each) for each in content]
    tops = [{"candidates": [_logprob(one) for one in each.get("top_logprobs") or ()]} for each in content]
    result: dict[str, Any] = {"chosenCandidates": chosen}
    if any(each["candidates"] for each in tops):
        result["topCandidates"] = tops
    return {"logprobsResult": result, "avgLogprobs": sum(each["logProbability"] for each in chosen) / len(chosen)}


def _logprob(each: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": each.get("token") or "", "logProbability": each.get("logprob") or 0.0}
