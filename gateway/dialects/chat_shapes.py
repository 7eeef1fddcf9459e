"""Canonical answers put together: the frame around what a dialect found, whole and chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Any

from gateway.exchange import Usage


def string(value: Any) -> str:
    """``value``, where it is a string. Raises ``TypeError``."""
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


def usage_body(used: Usage) -> dict[str, Any]:
    """OpenAI's ``usage`` object; details only where they were told."""
    given, made = used.input_tokens or 0, used.output_tokens or 0
    body: dict[str, Any] = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    inside = {"cached_tokens": used.cached_tokens, "cache_write_tokens": used.cache_write_tokens}
    if known := {name: tokens for name, tokens in inside.items() if tokens is not None}:
        body["prompt_tokens_details"] = known
    if used.reasoning_tokens is not None:
        body["completion_tokens_details"] = {"reasoning_tokens": used.reasoning_tokens}
    return body


def completion(
    answer_id: str, model: str, message: Mapping[str, Any], reasons: Mapping[str, str], usage: Usage | None
) -> dict[str, Any]:
    """A whole chat completion with one choice; ``reasons`` holds ``finish_reason`` and, if told, the native one."""
    choice = {"index": 0, "message": {"role": "assistant", "refusal": None, **message}, "logprobs": None, **reasons}
    whole = {
        "id": answer_id, "object": "chat.completion", "created": int(time()), "model": model, "choices": [choice],
    }  # fmt: skip
    if usage is not None:
        whole["usage"] = usage_body(usage)
    return whole


class Chunks:
    """Makes the chunks of one streamed answer.

    The opening chunk, a bare role, comes with the first content: until then another target may take over.
    """

    __slots__ = ("_head", "_open")

    def __init__(self, answer_id: str, model: str) -> None:
        self._open = False
        self._head: dict[str, Any] = {
            "id": answer_id, "object": "chat.completion.chunk", "created": int(time()), "model": model,
        }  # fmt: skip

    def named(self, answer_id: str) -> None:
        """The upstream's own id of the answer; to be told before the first chunk."""
        self._head["id"] = answer_id

    def delta(self, delta: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The chunk of a piece of content; the first one with the opening chunk before it."""
        chunk = self._chunk(delta, {"finish_reason": None})
        if self._open:
            return [chunk]
        self._open = True
        opening = {"role": "assistant", "content": "", "refusal": None}
        return [self._chunk(opening, {"finish_reason": None}), chunk]

    def finish(self, reasons: Mapping[str, str]) -> list[dict[str, Any]]:
        if not self._open:
            self._open = True
            return [self._chunk({"role": "assistant", "content": "", "refusal": None}, reasons)]
        return [self._chunk({}, reasons)]

    def usage(self, used: Usage) -> dict[str, Any]:
        return {**self._head, "choices": [], "usage": usage_body(used)}

    def _chunk(self, delta: Mapping[str, Any], reasons: Mapping[str, Any]) -> dict[str, Any]:
        return {**self._head, "choices": [{"index": 0, "delta": delta, "logprobs": None, **reasons}]}
