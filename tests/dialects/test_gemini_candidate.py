"""Parts of a candidate → deltas; arguments in pieces; reasons."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.gemini_candidate import Candidate
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError


def read(*pieces: Any, reason: str | None = None) -> list[dict[str, Any]]:
    candidate = Candidate(0, "r1")
    deltas = [delta for parts in pieces for delta in candidate.read({"content": {"parts": parts}})]
    return deltas + list(candidate.read({"finishReason": reason})) if reason else deltas


def arguments(*partial: Any) -> Any:
    """What ``partialArgs`` in events of their own add up to."""
    begin = [{"functionCall": {"name": "f", "willContinue": True}}]
    more = [[{"functionCall": {"partialArgs": each, "willContinue": True}}] for each in partial]
    *_, last = read(begin, *more, [{"functionCall": {}}])
    return json.loads(last["tool_calls"][0]["function"]["arguments"])


def at(path: str, **value: Any) -> dict[str, Any]:
    return {"jsonPath": path, **value}


def test_arguments_in_pieces() -> None:
    assert arguments(
        [at("$.city", stringValue="Bos", willContinue=True)],
        [at("$.city", stringValue="ton"), at("$.days", numberValue=3.0), at("$.exact", numberValue=0.5)],
        [at("$.list[0].a", boolValue=True), at("$.list[1]['b.c']", nullValue="NULL_VALUE")],
        [at('$["it\\"s"]', stringValue="x")],
    ) == {"city": "Boston", "days": 3, "exact": 0.5, "list": [{"a": True}, {"b.c": None}], 'it"s': "x"}


def test_a_path_written_twice_is_replaced_unless_it_went_on() -> None:
    assert arguments([at("$.a", stringValue="x")], [at("$.a", stringValue="y")]) == {"a": "y"}


@pytest.mark.parametrize("path", ["", "$", "a", "$.", "$.a[", "$.a[99]", "$..a", "$.a[1].b", "$" + ".a" * 100])
def test_a_path_that_leads_nowhere_is_an_error(path: str) -> None:
    with pytest.raises(UpstreamProtocolError):
        arguments([at(path, stringValue="x")])


def test_a_path_through_a_value_is_an_error() -> None:
    with pytest.raises(UpstreamProtocolError):
        arguments([at("$.a", stringValue="x"), at("$.a.b", stringValue="x")])


def test_an_open_call_is_closed_by_the_next_one_and_by_the_end() -> None:
    call = [{"functionCall": {"name": "f", "willContinue": True, "partialArgs": [at("$.a", numberValue=1)]}}]
    deltas = [delta["tool_calls"][0] for delta in read(call, call, reason="STOP")]
    assert [(each["index"], each["function"]["arguments"]) for each in deltas] == [
        (0, ""), (0, '{"a":1}'), (1, ""), (1, '{"a":1}'),
    ]  # fmt: skip
    assert deltas[0]["id"] != deltas[2]["id"]


def test_a_call_keeps_its_own_id() -> None:
    first, rest = read([{"functionCall": {"name": "f", "id": "own", "args": {"a": 1}}, "thoughtSignature": "c2ln"}])
    assert first["tool_calls"][0]["id"] == "own"
    assert first["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert rest["tool_calls"][0] == {"index": 0, "function": {"arguments": '{"a":1}'}}


def test_sound_and_pictures() -> None:
    sound, picture = read([{"inlineData": {"mimeType": "audio/wav", "data": "aGk="}},
                           {"inlineData": {"mimeType": "image/png", "data": "aGk="}}])  # fmt: skip
    assert sound["audio"]["data"] == "aGk="
    assert picture["images"][0]["image_url"]["url"] == "data:image/png;base64,aGk="


@pytest.mark.parametrize(
    ("reason", "spoke", "expected"),
    [
        ("STOP", True, ("stop", None)),
        ("MAX_TOKENS", False, ("length", None)),
        ("SAFETY", False, ("content_filter", "The answer was withheld: SAFETY.")),
        ("SPII", True, ("content_filter", None)),
        ("LANGUAGE", True, ("stop", None)),
        ("MALFORMED_FUNCTION_CALL", True, ("stop", None)),
        ("A_NEW_ONE", False, ("stop", None)),
    ],
)
def test_reasons(reason: str, spoke: bool, expected: Any) -> None:
    candidate = Candidate(0, "r1")
    parts = [{"text": "a"}] if spoke else []
    list(candidate.read({"content": {"parts": parts}, "finishReason": reason}))
    assert candidate.finish() == expected


def test_calls_are_the_reason_where_there_are_any() -> None:
    candidate = Candidate(0, "r1")
    list(candidate.read({"content": {"parts": [{"functionCall": {"name": "f"}}]}, "finishReason": "STOP"}))
    assert candidate.finish() == ("tool_calls", None)


def test_a_generation_that_came_to_nothing_is_an_error() -> None:
    candidate = Candidate(0, "r1")
    list(candidate.read({"finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": "Malformed: f("}))
    with pytest.raises(StreamError, match="Malformed: f") as caught:
        candidate.finish()
    assert (caught.value.status, caught.value.code) == (502, "malformed_function_call")


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = ("text", "thought", "functionCall", "inlineData", "executableCode", "thoughtSignature")


@given(st.lists(st.dictionaries(st.sampled_from(NAMES), json_values), max_size=3) | json_values, json_values)
def test_any_candidate_is_read_or_an_error_of_ours(parts: Any, grounding: Any) -> None:
    try:
        json.dumps(list(Candidate(0, "r").read({"content": {"parts": parts}, "groundingMetadata": grounding})))
    except UpstreamProtocolError:
        pass
