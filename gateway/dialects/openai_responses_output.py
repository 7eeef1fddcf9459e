"""A chat answer becoming a Responses answer: output items, and the events that tell of their growth.

The order of events is OpenAI's own (recorded streams): an item is added, grows, and is done before the next one. Only
tool calls that a provider interleaves stay open together, each under its own ``output_index``.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from time import time
from typing import Any

import orjson

from gateway.dialects.openai_responses_body import response_body, status_of
from gateway.dialects.openai_responses_reasoning import CALL_EXTRA, merge, pack, text_of_details
from gateway.dialects.openai_responses_tools import ToolNames, text_of_call

_TEXT_FIELD = {"output_text": "text", "refusal": "refusal"}


class _Message:
    """The message or the reasoning that is being written."""

    __slots__ = ("annotations", "details", "item", "logprobs", "part", "pieces", "place")

    def __init__(self, item: dict[str, Any], place: int) -> None:
        self.item = item
        self.place = place
        self.part: str | None = None
        """Type of the part that is being written."""
        self.pieces: list[str] = []
        self.annotations: list[dict[str, Any]] = []
        self.logprobs: list[Any] = []
        self.details: list[dict[str, Any]] = []


class _Call:
    """A tool call; it has no item while its name is not known."""

    __slots__ = ("custom", "extra", "id", "item", "name", "native", "pieces", "place")

    def __init__(self) -> None:
        self.item: dict[str, Any] | None = None
        self.place = -1
        self.id = ""
        self.name = ""
        self.native = False
        """The provider told a custom call as such; else its text hides in a function's arguments."""
        self.custom = False
        self.pieces: list[str] = []
        self.extra: Any = None


