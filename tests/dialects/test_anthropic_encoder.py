"""Canonical chunks → Anthropic's stream: block after block, whatever order the provider told them in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.anthropic_blocks import messages_to_chat
from gateway.dialects.anthropic_encoder import Encoder
from gateway.dialects.anthropic_messages_reply import error_event, reply_from_chat
from gateway.dialects.dropped import Dropped
from gateway.dialects.sse import parse_events
from gateway.errors import UpstreamProtocolError
from gateway.testing import ScriptedUpstream, stream
from tests.support import golden
from tests.support.anthropic import chunk, encoded, message_of, parsed
from tests.support.recordings import Recordings

THINKS = {"thinking": {"type": "adaptive"}}
USAGE = {"prompt_tokens": 30, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 10}}
COUNTED = {"id": "chatcmpl-1", "model": "m", "choices": [], "usage": USAGE}


def call(index: Any, call_id: str | None = None, name: str | None = None, arguments: Any = None, **more: Any) -> Any:
    function = {"name": name, "arguments": arguments}
    part = {"index": index, "id": call_id, "function": {k: v for k, v in function.items() if v is not None}, **more}
    return chunk({"tool_calls": [{k: v for k, v in part.items() if v is not None}]})


def blocks(*chunks: Any, request: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = message_of(encoded(chunks, request))["content"]
    return content


@pytest.mark.parametrize("case", golden.cases("anthropic_messages", "stream_from_chat"))
def test_golden(case: str) -> None:
    document = golden.cases("anthropic_messages", "stream_from_chat")[case]
    assert parsed(encoded(document["input"], document["request"])) == document["expected"]


def test_the_events_of_a_text() -> None:
    events = parsed(
        encoded([chunk({"role": "assistant", "content": ""}), chunk({"content": "Hi"}), chunk({}, "stop"), COUNTED])
    )
    assert [event["type"] for event in events] == [
        "message_start", "ping", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
        "message_stop",
    ]  # fmt: skip
    assert events[0]["message"]["content"] == []
    assert events[0]["message"]["usage"]["input_tokens"] == 0, "not known yet"
    assert events[-2] == {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None, "stop_details": None},
        "usage": {
            "input_tokens": 20,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 10,
            "output_tokens": 7,
        },
    }


def test_nothing_says_it_is_over_before_the_end_does() -> None:
    encoder = Encoder({})
    told = encoder.feed(chunk({"content": "Hi"})) + encoder.feed(chunk({}, "stop")) + encoder.feed(COUNTED)
    assert b"message_delta" not in told
    assert b"message_stop" not in told
    assert encoder.end().endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')


def test_calls_that_interleave_come_one_after_another() -> None:
    assert blocks(
        call(0, "a", "f", ""), call(1, "b", "g", '{"y"'), call(0, arguments='{"x"'), call(1, arguments=":2}"),
        call(0, arguments=":1}"), call(2, "c", "h"), chunk({}, "tool_calls"),
    ) == [
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "b", "name": "g", "input": {"y": 2}},
        {"type": "tool_use", "id": "c", "name": "h", "input": {}},
    ]  # fmt: skip


def test_a_call_in_its_turn_is_not_held_back() -> None:
    encoder = Encoder({})
    encoder.feed(call(0, "a", "f", '{"x":'))
    assert b'"partial_json":"1}"' in encoder.feed(call(0, arguments="1}"))
    assert b'"name":"g"' in encoder.feed(call(1, "b", "g", ""))
    assert b'"partial_json":"{"' in encoder.feed(call(1, arguments="{"))


def test_servers_that_number_every_call_zero() -> None:
    assert [block["id"] for block in blocks(call(0, "a", "f", "{}"), call(0, "b", "f", "{}"))] == ["a", "b"]


def test_servers_that_give_no_index_or_id() -> None:
    first, second = (blocks(call(None, None, "f", "{}"))[0] for _ in range(2))
    assert (first["name"], first["input"]) == ("f", {})
    assert first["id"].startswith("toolu_")
    assert first["id"] != second["id"], "one name for one call in all the conversation"


def test_text_behind_a_call_closes_it() -> None:
    made = blocks(call(0, "a", "f", "{}"), call(1, "b", "g"), chunk({"content": "Wait"}), call(0, arguments=""))
    assert [block["type"] for block in made] == ["tool_use", "tool_use", "text"]
    encoder = Encoder({})
    for each in (call(0, "a", "f", "{}"), chunk({"content": "Wait"})):
        encoder.feed(each)
    with pytest.raises(UpstreamProtocolError, match="complete"):
        encoder.feed(call(0, arguments="{}"))


def test_a_call_without_a_name_is_an_error() -> None:
    encoder = Encoder({})
    encoder.feed(call(0, "a", None, "{}"))
    with pytest.raises(UpstreamProtocolError, match="name"):
        encoder.end()
    with pytest.raises(UpstreamProtocolError):
        encoder.feed(chunk({"tool_calls": ["x"]}))


def test_thinking_is_shown_to_those_who_asked() -> None:
    thought, said = chunk({"reasoning_content": "Hm."}), chunk({"content": "Hi"})
    text = {"type": "text", "text": "Hi"}
    assert blocks(thought, said, request=THINKS) == [{"type": "thinking", "thinking": "Hm.", "signature": ""}, text]
    assert blocks(chunk({"reasoning": "Hm."}), request=THINKS)[0]["thinking"] == "Hm."
    for request in ({}, {"thinking": {"type": "disabled"}}, {"thinking": {"type": "adaptive", "display": "omitted"}}):
        assert blocks(thought, said, request=request) == [text]


def test_signed_thinking_keeps_its_blocks_apart() -> None:
    def detail(index: int, **fields: str) -> dict[str, Any]:
        return chunk(
            {
                "reasoning_details": [
                    {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": index, **fields}
                ]
            }
        )

    made = blocks(
        detail(0, text="a"), detail(0, text="b", signature="s0"), detail(1, text="c"), detail(2, text="d"),
        detail(3, signature="s3"),
    )  # fmt: skip
    assert [(block["thinking"], block["signature"]) for block in made] == [
        ("ab", "s0"),
        ("c", ""),
        ("d", ""),
        ("", "s3"),
    ]


@pytest.mark.parametrize(
    ("detail", "request_"),
    [
        ({"type": "reasoning.encrypted", "data": "ENC", "format": "openai-responses-v1", "id": "rs_1"}, {}),
        (
            {"type": "reasoning.text", "text": "Hm.", "signature": "s", "format": "amazon-bedrock-v1", "index": 0},
            THINKS,
        ),
    ],
)
def test_what_another_vendor_signed_comes_back_with_the_next_request(detail: Any, request_: Any) -> None:
    """Stream to the client, history from the client: nothing of it changes on the way."""
    told = blocks(chunk({"reasoning_details": [detail]}), chunk({"content": "Hi"}), request=request_)
    history = messages_to_chat({"messages": [{"role": "assistant", "content": told}]}, Dropped())
    assert history[0]["reasoning_details"] == [detail]


def test_gemini_s_signature_comes_back_on_its_call() -> None:
    extra = {"google": {"thought_signature": "c2ln"}}
    told = blocks(call(0, "a", "f", "{}"), call(1, "b", "g", "{}", extra_content=extra))
    assert [block["type"] for block in told] == ["tool_use", "redacted_thinking", "tool_use"]
    history = messages_to_chat({"messages": [{"role": "assistant", "content": told}]}, Dropped())
    assert [each.get("extra_content") for each in history[0]["tool_calls"]] == [None, extra]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("tool_calls", "tool_use"), ("content_filter", "refusal"),
     ("odd", "end_turn")],
)  # fmt: skip
def test_stop_reason(reason: str, expected: str) -> None:
    assert message_of(encoded([chunk({"content": "x"}, reason)]))["stop_reason"] == expected


def test_a_refusal_is_explained() -> None:
    made = message_of(encoded([chunk({"refusal": "Not "}), chunk({"refusal": "this."}), chunk({}, "stop")]))
    assert (made["stop_reason"], made["stop_details"]["explanation"]) == ("refusal", "Not this.")


def test_a_chunk_that_comes_before_the_answer_does_not_name_it() -> None:
    azure = {"id": "", "model": "", "choices": [], "prompt_filter_results": []}
    made = message_of(encoded([azure, chunk({"content": "Hi"})]))
    assert (made["id"], made["model"]) == ("msg_chatcmpl-1", "m")


def test_a_second_answer_and_an_empty_stream() -> None:
    second = {"id": "1", "model": "m", "choices": [{"index": 1, "delta": {"content": "no"}}, "junk"]}
    assert blocks(second, chunk({"content": [{"type": "text", "text": "yes"}]})) == [{"type": "text", "text": "yes"}]
    assert message_of(encoded([], {"model": "asked"}))["model"] == "asked"


def test_recorded_streams_of_other_vendors(test_data: Recordings) -> None:
    names = [*test_data.names("openai-chat-stream"), *test_data.names("openai-compatible-tool-streaming"),
             *test_data.names("groq-stream"), *test_data.names("azure-openai-chat-stream")]  # fmt: skip
    count = 0
    for name in names:
        for each in test_data.interactions(name):
            if not each.streamed:
                continue
            chunks = [json.loads(d) for _, _, d in parse_events(each.response) if d and d != b"[DONE]"]
            made = message_of(encoded(chunks))
            calls = [b for b in made["content"] if b["type"] == "tool_use"]
            asked = [c for e in chunks for x in e["choices"] for c in x["delta"].get("tool_calls") or () if c.get("id")]
            names_asked = list(dict.fromkeys((c["id"], c["function"]["name"]) for c in asked))
            assert [(b["id"], b["name"]) for b in calls] == names_asked, name
            assert made["stop_reason"] in (["tool_use"] if calls else ["end_turn", "max_tokens"]), name
            count += 1
    assert count > 6


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
arguments = st.dictionaries(words, words | st.integers(-(2**53), 2**53), max_size=3)


@given(words, words, st.lists(arguments, max_size=4), st.randoms(use_true_random=False), st.booleans())
def test_stream_and_whole_of_the_same_answer_agree(
    thinking: str, text: str, calls: list[dict[str, Any]], random: Any, asked: bool
) -> None:
    """However the fragments of the calls are cut and interleaved."""
    whole = [
        {"id": f"c{n}", "type": "function", "function": {"name": f"f{n}", "arguments": json.dumps(each)}}
        for n, each in enumerate(calls)
    ]
    queues = [_fragments(n, each, random) for n, each in enumerate(whole)]
    mixed = []
    begun = 0
    while any(queues):
        begun = max(begun, 1 + next(n for n, queue in enumerate(queues) if queue))
        if begun < len(queues) and random.random() < 0.4:
            begun += 1
        n = random.choice([n for n, queue in enumerate(queues[:begun]) if queue])
        mixed.append(queues[n].pop(0))
    order = [part["index"] for each in mixed for part in each["choices"][0]["delta"]["tool_calls"] if "id" in part]
    request = THINKS if asked else {}
    message = {
        "role": "assistant",
        "content": text,
        "reasoning_content": thinking,
        "tool_calls": [whole[n] for n in order],
    }
    reply = {
        "id": "chatcmpl-1",
        "model": "m",
        "choices": [{"message": message, "finish_reason": "stop"}],
        "usage": USAGE,
    }
    chunks = [chunk({"reasoning_content": thinking}), chunk({"content": text}), *mixed, chunk({}, "stop"), COUNTED]
    assert message_of(encoded(chunks, request)) == reply_from_chat(reply, request)


def _fragments(index: int, made: dict[str, Any], random: Any) -> list[dict[str, Any]]:
    written = made["function"]["arguments"]
    cuts = sorted(random.randint(0, len(written)) for _ in range(3))
    pieces = [written[start:end] for start, end in zip([0, *cuts], [*cuts, len(written)], strict=True)]
    return [call(index, made["id"], made["function"]["name"], ""), *(call(index, arguments=piece) for piece in pieces)]


async def test_the_official_sdk_reads_it_and_raises_on_our_error() -> None:
    anthropic = pytest.importorskip("anthropic", reason="the anthropic SDK is not installed")
    told = encoded(
        [chunk({"reasoning_content": "Hm."}), chunk({"content": "Hi"}), call(0, "a", "f", '{"x":1}'),
         chunk({}, "tool_calls"), COUNTED], THINKS,
    )  # fmt: skip
    cut = Encoder({}).feed(chunk({"content": "Hi"})) + error_event(529, "overloaded", "Busy.", "req_1")
    asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    async with ScriptedUpstream([stream([told]), stream([cut])]) as upstream:
        async with anthropic.AsyncAnthropic(api_key="x", base_url=upstream.url, max_retries=0) as client:
            async with client.messages.stream(**asked) as events:
                message = await events.get_final_message()
            assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
            assert message.content[2].input == {"x": 1}
            assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("tool_use", 20, 7)
            with pytest.raises(anthropic.APIStatusError, match="overloaded"):
                async with client.messages.stream(**asked) as events:
                    await events.get_final_message()
