"""Canonical chunks → Anthropic's stream, for clients that speak it; the way back of ``anthropic_messages_stream``.

Anthropic has one block open at a time, OpenAI's tool calls may interleave: what belongs to a later call waits until the
earlier one is whole. Counts come last at OpenAI, so ``message_delta`` waits for the end. Every event has its ``event:``
line, without which the SDKs from 2.0 on drop it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dialects.anthropic_messages_reply import content_text, head, new_id, shows_thinking, stop
from gateway.dialects.anthropic_reasoning import FORMAT, call_block, client_block, seal_of
from gateway.dialects.anthropic_usage import usage_from_chat
from gateway.dialects.tool_arguments import is_whole
from gateway.errors import UpstreamProtocolError

_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_BLOCKS: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}
_NO_ARGUMENTS = {"type": "input_json_delta", "partial_json": ""}


class _Call:
    """One tool call as far as it has come."""

    __slots__ = ("call_id", "extra", "fragments", "name", "sent")

    def __init__(self) -> None:
        self.call_id = ""
        self.name = ""
        self.extra: Any = None
        self.fragments: list[str] = []
        self.sent = 0

    def take(self, part: Mapping[str, Any]) -> None:
        function = part.get("function")
        function = function if isinstance(function, dict) else {}
        self.call_id = self.call_id or str(part.get("id") or "")
        self.name = self.name or str(function.get("name") or "")
        self.extra = part.get("extra_content") or self.extra
        if isinstance(fragment := function.get("arguments"), str) and fragment:
            self.fragments.append(fragment)


class Encoder:
    """One answer as a stream of Anthropic's; ``request`` is the client's own."""

    __slots__ = (
        "_called", "_calls", "_choice", "_detail", "_index", "_open", "_out", "_refusal", "_request", "_show",
        "_started", "_usage", "_waiting",
    )  # fmt: skip

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._request = request
        self._show = shows_thinking(request)
        self._out: list[bytes] = []
        self._started = False
        self._open: str | _Call | None = None  # the open block: text, thinking, or a tool call
        self._index = 0
        self._detail: Any = None  # ``index`` of the detail that the open thinking block stands for
        self._calls: dict[Any, _Call] = {}
        self._waiting: list[_Call] = []
        self._called = False
        self._choice: Mapping[str, Any] = {}
        self._refusal: list[str] = []
        self._usage: Any = None

    def feed(self, chunk: Mapping[str, Any]) -> bytes:
        """The events of one chunk; the first one opens the message. Raises ``UpstreamProtocolError``."""
        if not self._started:
            if not chunk.get("choices"):  # Azure's opening one, without id and model
                return b""
            self._begin(chunk)
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices") or ():
            if isinstance(choice, dict) and choice.get("index", 0) == 0:  # Anthropic has no second answer
                self._take(choice)
        return self._given()

    def end(self) -> bytes:
        """The last events: called only where the upstream said that all of it came."""
        if not self._started:
            self._begin({})
        self._close_calls()
        self._close()
        usage = usage_from_chat(self._usage)
        delta = stop(self._choice, self._called, "".join(self._refusal))
        self._event("message_delta", {"delta": delta, "usage": usage})
        self._out.append(_STOP)
        return self._given()

    def _begin(self, chunk: Mapping[str, Any]) -> None:
        self._started = True
        usage = usage_from_chat(chunk.get("usage"))  # not known yet: the last event counts
        message = {**head(chunk, self._request), "content": [], "stop_reason": None, "stop_sequence": None,
                   "stop_details": None, "usage": usage}  # fmt: skip
        self._event("message_start", {"message": message})
        self._out.append(_PING)

    def _take(self, choice: Mapping[str, Any]) -> None:
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self._reason(delta)
            if text := content_text(delta.get("content")):
                self._say("text", {"type": "text_delta", "text": text})
            if isinstance(refusal := delta.get("refusal"), str):
                self._refusal.append(refusal)
            for part in delta.get("tool_calls") or ():
                self._call(part)
        if choice.get("finish_reason"):
            self._choice = choice

    def _reason(self, delta: Mapping[str, Any]) -> None:
        details = [each for each in delta.get("reasoning_details") or () if isinstance(each, dict)]
        told = False
        for detail in details:
            text = detail.get("text") or detail.get("summary")
            if detail.get("data"):
                self._whole(detail)
                continue
            if text and (self._show or detail.get("format") == FORMAT):
                told = True
                self._think(text, detail.get("index"))
            if detail.get("signature"):
                self._sign(detail)
        text = delta.get("reasoning_content") or delta.get("reasoning")
        if self._show and not told and isinstance(text, str) and text:
            self._think(text, None)

    def _think(self, text: str, detail: Any) -> None:
        if self._open == "thinking" and detail != self._detail:
            self._close()
        self._say("thinking", {"type": "thinking_delta", "thinking": text})
        self._detail = detail

    def _sign(self, detail: Mapping[str, Any]) -> None:
        if self._open == "thinking" and self._detail not in (None, detail.get("index")):
            self._close()
        self._say("thinking", {"type": "signature_delta", "signature": seal_of(detail)})
        self._close()

    def _whole(self, detail: Mapping[str, Any]) -> None:
        if block := client_block(detail):
            self._close_calls()
            self._close()
            self._start(block)
            self._close()

    def _say(self, kind: str, delta: dict[str, Any]) -> None:
        if self._open != kind:
            self._close_calls()
            self._close()
            self._start(_BLOCKS[kind])
            self._open = kind
        self._event("content_block_delta", {"index": self._index, "delta": delta})

    def _call(self, part: Any) -> None:
        if not isinstance(part, dict):
            raise UpstreamProtocolError("The provider sent a malformed tool call.")
        place = part.get("index")
        call = self._calls.get(place)
        new_id = part.get("id")
        if call is None or (new_id and call.call_id and new_id != call.call_id):  # some servers number every call 0
            call = self._calls[place] = _Call()
            self._waiting.append(call)
        elif call is not self._open and call not in self._waiting:
            if isinstance(function := part.get("function"), dict) and function.get("arguments"):
                raise UpstreamProtocolError("The provider went on with a tool call that was complete.")
            return
        call.take(part)
        self._advance()

    def _advance(self) -> None:
        """Sends what may be sent: of the open call, and of the next ones as soon as the one before is whole."""
        while True:
            current = self._open
            if isinstance(current, _Call):
                self._send(current)
                if not self._waiting or not is_whole("".join(current.fragments)):
                    return
            if not self._waiting or not self._waiting[0].name:
                return
            self._start_call(self._waiting.pop(0))

    def _close_calls(self) -> None:
        """The calls that have come so far, in order: something else follows, so they are complete."""
        for call in self._waiting:
            if not call.name:
                raise UpstreamProtocolError("The provider sent a tool call without a name.")
            self._start_call(call)
            self._send(call)
        self._waiting.clear()

    def _start_call(self, call: _Call) -> None:
        self._close()
        self._called = True
        call.call_id = call.call_id or new_id("toolu_")
        if call.extra:
            self._start(call_block(call.call_id, call.extra))
            self._close()
        self._start({"type": "tool_use", "id": call.call_id, "name": call.name, "input": {}})
        self._open = call
        self._event("content_block_delta", {"index": self._index, "delta": _NO_ARGUMENTS})  # as Anthropic begins

    def _send(self, call: _Call) -> None:
        if fragment := "".join(call.fragments[call.sent :]):
            call.sent = len(call.fragments)
            delta = {"type": "input_json_delta", "partial_json": fragment}
            self._event("content_block_delta", {"index": self._index, "delta": delta})

    def _start(self, block: Mapping[str, Any]) -> None:
        self._event("content_block_start", {"index": self._index, "content_block": block})
        self._open = "block"

    def _close(self) -> None:
        if self._open is not None:
            self._event("content_block_stop", {"index": self._index})
            self._open = None
            self._detail = None
            self._index += 1

    def _event(self, kind: str, body: dict[str, Any]) -> None:
        self._out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **body})))

    def _given(self) -> bytes:
        given = b"".join(self._out)
        self._out.clear()
        return given
