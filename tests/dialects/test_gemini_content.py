"""Messages → Gemini's contents: roles, parts, calls and their results, signatures."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import gemini_thoughts
from gateway.dialects.capabilities import Capabilities
from gateway.dialects.dropped import Dropped
from gateway.dialects.gemini_content import Contents
from gateway.errors import InvalidRequest


def contents(*messages: Any, **caps: Any) -> list[dict[str, Any]]:
    return Contents(list(messages), Capabilities(**caps), Dropped()).contents


def part(**fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = contents({"role": "user", "content": [fields]})[0]["parts"][0]
    return made


def call(name: str, call_id: str | None, **more: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}, **more}


def calls(*made: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(made)}


def test_a_chat_of_instructions_alone_still_asks() -> None:
    said = Contents([{"role": "system", "content": "Greet."}], Capabilities(), Dropped())
    assert said.contents == [{"role": "user", "parts": [{"text": "Greet."}]}] and said.system == []


def test_empty_messages_are_no_contents() -> None:
    empty = [{"role": "assistant", "content": ""}, {"role": "user", "content": None}]
    assert contents({"role": "user", "content": "a"}, *empty) == [{"role": "user", "parts": [{"text": "a"}]}]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"type": "image_url", "image_url": "DATA:image/PNG;base64,aGk="},
         {"inlineData": {"mimeType": "image/png", "data": "aGk="}}),
        ({"type": "image_url", "image_url": {"url": "https://example.com/x"}},
         {"fileData": {"fileUri": "https://example.com/x"}}),
        ({"type": "input_audio", "input_audio": {"data": "aGk=", "format": "flac"}},
         {"inlineData": {"mimeType": "audio/flac", "data": "aGk="}}),
        ({"type": "file", "file": {"filename": "a.txt", "file_data": "aGk="}},
         {"inlineData": {"mimeType": "text/plain", "data": "aGk="}}),
        ({"type": "file", "file": {"file_id": "https://example.com/v1beta/files/1", "format": "video/mp4"}},
         {"fileData": {"fileUri": "https://example.com/v1beta/files/1", "mimeType": "video/mp4"}}),
        ({"type": "refusal", "refusal": "No."}, {"text": "No."}),
    ],
)  # fmt: skip
def test_parts(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert part(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "must be a data:, http"),
        ({"type": "image_url", "image_url": {"url": "data:image/png,hi"}}, "encoded in base64"),
        ({"type": "image_url", "image_url": {}}, "url: must be a string"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "no file_id of another one"),
        ({"type": "file", "file": {"file_data": "aGk="}}, "the filename must tell the type"),
        ({"type": "hologram"}, "takes text, image_url, input_audio and file"),
    ],
)
def test_what_cannot_be_shown_is_refused(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        part(**fields)


@pytest.mark.parametrize(
    ("able", "fields"),
    [("images", {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}),
     ("audio", {"type": "input_audio", "input_audio": {"data": ""}}),
     ("documents", {"type": "file", "file": {"file_data": "data:application/pdf;base64,"}})],
)  # fmt: skip
def test_a_model_that_cannot_take_a_part_is_not_given_it(able: str, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="this model does not take"):
        contents({"role": "user", "content": [fields]}, **{able: False})


def result(**fields: Any) -> dict[str, Any]:
    return {"role": "tool", "content": "x", **fields}


def test_results_without_ids_answer_calls_in_order_or_by_name() -> None:
    made = contents(calls(call("f", None), call("g", None)), result(name="g"), result())
    assert [each["functionResponse"]["name"] for each in made[1]["parts"]] == ["g", "f"]
    assert "id" not in made[0]["parts"][0]["functionCall"] and "id" not in made[1]["parts"][0]["functionResponse"]


def test_an_id_used_again_means_the_latest_call() -> None:
    made = contents(calls(call("f", "1")), result(tool_call_id="1"), calls(call("g", "1")), result(tool_call_id="1"))
    assert [each["parts"][0]["functionResponse"]["name"] for each in made[1::2]] == ["f", "g"]


def test_a_result_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^messages\[0\].tool_call_id: answers no tool call"):
        contents(result(tool_call_id="1"))


@pytest.mark.parametrize(
    ("content", "response"),
    [('{"a": 1}', {"a": 1}), ("[1]", {"output": "[1]"}), ("", {"output": ""}), ('{"a": NaN}', {"output": '{"a": NaN}'}),
     ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], {"output": "a\nb"})],
)  # fmt: skip
def test_a_result_is_an_object(content: Any, response: Any) -> None:
    made = contents(calls(call("f", "1")), result(tool_call_id="1", content=content))
    assert made[1]["parts"][0]["functionResponse"]["response"] == response


def detail(**fields: Any) -> dict[str, Any]:
    return {"type": "reasoning.encrypted", "format": gemini_thoughts.FORMAT, **fields}


def test_a_signature_that_names_a_call_goes_onto_it() -> None:
    message = calls(call("f", "1"), call("g", "2")) | {"reasoning_details": [detail(data="czI=", id="2")]}
    assert [each.get("thoughtSignature") for each in contents(message)[0]["parts"]] == [None, "czI="]


def test_several_signatures_keep_their_order() -> None:
    message = {"role": "assistant", "content": "a", "reasoning_details": [detail(data="1"), detail(data="2")]}
    signed = [{"text": "", "thoughtSignature": "1"}, {"text": "a", "thoughtSignature": "2"}]
    assert contents(message)[0]["parts"] == signed


def test_google_s_own_place_for_a_message_s_signature() -> None:
    message = {"role": "assistant", "content": "a", "extra_content": {"google": {"thought_signature": "1"}}}
    assert contents(message)[0]["parts"] == [{"text": "a", "thoughtSignature": "1"}]


def test_unsigned_thoughts_are_left_out_and_said() -> None:
    dropped = Dropped()
    Contents([{"role": "assistant", "content": "a", "reasoning_content": "b"}], Capabilities(), dropped)
    assert dropped.names == ["messages.reasoning_content"]


def test_the_dummy_stands_only_where_no_signature_is() -> None:
    signed = call("f", "1", extra_content={"google": {"thought_signature": "1"}})
    made = contents(calls(signed), calls(call("g", "2")), signed_calls=True)
    assert [each["parts"][0]["thoughtSignature"] for each in made] == ["1", "skip_thought_signature_validator"]


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ([], "^messages: must be a list with"),
        ("hi", "^messages: must be a list"),
        ([{"role": "function"}], r"^messages\[0\].role: must be one of"),
        ([{"role": "user", "content": 5}], r"^messages\[0\].content: must be a string or a list"),
        ([calls({"id": "1"})], r"tool_calls\[0\].function.name: must be a string"),
        ([{"role": "assistant", "tool_calls": {"a": 1}}], "tool_calls: must be a list"),
        ([calls({"function": {"name": "f", "arguments": "{"}})], "arguments: is not valid JSON"),
        ([calls({"function": {"name": "f", "arguments": "[]"}})], "arguments: must be a JSON object"),
        ([{"role": "system", "content": [{"type": "image_url", "image_url": "data:image/png;base64,"}]}], "only text"),
    ],
)
def test_what_is_no_message_is_refused(messages: Any, match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        Contents(messages, Capabilities(), Dropped())


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = ("content", "tool_calls", "tool_call_id", "name", "refusal", "reasoning_details", "images", "extra_content")
any_messages = st.lists(
    st.dictionaries(st.sampled_from(NAMES), json_values).flatmap(
        lambda rest: st.sampled_from(["system", "user", "assistant", "tool"]).map(lambda role: {"role": role, **rest})
    ),
    min_size=1,
    max_size=3,
)


@given(any_messages)
def test_any_messages_are_translated_or_refused(messages: list[Any]) -> None:
    try:
        json.dumps(Contents(messages, Capabilities(), Dropped()).contents)
    except InvalidRequest:
        pass
