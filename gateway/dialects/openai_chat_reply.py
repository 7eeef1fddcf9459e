"""Chat and legacy completions for clients that speak them, in front of a provider that speaks another dialect.

The canonical form is chat, so little is left to do: usage goes to who asked for it; the prompt of a legacy completion
becomes a message, and its answer the text of one. Readers of streams that pass through unchanged are in
``openai_chat``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dialects.dropped import Dropped
from gateway.errors import InvalidRequest

_DONE = b"data: [DONE]\n\n"
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def text_request_to_chat(body: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A legacy Completions request → chat, its prompt the one message, and the names of what chat cannot say.

    Raises ``InvalidRequest`` for token ids and for several prompts.
    """
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise InvalidRequest("prompt: this provider takes one string; it takes no token ids and no list of prompts.")
    dropped = Dropped()
    lost = {name: body.get(name) for name in ("suffix", "best_of", "echo")}
    dropped.others(lost, ())
    chat = {name: value for name, value in body.items() if name not in ("prompt", "logprobs", *lost)}
    chat["messages"] = [{"role": "user", "content": prompt}]
    most = body.get("logprobs")
    if isinstance(most, int) and most is not False:
        chat |= {"logprobs": True, "top_logprobs": int(most)}
    return chat, dropped.names


def reply_from_chat(chat: dict[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """A chat completion for a client of chat: itself."""
    return chat


def text_reply_from_chat(chat: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """A chat completion → a legacy completion."""
    choices = [_text_choice(choice, choice.get("message") or {}) for choice in chat.get("choices") or ()]
    return {**chat, "object": "text_completion", "choices": choices}


class Encoder:
    """Canonical chunks → a chat stream."""

    __slots__ = ("_include_usage",)

    def __init__(self, request: Mapping[str, Any]) -> None:
        options = request.get("stream_options")
        self._include_usage = isinstance(options, dict) and bool(options.get("include_usage"))

    def feed(self, chunk: Mapping[str, Any]) -> bytes:
        """One event; none for the usage chunk of a client that did not ask for it."""
        shaped = self._shaped(chunk)
        return b"data: " + orjson.dumps(shaped) + b"\n\n" if shaped is not None else b""

    def end(self) -> bytes:
        return _DONE

    def _shaped(self, chunk: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if not chunk.get("usage"):
            return {**chunk, "usage": None} if self._include_usage else chunk
        if self._include_usage:
            return chunk
        return {name: value for name, value in chunk.items() if name != "usage"} if chunk.get("choices") else None


class TextEncoder(Encoder):
    """Canonical chunks → a legacy completions stream. Chunks without text, such as the role's, do not appear."""

    __slots__ = ()

    def _shaped(self, chunk: Mapping[str, Any]) -> Mapping[str, Any] | None:
        shaped = super()._shaped(chunk)
        if shaped is None or not shaped.get("choices"):
            return shaped and {**shaped, "object": "text_completion"}
        made = [_text_choice(choice, choice.get("delta") or {}) for choice in shaped["choices"]]
        choices = [each for each in made if each["text"] or each["finish_reason"] or "reasoning_content" in each]
        if not choices and not shaped.get("usage"):
            return None
        return {**shaped, "object": "text_completion", "choices": choices}


def _text_choice(choice: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    made = {
        "text": said.get("content") or "",
        "index": choice.get("index", 0),
        "logprobs": _text_logprobs(choice.get("logprobs")),
        "finish_reason": choice.get("finish_reason"),
    }
    # As Ollama's and vLLM's own completions have it: thoughts stand beside the text.
    return made | ({"reasoning_content": said["reasoning_content"]} if said.get("reasoning_content") else {})


def _text_logprobs(logprobs: Any) -> dict[str, Any] | None:
    """Chat's list of tokens as the parallel lists of legacy completions."""
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not tokens:
        return None
    return {
        "tokens": [token.get("token") for token in tokens],
        "token_logprobs": [token.get("logprob") for token in tokens],
        "top_logprobs": [
            {each.get("token"): each.get("logprob") for each in token.get("top_logprobs") or ()} for token in tokens
        ],
        "text_offset": [],
    }


def error_of(status: int, code: str, message: str, request_id: str) -> dict[str, Any]:
    """OpenAI's error object; clients decide by the status whether to repeat."""
    kind = _TYPES.get(status) or ("invalid_request_error" if status < 500 else "server_error")
    return {
        "message": f"{message} (request id: {request_id})" if request_id else message,
        "type": kind,
        "param": "model" if code == "model_not_found" else None,
        "code": code,
    }


def error_body(status: int, code: str, message: str, request_id: str) -> bytes:
    """A whole error answer, of chat and of every other OpenAI surface."""
    return orjson.dumps({"error": error_of(status, code, message, request_id)})


def error_event(status: int, code: str, message: str, request_id: str) -> bytes:
    """The error as the last event of a stream: the official clients raise for a chunk with an ``error``."""
    return b"data: " + error_body(status, code, message, request_id) + b"\n\n"