class Output:
    """One answer. Feed it chat chunks, whole messages included; it tells the events and, at any time, the response."""

    def __init__(self, request: Mapping[str, Any], answer_id: str = "") -> None:
        self._request = request
        self._names = ToolNames(request.get("tools"))
        reasoning = request.get("reasoning")
        self._summary = isinstance(reasoning, dict) and bool(
            reasoning.get("summary") or reasoning.get("generate_summary")
        )
        self._id = answer_id or secrets.token_hex(16)
        self._head: dict[str, Any] = {}
        self._items: list[dict[str, Any]] = []
        self._open: _Message | None = None
        self._calls: dict[Any, _Call] = {}
        self._events: list[dict[str, Any]] = []
        self._sequence = 0
        self._usage: Mapping[str, Any] | None = None
        self._finish: str | None = None

    def chunk(self, chunk: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The events of one chunk. A chunk that is not what chat has may raise any of Python's own errors."""
        if not self._head:
            self._begin(chunk)
        if chunk.get("usage"):
            self._usage = chunk["usage"]
        for choice in chunk.get("choices") or ():
            if not choice.get("index"):  # Responses has no further choices
                self._delta(choice.get("delta") or {}, choice.get("logprobs"))
                self._finish = choice.get("finish_reason") or self._finish
        return self._take()

    def end(self) -> list[dict[str, Any]]:
        """The events that close all that is open, and the terminal one with the whole response."""
        if not self._head:
            self._begin({})
        status = status_of(self._finish)
        last = "incomplete" if status == "incomplete" else "completed"
        self._close(last)
        for call in self._calls.values():
            self._close_call(call, last)
        self._calls.clear()
        self._tell(f"response.{status}", response=self.response(status))
        return self._take()

    def response(self, status: str | None = None) -> dict[str, Any]:
        """The response as it stands; ``status`` defaults to what the finish reason says."""
        status = status or status_of(self._finish)
        output = [] if status == "in_progress" else list(self._items)
        return response_body(self._request, self._head, status, self._finish, output, self._usage)

    def _begin(self, chunk: Mapping[str, Any]) -> None:
        created, model = chunk.get("created"), chunk.get("model")
        self._head = {
            "id": f"resp_{self._id}",
            "object": "response",
            "created_at": created if isinstance(created, int) and created > 0 else int(time()),
            "model": model or self._request.get("model") or "",
        }
        opening = self.response("in_progress")
        self._tell("response.created", response=opening)
        self._tell("response.in_progress", response=opening)

    def _tell(self, kind: str, **fields: Any) -> None:
        self._events.append({"type": kind, **fields, "sequence_number": self._sequence})
        self._sequence += 1

    def _take(self) -> list[dict[str, Any]]:
        events, self._events = self._events, []
        return events

    def _delta(self, delta: Mapping[str, Any], logprobs: Any) -> None:
        details = delta.get("reasoning_details") or []
        thought = delta.get("reasoning_content") or delta.get("reasoning") or text_of_details(details)
        if thought or details:
            self._think(thought, details)
        if content := delta.get("content"):
            self._say("output_text", content, (logprobs or {}).get("content") or [])
        if refusal := delta.get("refusal"):
            self._say("refusal", refusal, [])
        for annotation in delta.get("annotations") or ():
            self._annotate(annotation)
        for call in delta.get("tool_calls") or ():
            self._call(call)

    # Items

    def _add(self, prefix: str, **fields: Any) -> tuple[dict[str, Any], int]:
        place = len(self._items)
        item = {"id": f"{prefix}_{self._id}{place:02x}", **fields}
        self._items.append(item)
        self._tell("response.output_item.added", output_index=place, item=dict(item))
        return item, place

    def _done(self, item: dict[str, Any], place: int, **fields: Any) -> None:
        item |= fields
        self._tell("response.output_item.done", output_index=place, item=item)

    # Messages and reasoning

    def _opened(self, kind: str) -> _Message:
        """The message, or reasoning, that is being written; begins it, and ends what was written before."""
        if self._open is not None and self._open.item["type"] == kind:
            return self._open
        self._close()
        self._close_whole_calls()
        if kind == "reasoning":
            self._open = _Message(*self._add("rs", type=kind, status="in_progress", summary=[]))
        else:
            self._open = _Message(*self._add("msg", type=kind, status="in_progress", role="assistant", content=[]))
        return self._open

    def _think(self, text: str, details: list[dict[str, Any]]) -> None:
        open_ = self._opened("reasoning")
        merge(open_.details, details)
        if not text:
            return
        at = {"item_id": open_.item["id"], "output_index": open_.place}
        part = {"type": "summary_text" if self._summary else "reasoning_text", "text": ""}
        if self._summary:
            kind, added, at = "summary_text", "reasoning_summary_part", {**at, "summary_index": 0}
        else:
            kind, added, at = "text", "content_part", {**at, "content_index": 0}
        if not open_.pieces:
            self._tell(f"response.{added}.added", **at, part=part)
        open_.pieces.append(text)
        self._tell(f"response.reasoning_{kind}.delta", **at, delta=text)

    def _part_opened(self, part: str) -> _Message:
        open_ = self._opened("message")
        if open_.part != part:
            self._close_part(open_)
            open_.part = part
            self._tell("response.content_part.added", **_where(open_), part=_part(part, ""))
        return open_

    def _say(self, part: str, text: str, logprobs: list[Any]) -> None:
        open_ = self._part_opened(part)
        open_.pieces.append(text)
        open_.logprobs += logprobs
        more = {"logprobs": logprobs} if part == "output_text" else {}
        self._tell(f"response.{part}.delta", **_where(open_), delta=text, **more)

    def _annotate(self, annotation: Mapping[str, Any]) -> None:
        open_ = self._part_opened("output_text")
        flat = {"type": annotation["type"], **annotation.get(annotation["type"], {})}
        self._tell(
            "response.output_text.annotation.added",
            **_where(open_),
            annotation_index=len(open_.annotations),
            annotation=flat,
        )
        open_.annotations.append(flat)

    def _close_part(self, open_: _Message) -> None:
        if open_.part is None:
            return
        text = "".join(open_.pieces)
        more = {"logprobs": open_.logprobs} if open_.part == "output_text" else {}
        self._tell(f"response.{open_.part}.done", **_where(open_), **{_TEXT_FIELD[open_.part]: text}, **more)
        part = _part(open_.part, text, open_.annotations, open_.logprobs)
        self._tell("response.content_part.done", **_where(open_), part=part)
        open_.item["content"] = [*open_.item["content"], part]
        open_.part, open_.pieces, open_.annotations, open_.logprobs = None, [], [], []

    def _close(self, status: str = "completed") -> None:
        open_, self._open = self._open, None
        if open_ is None:
            return
        if open_.item["type"] == "message":
            self._close_part(open_)
        else:
            self._close_reasoning(open_)
        self._done(open_.item, open_.place, status=status)

    def _close_reasoning(self, open_: _Message) -> None:
        if text := "".join(open_.pieces):
            at = {"item_id": open_.item["id"], "output_index": open_.place}
            if self._summary:
                part = {"type": "summary_text", "text": text}
                self._tell("response.reasoning_summary_text.done", **at, summary_index=0, text=text)
                self._tell("response.reasoning_summary_part.done", **at, summary_index=0, part=part)
                open_.item["summary"] = [part]
            else:
                part = {"type": "reasoning_text", "text": text}
                self._tell("response.reasoning_text.done", **at, content_index=0, text=text)
                self._tell("response.content_part.done", **at, content_index=0, part=part)
                open_.item["content"] = [part]
        if (packed := pack(open_.details)) is not None:
            open_.item["encrypted_content"] = packed

    # Tool calls

    def _call(self, fragment: Mapping[str, Any]) -> None:
        call = self._call_of(fragment)
        inner = fragment.get("function")
        if inner is None and (inner := fragment.get("custom")) is not None:
            call.native = True
        inner = inner or {}
        call.id = call.id or fragment.get("id") or ""
        call.extra = fragment.get("extra_content") or call.extra
        if call.item is None:
            call.name += inner.get("name") or ""
        text = inner.get("input" if call.native else "arguments") or ""
        if call.item is not None and call.item["status"] != "in_progress":
            return  # its arguments were whole; nothing but white space can follow them
        call.pieces.append(text)
        if call.item is not None:
            self._grow(call, text)
        elif call.name:
            self._open_call(call)

    def _call_of(self, fragment: Mapping[str, Any]) -> _Call:
        """The call this is a fragment of. Some servers send whole calls without an index, or all with the same one."""
        key, name = fragment.get("index"), fragment.get("id")
        if key is None:
            key = len(self._calls) if name or not self._calls else next(reversed(self._calls))
        call = self._calls.get(key)
        if call is None or (name and call.id and name != call.id):
            if call is not None:
                self._close_call(call, "completed")
            call = self._calls[key] = _Call()
        return call

    def _open_call(self, call: _Call) -> None:
        call.id = call.id or f"call_{self._id[:16]}_{len(self._items)}"
        if call.extra is not None:
            self._think("", [{"type": CALL_EXTRA, "id": call.id, "extra_content": call.extra}])
        self._close()
        self._close_whole_calls()
        named = {"call_id": call.id, **self._names.full(call.name)}
        call.custom = call.native or call.name in self._names.custom
        if call.custom:
            call.item, call.place = self._add("ctc", type="custom_tool_call", status="in_progress", **named, input="")
        else:
            call.item, call.place = self._add("fc", type="function_call", status="in_progress", **named, arguments="")
        self._grow(call, "".join(call.pieces))

    def _grow(self, call: _Call, text: str) -> None:
        if not text or call.item is None or (call.custom and not call.native):
            return
        kind = "custom_tool_call_input" if call.custom else "function_call_arguments"
        self._tell(f"response.{kind}.delta", item_id=call.item["id"], output_index=call.place, delta=text)

    def _close_whole_calls(self) -> None:
        """Close the calls whose arguments are all there: what follows them is another item."""
        for call in self._calls.values():
            if call.item is not None and call.item["status"] == "in_progress" and _is_whole(call):
                self._close_call(call, "completed")

    def _close_call(self, call: _Call, status: str) -> None:
        if call.item is None or call.item["status"] != "in_progress":
            return
        text = "".join(call.pieces)
        at = {"item_id": call.item["id"], "output_index": call.place}
        if not call.custom:
            if not text and status == "completed":
                text = "{}"
                self._grow(call, text)
            self._tell("response.function_call_arguments.done", **at, name=call.item["name"], arguments=text)
            self._done(call.item, call.place, status=status, arguments=text)
            return
        if not call.native:
            text = text_of_call(text)
            self._tell("response.custom_tool_call_input.delta", **at, delta=text)
        self._tell("response.custom_tool_call_input.done", **at, input=text)
        self._done(call.item, call.place, status=status, input=text)


def _is_whole(call: _Call) -> bool:
    if call.native or not call.pieces[-1].rstrip().endswith("}"):
        return False
    try:
        orjson.loads("".join(call.pieces))
    except ValueError:
        return False
    return True


def _where(open_: _Message) -> dict[str, Any]:
    return {
        "item_id": open_.item["id"],
        "output_index": open_.place,
        "content_index": len(open_.item["content"]),
    }


def _part(
    kind: str, text: str, annotations: list[dict[str, Any]] | None = None, logprobs: list[Any] | None = None
) -> dict[str, Any]:
    if kind == "refusal":
        return {"type": kind, "refusal": text}
    return {"type": kind, "text": text, "annotations": annotations or [], "logprobs": logprobs or []}
