"""Anthropic's messages, block by block → canonical messages."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.anthropic_blocks import messages_to_chat
from gateway.dialects.anthropic_reasoning import call_block
from gateway.dialects.dropped import Dropped
from gateway.errors import InvalidRequest

MARK = {"type": "ephemeral"}


def messages(*given: Any, system: Any = None) -> list[dict[str, Any]]:
    return messages_to_chat({"messages": list(given), "system": system}, Dropped())


def user(*blocks: Any) -> list[dict[str, Any]]:
    return messages({"role": "user", "content": list(blocks)})


def assistant(*blocks: Any) -> dict[str, Any]:
    return messages({"role": "assistant", "content": list(blocks)})[0]


def left(*given: Any) -> list[str]:
    dropped = Dropped()
    messages_to_chat({"messages": list(given)}, dropped)
    return dropped.names


def test_one_plain_text_is_a_string_and_a_marked_one_a_part() -> None:
    plain = {"type": "text", "text": "hi"}
    assert user(plain) == [{"role": "user", "content": "hi"}]
    assert user(plain | {"cache_control": MARK})[0]["content"] == [plain | {"cache_control": MARK}]
    assert user(plain, plain)[0]["content"] == [plain, plain]


def test_results_come_before_the_rest_of_their_turn_as_openai_wants_it() -> None:
    result = {"type": "tool_result", "tool_use_id": "1", "content": "x"}
    roles = [
        message["role"] for message in user({"type": "text", "text": "and"}, result, result | {"tool_use_id": "2"})
    ]
    assert roles == ["tool", "tool", "user"]
    assert [message["role"] for message in user(result)] == ["tool"]


def test_a_result_may_be_empty() -> None:
    assert user({"type": "tool_result", "tool_use_id": "1"})[0]["content"] == ""


def test_system_messages_stay_where_they_are() -> None:
    given = messages({"role": "user", "content": "a"}, {"role": "system", "content": "b"}, system="s")
    assert [(message["role"], message["content"]) for message in given] == [
        ("system", "s"),
        ("user", "a"),
        ("system", "b"),
    ]


def test_a_message_of_thinking_and_calls_has_no_content() -> None:
    made = assistant({"type": "tool_use", "id": "1", "name": "f", "input": {}})
    assert made["content"] is None
    assert made["tool_calls"][0]["function"]["arguments"] == "{}"
    assert assistant({"type": "thinking", "thinking": "Hm.", "signature": ""}) == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "Hm.",
    }


def test_big_integers_of_a_call_survive() -> None:
    made = assistant({"type": "tool_use", "id": "1", "name": "f", "input": {"n": 10**40}})
    assert made["tool_calls"][0]["function"]["arguments"] == f'{{"n":{10**40}}}'


def test_gemini_s_signature_returns_to_its_call() -> None:
    extra = {"google": {"thought_signature": "c2ln"}}
    call = {"type": "tool_use", "id": "1", "name": "f", "input": {}}
    made = assistant(call_block("1", extra), call, call | {"id": "2"})
    assert [each.get("extra_content") for each in made["tool_calls"]] == [extra, None]
    assert "reasoning_details" not in made
    assert "extra_content" not in assistant(call_block("gone", extra), call)["tool_calls"][0]


def test_a_compaction_is_the_text_that_stands_for_what_went_before() -> None:
    assert assistant({"type": "compaction", "content": "So far …"})["content"] == "So far …"


def test_blocks_of_server_tools_and_what_texts_carry_are_named_as_dropped() -> None:
    blocks = [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "code_execution_tool_result", "tool_use_id": "s", "content": {}},
        {"type": "text", "text": "x", "citations": [{"type": "char_location"}]},
    ]
    assert left({"role": "assistant", "content": blocks}) == [
        "messages.content.server_tool_use",
        "messages.content.code_execution_tool_result",
        "messages.content.citations",
    ]


def test_a_document_of_words_is_text_for_every_model() -> None:
    source = {"type": "content", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    assert user({"type": "document", "source": source})[0]["content"] == "a\nb"


@pytest.mark.parametrize(
    "wrong",
    [
        [], "x", [1], [{"role": "tool", "content": "x"}], [{"role": "user", "content": 1}], [{"role": "user"}],
        [{"role": "user", "content": ["x"]}], [{"role": "user", "content": [{"type": "video"}]}],
        [{"role": "user", "content": [{"type": "text", "text": 1}]}],
        [{"role": "user", "content": [{"type": "image", "source": {"type": "tape"}}]}],
        [{"role": "user", "content": [{"type": "document", "source": {"type": "tape"}}]}],
        [{"role": "user", "content": [{"type": "document", "source": {"type": "content", "content": [{}]}}]}],
        [{"role": "assistant", "content": [{"type": "image", "source": {}}]}],
        [{"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": {}}]}],
        [{"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": "{}"}]}],
        [{"role": "system", "content": [{"type": "image"}]}],
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_refused_with_its_place(wrong: Any) -> None:
    with pytest.raises(InvalidRequest, match="messages"):
        messages_to_chat({"messages": wrong}, Dropped())
