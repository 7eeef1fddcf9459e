"""Output items as they grow; what the events say is in test_openai_responses_stream."""

from __future__ import annotations

from gateway.dialects.openai_responses_output import Output


def test_a_response_begins_with_what_is_known_and_stands_at_any_time() -> None:
    output = Output({"model": "asked"}, "a1")
    first, second = output.chunk({"choices": []})
    assert (first["type"], second["type"]) == ("response.created", "response.in_progress")
    assert first["response"]["status"] == "in_progress" and first["response"]["model"] == "asked"
    assert first["response"]["created_at"] > 0 and first["response"]["usage"] is None
    output.chunk({"choices": [{"delta": {"content": "x"}}]})
    assert output.response("in_progress")["output"] == []
    assert [item["status"] for item in output.response()["output"]] == ["in_progress"]


def test_further_choices_are_not_mixed_in() -> None:
    output = Output({}, "a1")
    output.chunk({"choices": [{"index": 1, "delta": {"content": "no"}}, {"index": 0, "delta": {"content": "yes"}}]})
    output.end()
    assert output.response()["output"][0]["content"][0]["text"] == "yes"


def test_what_an_event_said_is_not_changed_by_what_follows() -> None:
    output = Output({}, "a1")
    added = output.chunk({"choices": [{"delta": {"content": "x"}}]})[2]
    output.end()
    assert added["item"]["status"] == "in_progress" and added["item"]["content"] == []


def test_text_behind_a_call_is_a_message_of_its_own() -> None:
    output = Output({}, "a1")
    call = {"index": 0, "id": "1", "function": {"name": "f", "arguments": "{}"}}
    for delta in ({"content": "a"}, {"tool_calls": [call]}, {"content": "b"}):
        output.chunk({"choices": [{"delta": delta}]})
    output.end()
    assert [item["type"] for item in output.response()["output"]] == ["message", "function_call", "message"]


def test_a_call_cut_off_gets_no_arguments_invented() -> None:
    output = Output({}, "a1")
    output.chunk({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "f"}}]}}]})
    output.chunk({"choices": [{"delta": {}, "finish_reason": "length"}]})
    output.end()
    item = output.response()["output"][0]
    assert (item["arguments"], item["status"]) == ("", "incomplete")


def test_reasoning_under_openrouters_name_and_in_details_alone() -> None:
    for delta in (
        {"reasoning": "hm"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]},
    ):
        output = Output({}, "a1")
        output.chunk({"choices": [{"delta": delta}]})
        output.end()
        item = output.response()["output"][0]
        assert item["content"] == [{"type": "reasoning_text", "text": "hm"}] and "encrypted_content" not in item
