"""Canonical answers → what Ollama's clients read, whole and line by line; and back again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import ollama_encoder, ollama_reply
from gateway.errors import UpstreamProtocolError
from tests.support.recordings import Recordings

ID = "0123456789abcdef0123"
REQUEST = {"model": "llama3:latest"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": [1]}'}}
SHOWN = {"id": "c1", "function": {"index": 0, "name": "look", "arguments": {"a": [1]}}}


def completion(reason: str = "stop", **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    return {"id": "x", "model": "m", "created": 5, "choices": [choice], "usage": USAGE}


def chunk(reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def lines(encoder: ollama_encoder.Encoder, *chunks: dict[str, Any]) -> list[dict[str, Any]]:
    raw = b"".join([encoder.feed(each) for each in chunks]) + encoder.end()
    assert raw.endswith(b"\n")
    return [json.loads(line) for line in raw.splitlines()]


def test_a_whole_answer() -> None:
    made = ollama_encoder.reply_from_chat(completion(content="Hi", reasoning_content="Hm."), REQUEST)
    assert made.pop("created_at").endswith("Z")
    assert made == {
        "model": "llama3:latest", "message": {"role": "assistant", "content": "Hi", "thinking": "Hm."}, "done": True,
        "done_reason": "stop", "total_duration": 0, "load_duration": 0, "prompt_eval_count": 3,
        "prompt_eval_duration": 0, "eval_count": 4, "eval_duration": 0,
    }  # fmt: skip


def test_counts_that_nobody_told_are_left_out_and_zero_is_told() -> None:
    silent = completion(content="Hi") | {"usage": None}
    assert not {"prompt_eval_count", "eval_count"} & ollama_encoder.reply_from_chat(silent, REQUEST).keys()
    part = completion(content="Hi") | {"usage": {"prompt_tokens": None, "completion_tokens": 0}}
    made = ollama_encoder.reply_from_chat(part, REQUEST)
    assert "prompt_eval_count" not in made and made["eval_count"] == 0
    (last,) = lines(ollama_encoder.Encoder(REQUEST))
    assert not {"prompt_eval_count", "eval_count"} & last.keys() and last["done"]


def test_a_whole_answer_of_generate() -> None:
    made = ollama_encoder.generate_from_chat(completion("length", content="Hi"), REQUEST)
    assert (made["response"], made["done_reason"], made["eval_count"]) == ("Hi", "length", 4)
    assert "message" not in made and "thinking" not in made


@pytest.mark.parametrize(
    ("message", "content"), [({"content": None}, ""), ({"content": None, "refusal": "No."}, "No.")]
)
def test_there_is_always_a_content(message: dict[str, Any], content: str) -> None:
    assert ollama_encoder.reply_from_chat(completion(**message), REQUEST)["message"]["content"] == content


def test_tool_calls_have_objects_for_arguments() -> None:
    made = ollama_encoder.reply_from_chat(completion("tool_calls", content=None, tool_calls=[CALL]), REQUEST)
    assert made["message"] == {"role": "assistant", "content": "", "tool_calls": [SHOWN]}
    assert made["done_reason"] == "stop"


@pytest.mark.parametrize("arguments", ["{", "[]", "5"])
def test_arguments_that_are_no_object_break_the_answer(arguments: str) -> None:
    call = {"id": "c1", "function": {"name": "look", "arguments": arguments}}
    with pytest.raises(UpstreamProtocolError):
        ollama_encoder.reply_from_chat(completion(tool_calls=[call]), REQUEST)
    with pytest.raises(UpstreamProtocolError):
        lines(ollama_encoder.Encoder(REQUEST), chunk(tool_calls=[{"index": 0, **call}]), chunk("length"))


def test_logprobs_are_passed_on() -> None:
    tokens = [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}]
    answer = completion(content="Hi")
    answer["choices"][0]["logprobs"] = {"content": tokens}
    assert ollama_encoder.reply_from_chat(answer, REQUEST)["logprobs"] == tokens


def test_a_stream() -> None:
    made = lines(
        ollama_encoder.Encoder(REQUEST),
        chunk(role="assistant", content=""), chunk(reasoning_content="Hm."), chunk(content="Hel"), chunk(content="lo"),
        chunk("stop"), {"model": "m", "choices": [], "usage": USAGE},
    )  # fmt: skip
    assert [line["message"] for line in made] == [
        {"role": "assistant", "content": "", "thinking": "Hm."},
        {"role": "assistant", "content": "Hel"},
        {"role": "assistant", "content": "lo"},
        {"role": "assistant", "content": ""},
    ]
    assert [line["done"] for line in made] == [False, False, False, True]
    assert {line["model"] for line in made} == {"llama3:latest"}
    last = made[-1]
    assert (last["done_reason"], last["prompt_eval_count"], last["eval_count"]) == ("stop", 3, 4)
    assert last["total_duration"] == last["prompt_eval_duration"] + last["eval_duration"] > 0


def test_a_stream_of_generate() -> None:
    made = lines(ollama_encoder.GenerateEncoder(REQUEST), chunk(content="Hel"), chunk(content="lo"), chunk("length"))
    assert [line["response"] for line in made] == ["Hel", "lo", ""]
    assert made[-1]["done_reason"] == "length"
    assert not any("message" in line for line in made)


def test_tool_calls_are_sent_when_they_are_whole() -> None:
    encoder = ollama_encoder.Encoder(REQUEST)
    first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": ""}}
    pieces = [{"index": 0, "function": {"arguments": text}} for text in ('{"a"', ": [1]}")]
    other = {"index": 1, "id": "c2", "function": {"name": "leap"}}
    for piece in (first, *pieces, other):
        assert encoder.feed(chunk(tool_calls=[piece])) == b""
    (line,) = encoder.feed(chunk("tool_calls")).splitlines()
    calls = json.loads(line)["message"]["tool_calls"]
    assert calls == [SHOWN, {"id": "c2", "function": {"index": 1, "name": "leap", "arguments": {}}}]
    (last,) = encoder.end().splitlines()
    assert "tool_calls" not in json.loads(last)["message"]


def test_tool_calls_without_a_reason_are_not_lost() -> None:
    made = lines(ollama_encoder.Encoder(REQUEST), chunk(tool_calls=[{"index": 0, **CALL}]))
    assert made[0]["message"]["tool_calls"] == [SHOWN]


def test_other_choices_are_none_of_ollama_s() -> None:
    second = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": None}]}
    assert ollama_encoder.Encoder(REQUEST).feed(second) == b""


words = st.text(max_size=8)


@given(st.lists(words, max_size=4), words, st.booleans(), st.sampled_from(["stop", "length"]))
def test_there_and_back_again_is_the_same(contents: list[str], thinking: str, called: bool, reason: str) -> None:
    encoder, decoder = ollama_encoder.Encoder(REQUEST), ollama_reply.ChatStream(ID)
    chunks = [chunk(reasoning_content=thinking), *(chunk(content=content) for content in contents)]
    chunks += [chunk(tool_calls=[{"index": 0, **CALL}])] if called else []
    chunks += [chunk(reason), {"choices": [], "usage": USAGE}]
    raw = b"".join([encoder.feed(each) for each in chunks]) + encoder.end()
    deltas = [choice for each in decoder.feed(raw) + decoder.end() for choice in each["choices"]]
    assert "".join(each["delta"].get("content") or "" for each in deltas) == "".join(contents)
    assert "".join(each["delta"].get("reasoning_content") or "" for each in deltas) == thinking
    calls = [call for each in deltas for call in each["delta"].get("tool_calls") or ()]
    assert [(call["id"], json.loads(call["function"]["arguments"])) for call in calls] == [("c1", {"a": [1]})] * called
    assert deltas[-1]["finish_reason"] == ("tool_calls" if called else reason)
    assert decoder.usage is not None and (decoder.usage.input_tokens, decoder.usage.output_tokens) == (3, 4)


@pytest.mark.parametrize("name", ["ollama-chat-stream-ndjson", "ollama-generate-stream"])
def test_recorded_streams_survive_the_round_trip(test_data: Recordings, name: str) -> None:
    types = pytest.importorskip("ollama", reason="the ollama client is not installed")
    (recorded,) = test_data.interactions(name)
    chat = "chat" in name
    if not chat:  # in the canonical form a prompt's answer is a chat's
        pieces = [json.loads(line) for line in recorded.response.splitlines() if line]
        given = [{**piece, "message": {"role": "assistant", "content": piece.pop("response")}} for piece in pieces]
        response = b"".join(json.dumps(piece).encode() + b"\n" for piece in given)
    else:
        response = recorded.response
    decoder = ollama_reply.ChatStream(ID)
    encoder = (ollama_encoder.Encoder if chat else ollama_encoder.GenerateEncoder)(recorded.request_json)
    made = lines(encoder, *decoder.feed(response), *decoder.end())
    kind = types.ChatResponse if chat else types.GenerateResponse
    parsed = [kind.model_validate(line, strict=False) for line in made]
    said = "".join(part.message.content if chat else part.response for part in parsed)
    original = [json.loads(line) for line in response.splitlines() if line]
    assert said == "".join(part["message"]["content"] for part in original)
    assert parsed[-1].done is True
    assert parsed[-1].eval_count == original[-1]["eval_count"]
    assert parsed[-1].prompt_eval_count == original[-1]["prompt_eval_count"]
    assert parsed[-1].done_reason == "stop"


def test_the_official_client_s_types_accept_whole_answers() -> None:
    types = pytest.importorskip("ollama", reason="the ollama client is not installed")
    made = ollama_encoder.reply_from_chat(completion(content=None, tool_calls=[CALL], reasoning_content="x"), REQUEST)
    answer = types.ChatResponse.model_validate(made)
    assert answer.message.tool_calls[0].function.arguments == {"a": [1]}
    assert answer.message.thinking == "x"
    types.GenerateResponse.model_validate(ollama_encoder.generate_from_chat(completion(content="x"), REQUEST))
