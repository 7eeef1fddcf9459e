"""Canonical answers, by the types of the official SDK."""

from __future__ import annotations

import pytest

from gateway.dialects.chat_shapes import Chunks, completion, usage_body
from gateway.dialects.openai_chat import read_usage
from gateway.exchange import Usage

STOP = {"finish_reason": "stop"}


@pytest.mark.parametrize("used", [Usage(3, 4), Usage(3, 4, 2), Usage(3, 4, 0, 1, 2), Usage(0, 0)])
def test_usage_is_read_back_as_it_was(used: Usage) -> None:
    body = usage_body(used)
    assert read_usage({"usage": body}) == used
    assert body["total_tokens"] == used.total_tokens


def test_the_opening_comes_with_the_first_content_and_once() -> None:
    chunks = Chunks("c", "m")
    made = [*chunks.delta({"content": "a"}), *chunks.delta({"content": "b"}), *chunks.finish(STOP)]
    deltas = [chunk["choices"][0]["delta"] for chunk in made]
    assert deltas == [{"role": "assistant", "content": "", "refusal": None}, {"content": "a"}, {"content": "b"}, {}]


def test_an_answer_without_content_opens_with_its_end() -> None:
    (chunk,) = Chunks("c", "m").finish(STOP)
    assert chunk["choices"][0]["delta"]["role"] == "assistant"
    assert chunk["choices"][0]["finish_reason"] == "stop"


def test_the_upstream_s_own_id_is_taken() -> None:
    chunks = Chunks("ours", "m")
    chunks.named("theirs")
    assert {chunk["id"] for chunk in [*chunks.delta({"content": "a"}), chunks.usage(Usage(1, 2))]} == {"theirs"}


def test_what_is_made_is_what_the_sdk_knows() -> None:
    types = pytest.importorskip("openai.types.chat", reason="the openai SDK is not installed")
    whole = completion("c", "m", {"content": "Hello"}, STOP, Usage(3, 4, 2))
    assert types.ChatCompletion.model_validate(whole, strict=True).usage.prompt_tokens_details.cached_tokens == 2
    assert "usage" not in completion("c", "m", {"content": "Hello"}, STOP, None)
    chunks = Chunks("c", "m")
    for chunk in [*chunks.delta({"content": "a"}), *chunks.finish(STOP), chunks.usage(Usage(1, 2))]:
        types.ChatCompletionChunk.model_validate(chunk, strict=True)
