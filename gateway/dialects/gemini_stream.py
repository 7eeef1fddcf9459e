"""Streams of Gemini's ``streamGenerateContent`` → canonical chunks, and their events as they pass through.

Two framings: server-sent events (``alt=sse``; CRLF, no names), and without it a JSON array. Each piece is a partial
answer; what was used stands on every piece and grows. No marker ends the events: each candidate ends with its
``finishReason``, and the end of the HTTP message tells that nothing follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from gateway.dialects.gemini_array import ArraySplitter
from gateway.dialects.gemini_candidate import Candidate
from gateway.dialects.gemini_error import stream_error
from gateway.dialects.gemini_reply import (
    block_reason,
    blocked_finish,
    blocked_text,
    candidates_of,
    checked,
    head_of,
    index_of,
    is_told,
    logprobs_to_chat,
    usage_of,
    usage_to_chat,
)
from gateway.dialects.openai_chat import ERROR, PASS
from gateway.dialects.sse import EventSplitter, parse_events
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage

_Chunk = dict[str, Any]


class Decoder:
    """One streamed answer, in either framing: the first byte tells which."""

    __slots__ = ("_blocked", "_candidates", "_head", "_splitter", "_used")
    until_eof = True

    def __init__(self) -> None:
        self._splitter: EventSplitter | ArraySplitter | None = None
        self._head: _Chunk = {}
        self._candidates: dict[int, Candidate] = {}
        self._blocked: _Chunk | None = None
        self._used: _Chunk | None = None

    @property
    def usage(self) -> Usage | None:
        """What was used up to now."""
        return usage_of(self._used)

    @property
    def done(self) -> bool:
        """Every candidate that began has ended, or the prompt was blocked. Pieces may follow up to the end."""
        finished = [candidate.finish_reason is not None for candidate in self._candidates.values()]
        return all(finished) if finished else self._blocked is not None

    def feed(self, block: bytes) -> list[_Chunk]:
        """The chunks of what ``block``, cut anywhere, completes.

        Raises ``StreamError`` for an error in the stream and ``UpstreamProtocolError`` for what is no stream of
        Gemini's.
        """
        if self._splitter is None:
            block = block.lstrip()
            if not block:
                return []
            self._splitter = ArraySplitter() if block[:1] == b"[" else EventSplitter()
        try:
            if isinstance(self._splitter, ArraySplitter):
                return [chunk for element in self._splitter.feed(block) for chunk in self._piece(element)]
            return self._events(self._splitter.feed(block))
        except ValueError as error:
            raise UpstreamProtocolError("The provider sent a malformed event.") from error

    def end(self) -> list[_Chunk]:
        """The reasons of all choices and the usage. Raises ``UpstreamProtocolError`` if the answer is not complete."""
        chunks: list[_Chunk] = []
        if isinstance(self._splitter, EventSplitter) and self._splitter.rest.strip():
            try:
                chunks = self._events(self._splitter.rest)
            except ValueError as error:
                raise UpstreamProtocolError("The provider's stream ended inside an event.") from error
        if not self.done or (isinstance(self._splitter, ArraySplitter) and not self._splitter.done):
            raise UpstreamProtocolError("The provider's stream ended before it was complete.")
        for candidate in self._candidates.values():
            reason, refusal = candidate.finish()
            if refusal is not None:
                chunks.append(self._chunk(candidate.index, {"refusal": refusal}))
            finish = {"finish_reason": reason, "native_finish_reason": candidate.finish_reason}
            chunks.append(self._chunk(candidate.index, {}, **finish))
        if not self._candidates and self._blocked is not None:
            chunks.append(self._chunk(0, {"role": "assistant", "content": "", "refusal": blocked_text(self._blocked)}))
            chunks.append(self._chunk(0, {}, **blocked_finish(block_reason(self._blocked))))
        if self._used is not None:
            if (used := usage_to_chat(self._used)) is not None:
                chunks.append({**self._head, "choices": [], "usage": used})
        return chunks

    def _events(self, block: bytes) -> list[_Chunk]:
        return [chunk for _, _, data in parse_events(block) if data for chunk in self._piece(data)]

    def _piece(self, data: bytes) -> Iterator[_Chunk]:
        body = checked(orjson.loads(data))
        if not self._head:
            self._head = {**head_of(body), "object": "chat.completion.chunk"}
        if is_told(body.get("usageMetadata")):
            self._used = body  # it grows with each piece: the last one is read, once
        if block_reason(body) is not None:
            self._blocked = body
        for position, piece in enumerate(candidates_of(body)):
            yield from self._candidate(piece, index_of(piece, position))

    def _candidate(self, piece: _Chunk, index: int) -> Iterator[_Chunk]:
        candidate = self._candidates.get(index)
        if candidate is None:
            candidate = self._candidates[index] = Candidate(index, self._head["id"])
            yield self._chunk(index, {"role": "assistant", "content": ""})
        for delta in candidate.read(piece):
            yield self._chunk(index, delta)
        if (logprobs := logprobs_to_chat(piece)) is not None:
            yield self._chunk(index, {}, logprobs=logprobs)

    def _chunk(self, index: int, delta: _Chunk, **more: Any) -> _Chunk:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        return {**self._head, "choices": [choice]}


class Reader:
    """Reads the events of a stream that passes through: ``gateway.events.StreamReader``.

    Elements of an array may be given to it as well (``gemini_array.ArraySplitter``).
    """

    __slots__ = ("_ended", "_open", "_used", "done", "finished", "started")
    until_eof = True

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._ended: set[int] = set()
        self.done = False
        """Every candidate that began has its ``finishReason``, or the prompt was blocked."""
        self.finished = False
        self.started = False
        """Something of the answer came: a part, an end."""
        self._used: _Chunk | None = None

    @property
    def usage(self) -> Usage | None:
        """What was used up to now."""
        return usage_of(self._used)

    def event(self, name: str | None, data: bytes) -> int:
        """Verdict on one event. Raises ``ValueError`` if it is not a piece of an answer."""
        body = orjson.loads(data)
        if not isinstance(body, dict):
            raise ValueError("not an object")
        if body.get("error"):
            return ERROR
        if is_told(used := body.get("usageMetadata")):
            self._used = {"usageMetadata": used}  # it grows with each piece: the last one is read, once
        candidates = body.get("candidates")
        for position, candidate in enumerate(candidates if isinstance(candidates, list) else ()):
            if isinstance(candidate, dict):
                self._candidate(candidate, index_of(candidate, position))
        if self._open or self._ended:
            self.done = not self._open
        elif block_reason(body) is not None:
            self.done = self.started = True
        self.finished = self.done
        return PASS

    def refusal(self, data: bytes) -> tuple[int, bytes]:
        """Status and body of a whole answer that tells an event that is an error: they look alike."""
        return stream_error(orjson.loads(data)).status, data

    def _candidate(self, candidate: _Chunk, index: int) -> None:
        content = candidate.get("content")
        if isinstance(content, dict) and content.get("parts"):
            self.started = True
        if candidate.get("finishReason"):
            self._open.discard(index)
            self._ended.add(index)
            self.started = True
        elif index not in self._ended:
            self._open.add(index)
