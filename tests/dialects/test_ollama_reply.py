"""Ollama's answers → OpenAI's shapes: golden files, recordings, any chunking, and the types of the official SDK."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import ollama_reply
from gateway.dialects.openai_chat import read_usage
from gateway.dialects.openai_chat_reply import Encoder
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage
from tests.support import golden
from tests.support.recordings import Recordings

ID = "0123456789abcdef0123"
WHOLE = {
    "chat_reply": lambda part: ollama_reply.chat_completion(part, ID),
    "generate_reply": lambda part: ollama_reply.text_completion(part, ID),
}
STREAMS: dict[str, type[ollama_reply.Stream]] = {
    "chat_stream": ollama_reply.ChatStream,
    "generate_stream": ollama_reply.TextStream,
}


def cases(kinds: Iterable[str]) -> pytest.MarkDecorator:
    found = [(what, case, document) for what in kinds for case, document in golden.cases("ollama", what).items()]
    ids = [f"{what}.{case}" for what, case, _ in found]
    return pytest.mark.parametrize(("what", "document"), [(what, document) for what, _, document in found], ids=ids)


def ndjson(parts: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(part).encode() + b"\n" for part in parts)


def stream_of(
    blocks: Iterable[bytes], kind: type[ollama_reply.Stream] = ollama_reply.ChatStream, include_usage: bool = True
) -> bytes:
    """What a client of OpenAI gets."""
    stream, encoder = kind(ID), Encoder({"stream_options": {"include_usage": include_usage}})
    chunks = [chunk for block in blocks for chunk in stream.feed(block)] + stream.end()
    assert stream.done
    return b"".join([encoder.feed(chunk) for chunk in chunks]) + encoder.end()


def chunks_of(events: bytes) -> list[dict[str, Any]]:
    """The chunks of a complete stream; ``[DONE]`` must be its end and nowhere else."""
    *chunks, done, rest = events.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return [json.loads(chunk.removeprefix(b"data: ")) for chunk in chunks]


def accumulated(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """A whole chat completion out of the chunks, as a client would put it together."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": []}
    finish = usage = None
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            message["reasoning_content"] += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls", []):
                assert call.pop("index") == len(message["tool_calls"])
                message["tool_calls"].append(call)
            finish = choice["finish_reason"] or finish
    return {"message": message, "finish_reason": finish, "usage": usage}


@cases(WHOLE)
def test_golden_whole(what: str, document: Any) -> None:
    assert WHOLE[what](document["input"]) == document["expected"]


@cases(STREAMS)
def test_golden_stream(what: str, document: Any) -> None:
    events = stream_of([ndjson(document["input"])], STREAMS[what], document["include_usage"])
    assert chunks_of(events) == document["expected"]


@cases(["models"])
def test_golden_models(what: str, document: Any) -> None:
    assert ollama_reply.models(document["input"]) == document["expected"]


@given(st.data())
def test_any_split_of_the_bytes_gives_the_same_events(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["tools", "thinking", "text"]))
    raw = ndjson(golden.cases("ollama", "chat_stream")[name]["input"]).replace(b"It ", "Él 漢 ".encode())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=20)))
    blocks = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert stream_of(blocks) == stream_of([raw])


words = st.text(max_size=8)
arguments = st.dictionaries(words, words | st.integers(-(2**53), 2**53) | st.booleans(), max_size=3)
calls = st.fixed_dictionaries({"function": st.fixed_dictionaries({"name": words, "arguments": arguments})})


@given(st.lists(words, max_size=5), words, st.lists(calls, max_size=3), st.sampled_from(["stop", "length", None]))
def test_stream_and_whole_of_the_same_answer_agree(
    contents: list[str], thinking: str, tool_calls: list[Any], reason: str | None
) -> None:
    def line(**message: Any) -> dict[str, Any]:
        return {"model": "m", "created_at": "2025-01-01T00:00:00Z", "done": False, "message": message}

    end = {"done": True, "done_reason": reason, "prompt_eval_count": 3, "eval_count": 4}
    message = {"content": "".join(contents), "thinking": thinking, "tool_calls": tool_calls}
    whole = ollama_reply.chat_completion({**line(role="assistant", **message), **end}, ID)
    lines = [line(thinking=thinking), *(line(content=content) for content in contents)]
    lines += [line(content="", tool_calls=[call]) for call in tool_calls]
    streamed = accumulated(chunks_of(stream_of([ndjson([*lines, line(content="") | end])])))
    choice = whole["choices"][0]
    assert streamed["finish_reason"] == choice["finish_reason"]
    assert streamed["usage"] == whole["usage"]
    assert streamed["message"] == {
        "content": choice["message"]["content"] or "",
        "reasoning_content": choice["message"].get("reasoning_content", ""),
        "tool_calls": choice["message"].get("tool_calls", []),
    }


