"""Chat requests → Responses: golden files, capabilities, reasoning that goes back, what is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from gateway.dialects.capabilities import Capabilities
from gateway.dialects.openai_responses_from_chat import count_from_chat, request_from_chat
from gateway.dialects.openai_responses_reply import reply_to_chat
from gateway.errors import InvalidRequest
from tests.support import golden
from tests.support.recordings import Recordings

USER = {"role": "user", "content": "hi"}
CAPS = Capabilities()


def made(caps: Capabilities = CAPS, **chat: Any) -> tuple[dict[str, Any], list[str]]:
    return request_from_chat({"messages": [USER], **chat}, "m", caps=caps)


@pytest.mark.parametrize(("case", "document"), golden.cases("openai_responses", "from_chat").items())
def test_golden(case: str, document: Any) -> None:
    chat = document["input"]
    before = copy.deepcopy(chat)
    request, dropped = request_from_chat(chat, chat["model"], caps=CAPS)
    assert {"request": request, "dropped": dropped} == document["expected"]
    assert chat == before, "the parsed body belongs to the whole chain"


def test_nothing_is_stored_unless_asked() -> None:
    assert made()[0]["store"] is False
    assert made(store=True)[0]["store"] is True


@pytest.mark.parametrize(
    ("efforts", "asked", "sent", "dropped"),
    [
        (("low", "high"), "low", {"effort": "low"}, []),
        (("low", "high"), "max", {"effort": "high"}, ["reasoning_effort"]),
        (("low", "high"), "none", {"effort": "low"}, ["reasoning_effort"]),
        ((), "low", None, ["reasoning_effort"]),
    ],
)
def test_the_nearest_effort_the_model_knows(efforts: Any, asked: str, sent: Any, dropped: list[str]) -> None:
    request, lost = made(Capabilities(efforts=efforts), reasoning_effort=asked)
    assert (request.get("reasoning"), lost) == (sent, dropped)


def test_a_summary_is_asked_for_where_the_client_shows_reasoning() -> None:
    assert made(reasoning={"effort": "low"})[0]["reasoning"] == {"effort": "low", "summary": "auto"}
    assert made(reasoning={"effort": "low", "exclude": True})[0]["reasoning"] == {"effort": "low"}
    assert made(reasoning={"max_tokens": 5})[1] == ["reasoning.max_tokens"]
    assert made(Capabilities(efforts=("none", "low")), reasoning={"enabled": False})[0]["reasoning"] == {
        "effort": "none"
    }


def test_what_the_model_cannot_take_is_dropped_or_refused() -> None:
    request, dropped = made(Capabilities(sampling=False), temperature=1, top_p=1)
    assert "temperature" not in request and dropped == ["temperature", "top_p"]
    tool = {"type": "function", "function": {"name": "f"}}
    assert made(Capabilities(forced_tools=False), tools=[tool], tool_choice="required")[1] == ["tool_choice"]
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]
    with pytest.raises(InvalidRequest, match="takes no part of type 'image_url'"):
        made(Capabilities(images=False), messages=image)


def test_recorded_reasoning_goes_back_as_it_came(test_data: Recordings) -> None:
    first = test_data.interactions("openai-responses-400-modified-reasoning-history")[0]
    body = json.loads(first.response)
    message = reply_to_chat(body)["choices"][0]["message"]
    items = made(messages=[USER, message])[0]["input"]
    assert items[1] == body["output"][0]
    assert items[2]["content"][0]["text"] == body["output"][1]["content"][0]["text"]


def test_reasoning_returns_to_its_place_among_the_items() -> None:
    output = [
        {"type": "reasoning", "id": "r1", "summary": [], "encrypted_content": "a"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]},
        {"type": "reasoning", "id": "r2", "summary": [], "encrypted_content": "b"},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
    ]
    message = reply_to_chat({"output": output})["choices"][0]["message"]
    assert made(messages=[USER, message])[0]["input"][1:] == output


def test_foreign_reasoning_stays_behind() -> None:
    details = [{"type": "reasoning.text", "text": "hm", "signature": "s", "format": "anthropic-claude-v1"}]
    message = {"role": "assistant", "content": "x", "reasoning_content": "hm", "reasoning_details": details}
    request, dropped = made(messages=[USER, message])
    assert [item["type"] for item in request["input"]] == ["message", "message"]
    assert dropped == ["messages.reasoning_details"]


def test_a_custom_tools_answer_has_a_type_of_its_own() -> None:
    call = {"id": "1", "type": "custom", "custom": {"name": "p", "input": "x"}}
    turn = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1", "content": "ok"}]
    assert made(messages=turn)[0]["input"] == [
        {"type": "custom_tool_call", "call_id": "1", "name": "p", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "1", "output": "ok"},
    ]


def test_counting_asks_about_what_the_model_reads() -> None:
    chat = {"messages": [USER], "temperature": 1, "max_tokens": 5, "stream": True, "verbosity": "low"}
    request, _ = count_from_chat(chat, "m", caps=CAPS)
    assert set(request) == {"model", "input", "text"}


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ({"messages": []}, "messages: must be"),
        ({"messages": ["x"]}, r"messages\[0\]\.role"),
        ({"messages": [{"role": "function", "content": "x"}]}, r"messages\[0\]\.role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tool_call_id"),
        ({"messages": [{"role": "user", "content": 5}]}, r"messages\[0\]\.content"),
        ({"messages": [{"role": "assistant", "content": 5}]}, r"messages\[0\]\.content"),
        ({"messages": [{"role": "assistant", "content": [{"type": "image_url"}]}]}, r"content\[0\]"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]}, "with an id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {}}]}]}, "name and arguments"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"response_format": {"type": "json_schema"}}, "schema: must be"),
        ({"tools": 5}, "tools: must be"),
        ({"tools": [{"type": "web"}]}, r"tools\[0\]"),
        ({"tools": [{"type": "function", "function": {}}]}, r"tools\[0\]\.function\.name"),
    ],
)
def test_what_cannot_be_asked_is_refused(chat: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        made(**chat)
