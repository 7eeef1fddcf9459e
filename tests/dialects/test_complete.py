"""R50: only complete successes may be kept, so this says no to everything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.complete import is_complete, is_whole_json


def choice(reason: Any = "stop", **more: Any) -> dict[str, Any]:
    return {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": reason, **more}


def whole(*choices: Any, **more: Any) -> bytes:
    return json.dumps({"id": "x", "choices": list(choices), **more}).encode()


def events(*chunks: Any, end: str = "\n\n", done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(chunk)}{end}" for chunk in chunks] + ["data: [DONE]" + end] * done
    return "".join(lines).encode()


def delta(reason: Any = None, **more: Any) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": "hi"}, "finish_reason": reason, **more}


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "function_call", "model_length"])
def test_a_whole_answer_with_a_finish_reason_is_complete(reason: str) -> None:
    assert is_complete("chat", whole(choice(reason)), streamed=False)
    assert is_complete("completions", whole({"text": "hi", "index": 0, "finish_reason": reason}), streamed=False)


@pytest.mark.parametrize(
    "body",
    [
        whole(choice(None)),
        whole(choice("")),
        whole(choice("error")),
        whole(choice("content_filter")),
        whole(choice({"type": "stop"})),
        whole({"index": 0, "message": {"content": "hi"}}),
        whole(choice(), choice(None, index=1)),
        whole(),
        whole(choice(), error={"message": "overloaded"}),
        b'{"error":{"message":"overloaded"}}',
        b'{"choices":{"finish_reason":"stop"}}',
        b'{"choices":["stop"]}',
        b'[{"finish_reason":"stop"}]',
        whole(choice())[:-1],
        b"",
        b"<html>",
    ],
)
def test_r50_a_whole_answer_that_lacks_something_is_not(body: bytes) -> None:
    assert not is_complete("chat", body, streamed=False)


def test_an_error_that_is_null_is_none() -> None:
    assert is_complete("chat", whole(choice(), error=None), streamed=False)


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
def test_a_stream_whose_choices_have_all_ended_is_complete(end: str) -> None:
    chunks = [{"choices": []}, {"choices": [delta()]}, {"choices": [delta("stop")]}, {"choices": [], "usage": {}}]
    assert is_complete("chat", events(*chunks, end=end), streamed=True)
    assert is_complete("chat", b": waiting" + end.encode() + events(*chunks, {"usage": {}}, end=end), streamed=True)


def test_a_finish_reason_counts_wherever_it_stands() -> None:
    after = {"choices": [delta(None)]}  # OpenRouter repeats the choice with its usage
    assert is_complete("chat", events({"choices": [delta("stop")]}, after), streamed=True)


@pytest.mark.parametrize(
    "body",
    [
        events({"choices": [delta()]}),
        events({"choices": [delta("stop")]}, {"choices": [delta(None, index=1)]}),
        events({"choices": [delta("error")]}),
        events({"choices": [delta("content_filter")]}),
        events({"choices": [delta("stop")]}, {"error": {"message": "cut"}}),
        events({"choices": [delta("stop")], "error": {"message": "cut"}}),
        events({"choices": []}),
        events(),
        b"",
        b'data: {"choices": [{"index": 0, "finish_reason": "stop"',
        b"event: error\ndata: oops\n\n",
    ],
)
def test_r50_a_stream_that_lacks_something_is_not(body: bytes) -> None:
    assert not is_complete("chat", body, streamed=True)


@pytest.mark.parametrize(
    ("surface", "results"), [("embeddings", "data"), ("moderations", "results"), ("rerank", "results")]
)
def test_lists_of_results_are_complete_when_they_are_there(surface: str, results: str) -> None:
    assert is_complete(surface, json.dumps({results: [{"index": 0}]}).encode(), streamed=False)
    others: list[Any] = [{}, {results: []}, {results: [1], "error": {"message": "no"}}, [{"index": 0}], None]
    for body in others:
        assert not is_complete(surface, json.dumps(body).encode(), streamed=False)
    assert not is_complete(surface, events({results: [{"index": 0}]}), streamed=True)


@pytest.mark.parametrize("surface", ["responses", "images", "passthrough", ""])
def test_r50_what_nobody_has_written_a_rule_for_is_never_complete(surface: str) -> None:
    assert not is_complete(surface, whole(choice(), data=[1], results=[1]), streamed=False)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["stop", "", "error"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "index", "finish_reason", "error", "data"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values, st.sampled_from(["chat", "embeddings", "rerank"]), st.booleans())
def test_any_json_gets_an_answer(value: Any, surface: str, streamed: bool) -> None:
    body = events(value) if streamed else json.dumps(value).encode()
    assert is_complete(surface, body, streamed) in (True, False)


def test_r50_a_stream_cut_before_its_finish_reason_is_not_complete() -> None:
    body = events({"choices": [delta()]}, {"choices": [delta("stop")]})
    reason = body.index(b'"stop"}]}') + len(b'"stop"}]}')
    assert not any(is_complete("chat", body[:kept], streamed=True) for kept in range(reason))
    assert is_complete("chat", body, streamed=True)


@pytest.mark.parametrize(
    "body", [b"{}", b"[1]\n", b'{"a":NaN}', b'{"a":"' + b"x" * 70_000 + b'"}', b"[" * 2000 + b"]" * 2000]
)
def test_json_to_its_end_is_whole(body: bytes) -> None:
    assert is_whole_json(body)


@pytest.mark.parametrize("body", [b"", b'{"a":{}', b"<html>", b"{}{", b'{"a":NaN', b'{"a":"' + b"x" * 70_000])
def test_json_that_breaks_off_is_not_whole(body: bytes) -> None:
    assert not is_whole_json(body)
