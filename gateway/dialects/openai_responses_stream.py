"""Streams of the Responses API, both ways: a provider's events → chat chunks, chat chunks → a client's events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from gateway.dialects.openai_chat import read_usage
from gateway.dialects.openai_chat_reply import error_of as error_of_chat
from gateway.dialects.openai_responses_body import error_of, finish_of, usage_to_chat
from gateway.dialects.openai_responses_output import Output
from gateway.dialects.openai_responses_reasoning import details_of_item, text_of_item
from gateway.dialects.openai_responses_reply import CALLS, CONFUSED, Message, annotation, head, malformed
from gateway.dialects.sse import EventSplitter, parse_events
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage

_ENDS = frozenset({"response.completed", "response.incomplete"})
_ERRORS = frozenset({"error", "response.failed", "response.cancelled"})


class Encoder:
    """Chat chunks → the events of a Responses stream, each with its ``event:`` line."""

    __slots__ = ("_output",)

    def __init__(self, request: Mapping[str, Any], answer_id: str = "") -> None:
        self._output = Output(request, answer_id)

    def feed(self, chunk: Mapping[str, Any]) -> bytes:
        """The events of one chunk. Raises ``UpstreamProtocolError`` for a chunk in another shape."""
        try:
            return _encoded(self._output.chunk(chunk))
        except CONFUSED as error:
            raise malformed() from error

    def end(self) -> bytes:
        """The last events; ``response.completed``, ``.incomplete`` or ``.failed`` as the finish reason says."""
        return _encoded(self._output.end())


def _encoded(events: list[dict[str, Any]]) -> bytes:
    return b"".join([b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event)) for event in events])


class Decoder:
    """The events of a Responses stream → chat chunks. Bytes may be cut anywhere."""

    def __init__(self) -> None:
        self._splitter = EventSplitter()
        self._head: dict[str, Any] = {}
        self._calls: dict[Any, int] = {}  # place of an item in the output → index of its call
        self._grown: set[Any] = set()  # places of items of which some of the text was told
        self._details = 0
        self._spoken = False  # an earlier message item has text
        self._thought = False
        self.done = False
        """The terminal event came; what follows it is ignored."""
        self.usage: Usage | None = None

    def feed(self, block: bytes) -> list[dict[str, Any]]:
        """The chunks of the events that ``block`` completes.

        Raises ``StreamError`` for an error that the provider tells, ``UpstreamProtocolError`` for what is no event.
        """
        try:
            whole = self._splitter.feed(block)
        except ValueError as error:
            raise UpstreamProtocolError("The provider sent an event that is too large.") from error
        return self._chunks(whole)

    def end(self) -> list[dict[str, Any]]:
        """The chunks of a last event without its empty line. Raises ``UpstreamProtocolError`` if no terminal event
        came."""
        chunks = [] if self.done else self._chunks(self._splitter.rest)
        if not self.done:
            raise UpstreamProtocolError("The provider's stream ended before it was complete.")
        return chunks

    def _chunks(self, block: bytes) -> list[dict[str, Any]]:
        chunks: list[dict[str, Any]] = []
        for _, _, data in parse_events(block):
            if not data or data == b"[DONE]" or self.done:
                continue
            try:
                event = orjson.loads(data)
                if event["type"] in _ERRORS:
                    raise StreamError(*error_of(event))
                chunks += self._event(event)
            except CONFUSED as error:
                raise UpstreamProtocolError("The provider sent a malformed event.") from error
        return chunks

    def _event(self, event: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        kind = event["type"]
        if kind in _ENDS:
            yield from self._last(event["response"])
            return
        if not self._head:
            self._head = {**head(event.get("response") or {}), "object": "chat.completion.chunk"}
            yield self._chunk({"role": "assistant", "content": "", "refusal": None})
        if (read := _EVENTS.get(kind)) is not None and (delta := read(self, event)):
            logprobs = event.get("logprobs") if "content" in delta else None
            yield self._chunk(delta, logprobs={"content": logprobs, "refusal": None} if logprobs else None)

    def _last(self, response: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        self.done = True
        self._head = self._head or {**head(response), "object": "chat.completion.chunk"}
        self.usage = read_usage(response)
        yield self._chunk({}, finish_reason=finish_of(response, bool(self._calls)))
        if (usage := usage_to_chat(response)) is not None:
            yield {**self._head, "choices": [], "usage": usage}

    def _chunk(self, delta: dict[str, Any], **choice: Any) -> dict[str, Any]:
        return {
            **self._head,
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **choice}],
        }

    # One method for each kind of event: the delta it means

    def _text(self, event: Mapping[str, Any]) -> dict[str, Any]:
        text = event["delta"]
        if self._spoken and event["output_index"] not in self._grown and text:
            text = "\n\n" + text
        self._spoken = True
        self._grown.add(event["output_index"])
        return {"content": text} if text else {}

    def _refusal(self, event: Mapping[str, Any]) -> dict[str, Any]:
        self._grown.add(event["output_index"])
        return {"refusal": event["delta"]}

    def _thoughts(self, event: Mapping[str, Any]) -> dict[str, Any]:
        part = (event["output_index"], event.get("summary_index"), event.get("content_index"))
        between = "\n\n" if self._thought and part not in self._grown else ""
        self._thought = True
        self._grown |= {part, event["output_index"]}
        return {"reasoning_content": between + event["delta"]}

    def _annotated(self, event: Mapping[str, Any]) -> dict[str, Any]:
        return {"annotations": [annotation(event["annotation"])]}

    def _added(self, event: Mapping[str, Any]) -> dict[str, Any]:
        item = event["item"]
        if item["type"] not in CALLS:
            return {}
        chat, told = CALLS[item["type"]]
        index = self._calls[event["output_index"]] = len(self._calls)
        call = {"index": index, "id": item["call_id"], "type": chat, chat: {"name": item["name"], told: ""}}
        return {"tool_calls": [call]}

    def _argued(self, event: Mapping[str, Any]) -> dict[str, Any]:
        self._grown.add(event["output_index"])
        chat, told = CALLS["custom_tool_call" if "custom" in event["type"] else "function_call"]
        return {"tool_calls": [{"index": self._calls[event["output_index"]], chat: {told: event["delta"]}}]}

    def _done(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """What an item has said that no delta told: servers exist that send whole items only."""
        item, place = event["item"], event["output_index"]
        if item["type"] == "reasoning":
            details = details_of_item(item, self._details, output_index=place)
            self._details += len(details)
            text = text_of_item(item) if place not in self._grown else ""
            return {n: v for n, v in (("reasoning_content", text), ("reasoning_details", details)) if v}
        if place in self._grown:
            return {}
        if item["type"] == "message":
            message = Message()
            message.add(item, place)
            self._spoken = True
            return {name: value for name, value in message.fields().items() if value and name != "role"}
        if item["type"] not in CALLS:
            return {}
        chat, told = CALLS[item["type"]]
        text = item[told] or ("{}" if chat == "function" else "")
        if place in self._calls:
            return {"tool_calls": [{"index": self._calls[place], chat: {told: text}}]}
        delta = self._added(event)
        delta["tool_calls"][0][chat][told] = text
        return delta


_EVENTS = {
    "response.output_text.delta": Decoder._text,
    "response.refusal.delta": Decoder._refusal,
    "response.reasoning_summary_text.delta": Decoder._thoughts,
    "response.reasoning_text.delta": Decoder._thoughts,
    "response.output_text.annotation.added": Decoder._annotated,
    "response.output_item.added": Decoder._added,
    "response.function_call_arguments.delta": Decoder._argued,
    "response.custom_tool_call_input.delta": Decoder._argued,
    "response.output_item.done": Decoder._done,
}


def error_event(status: int, code: str, message: str, request_id: str) -> bytes:
    """The error as the last event of a stream.

    Its fields stand at the top, as documented, and in ``error`` as well, without which openai-python would not raise.
    """
    error = error_of_chat(status, code, message, request_id)
    fields = {"code": code, "message": error["message"], "param": error["param"], "sequence_number": 0}
    return b"event: error\ndata: " + orjson.dumps({"type": "error", **fields, "error": error}) + b"\n\n"
