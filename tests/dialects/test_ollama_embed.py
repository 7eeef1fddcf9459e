"""Answers of ``/api/embed``: golden files, both encodings, and everything that is no answer."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import ollama_embed
from gateway.dialects.stream_error import StreamError
from gateway.errors import InvalidRequest, UpstreamProtocolError
from gateway.exchange import Usage
from tests.support import golden

CASES = golden.cases("ollama", "embed_reply")


def embedded(part: Any, encoded: bool) -> Any:
    """The body the client gets for an answer of ``/api/embed``, given as bytes or to be written as JSON."""
    body, _ = run(ollama_embed.embeddings(part if isinstance(part, bytes) else json.dumps(part).encode(), encoded))
    return json.loads(body)


def run(steps: Generator[None, None, tuple[bytes, Usage]]) -> tuple[bytes, Usage]:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: tuple[bytes, Usage] = end.value
            return result


@pytest.mark.parametrize("document", CASES.values(), ids=list(CASES))
def test_golden(document: Any) -> None:
    encoded = isinstance(document["expected"]["data"][0]["embedding"], str)
    assert embedded(document["input"], encoded) == document["expected"]


def test_the_official_sdk_s_type_accepts_it() -> None:
    types = pytest.importorskip("openai.types", reason="the openai SDK is not installed")
    types.CreateEmbeddingResponse.model_validate(CASES["float"]["expected"], strict=True)


vectors = st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=4), max_size=4)


@given(vectors, st.sampled_from([None, 0, 1]))
def test_base64_embeddings_are_little_endian_float32(expected: list[list[float]], indent: int | None) -> None:
    raw = json.dumps({"model": "e", "embeddings": expected, "prompt_eval_count": 2}, indent=indent).encode()
    packed = [base64.b64decode(item["embedding"]) for item in embedded(raw, True)["data"]]
    assert [list(struct.unpack(f"<{len(each) // 4}f", each)) for each in packed] == expected
    assert [item["embedding"] for item in embedded(raw, False)["data"]] == expected


def test_embeddings_as_numbers_pass_as_they_are_spelt() -> None:
    body, used = run(ollama_embed.embeddings(b'{"embeddings":[[1e-300, 0.10,-0]],"prompt_eval_count":2}', False))
    assert b'"embedding":[1e-300, 0.10,-0]' in body
    assert used == Usage(2)


def test_embeddings_without_a_count() -> None:
    body, used = run(ollama_embed.embeddings(b'{"embeddings":[]}', True))
    assert json.loads(body)["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    assert used == Usage(None, provenance="partial")


def test_embeddings_pause_after_each_vector() -> None:
    steps = ollama_embed.embeddings(b'{"embeddings":[[1],[2],[3]]}', True)
    assert len(list(steps)) == 3


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"{", b"{}", b"[]", b'{"embeddings":null}', b'{"embeddings":"x"}', b'{"embeddings":[1]}',
        b'{"embeddings":[["a"]]}', b'{"embeddings":[[null]]}', b'{"embeddings":[[1e300]]}', b'{"embeddings":[[1],{}]}',
        b'{"embeddings":[[1]', b'{"embeddings":[[1', b'{"embeddings":[[1]]', b'{"embeddings":[[1]]}}',
        b'{"embeddings":[[[1]]]}',
    ],
)  # fmt: skip
def test_malformed_embeddings_are_refused(answer: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        embedded(answer, True)


def test_an_error_that_claims_success_is_one() -> None:
    with pytest.raises(StreamError, match="boom"):
        embedded(b'{"error":"boom"}', True)


@pytest.mark.parametrize("body", [{}, {"input": None}, {"input": 5}, {"input": [1]}, {"input": ["a", None]}])
def test_a_client_s_input_is_text(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        ollama_embed.embed_to_canonical(body)
    with pytest.raises(InvalidRequest):
        ollama_embed.embeddings_to_canonical({"prompt": ["a"], **body})


def test_an_empty_list_is_no_embedding() -> None:
    with pytest.raises(UpstreamProtocolError):
        ollama_embed.embeddings_from_canonical({"data": []})
    assert ollama_embed.embed_from_canonical({"data": [], "usage": None})["embeddings"] == []


def test_a_count_that_nobody_told_is_left_out_and_zero_is_told() -> None:
    answer = {"model": "m", "data": [{"embedding": [0.5]}]}
    assert "prompt_eval_count" not in ollama_embed.embed_from_canonical(answer)
    assert ollama_embed.embed_from_canonical(answer | {"usage": {"prompt_tokens": 0}})["prompt_eval_count"] == 0
