"""The words of a model, wherever they stand; nothing else of an answer."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.said import said, said_in
from tests.support.spoken import CALLS, ONLY_CALLS, TEXT, pieces

CLIENTS = ("openai_compat", "anthropic", "gemini", "ollama", "ollama_generate")
"""Providers whose dialects clients speak, too."""


@pytest.mark.parametrize("plugin", CLIENTS)
def test_the_texts_of_a_stream_are_found_event_by_event(plugin: str) -> None:
    events = pieces(plugin, TEXT)
    assert said_in(b"".join(events)) == list(TEXT.texts)
    assert [words for each in events for words in said_in(each)] == list(TEXT.texts)


@pytest.mark.parametrize("plugin", [each for each in CLIENTS if each != "ollama_generate"])
def test_calls_of_tools_are_words_too(plugin: str) -> None:
    words = "".join(said_in(b"".join(pieces(plugin, ONLY_CALLS)))).replace(" ", "")
    for name, arguments in CALLS.calls:
        assert name in words
        assert arguments == "{}" or '"deep":{"n":[1,2.5,null]}' in words


WHOLE: dict[str, Any] = {
    "chat": {"choices": [{"message": {"role": "assistant", "content": "abc", "reasoning_content": "def"}}]},
    "completion": {"choices": [{"text": "abcdef", "logprobs": {"tokens": ["abc", "def"]}}]},
    "thinking in parts": {
        "choices": [{"delta": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "abcdef"}]}]}}]
    },
    "message": {
        "type": "message", "role": "assistant", "stop_reason": "end_turn",
        "content": [{"type": "thinking", "thinking": "abc", "signature": "sig"}, {"type": "text", "text": "def"}],
    },
    "response": {
        "object": "response", "instructions": "be brief", "text": {"format": {"type": "text"}},
        "tools": [{"name": "t"}],
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "abc"}], "encrypted_content": "xyz"},
            {"type": "message", "content": [{"type": "output_text", "text": "def", "annotations": []}]},
        ],
    },
    "gemini": {"candidates": [{"content": {"parts": [{"text": "abc", "thought": True}, {"text": "def"}]}}]},
    "array": [{"candidates": [{"content": {"parts": [{"text": "abc"}]}}]},
              {"candidates": [{"content": {"parts": [{"text": "def"}]}}]}],
    "ollama": {"message": {"role": "assistant", "thinking": "abc", "content": "def"}, "done": True},
}  # fmt: skip


@pytest.mark.parametrize("form", WHOLE)
def test_the_text_of_a_whole_answer_is_found(form: str) -> None:
    assert said(WHOLE[form]) == "abcdef"


@pytest.mark.parametrize(
    "answer",
    [
        {"type": "response.output_text.done", "text": "told before"},
        {"type": "response.output_item.done", "item": {"content": [{"text": "told before"}]}},
        {"type": "response.completed", "response": {"output": [{"content": [{"text": "told before"}]}]}},
        {"type": "response.audio.delta", "delta": "UklGRg=="},
        {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "EqQB"}},
        {"error": {"message": "no", "type": "t"}},
        {"data": [{"embedding": [1.0]}], "model": "m"},
        None, 7, "text", [], [[]], {"choices": None}, {"choices": [None, {"delta": 3}]},
    ],
)  # fmt: skip
def test_what_is_not_the_model_s_or_was_said_before_is_none(answer: Any) -> None:
    assert said(answer) == ""


def test_pieces_of_an_array_and_events_that_are_cut_off() -> None:
    piece = b'{"candidates":[{"content":{"parts":[{"text":"abc"}]}}]}'
    assert said_in(b"[" + piece) == ["abc"]
    assert said_in(b",\r\n" + piece + b",\r\n" + piece + b"]") == ["abc", "abc"]
    event = b"data: " + piece + b"\n\n"
    assert said_in(b": ping\n\n" + event + event[:-20]) == ["abc"]
    assert said_in(b"data: [DONE]\n\n") == [] and said_in(b"") == []
