"""Amazon Bedrock's Converse API, the way back: whole answers and event streams → canonical ones.

Facts: botocore's model of ``bedrock-runtime``. Its counts leave cached tokens out of ``inputTokens``. Requests are in
``bedrock_converse``, the stream's frames in ``eventstream``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from gateway.dialects.bedrock_blocks import FORMAT
from gateway.dialects.chat_shapes import Chunks, completion, string
from gateway.dialects.counts import count, tier
from gateway.dialects.eventstream import MessageSplitter, error_of, event, malformed
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage

_REASONS = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "model_context_window_exceeded": "length",
    "tool_use": "tool_calls", "guardrail_intervened": "content_filter", "content_filtered": "content_filter",
}  # fmt: skip
_Chunk = dict[str, Any]


def reply_to_chat(body: Mapping[str, Any], model: str = "", answer_id: str = "") -> dict[str, Any]:
    """A whole answer as a chat completion; ``model`` and ``answer_id``, which Converse does not tell, are ours.

    Raises ``UpstreamProtocolError``, and ``StreamError`` where the model's output could not be read.
    """
    output = body.get("output")
    told = output.get("message") if isinstance(output, dict) else None
    content = told.get("content") if isinstance(told, dict) else None
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise _no_answer()
    found = _Found()
    try:
        for index, block in enumerate(content):
            found.add(block, index)
        message = found.message()
    except (KeyError, TypeError, AttributeError) as error:
        raise _no_answer() from error
    return completion(f"chatcmpl-{answer_id}", model, message, _finish(body.get("stopReason")), usage_of(body))


def usage_of(body: Mapping[str, Any]) -> Usage | None:
    """Usage of a whole answer or of a ``metadata`` event; ``None`` if it says nothing."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return None
    given, made = count(usage.get("inputTokens")), count(usage.get("outputTokens"))
    if given is None and made is None:
        return None
    read, written = count(usage.get("cacheReadInputTokens")), count(usage.get("cacheWriteInputTokens"))
    return Usage(
        input_tokens=None if given is None else given + (read or 0) + (written or 0),
        output_tokens=made,
        cached_tokens=read,
        cache_write_tokens=written,
        provenance="partial" if given is None or made is None else "reported",
        cache_write_1h_tokens=_kept(usage.get("cacheDetails")),
        service_tier=tier(served.get("type")) if isinstance(served := body.get("serviceTier"), dict) else None,
    )


def _kept(details: Any) -> int | None:
    """Tokens written to a cache for an hour."""
    if not isinstance(details, list):
        return None
    hours = [one for one in details if isinstance(one, dict) and one.get("ttl") == "1h"]
    return sum(count(one.get("inputTokens")) or 0 for one in hours)


def error_to_chat(status: int, body: bytes, kind: str = "") -> tuple[str, str]:
    """Code and message of an error answer; ``kind`` is its ``x-amzn-errortype``."""
    _, code, message = error_of(kind, body, status)
    return code, message


def error_status(status: int, kind: str = "") -> int:
    """What an error answer is judged as: a model that failed (424) or took too long (408) is the provider's failure."""
    return error_of(kind, b"", status)[0]


class _Found:
    """What the blocks of a whole answer add up to."""

    __slots__ = ("_calls", "_details", "_texts", "_thoughts")

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._details: list[dict[str, Any]] = []
        self._calls: list[dict[str, Any]] = []

    def add(self, block: Mapping[str, Any], index: int) -> None:
        if "text" in block:
            self._texts.append(block["text"])
        elif "citationsContent" in block:
            self._texts += [part["text"] for part in block["citationsContent"].get("content") or ()]
        elif "toolUse" in block:
            use = block["toolUse"]
            arguments = orjson.dumps({} if use.get("input") is None else use["input"]).decode()
            function = {"name": string(use["name"]), "arguments": arguments}
            self._calls.append({"id": string(use["toolUseId"]), "type": "function", "function": function})
        elif "reasoningContent" in block:
            reasoning = block["reasoningContent"]
            text = reasoning.get("reasoningText") or {}
            self._details.append(_detail(text | reasoning, index))
            self._thoughts.append(text.get("text") or "")

    def message(self) -> dict[str, Any]:
        text = "".join(self._texts)
        message: dict[str, Any] = {"content": text if text or not self._calls else None}
        if thoughts := "".join(self._thoughts):
            message["reasoning_content"] = thoughts
        if self._details:
            message["reasoning_details"] = self._details
        if self._calls:
            message["tool_calls"] = self._calls
        return message


