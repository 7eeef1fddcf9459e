"""Canonical chunks → the stream of Gemini's ``streamGenerateContent``, as events or as a JSON array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dialects.gemini_array import ArrayWriter
from gateway.dialects.gemini_client import asks_for_thoughts
from gateway.dialects.gemini_error import error_body
from gateway.dialects.gemini_parts import CandidateWriter, logprobs_from_chat
from gateway.dialects.gemini_reply import NOT_A_CHAT, usage_from_chat
from gateway.errors import UpstreamProtocolError


class Encoder:
    """One streamed answer for our client, whose ``generateContent`` body ``request`` is.

    ``finishReason`` ends a Gemini stream, so it is kept back until ``end``, which is told that the answer is complete.
    Tool calls are sent whole, once their choice has ended.
    """

    __slots__ = ("_array", "_finished", "_head", "_thoughts", "_usage", "_writers")

    def __init__(self, request: Mapping[str, Any], sse: bool = True) -> None:
        """``sse``: the client's query says ``alt=sse``."""
        self._thoughts = asks_for_thoughts(request)
        self._array = None if sse else ArrayWriter()
        self._head = {"modelVersion": "", "responseId": ""}
        self._writers: dict[int, CandidateWriter] = {}
        self._finished: dict[int, tuple[str, Any]] = {}
        self._usage: dict[str, Any] | None = None

    def feed(self, chunk: Mapping[str, Any]) -> bytes:
        """What ``chunk`` shows at once, framed; ``b""`` where it shows nothing.

        Raises ``UpstreamProtocolError`` for what is no chunk, and for arguments of a call that are not JSON.
        """
        try:
            return self._chunk(chunk)
        except NOT_A_CHAT as error:
            raise UpstreamProtocolError("The provider's event is not a chunk of a chat completion.") from error

    def _chunk(self, chunk: Mapping[str, Any]) -> bytes:
        self._head["modelVersion"] = chunk.get("model") or self._head["modelVersion"]
        self._head["responseId"] = self._head["responseId"] or chunk.get("id") or ""
        if (used := usage_from_chat(chunk.get("usage"))) is not None:
            self._usage = used
        candidates = [made for choice in chunk.get("choices") or () if (made := self._candidate(choice))]
        return self._frame({"candidates": candidates, **self._head}) if candidates else b""

    def end(self) -> bytes:
        """The last piece, with every choice's reason and the usage. Only for a stream that is complete."""
        candidates = []
        for index, writer in self._writers.items():
            reason, native = self._finished.get(index, ("stop", None))
            candidates.append(writer.candidate(writer.rest() or [{"text": ""}], reason, native))
        last: dict[str, Any] = {"candidates": candidates}
        if self._usage is not None:
            last["usageMetadata"] = self._usage
        return self._frame({**last, **self._head}) + (self._array.end() if self._array is not None else b"")

    def error(self, status: int, code: str, message: str, request_id: str) -> bytes:
        """The last piece of a stream that failed, in its framing."""
        body = error_body(status, code, message, request_id)
        return self._framed(body) + (self._array.end() if self._array is not None else b"")

    def _candidate(self, choice: Mapping[str, Any]) -> dict[str, Any] | None:
        index = choice.get("index") or 0
        writer = self._writers.get(index)
        if writer is None:
            writer = self._writers[index] = CandidateWriter(index, self._thoughts)
        parts = writer.parts(choice.get("delta") or {})
        if reason := choice.get("finish_reason"):
            self._finished[index] = (reason, choice.get("native_finish_reason"))
            parts += writer.rest()
        logprobs = logprobs_from_chat(choice.get("logprobs"))
        if not parts and logprobs is None:
            return None
        return writer.candidate(parts) | (logprobs or {})

    def _frame(self, body: Mapping[str, Any]) -> bytes:
        return self._framed(orjson.dumps(body))

    def _framed(self, data: bytes) -> bytes:
        if self._array is not None:
            return self._array.element(data)
        return b"data: " + data + b"\r\n\r\n"
