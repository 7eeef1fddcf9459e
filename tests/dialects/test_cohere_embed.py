"""Cohere's vectors and rankings, from the provider's recorded answers and from broken ones."""

from __future__ import annotations

import json
import struct
from base64 import b64decode
from typing import Any

import orjson
import pytest

from gateway.dialects.cohere_embed import embeddings, reply_to_rerank
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage
from tests.support.recordings import Recordings


def run(raw: bytes, base64: bool = False) -> tuple[Any, Usage]:
    steps = embeddings(raw, "m", base64)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            body, used = end.value
            return orjson.loads(body), used


def answer(vectors: Any, **meta: Any) -> bytes:
    return json.dumps({"id": "1", "embeddings": {"float": vectors}, "texts": ["a"], "meta": meta}).encode()


def test_the_recorded_vectors(test_data: Recordings) -> None:
    (recorded,) = test_data.interactions("cohere-v2-embed")
    expected = json.loads(recorded.response)["embeddings"]["float"]
    body, used = run(recorded.response)
    assert [item["embedding"] for item in body["data"]] == expected
    assert body["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert used == Usage(4)
    openai = pytest.importorskip("openai.types", reason="the openai SDK is not installed")
    openai.CreateEmbeddingResponse.model_validate(body, strict=True)


def test_base64() -> None:
    body, used = run(answer([[0.5, -1.25], [3.0, 0.0]]), base64=True)
    assert [list(struct.unpack("<2f", b64decode(item["embedding"]))) for item in body["data"]] == [[0.5, -1.25], [3, 0]]
    assert used == Usage(None, provenance="partial")


def test_images_are_counted() -> None:
    assert run(answer([[1]], billed_units={"input_tokens": 2.0, "image_tokens": 3}))[1] == Usage(5)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        answer("x"),
        answer([["x"]]),
        answer([1]),
        b'{"float":[[1]]}',
        b'{"embeddings":{"float":[[1',
    ],
)
def test_what_is_no_answer(raw: bytes) -> None:
    with pytest.raises(UpstreamProtocolError, match="not what Cohere answers"):
        run(raw, base64=True)


def test_the_recorded_ranking_with_its_documents(test_data: Recordings) -> None:
    (recorded,) = test_data.interactions("cohere-v2-rerank")
    told = json.loads(recorded.response)
    plain = reply_to_rerank(told, recorded.request_json, "m")
    assert plain == {**told, "object": "list", "model": "m"}
    full = reply_to_rerank(told, {**recorded.request_json, "return_documents": True}, "m")
    assert full["results"][0]["document"]["text"].startswith("Washington, D.C.")
    assert [each["index"] for each in full["results"]] == [3, 4, 1]


@pytest.mark.parametrize("body", [[], {}, {"results": "x"}, {"results": [{"index": 7}]}, {"results": ["x"]}])
def test_what_is_no_ranking(body: Any) -> None:
    with pytest.raises(UpstreamProtocolError, match="not what Cohere answers"):
        reply_to_rerank(body, {"documents": ["a"], "return_documents": True}, "m")
