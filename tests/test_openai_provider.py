"""What is changed in a request that passes through to a provider of OpenAI's API."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import Surface, Target
from gateway.body import parse_small
from gateway.errors import InvalidRequest, UpstreamProtocolError
from gateway.openai_provider import edits, models_in
from tests.support.exchanges import make_exchange

EMBEDDINGS = Surface("embeddings", "openai_chat", "/embeddings", "json", True, True)


def changed(raw: bytes, *, usage: bool = True, target: Target | None = None, **more: Any) -> Any:
    payload = parse_small(raw)
    exchange = make_exchange(payload=payload, **{"stream": payload.stream, "model": payload.model, **more})
    return edits(exchange, target or Target("p"), usage), "strip_usage" in exchange.notes


ASKED = {"stream_options": b'{"include_usage":true}'}


@pytest.mark.parametrize(
    ("raw", "usage", "expected"),
    [
        (b'{"model":"m"}', True, ({}, False)),
        (b'{"model":"m","stream":true}', True, (ASKED, True)),
        (b'{"model":"m","stream":true}', False, ({}, False)),
        (b'{"model":"m","stream":true,"stream_options":null}', True, (ASKED, True)),
        (b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}', True, ({}, False)),
    ],
)
def test_the_usage_of_streams_is_asked_for(raw: bytes, usage: bool, expected: Any) -> None:
    assert changed(raw, usage=usage) == expected


def test_other_surfaces_are_not_asked_for_usage() -> None:
    assert changed(b'{"model":"m","stream":true}', surface=EMBEDDINGS) == ({}, False)


def test_stream_options_of_another_kind_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        changed(b'{"model":"m","stream":true,"stream_options":[]}')


def test_a_model_that_only_the_path_names_goes_into_the_body() -> None:
    assert changed(b"{}", model="deployment") == ({"model": b'"deployment"'}, False)
    assert changed(b"{}", model="deployment", target=Target("p", "real")) == ({"model": b'"real"'}, False)
    assert changed(b"{}", model=None) == ({}, False)


def test_models_are_found_in_both_forms_of_the_list() -> None:
    models = [{"id": "a"}, {"name": "none"}, "none", {"id": "b"}]
    assert models_in(models, "p") == models_in({"data": models}, "p") == [{"id": "a"}, {"id": "b"}]
    others: list[Any] = [None, {}, {"data": {}}, "x"]
    for other in others:
        with pytest.raises(UpstreamProtocolError):
            models_in(other, "p")
