"""The estimate of a request's tokens: against what a provider counted, and for what grows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.anthropic_client import count_to_chat
from gateway.dialects.anthropic_messages_reply import reply_to_chat
from gateway.dialects.tokens import estimate_tokens
from tests.support.recordings import Recordings

USER = {"role": "user", "content": "How are you today?"}


@pytest.mark.parametrize(
    "name",
    ["anthropic-parallel-tool-calls", "anthropic-prompt-cache-read-write", "anthropic-mid-conversation-system-role"],
)
def test_near_to_what_the_provider_counted(test_data: Recordings, name: str) -> None:
    for each in test_data.interactions(name):
        chat, _ = count_to_chat(each.request_json)
        counted = reply_to_chat(json.loads(each.response))["usage"]["prompt_tokens"]
        assert 0.6 * counted < estimate_tokens(chat) < 1.45 * counted


def test_everything_a_model_reads_counts() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"city": "Rome"}'}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    pdf = {"type": "file", "file": {"file_data": "data:application/pdf;base64," + "A" * 100_000}}
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 100_000, "format": "wav"}}
    least = estimate_tokens({"messages": [USER]})
    longer: list[dict[str, Any]] = [
        {"messages": [USER, USER]},
        {"messages": [USER | {"reasoning_content": "Well, let me see."}]},
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [call]}]},
        {"messages": [USER], "tools": [tool]},
        {"messages": [USER], "response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        *({"messages": [USER, {"role": "user", "content": [part]}]} for part in (image, pdf, sound)),
    ]
    for more in longer:
        assert estimate_tokens(more) > least + 3


def test_a_picture_s_bytes_are_not_text() -> None:
    def image(size: int) -> int:
        part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * size}}
        return estimate_tokens({"messages": [{"role": "user", "content": [part]}]})

    assert image(1_000_000) == image(10) < 2000


junk: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["messages", "content", "tools", "function", "tool_calls", "type", "file", "text"]), inner
    ),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["messages", "tools", "response_format"]), junk))
def test_nothing_makes_it_fail(chat: dict[str, Any]) -> None:
    assert estimate_tokens(chat) >= 0
