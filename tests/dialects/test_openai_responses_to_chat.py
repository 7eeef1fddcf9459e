"""Responses requests → chat: golden files, what Codex sends, what is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from gateway.dialects.capabilities import Capabilities
from gateway.dialects.openai_responses_from_chat import request_from_chat
from gateway.dialects.openai_responses_to_chat import request_to_chat
from gateway.errors import InvalidRequest
from tests.support import golden
from tests.support.recordings import Recordings

USER = {"role": "user", "content": "hi"}


def messages(*items: Any, **more: Any) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = request_to_chat({"model": "m", "input": list(items), **more})[0]["messages"]
    return made


def call(call_id: str, name: str = "f", **more: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": "{}", **more}


def output(call_id: str, told: Any = "ok") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": told}


@pytest.mark.parametrize(("case", "document"), golden.cases("openai_responses", "to_chat").items())
def test_golden(case: str, document: Any) -> None:
    body = document["input"]
    before = copy.deepcopy(body)
    chat, dropped = request_to_chat(body)
    assert {"chat": chat, "dropped": dropped} == document["expected"]
    assert body == before, "the parsed body belongs to the whole chain"


def test_what_clients_really_send_translates(test_data: Recordings) -> None:
    lines = (test_data.folder.parent / "client-requests.trimmed.jsonl").read_text().splitlines()
    sent = [each for each in map(json.loads, lines) if each["path"].startswith("/v1/responses") and each["body"]]
    assert len(sent) > 10
    for each in sent:
        chat, dropped = request_to_chat(each["body"])
        codex = each["client"].startswith("codex")
        assert dropped == (["tools.web_search", "client_metadata"] if codex else [])
        if codex:
            names = [tool["function"]["name"] for tool in chat["tools"]]
            assert len(names) == 12 and "multi_agent_v1__spawn_agent" in names
            assert [message["role"] for message in chat["messages"]] == ["developer", "developer", "user", "user"]


def test_one_turn_of_the_model_is_one_message() -> None:
    reasoning = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]}
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Look."}]}
    made = messages(USER, reasoning, said, call("1"), call("2"), output("1"), output("2"), reasoning, said, USER)
    assert [message["role"] for message in made] == ["user", "assistant", "tool", "tool", "assistant", "user"]
    assert made[1]["content"] == "Look." and made[1]["reasoning_content"] == "hm"
    assert [each["id"] for each in made[1]["tool_calls"]] == ["1", "2"]
    assert "tool_calls" not in made[4]


def test_messages_of_the_model_in_a_row_stay_apart_unless_calls_would_lose_their_results() -> None:
    said = {"role": "assistant", "content": "a"}
    assert [m["content"] for m in messages(USER, said, said)] == ["hi", "a", "a"]
    made = messages(USER, said, call("1"), said, output("1"))
    assert [m["role"] for m in made] == ["user", "assistant", "tool"] and made[1]["content"] == "aa"


def test_reasoning_of_openai_keeps_its_encrypted_text() -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
    made = messages(USER, reasoning, call("1"), output("1"))
    assert made[1]["reasoning_details"] == [
        {"type": "reasoning.encrypted", "data": "gAAA", "id": "rs_1", "format": "openai-responses-v1", "index": 0}
    ]


def test_thoughts_that_led_to_nothing_are_told_as_dropped() -> None:
    reasoning = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]}
    assert request_to_chat({"input": [USER, reasoning, USER]})[1] == ["input.reasoning"]


def test_a_tool_may_answer_with_images() -> None:
    parts = [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "data:image/png;base64,aGk="}]
    assert messages(call("1"), output("1", parts))[1]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id: this provider stores no responses"),
        ({"conversation": "c"}, "conversation: "),
        ({"background": True}, "background: "),
        ({"prompt": {"id": "p"}}, "prompt: "),
        ({"input": [{"type": "item_reference", "id": "x"}]}, r"input\[0\]: this provider stores no items"),
        ({"input": [{"id": "x"}]}, r"input\[0\]: this provider stores no items"),
        ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, r"input\[0\]\.type: .*'compaction'"),
        ({"input": []}, "input: there is nothing"),
        ({"input": 5}, "input: must be"),
        ({"input": ["x"]}, r"input\[0\]: must be an object"),
        ({"input": [{"role": "tool", "content": ""}]}, r"input\[0\]\.role"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "image_url: must be a URL",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_video"}]}]}, r"content\[0\]\.type"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, r"content\[0\]\.text"),
        ({"input": [{"role": "user", "content": None}]}, "content: must be"),
        ({"input": [{"role": "assistant", "content": [{"type": "output_text"}]}]}, r"content\[0\]"),
        ({"input": [{"role": "assistant", "content": 1}]}, "content: must be"),
        ({"input": [{"type": "function_call", "name": "f"}]}, r"input\[0\]: name, call_id and arguments"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, r"input\[0\]\.call_id"),
        ({"instructions": ["x"]}, "instructions: must be"),
        ({"include": "x"}, "include: must be"),
        ({"text": {"format": {"type": "xml"}}}, r"text\.format\.type"),
        ({"input": [{"type": {"a": 1}}]}, r"input\[0\]\.type"),
    ],
)
def test_what_cannot_be_asked_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        request_to_chat({"model": "m", "input": "hi", **fields})


def test_store_is_told_as_dropped_where_it_was_asked_for() -> None:
    assert request_to_chat({"input": "hi", "store": True})[1] == ["store"]
    assert request_to_chat({"input": "hi", "store": False})[1] == []


def test_there_and_back_keeps_what_both_can_say() -> None:
    request = {
        "model": "m", "store": False, "stream": True, "temperature": 0.5, "top_p": 0.9, "max_output_tokens": 9,
        "parallel_tool_calls": False, "metadata": {"a": "b"}, "prompt_cache_key": "k",
        "reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"],
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
                 "verbosity": "low"},
        "tools": [{"type": "function", "name": "f", "description": "d", "strict": True,
                   "parameters": {"type": "object"}}],
        "tool_choice": {"type": "function", "name": "f"},
        "input": [
            {"type": "message", "role": "developer", "content": "Be kind."},
            {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "see"},
                {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="},
                {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}],
             "encrypted_content": "gAAA"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Look."}]},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "ok"},
        ],
    }  # fmt: skip
    chat, dropped = request_to_chat(request)
    again, lost = request_from_chat(chat, "m", caps=Capabilities())
    assert dropped == lost == []
    assert again == request
