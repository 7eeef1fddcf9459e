"""What a chat stream's events say: usage in every place providers put it, errors, the end."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.openai_chat import DROP, ERROR, PASS, ChatStream, PlainStream, read_usage, usage_of
from gateway.dialects.sse import parse_events
from gateway.exchange import Usage
from tests.support.recordings import Recordings

OPENAI = {
    "prompt_tokens": 9,
    "completion_tokens": 12,
    "total_tokens": 21,
    "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 4},
}


def chunk(**fields: Any) -> bytes:
    return orjson.dumps({"id": "c", "object": "chat.completion.chunk", **fields})


CONTENT = chunk(choices=[{"index": 0, "delta": {"content": "x"}, "finish_reason": None}])
FINISH = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        ({"usage": OPENAI}, Usage(9, 12, 3, 2, 4)),
        (
            {"usage": {"input_tokens": 5, "output_tokens": 6, "input_tokens_details": {"cached_tokens": 1}}},
            Usage(5, 6, 1),
        ),
        ({"usage": {"prompt_tokens": 5, "total_tokens": 5}}, Usage(5)),
        ({"x_groq": {"usage": {"prompt_tokens": 5, "completion_tokens": 6}}}, Usage(5, 6)),
        ({"usage": None, "x_groq": {"usage": {"prompt_tokens": 5}}}, Usage(5)),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": True}}, Usage()),
        ({"usage": {"prompt_tokens": 1, "prompt_tokens_details": "?"}}, Usage(1)),
        (
            {"usage": {"prompt_tokens": 9, "completion_tokens": 8,
                       "prompt_tokens_details": {"audio_tokens": 2, "image_tokens": 3},
                       "completion_tokens_details": {"audio_tokens": 4, "image_tokens": 5}},
             "service_tier": "flex"},
            Usage(9, 8, audio_input_tokens=2, audio_output_tokens=4, image_input_tokens=3, image_output_tokens=5,
                  service_tier="flex"),
        ),
        (
            {"usage": {"input_tokens": 14, "output_tokens": 3, "input_token_details": {"audio_tokens": 14}}},
            Usage(14, 3, audio_input_tokens=14),
        ),
        (
            {"x_groq": {"usage": {"prompt_tokens": 5, "completion_tokens": 6}}, "service_tier": "on_demand"},
            Usage(5, 6, service_tier="on_demand"),
        ),
        ({"usage": {"prompt_tokens": 1}, "service_tier": None}, Usage(1)),
        ({"usage": None}, None),
        ({"usage": []}, None),
        ({"x_groq": {"id": "r"}}, None),
        ({}, None),
        ([], None),
    ],
)  # fmt: skip
def test_usage_is_read_where_it_stands(body: Any, usage: Usage | None) -> None:
    assert read_usage(body) == usage


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda item: st.dictionaries(
            st.sampled_from(["usage", "x_groq", "prompt_tokens", "prompt_tokens_details", "cached_tokens"]), item
        ),
    )
)
def test_reading_usage_never_breaks(body: Any) -> None:
    found = read_usage(body)
    assert found is None or isinstance(found, Usage)


def test_a_stream_is_done_with_its_marker_only() -> None:
    stream = ChatStream()
    for data in (CONTENT, FINISH):
        assert stream.event(None, data) == PASS
        assert not stream.done
    assert stream.finished
    assert stream.event(None, b"[DONE]") == PASS
    assert stream.done


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"choices": [], "usage": OPENAI}, DROP),
        ({"usage": OPENAI}, DROP),
        ({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": OPENAI}, PASS),
        ({"choices": [{"index": 0, "delta": {"content": "x"}}], "usage": None}, PASS),
        ({"choices": [], "prompt_filter_results": []}, PASS),
        ({"choices": [], "x_groq": {"id": "r"}}, PASS),
    ],
)
def test_only_the_usage_chunk_nobody_asked_for_is_taken_out(fields: dict[str, Any], verdict: int) -> None:
    assert ChatStream(strip_usage=True).event(None, chunk(**fields)) == verdict
    assert ChatStream().event(None, chunk(**fields)) == PASS


def test_the_last_usage_of_a_stream_counts() -> None:
    stream = ChatStream()
    stream.event(None, chunk(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 1}))
    stream.event(None, chunk(choices=[], usage=OPENAI))
    stream.event(None, CONTENT)
    assert stream.usage == Usage(9, 12, 3, 2, 4)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (None, b'{"error":{"message":"overloaded"}}'),
        (None, b'{"id":"c","choices":[],"error":"overloaded"}'),
        ("error", b'{"message":"overloaded"}'),
    ],
)
def test_r30_an_error_inside_the_stream_is_seen(name: str | None, data: bytes) -> None:
    assert ChatStream().event(name, data) == ERROR


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"[]", b"5", b'"x"', b"[DONE", b"<html>", b"\xff"])
def test_what_is_no_chunk_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ChatStream().event(None, data)


@pytest.mark.parametrize("choices", [5, "x", {"finish_reason": "stop"}, [5], [None], True])
def test_odd_choices_are_the_clients_matter(choices: Any) -> None:
    stream = ChatStream(strip_usage=True)
    assert stream.event(None, chunk(choices=choices)) == PASS
    assert not stream.finished


def test_a_plain_stream_ends_with_http_and_tells_usage() -> None:
    stream = PlainStream()
    assert stream.until_eof
    assert stream.event("speech.audio.delta", b"not json") == PASS
    assert stream.event(None, b'{"type":"transcript.text.done","usage":{"input_tokens":3,"output_tokens":4}}') == PASS
    assert stream.event(None, b'"usage" but not json') == PASS
    assert stream.usage == Usage(3, 4)
    assert stream.event("error", b"{}") == ERROR


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}', (3, 4)),
        (
            b'{ "usage" : { "prompt_tokens" : 3, "completion_tokens_details":{"reasoning_tokens":1} } , "x":1}',
            (3, None),
        ),
        (
            b'{"usage":{"prompt_tokens":3},"choices":[{"message":{"content":"\\"usage\\":{\\"prompt_tokens\\":9}"}}]}',
            (3, None),
        ),
        (b'{"x_groq":{"usage":{"prompt_tokens":3}}}', (3, None)),
        (b'{"usage":{"a":{"b":{"c":1}},"prompt_tokens":3}}', (3, None)),
        (b'{"usage":null}', None),
        (b'{"choices":[]}', None),
        (b'{"usage":{"prompt_tokens":', None),
        (b"[1]", None),
        (b"not json", None),
    ],
)
def test_usage_of_a_whole_reply(body: bytes, tokens: tuple[int | None, int | None] | None) -> None:
    usage = usage_of(body)
    assert (usage and (usage.input_tokens, usage.output_tokens)) == tokens


LONG = b'"text":"' + b"x" * 10_000 + b'"'
COUNTS = b'"usage":{"prompt_tokens":3,"completion_tokens":4}'


@pytest.mark.parametrize(
    ("body", "tier"),
    [
        (b"{%b,%b}" % (COUNTS, b'"service_tier":"flex"'), "flex"),
        (b"{%b,%b,%b}" % (LONG, COUNTS, b'"service_tier":"flex"'), "flex"),
        (b"{%b,%b,%b}" % (LONG, b'"service_tier":"flex"', COUNTS), "flex"),
        (b"{%b,%b}" % (LONG, COUNTS), None),
        # What a client put into its request and the reply repeats says nothing of how it was served.
        (b"{%b,%b,%b}" % (LONG, COUNTS, b'"metadata":{"service_tier":"flex"}'), None),
        (b"{%b,%b}" % (COUNTS, b'"metadata":{"service_tier":"flex"}'), None),
    ],
)
def test_the_tier_of_a_whole_reply_is_the_provider_s_word(body: bytes, tier: str | None) -> None:
    assert usage_of(body) == Usage(3, 4, service_tier=tier)


def test_recorded_answers_tell_sound_and_tier(test_data: Recordings) -> None:
    (answer,) = test_data.interactions("openai-chat-audio-out")
    used = usage_of(answer.response)
    assert used == read_usage(orjson.loads(answer.response))
    assert used == Usage(22, 18, 0, None, 0, "reported", None, 0, 12, 0, None, None, "default")
    for answer in test_data.interactions("openai-chat-stream-usage-chunk"):
        stream = ChatStream()
        for _, name, data in parse_events(answer.response):
            stream.event(name, data)
        assert stream.usage is not None and stream.usage.service_tier == "default"