def _detail(reasoning: Mapping[str, Any], index: int) -> dict[str, Any]:
    if (secret := reasoning.get("redactedContent")) is not None:
        return {"type": "reasoning.encrypted", "data": string(secret), "format": FORMAT, "index": index}
    told = {name: string(reasoning[name]) for name in ("text", "signature") if reasoning.get(name)}
    return {"type": "reasoning.text", **told, "format": FORMAT, "index": index}


class Decoder:
    """One streamed answer: bytes of an event stream in, canonical chunks out."""

    __slots__ = ("_calls", "_chunks", "_empty", "_finished", "_on", "_splitter", "_told", "done", "usage")

    def __init__(self, model: str = "", answer_id: str = "") -> None:
        self._chunks = Chunks(f"chatcmpl-{answer_id}", model)
        self._splitter = MessageSplitter()
        self._calls: dict[Any, int] = {}  # index of a block → number of its tool call
        self._empty: set[Any] = set()  # blocks of tool calls without a piece of their arguments yet
        self._finished = False
        self._told = False
        self.done = False
        """The last event came: ``metadata``, which follows ``messageStop``."""
        self.usage: Usage | None = None
        self._on: dict[str, Callable[[dict[str, Any]], list[_Chunk]]] = {
            "contentBlockStart": self._start,
            "contentBlockDelta": self._delta,
            "contentBlockStop": self._stop,
            "messageStop": self._finish,
            "metadata": self._metadata,
        }

    def feed(self, block: bytes) -> list[_Chunk]:
        """The chunks that ``block``, cut anywhere, completes. Raises ``StreamError`` and ``UpstreamProtocolError``."""
        chunks: list[_Chunk] = []
        for message in self._splitter.feed(block):
            name, content = event(message)
            if (read := self._on.get(name)) is not None:
                try:
                    chunks += read(content)
                except (KeyError, TypeError, AttributeError) as error:
                    raise malformed() from error
        return chunks

    def end(self) -> list[_Chunk]:
        """Nothing more. Raises ``UpstreamProtocolError`` if ``messageStop`` never came."""
        if not self._finished:
            raise UpstreamProtocolError("The provider's stream ended before it was complete.")
        return []

    def _start(self, content: dict[str, Any]) -> list[_Chunk]:
        use = content["start"].get("toolUse")
        if use is None:
            return []
        block = content["contentBlockIndex"]
        index = self._calls[block] = len(self._calls)
        self._empty.add(block)
        function = {"name": string(use["name"]), "arguments": ""}
        call = {"index": index, "id": string(use["toolUseId"]), "type": "function", "function": function}
        return self._chunks.delta({"tool_calls": [call]})

    def _delta(self, content: dict[str, Any]) -> list[_Chunk]:
        delta, block = content["delta"], content["contentBlockIndex"]
        if text := delta.get("text"):
            return self._chunks.delta({"content": string(text)})
        if (use := delta.get("toolUse")) is not None and use["input"]:
            self._empty.discard(block)
            return self._chunks.delta({"tool_calls": [_more(self._calls[block], string(use["input"]))]})
        if reasoning := delta.get("reasoningContent"):
            made: dict[str, Any] = {"reasoning_details": [_detail(reasoning, block)]}
            if thought := reasoning.get("text"):
                made["reasoning_content"] = string(thought)
            return self._chunks.delta(made)
        return []

    def _stop(self, content: dict[str, Any]) -> list[_Chunk]:
        block = content["contentBlockIndex"]
        if block not in self._empty:
            return []
        self._empty.discard(block)
        return self._chunks.delta({"tool_calls": [_more(self._calls[block], "{}")]})

    def _finish(self, content: dict[str, Any]) -> list[_Chunk]:
        reasons = _finish(content["stopReason"])
        self._finished = True
        return [*self._chunks.finish(reasons), *self._tell()]

    def _metadata(self, content: dict[str, Any]) -> list[_Chunk]:
        self.usage = usage_of(content)
        self._told = True
        return self._tell()

    def _tell(self) -> list[_Chunk]:
        """The usage chunk, once both the end and the usage are told, in whichever order."""
        self.done = self._told and self._finished
        return [self._chunks.usage(self.usage)] if self.done and self.usage is not None else []


def _more(index: int, arguments: str) -> dict[str, Any]:
    return {"index": index, "function": {"arguments": arguments}}


def _finish(reason: Any) -> dict[str, str]:
    if reason in ("malformed_model_output", "malformed_tool_use"):
        raise StreamError(502, reason, "The model's output could not be read.")
    if not isinstance(reason, str):
        raise _no_answer()
    return {"finish_reason": _REASONS.get(reason, "stop"), "native_finish_reason": reason}


def _no_answer() -> UpstreamProtocolError:
    return UpstreamProtocolError("The provider's answer is not what Converse answers.")
