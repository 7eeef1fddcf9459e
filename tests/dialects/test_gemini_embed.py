"""Embeddings ⇄ embedContent and batchEmbedContents."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from openai.types import CreateEmbeddingResponse

from gateway.dialects import gemini_embed
from gateway.dialects.stream_error import StreamError
from gateway.errors import InvalidRequest, UpstreamProtocolError
from gateway.exchange import Usage
from tests.support.recordings import Recordings


def to_openai(raw: bytes, as_base64: bool = False) -> tuple[dict[str, Any], Usage | None]:
    steps = gemini_embed.embed_to_openai(raw, "e", as_base64)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return json.loads(end.value[0]), end.value[1]


def test_a_request_is_always_a_batch() -> None:
    request, dropped = gemini_embed.embed_from_openai({"input": ["a", "b"], "dimensions": 8, "user": "u"}, "e")
    each = {"model": "models/e", "outputDimensionality": 8}
    contents = [{"parts": [{"text": text}]} for text in ("a", "b")]
    assert request == {"requests": [{**each, "content": content} for content in contents]} and dropped == ["user"]
    assert len(gemini_embed.embed_from_openai({"input": "a"}, "e")[0]["requests"]) == 1


@pytest.mark.parametrize(
    "body", [{"input": [1, 2]}, {"input": []}, {}, {"input": "a", "encoding_format": "hex"}, {"input": [[1]]}]
)
def test_what_cannot_be_embedded_is_refused(body: Any) -> None:
    with pytest.raises(InvalidRequest):
        gemini_embed.embed_from_openai(body, "e")


def test_an_answer_keeps_its_numbers_as_they_are_spelt() -> None:
    raw = b'{"embeddings": [{"values": [0.10, -1e-5]}, {"values": []}], "usageMetadata": {"promptTokenCount": 5}}'
    answer, usage = to_openai(raw)
    assert [each["embedding"] for each in answer["data"]] == [[0.1, -1e-5], []]
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5} and usage == Usage(5)
    CreateEmbeddingResponse.model_validate(answer)


def test_base64_is_little_endian_float32() -> None:
    answer, usage = to_openai(b'{"embedding": {"values": [0.5, 2]}}', as_base64=True)
    assert base64.b64decode(answer["data"][0]["embedding"]) == struct.pack("<2f", 0.5, 2) and usage is None


@pytest.mark.parametrize(
    "raw", [b"{}", b"[]", b"x", b'{"embeddings": [{"values": [1', b'{"embedding": {"values": [x]}}']
)
def test_what_is_no_answer_is_an_error(raw: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        to_openai(raw)


def test_an_error_that_claims_success_is_told() -> None:
    with pytest.raises(StreamError, match="busy"):
        to_openai(b'{"error": {"code": 503, "message": "busy"}}')


def test_requests_of_our_clients() -> None:
    one, dropped = gemini_embed.embed_to_canonical({"content": {"parts": [{"text": "a"}]}, "task_type": "X"})
    assert one == {"input": "a", "encoding_format": "float"} and dropped == ["taskType"]
    each = {"model": "models/e", "content": {"parts": [{"text": "a"}]}, "output_dimensionality": 8}
    many, dropped = gemini_embed.embed_to_canonical({"requests": [each, each]})
    assert many == {"input": ["a", "a"], "encoding_format": "float", "dimensions": 8} and dropped == []


@pytest.mark.parametrize(
    "body",
    [{}, {"requests": []}, {"requests": [1]}, {"content": {"parts": [{"inlineData": {}}], "text": 1}, "requests": {}},
     {"requests": [{"content": "a", "outputDimensionality": 1}, {"content": "b"}]}],
)  # fmt: skip
def test_requests_nobody_could_answer_are_refused(body: Any) -> None:
    with pytest.raises(InvalidRequest):
        gemini_embed.embed_to_canonical(body)


def test_answers_for_our_clients() -> None:
    types = pytest.importorskip("google.genai.types")
    vector = base64.b64encode(struct.pack("<2f", 0.5, 2)).decode()
    data = [{"index": 1, "embedding": [1.0]}, {"index": 0, "embedding": vector}]
    made = gemini_embed.embed_from_canonical({"data": data, "usage": {"prompt_tokens": 3}}, batch=True)
    assert made["embeddings"] == [{"values": [0.5, 2.0]}, {"values": [1.0]}]
    types.EmbedContentResponse.model_validate({"embeddings": made["embeddings"]})
    assert gemini_embed.embed_from_canonical({"data": data[:1]}, batch=False) == {"embedding": {"values": [1.0]}}
    wrongs: list[dict[str, Any]] = [{}, {"data": []}, {"data": [{"embedding": 5}]}, {"data": [{"embedding": "a"}]}]
    for wrong in wrongs:
        with pytest.raises(UpstreamProtocolError):
            gemini_embed.embed_from_canonical(wrong, batch=True)


def test_recorded(test_data: Recordings) -> None:
    (interaction, *_) = test_data.interactions("gemini-embeddings")
    request, dropped = gemini_embed.embed_to_canonical(interaction.request_json)
    assert (request["input"], request["dimensions"], dropped) == (["Hello, world!"], 768, ["taskType"])
    answer, _ = to_openai(interaction.response)
    recorded = json.loads(interaction.response)
    assert answer["data"][0]["embedding"] == recorded["embeddings"][0]["values"]
    assert gemini_embed.embed_from_canonical(answer, batch=True)["embeddings"] == recorded["embeddings"]
