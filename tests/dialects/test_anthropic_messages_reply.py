"""Whole answers and errors, Anthropic's ↔ canonical: golden files, recordings, the types of both official SDKs."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from gateway.dialects.anthropic_messages_reply import (
    error_body,
    error_event,
    error_to_chat,
    reply_from_chat,
    reply_to_chat,
)
from gateway.dialects.anthropic_usage import usage_of
from gateway.dialects.openai_chat import read_usage
from gateway.errors import UpstreamProtocolError
from tests.support import golden
from tests.support.recordings import Recordings

TO_CHAT = golden.cases("anthropic_messages", "reply_to_chat")
FROM_CHAT = golden.cases("anthropic_messages", "reply_from_chat")


def without_time(reply: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in reply.items() if name != "created"}


def answer(**message: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", **message.pop("choice", {})}
    return {"id": "1", "model": "m", "choices": [{**choice, "message": {"role": "assistant", **message}}]}


@pytest.mark.parametrize("case", TO_CHAT)
def test_golden_to_chat(case: str) -> None:
    reply = reply_to_chat(TO_CHAT[case]["input"])
    assert without_time(reply) == TO_CHAT[case]["expected"]
    pytest.importorskip("openai", reason="the openai SDK is not installed")
    from openai.types.chat import ChatCompletion

    ChatCompletion.model_validate(reply, strict=True)


@pytest.mark.parametrize("case", FROM_CHAT)
def test_golden_from_chat(case: str) -> None:
    document = FROM_CHAT[case]
    message = reply_from_chat(document["input"], document["request"])
    assert message == document["expected"]
    types = pytest.importorskip("anthropic.types", reason="the anthropic SDK is not installed")
    types.Message.model_validate(message)


def test_recorded_answers_survive_both_ways(test_data: Recordings) -> None:
    kept = ("content", "stop_reason", "stop_sequence", "model", "id")
    count = 0
    for name in test_data.names("anthropic"):
        for each in test_data.interactions(name):
            if each.streamed or each.status != 200:
                continue
            count += 1
            message = json.loads(each.response)
            chat = reply_to_chat(message)
            used = usage_of(message)
            assert used is not None
            # OpenAI has no words for the rest.
            assert read_usage(chat) == attrs.evolve(used, cache_write_1h_tokens=None, service_tier=None)
            back = reply_from_chat(chat, each.request_json)
            assert {field: back[field] for field in kept} == {field: message[field] for field in kept}
            assert back["usage"].items() <= message["usage"].items()
    assert count > 3


def test_a_text_says_nothing_of_citations_where_there_are_none() -> None:
    # The types of Anthropic's SDK have a null there; the API sends none, and Vercel's SDK refuses one.
    message = {"role": "assistant", "content": "Hello"}
    back = reply_from_chat({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}, {})
    assert back["content"] == [{"type": "text", "text": "Hello"}]


def test_recorded_errors_keep_their_message_and_get_openai_s_code(test_data: Recordings) -> None:
    told = {}
    for name in test_data.names("anthropic"):
        for each in test_data.interactions(name):
            if each.status >= 400:
                told[name] = error_to_chat(each.status, each.response)
    assert told["anthropic-404-model"] == ("model_not_found", "model: claude-sonet-4-5")
    assert told["anthropic-count-tokens-404"][0] == "model_not_found"
    assert told["anthropic-400-effort"][0] == "invalid_request_error"


def test_a_refusal_of_the_fixture_is_one(test_data: Recordings) -> None:
    raw = (test_data.folder.parent / "vercel-ai-fixtures" / "anthropic-refusal.json").read_bytes()
    chat = reply_to_chat(json.loads(raw))
    assert chat["choices"][0]["finish_reason"] == "content_filter"
    assert "Usage Policy" in chat["choices"][0]["message"]["refusal"]
    assert reply_from_chat(chat, {})["stop_reason"] == "refusal"


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"type": "error", "error": {}}, {"content": "x"}, {"content": ["x"]}, {"content": [{"type": "text"}]},
        {"content": [{"type": "tool_use", "id": "1"}]},
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(wrong: Any) -> None:
    with pytest.raises(UpstreamProtocolError):
        reply_to_chat(wrong)


@pytest.mark.parametrize("wrong", [{}, {"choices": []}, {"choices": ["x"]}, {"choices": [{"message": "x"}]}])
def test_what_is_no_chat_completion_is_refused(wrong: Any) -> None:
    with pytest.raises(UpstreamProtocolError):
        reply_from_chat(wrong, {})


def test_a_call_that_is_no_json_is_an_error_unless_it_was_cut_off() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": '}}
    with pytest.raises(UpstreamProtocolError, match="no JSON"):
        reply_from_chat(answer(tool_calls=[call]), {})
    cut = reply_from_chat(answer(content="I call", tool_calls=[call], choice={"finish_reason": "length"}), {})
    assert [block["type"] for block in cut["content"]] == ["text"]
    assert cut["stop_reason"] == "max_tokens"


def test_calls_without_ids_and_a_finish_that_does_not_tell_of_them() -> None:
    call = {"function": {"name": "f", "arguments": None}, "extra_content": {"google": {"thought_signature": "s"}}}
    made = reply_from_chat(answer(content=[{"type": "text", "text": "x"}], tool_calls=[call]), {})
    assert [block["type"] for block in made["content"]] == ["text", "redacted_thinking", "tool_use"]
    call_id = made["content"][-1].pop("id")
    assert made["content"][-1] == {"type": "tool_use", "name": "f", "input": {}}
    assert call_id.startswith("toolu_")
    again = reply_from_chat(answer(tool_calls=[call]), {})
    assert again["content"][-1]["id"] != call_id, "one name for one call in all the conversation"
    assert made["stop_reason"] == "tool_use"


def test_a_found_stop_sequence_is_told() -> None:
    made = reply_from_chat(answer(content="x", choice={"stop_reason": "END"}), {})
    assert (made["stop_reason"], made["stop_sequence"]) == ("stop_sequence", "END")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"), (401, "authentication_error"), (402, "billing_error"),
        (403, "permission_error"), (404, "not_found_error"), (409, "conflict_error"), (413, "request_too_large"),
        (422, "invalid_request_error"), (429, "rate_limit_error"), (500, "api_error"), (502, "api_error"),
        (503, "overloaded_error"), (504, "timeout_error"), (529, "overloaded_error"),
    ],
)  # fmt: skip
def test_errors_have_the_type_clients_decide_by(status: int, kind: str) -> None:
    body = json.loads(error_body(status, "code", "No.", "req_1"))
    assert body == {"type": "error", "error": {"type": kind, "message": "No."}, "request_id": "req_1"}
    assert error_event(status, "code", "No.", "req_1") == (
        b"event: error\ndata: " + error_body(status, "code", "No.", "req_1") + b"\n\n"
    )


def test_a_prompt_that_is_too_long_is_said_in_the_words_claude_code_acts_on() -> None:
    body = json.loads(error_body(400, "context_length_exceeded", "Maximum is 8192 tokens.", ""))
    assert body["error"]["message"] == "prompt is too long: Maximum is 8192 tokens."
    assert body["request_id"] is None
    code, message = error_to_chat(400, json.dumps(body).encode())
    assert code == "context_length_exceeded"
    assert json.loads(error_body(400, code, message, ""))["error"]["message"] == message


@pytest.mark.parametrize(
    ("status", "raw", "told"),
    [
        (429, b'{"error":{"type":"rate_limit_error","message":"Slow"}}', ("rate_limit_exceeded", "Slow")),
        (529, b"", ("overloaded", "The provider answered 529.")),
        (502, b"<html>bad</html>", ("api_error", "<html>bad</html>")),
        (500, b"[]", ("api_error", "The provider answered 500.")),
        (400, b'{"error":"No."}', ("invalid_request_error", "No.")),
        (404, b'{"error":{"type":"not_found_error","message":"Not here."}}', ("not_found_error", "Not here.")),
    ],
)  # fmt: skip
def test_errors_of_any_shape_are_told(status: int, raw: bytes, told: tuple[str, str]) -> None:
    assert error_to_chat(status, raw) == told
