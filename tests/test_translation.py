"""Requests and answers between a client's dialect and a provider's."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from gateway.body import parse_small
from gateway.dialects import registry
from gateway.dialects.openai_chat_provider import Decoder
from gateway.errors import InvalidRequest, UpstreamProtocolError
from gateway.exchange import Exchange, Surface, Usage
from gateway.surfaces import ACTIONS, OLLAMA, SURFACES
from gateway.translation import embedded, embeddings_of
from tests.support.exchanges import make_exchange

BY_NAME: dict[str, Surface] = {
    surface.name: surface
    for surface in (*(each[2] for each in SURFACES), *ACTIONS.values(), *(each[1] for each in OLLAMA))
}
VECTORS = [[0.5, -1.25], [1.0, 2.0]]
PACKED = [base64.b64encode(struct.pack("<2f", *vector)).decode() for vector in VECTORS]
TEXT = {"parts": [{"text": "a"}]}


def exchange_of(surface: str, body: Mapping[str, Any]) -> Exchange:
    exchange = make_exchange()
    exchange.surface = BY_NAME[surface]
    exchange.payload = parse_small(orjson.dumps(body))
    exchange.model = exchange.payload.model
    return exchange


def listed(vectors: list[Any], **more: Any) -> dict[str, Any]:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return {"object": "list", "data": data, "model": "e", "usage": usage, **more}


@pytest.mark.parametrize(
    ("surface", "body", "expected", "dropped"),
    [
        ("embeddings", {"model": "e", "input": ["a"], "user": "u"}, {"model": "e", "input": ["a"], "user": "u"}, []),
        (
            "ollama_embed",
            {"model": "e", "input": "a", "truncate": True, "options": {}, "dimensions": 2, "keep_alive": "5m"},
            {"model": "e", "input": "a", "encoding_format": "float", "dimensions": 2},
            ["keep_alive"],
        ),
        (
            "ollama_embeddings",
            {"model": "e", "prompt": "a", "options": {"num_ctx": 5}},
            {"model": "e", "input": "a", "encoding_format": "float"},
            ["options"],
        ),
        ("embed_content", {"content": TEXT}, {"input": "a", "encoding_format": "float"}, []),
        (
            "batch_embed_contents",
            {"requests": [{"content": TEXT, "outputDimensionality": 2}]},
            {"input": ["a"], "encoding_format": "float", "dimensions": 2},
            [],
        ),
    ],
)
async def test_every_client_s_embeddings_become_openai_s(
    surface: str, body: dict[str, Any], expected: dict[str, Any], dropped: list[str]
) -> None:
    exchange = exchange_of(surface, body)
    request = await embeddings_of(exchange)
    assert request == expected
    assert exchange.dropped == dropped
    assert await embeddings_of(exchange) is request, "translated once, also when several targets are tried"


async def test_what_asks_for_no_embeddings_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        await embeddings_of(exchange_of("chat", {"model": "m", "messages": []}))


def as_json(answer: dict[str, Any]) -> bytes:
    return orjson.dumps(answer)


def as_object(answer: dict[str, Any]) -> dict[str, Any]:
    return answer


FORMS = pytest.mark.parametrize("form", [as_json, as_object])


@FORMS
@pytest.mark.parametrize("given", [VECTORS, PACKED], ids=["numbers", "base64"])
@pytest.mark.parametrize(
    ("surface", "body", "expected"),
    [
        ("embeddings", {"input": ["a", "b"]}, listed(VECTORS)),
        ("embeddings", {"input": ["a", "b"], "encoding_format": "float"}, listed(VECTORS)),
        ("embeddings", {"input": ["a", "b"], "encoding_format": "base64"}, listed(PACKED)),
        (
            "ollama_embed",
            {"input": ["a", "b"]},
            {"model": "e", "embeddings": VECTORS, "total_duration": 0, "load_duration": 0, "prompt_eval_count": 3},
        ),
        ("ollama_embeddings", {"prompt": "a"}, {"embedding": VECTORS[0]}),
        (
            "embed_content",
            {"content": TEXT},
            {"embedding": {"values": VECTORS[0]}, "usageMetadata": {"promptTokenCount": 3}},
        ),
        (
            "batch_embed_contents",
            {"requests": [{"content": TEXT}, {"content": TEXT}]},
            {"embeddings": [{"values": vector} for vector in VECTORS], "usageMetadata": {"promptTokenCount": 3}},
        ),
    ],
)
async def test_every_client_gets_its_own_shape(
    surface: str, body: dict[str, Any], expected: Any, given: list[Any], form: Any
) -> None:
    reply = await embedded(exchange_of(surface, {"model": "e", **body}), form(listed(given)), None)
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert orjson.loads(reply.body or b"") == expected


async def test_a_list_in_the_form_asked_for_stays_the_bytes_it_was() -> None:
    raw = orjson.dumps(listed(PACKED), option=orjson.OPT_INDENT_2)
    reply = await embedded(exchange_of("embeddings", {"input": "a", "encoding_format": "base64"}), raw, Usage(7))
    assert reply.body is raw
    assert reply.usage == Usage(7)


async def test_usage_is_read_where_nobody_knows_it() -> None:
    reply = await embedded(exchange_of("ollama_embeddings", {"prompt": "a"}), orjson.dumps(listed(VECTORS)), None)
    assert reply.usage == Usage(3)


async def test_vectors_come_in_the_order_of_their_index() -> None:
    answer = listed(VECTORS)
    answer["data"].reverse()
    reply = await embedded(exchange_of("ollama_embed", {"input": ["a", "b"]}), orjson.dumps(answer), None)
    assert orjson.loads(reply.body or b"")["embeddings"] == VECTORS


@FORMS
@pytest.mark.parametrize(
    "answer",
    [
        {}, {"data": None}, {"data": [3]}, {"data": [{}]}, {"data": [{"embedding": None}]},
        {"data": [{"embedding": 0}]}, {"data": [{"embedding": "%"}]}, {"data": [{"embedding": "AAA="}]},
    ],
)  # fmt: skip
async def test_what_is_no_list_of_embeddings_is_the_provider_s_failure(answer: dict[str, Any], form: Any) -> None:
    with pytest.raises(UpstreamProtocolError):
        await embedded(exchange_of("ollama_embed", {"input": "a"}), form(answer), None)


@pytest.mark.parametrize(
    "raw", [b"", b"oops", b'{"data":[{"embedding":[1', b"[]", b'{"data":[{"embedding":[[1],[2]]}]}']
)
async def test_neither_is_what_is_torn(raw: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        await embedded(exchange_of("ollama_embed", {"input": "a"}), raw, None)


@pytest.mark.parametrize(
    ("dialect", "body", "expected"),
    [
        (
            "anthropic_messages",
            {"usage": {"input_tokens": 3, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 5,
                       "output_tokens": 7}},
            Usage(18, 7, 10, 5),
        ),
        ("gemini", {"usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 2}}, Usage(4, 2)),
        (
            "gemini",
            [{"usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 1}},
             {"usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 2, "thoughtsTokenCount": 5}}],
            Usage(4, 7, None, None, 5),
        ),
        ("openai_responses", {"usage": {"input_tokens": 3, "output_tokens": 1}}, Usage(3, 1)),
        ("openai_chat", {"usage": {"prompt_tokens": 3, "completion_tokens": 1}}, Usage(3, 1)),
        ("anthropic_messages", [], None),
    ],
)  # fmt: skip
def test_what_a_whole_answer_used_is_read_as_its_dialect_counts(
    dialect: str, body: Any, expected: Usage | None
) -> None:
    assert registry.client(dialect).usage(orjson.dumps(body)) == expected
    assert registry.client(dialect).usage(b"no json") is None


def test_groq_s_usage_of_a_stream_reaches_clients_of_other_dialects() -> None:
    chunk = {"choices": [], "x_groq": {"usage": {"prompt_tokens": 3, "completion_tokens": 1}}}
    decoder = Decoder()
    (read,) = decoder.feed(b"data: " + orjson.dumps(chunk) + b"\n\n")
    assert read["usage"] == {"prompt_tokens": 3, "completion_tokens": 1}
    assert decoder.usage == Usage(3, 1)
