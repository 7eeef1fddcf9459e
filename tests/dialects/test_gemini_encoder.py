"""Canonical chunks → Gemini's streams: framing, what is kept back, Google's own types, recordings there and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.gemini_encoder import Encoder
from gateway.errors import UpstreamProtocolError
from tests.support import gemini as support
from tests.support.recordings import Recordings

THOUGHTS = {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}}


def chunk(delta: Any = None, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    return {"id": "x", "model": "m", "choices": [choice], **more}


USAGE = {"id": "x", "model": "m", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def encoded(*chunks: Any, request: Any = None, sse: bool = True) -> bytes:
    encoder = Encoder(request or {}, sse)
    return b"".join([encoder.feed(each) for each in chunks]) + encoder.end()


def test_a_stream_of_events() -> None:
    said = encoded(chunk({"role": "assistant", "content": ""}), chunk({"content": "Hi"}), chunk({}, "stop"), USAGE)
    head = b'"modelVersion":"m","responseId":"x"}\r\n\r\n'
    assert said == (
        b'data: {"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"},"index":0}],' + head
        + b'data: {"candidates":[{"content":{"parts":[{"text":""}],"role":"model"},"index":0,"finishReason":"STOP"}],'
        + b'"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":2,"totalTokenCount":5},' + head
    )  # fmt: skip


def test_a_stream_as_an_array() -> None:
    chunks = (chunk({"content": "Hi"}), chunk({}, "length"))
    said = json.loads(encoded(*chunks, sse=False))
    assert said == support.pieces(encoded(*chunks))
    assert [each["candidates"][0].get("finishReason") for each in said] == [None, "MAX_TOKENS"]


def test_before_the_end_nothing_says_that_it_is_complete() -> None:
    encoder = Encoder({})
    said = encoder.feed(chunk({"content": "Hi"})) + encoder.feed(chunk({}, "stop")) + encoder.feed(USAGE)
    assert b"finishReason" not in said


def test_calls_are_whole_however_they_came() -> None:
    def fragment(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        function = {"arguments": arguments, **({"name": more.pop("name")} if "name" in more else {})}
        return chunk({"tool_calls": [{"index": index, "function": function, **more}]})

    signature = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    said = support.pieces(
        encoded(
            fragment(0, "", name="f", id="1", **signature),
            fragment(1, '{"b":', name="g", id="2"),
            fragment(0, '{"a": 1}'),
            fragment(1, "2}"),
            chunk({}, "tool_calls"),
        )
    )
    assert said[0]["candidates"][0]["content"]["parts"] == [
        {"functionCall": {"id": "1", "name": "f", "args": {"a": 1}}, "thoughtSignature": "c2ln"},
        {"functionCall": {"id": "2", "name": "g", "args": {"b": 2}}},
    ]
    assert said[1]["candidates"][0]["finishReason"] == "STOP"


def test_a_call_that_is_not_json_is_an_error() -> None:
    call = {"index": 0, "id": "1", "function": {"name": "f", "arguments": "{"}}
    with pytest.raises(UpstreamProtocolError, match="arguments that are not JSON"):
        encoded(chunk({"tool_calls": [call]}), chunk({}, "tool_calls"))


def test_thoughts_only_for_those_who_ask() -> None:
    thought = chunk({"reasoning_content": "Hm."})
    assert b"Hm." not in encoded(thought, chunk({}, "stop"))
    said = support.pieces(encoded(thought, chunk({}, "stop"), request=THOUGHTS))
    assert said[0]["candidates"][0]["content"]["parts"] == [{"text": "Hm.", "thought": True}]


def test_choices_stay_apart() -> None:
    said = support.told(
        support.pieces(encoded(chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk({}, "stop"),
                               chunk({}, "length", 1)))
    )  # fmt: skip
    assert said["finish"] == {0: "STOP", 1: "MAX_TOKENS"}


@pytest.mark.parametrize("sse", [True, False])
def test_an_error_ends_the_stream_in_its_framing(sse: bool) -> None:
    encoder = Encoder({}, sse)
    said = support.pieces(encoder.feed(chunk({"content": "a"})) + encoder.error(503, "overloaded", "Busy.", "id1"))
    assert said[-1]["error"]["status"] == "UNAVAILABLE"
    assert len(support.pieces(Encoder({}, sse).error(503, "overloaded", "Busy.", "id1"))) == 1


def test_recorded_streams_survive_the_way_there_and_back(test_data: Recordings) -> None:
    seen = 0
    for interaction in support.recorded(test_data, True):
        chunks = support.decoded([interaction.response])
        recorded = support.pieces(interaction.response)
        for sse in (True, False):
            said = support.pieces(encoded(*chunks, request=interaction.request_json, sse=sse))
            assert support.plain(support.told(said)) == support.plain(support.told(recorded))
            for each in said:
                support.check(each)
        seen += 1
    assert seen >= 8


deltas = st.lists(
    st.fixed_dictionaries({}, optional={"content": st.text(max_size=5), "reasoning_content": st.text(max_size=5)}),
    max_size=5,
)


@given(deltas, st.booleans())
def test_what_is_encoded_is_decoded_again(some: list[Any], sse: bool) -> None:
    chunks = [chunk(delta) for delta in some] + [chunk({}, "stop"), USAGE]
    back = support.decoded([encoded(*chunks, request=THOUGHTS, sse=sse)])
    was, now = support.joined(chunks)[0], support.joined(back)[0]
    assert (now["content"], now["reasoning_content"]) == (was["content"], was["reasoning_content"])
    assert back[-1]["usage"]["prompt_tokens"] == 3


@pytest.mark.parametrize("choices", [[1], {"a": 1}, [{"delta": []}, {"delta": 5}], [{"delta": {"tool_calls": [1]}}]])
def test_what_is_no_chunk_is_an_error(choices: Any) -> None:
    with pytest.raises(UpstreamProtocolError, match="not a chunk"):
        Encoder({}).feed({"choices": choices})
