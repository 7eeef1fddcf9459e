"""The answers of the contract's providers, in each dialect that several of them speak."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from gateway.testing import Script, chat_body, chat_events, event, stream, whole
from gateway.testing.answers import SSE, USAGE
from gateway.testing.wire import json_bytes

TEXT = "w0 w1 w2 "
"""What the answers here say."""


@attrs.frozen(kw_only=True)
class Spoken:
    """What a provider says: one text, with 5 tokens in and 2 out."""

    body: bytes
    """The whole answer."""
    events: tuple[bytes, ...]
    """The streamed one, the terminal marker last."""
    error: Callable[[int, str], Any]
    """Status and message → the body of a refusal."""
    failure: bytes
    """An error event inside a stream that says ``It broke.``"""
    text: str = TEXT
    first: bytes = b"w0 "
    """The beginning of the text, as far as it is in one event."""
    headers: Mapping[str, str] = SSE
    """Of the stream."""

    def begun(self) -> tuple[bytes, ...]:
        """The events up to the first with text."""
        return self.events[: next(at for at, each in enumerate(self.events) if self.first in each) + 1]


def _named(name: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\n".encode() + b"data: " + json.dumps({"type": name, **data}).encode() + b"\n\n"


_STARTED: dict[str, Any] = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
    "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 1},
}  # fmt: skip
ANTHROPIC = Spoken(
    body=json_bytes(
        _STARTED
        | {"content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn"}
        | {"usage": {"input_tokens": 5, "output_tokens": 2}}
    ),
    events=(
        _named("message_start", {"message": _STARTED}),
        _named("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        *(
            _named("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": f"w{number} "}})
            for number in range(3)
        ),
        _named("content_block_stop", {"index": 0}),
        _named(
            "message_delta",
            {"delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 2}},
        ),
        _named("message_stop", {}),
    ),
    error=lambda status, message: {"type": "error", "error": {"type": "api_error", "message": message}},
    failure=_named("error", {"error": {"type": "api_error", "message": "It broke."}}),
)


def _piece(text: str, **more: Any) -> dict[str, Any]:
    counts = {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}
    candidate = {"index": 0, "content": {"role": "model", "parts": [{"text": text}]}, **more}
    return {"candidates": [candidate], "usageMetadata": counts, "modelVersion": "m", "responseId": "r1"}


GEMINI = Spoken(
    body=json_bytes(_piece(TEXT, finishReason="STOP")),
    events=tuple(
        b"data: " + json_bytes(each) + b"\r\n\r\n"
        for each in (_piece("w0 "), _piece("w1 "), _piece("w2 "), _piece("", finishReason="STOP"))
    ),
    error=lambda status, message: {"error": {"code": status, "message": message, "status": "UNKNOWN"}},
    failure=b'data: {"error":{"code":500,"message":"It broke.","status":"INTERNAL"}}\r\n\r\n',
)
OPENAI = Spoken(
    body=chat_body(TEXT),
    events=tuple(chat_events(3, usage=USAGE)),
    error=lambda status, message: {"error": {"message": message, "type": "t", "param": None, "code": "c"}},
    failure=event({"error": {"message": "It broke."}}),
)


def speaks(spoken: Spoken) -> Script:
    """Answers in the dialect, streamed where the request or its path asks for it."""
    answers = (whole(200, spoken.body), stream(spoken.events, headers=spoken.headers))

    async def script(call: Any) -> None:
        body, target = call.request.json, call.request.target
        streams = bool(body.get("stream")) or any(end in target for end in ("streamGenerateContent", "converse-stream"))
        await answers[streams](call)

    return script
