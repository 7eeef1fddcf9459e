from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from gateway.body import parse_small
from gateway.demand import NOTHING, demand, spends
from gateway.exchange import Surface
from tests.support.exchanges import make_exchange

CHAT = Surface("chat", "openai_chat", "/chat/completions", chat=True)
EMBED = Surface("embeddings", "openai_chat", "/embeddings", embeds=True)


def of(surface: Surface = CHAT, **body: Any) -> Any:
    payload = parse_small(json.dumps(body).encode())
    return demand(make_exchange(surface=surface, payload=payload))


def test_text_is_estimated_and_bounded() -> None:
    found = of(messages=[{"role": "user", "content": "word " * 1000}])
    assert 1000 <= found.input_tokens <= 1500
    assert found.most_input_tokens >= 2 * found.input_tokens - 2


IMAGE = base64.b64encode(bytes(60_000)).decode()


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}},
        {"inlineData": {"mimeType": "image/png", "data": IMAGE}},
        {"images": [IMAGE]},
        {"image": {"format": "png", "source": {"bytes": IMAGE}}},
    ],
)
def test_an_image_is_not_counted_as_text(part: dict[str, Any]) -> None:
    found = of(messages=[{"role": "user", "content": [part]}])
    assert 1600 <= found.input_tokens <= 3600


def test_r38_a_body_of_many_megabytes_is_estimated_from_some_of_it() -> None:
    image = "A" * 40_000_000
    body = parse_small(json.dumps({"model": "m", "data": image, "text": "word " * 1000}).encode())
    exchange = make_exchange(surface=CHAT, payload=body)
    began = time.process_time()
    found = demand(exchange)
    assert time.process_time() - began < 0.05
    assert 1_000_000 < found.input_tokens < 2_200_000


@pytest.mark.parametrize(
    ("body", "most"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7, "max_tokens": 9}, 7),
        ({"max_output_tokens": 8}, 8),
        ({"generationConfig": {"maxOutputTokens": 6}}, 6),
        ({"options": {"num_predict": 4}}, 4),
        ({"options": {"num_predict": -1}}, None),
        ({"max_tokens": 5, "n": 3}, 15),
        ({"max_tokens": "5"}, None),
        ({"max_tokens": True}, None),
    ],
)
def test_a_request_may_say_how_long_its_answer_is(body: dict[str, Any], most: int | None) -> None:
    found = of(**body)
    assert found.most_output_tokens == most
    assert found.output_tokens(1000) == (1000 if most is None else most)
    assert found.output_tokens(2) == 2


def test_embeddings_have_no_output() -> None:
    assert of(EMBED, input="text").output_tokens(1000) == 0


def test_what_is_not_paid_by_the_token_uses_none() -> None:
    models = Surface("models", "openai_chat", "/models", "any")
    exchange = make_exchange(surface=models)
    assert not spends(exchange)
    assert demand(exchange) == NOTHING
