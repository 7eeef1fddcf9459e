"""Whole Responses answers ↔ chat completions: golden files, recordings, the official SDK's types."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from gateway.dialects.openai_responses_reply import (
    count_reply,
    error_to_chat,
    reply_from_chat,
    reply_to_chat,
    usage_of,
)
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage
from tests.support import golden
from tests.support.recordings import Interaction, Recordings

DONE: dict[str, Any] = {"object": "response", "status": "completed", "output": []}


def recorded(test_data: Recordings) -> list[Interaction]:
    """Whole answers of /responses; those of its sub-routes are other objects."""
    found = [each for name in test_data.names("openai-responses") for each in test_data.interactions(name)]
    return [each for each in found if each.path == "/v1/responses" and each.status == 200 and not each.streamed]


@pytest.mark.parametrize(("case", "document"), golden.cases("openai_responses", "reply_to_chat").items())
def test_golden_to_chat(case: str, document: Any) -> None:
    chat = reply_to_chat(document["input"])
    assert chat == document["expected"]
    ChatCompletion.model_validate(chat)


@pytest.mark.parametrize(("case", "document"), golden.cases("openai_responses", "reply_from_chat").items())
def test_golden_from_chat(case: str, document: Any) -> None:
    response = reply_from_chat(document["input"]["chat"], document["input"]["request"], answer_id="a1")
    assert response == document["expected"]
    Response.model_validate(response)


def test_recorded_answers_go_there_and_back(test_data: Recordings) -> None:
    found = recorded(test_data)
    assert len(found) > 5
    for each in found:
        body = orjson.loads(each.response)
        chat = reply_to_chat(body)
        ChatCompletion.model_validate(chat)
        again = reply_from_chat(chat, each.request_json)
        Response.model_validate(again)
        back = reply_to_chat(again)
        message, returned = chat["choices"][0]["message"], back["choices"][0]["message"]
        assert returned == message
        assert back["choices"][0]["finish_reason"] == chat["choices"][0]["finish_reason"]
        used = usage_of(body)
        assert used is not None and usage_of(again) == Usage(
            used.input_tokens,
            used.output_tokens,
            used.cached_tokens,
            used.cache_write_tokens or 0,
            used.reasoning_tokens,
            service_tier="default",  # what the answer repeats of a request that names none
        )


def test_ids_are_new_each_time_and_one_within_an_answer() -> None:
    chat = {"choices": [{"message": {"content": "x", "reasoning_content": "y"}, "finish_reason": "stop"}]}
    first, second = reply_from_chat(chat, {}), reply_from_chat(chat, {})
    assert first["id"].startswith("resp_") and first["id"] != second["id"]
    assert len({item["id"] for item in [*first["output"], *second["output"]]}) == 4


@pytest.mark.parametrize("chat", [{}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": 5}]}])
def test_what_is_no_completion_is_the_providers_fault(chat: Any) -> None:
    with pytest.raises(UpstreamProtocolError):
        reply_from_chat(chat, {})


@pytest.mark.parametrize(
    "body",
    [None, [], {}, {"output": 5}, {**DONE, "status": "in_progress"}, {**DONE, "output": [5]},
     {**DONE, "output": [{"type": "message"}]}, {**DONE, "output": [{"type": "function_call"}]}],
)  # fmt: skip
def test_what_is_no_response_is_the_providers_fault(body: Any) -> None:
    with pytest.raises(UpstreamProtocolError):
        reply_to_chat(body)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_failed_response_is_an_error(status: str) -> None:
    with pytest.raises(StreamError) as caught:
        reply_to_chat({**DONE, "status": status, "error": {"code": "server_error", "message": "m"}})
    assert (caught.value.status, caught.value.message) == (500, "m")


@pytest.mark.parametrize(("reason", "finish"), [("max_output_tokens", "length"), ("content_filter", "content_filter")])
def test_an_incomplete_response_says_why(reason: str, finish: str) -> None:
    chat = reply_to_chat({**DONE, "status": "incomplete", "incomplete_details": {"reason": reason}})
    assert chat["choices"][0]["finish_reason"] == finish


def test_hosted_tools_leave_no_trace() -> None:
    assert reply_to_chat({**DONE, "output": [{"type": "web_search_call"}]})["choices"][0]["message"]["content"] == ""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error":{"code":"model_not_found","message":"m"}}', ("model_not_found", "m")),
        (b'{"error":"m"}', ("upstream_error", "m")),
        (b"<html>", ("upstream_error", "<html>")),
        (b"", ("upstream_error", "The provider answered 500.")),
    ],
)
def test_whole_errors(body: bytes, expected: tuple[str, str]) -> None:
    assert error_to_chat(500, body) == expected


def test_the_answer_to_a_count() -> None:
    assert count_reply(5) == {"object": "response.input_tokens", "input_tokens": 5}