def test_a_recorded_chat_stream(test_data: Recordings) -> None:
    (recorded,) = test_data.interactions("ollama-chat-stream-ndjson")
    parts = [json.loads(line) for line in recorded.response.splitlines() if line]
    result = accumulated(chunks_of(stream_of([recorded.response])))
    assert result["message"]["content"] == "".join(part["message"]["content"] for part in parts)
    assert result["finish_reason"] == "stop"
    assert result["usage"] == {"prompt_tokens": 17, "completion_tokens": 50, "total_tokens": 67}


def test_a_recorded_generate_stream(test_data: Recordings) -> None:
    (recorded,) = test_data.interactions("ollama-generate-stream")
    chunks = chunks_of(stream_of([recorded.response], ollama_reply.TextStream))
    text = "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])
    assert text.startswith("A joke about OpenTelemetry! Here's one:")
    assert chunks[-1]["usage"]["completion_tokens"] == 71


def test_a_recorded_whole_chat(test_data: Recordings) -> None:
    (recorded,) = test_data.interactions("ollama-chat-tool-calls")
    part = ollama_reply.parse(recorded.response)
    choice = ollama_reply.chat_completion(part, ID)["choices"][0]
    assert choice["message"]["content"] == part["message"]["content"]
    assert ollama_reply.usage(part) == Usage(44, 113)


def test_usage_the_client_is_told_is_what_we_count() -> None:
    part = {"message": {"content": "x"}, "done": True, "prompt_eval_count": 3, "eval_count": 4}
    assert read_usage(ollama_reply.chat_completion(part, ID)) == ollama_reply.usage(part)


def test_a_missing_count_is_not_zero() -> None:
    assert ollama_reply.usage({"done": True}) is None
    assert ollama_reply.usage({"eval_count": 0}) == Usage(None, 0, provenance="partial")
    assert ollama_reply.usage({"prompt_eval_count": 0, "eval_count": 2}) == Usage(0, 2)
    assert ollama_reply.usage({"prompt_eval_count": -1, "eval_count": True}) is None


def test_a_stream_without_counts_has_no_usage_chunk() -> None:
    chunks = chunks_of(stream_of([b'{"message":{"content":"x"},"done":true}\n']))
    assert all(chunk["choices"] and chunk["usage"] is None for chunk in chunks)


def test_a_last_line_without_its_line_feed_counts() -> None:
    raw = ndjson([{"message": {"content": "x"}, "done": True}])
    assert stream_of([raw[:-1]]) .count(b"data: ") == stream_of([raw]).count(b"data: ") == 4  # fmt: skip


def test_what_follows_the_last_line_is_ignored() -> None:
    stream = ollama_reply.ChatStream(ID)
    assert stream.feed(b'{"message":{"content":"x"},"done":true}\n\n{"error":"late"}\n')
    assert stream.done
    assert stream.feed(b"junk\n") + stream.end() == []


FIRST = b'{"message":{"content":"x"},"done":false}\n'


@pytest.mark.parametrize(
    "raw",
    [b"", FIRST, FIRST + b"\n", FIRST + b'{"message":{"content":"y"},"done":', FIRST + b'{"done":false', FIRST[:-1]],
)
def test_r29_a_stream_that_ends_without_done_is_broken(raw: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        stream_of([raw])


@pytest.mark.parametrize(
    "line",
    [
        b"{", b"[]", b"null", b'"x"', b"{}", b'{"done":false}', b'{"message":"x"}', b'{"message":{"content":5}}',
        b'{"message":{"thinking":["x"]}}', b'{"message":{"tool_calls":{"a":1}}}', b'{"message":{"tool_calls":[1]}}',
        b'{"message":{"tool_calls":[{"function":{"arguments":{}}}]}}', b"\xff", b'{"status":"success"}',
    ],
)  # fmt: skip
def test_r28_a_malformed_line_breaks_the_stream(line: bytes) -> None:
    stream = ollama_reply.ChatStream(ID)
    stream.feed(FIRST)
    with pytest.raises(UpstreamProtocolError):
        stream.feed(line + b"\n")
    assert not stream.done


def test_r30_an_error_line_breaks_the_stream_with_its_message() -> None:
    stream = ollama_reply.ChatStream(ID)
    with pytest.raises(StreamError, match="an error was encountered while running the model") as raised:
        stream.feed(FIRST + b'{"error":"an error was encountered while running the model"}\n')
    assert (raised.value.status, raised.value.code) == (502, "server_error")
    with pytest.raises(StreamError) as raised:
        ollama_reply.parse(b'{"error":{"code":1},"status":429}')
    assert (raised.value.status, raised.value.code) == (429, "rate_limit_exceeded")


def test_a_stream_that_fails_at_once_has_sent_nothing() -> None:
    stream = ollama_reply.ChatStream(ID)
    with pytest.raises(UpstreamProtocolError):
        stream.feed(b'{"message":5}\n')
    assert stream.feed(FIRST)[0]["id"] == f"chatcmpl-{ID}"


def test_a_line_beyond_the_limit_breaks_the_stream() -> None:
    stream = ollama_reply.ChatStream(ID)
    with pytest.raises(UpstreamProtocolError, match="too long"):
        for _ in range(17):
            stream.feed(b"x" * (1 << 20))


def test_memory_does_not_grow_with_the_stream() -> None:
    stream = ollama_reply.ChatStream(ID)
    stream.feed(FIRST)
    tracemalloc.start()
    try:
        for _ in range(20_000):
            stream.feed(FIRST)
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()


def test_a_whole_answer_must_be_done() -> None:
    with pytest.raises(UpstreamProtocolError, match="not complete"):
        ollama_reply.chat_completion({"message": {"content": "x"}, "done": False}, ID)


def test_a_malformed_model_list_is_refused() -> None:
    malformed: list[Any] = [
        {"models": [{"size": 1}]},
        {"models": ["x"]},
        {"models": {"a": 1}},
        {"error": "x"},
        [],
        None,
    ]
    for tags in malformed:
        with pytest.raises(UpstreamProtocolError):
            ollama_reply.models(tags)
    assert ollama_reply.models({"models": []}) == ollama_reply.models({"models": None}) == []


@pytest.mark.parametrize(
    ("status", "raw", "message", "code"),
    [
        (404, b'{"error":"model \'x\' not found"}', "model 'x' not found", "model_not_found"),
        (404, b"404 page not found", "404 page not found", "not_found"),
        (400, b'{"error":"\\"m\\" does not support thinking"}', '"m" does not support thinking', "invalid_request"),
        (429, b"slow down", "slow down", "rate_limit_exceeded"),
        (500, b'{"error":{"message":"boom"}}', "boom", "server_error"),
        (502, b"[]", "The provider answered 502.", "server_error"),
        (503, b"", "The provider answered 503.", "server_error"),
    ],
)
def test_errors_keep_their_message(status: int, raw: bytes, message: str, code: str) -> None:
    assert ollama_reply.error_to_chat(status, raw) == (code, message)


def test_usage_is_found_without_reading_the_answer() -> None:
    text = {"content": 'it said "prompt_eval_count": 5', "tool_calls": [{"function": {"arguments": {"eval_count": 1}}}]}
    for counts in ({"prompt_eval_count": 26, "eval_count": 4}, {"prompt_eval_count": 26}):
        for indent in (None, 1):
            raw = json.dumps({"message": text, "done": True, **counts}, indent=indent).encode()
            expected = ollama_reply.usage({"eval_count": 1, **counts})
            assert ollama_reply.usage_in(raw) == expected
    assert ollama_reply.usage_in(b'{"embedding":[1]}') is None


@pytest.mark.parametrize("moment", [None, "", "yesterday", "0001-01-01T00:00:00Z", 5])
def test_a_moment_that_is_none_becomes_now(moment: Any) -> None:
    part = {"created_at": moment, "message": {"content": "x"}, "done": True}
    assert ollama_reply.chat_completion(part, ID)["created"] > 1_700_000_000


@cases([*WHOLE, *STREAMS, "models"])
def test_the_official_sdk_s_types_accept_it(what: str, document: Any) -> None:
    pytest.importorskip("openai", reason="the openai SDK is not installed")
    from openai.types import Completion, Model
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

    types: dict[str, Any] = {
        "chat_reply": ChatCompletion, "chat_stream": ChatCompletionChunk, "generate_reply": Completion,
        "generate_stream": Completion, "models": Model,
    }  # fmt: skip
    expected = document["expected"]
    for item in expected if isinstance(expected, list) else [expected]:
        if what == "generate_stream":
            # The SDK has one type for whole completions and chunks, and requires a finish_reason in it.
            item = item | {"choices": [{**c, "finish_reason": c["finish_reason"] or "stop"} for c in item["choices"]]}
        types[what].model_validate(item, strict=True)
