"""Translations between dialects, in a loop with a scripted provider; whole conversations are in ``tests/contract``."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway import Surface, Target, Usage
from gateway.errors import InvalidRequest
from gateway.translation import chat_of, refused, whole
from tests.support.exchanges import make_exchange


async def test_another_operation_than_chat_is_refused() -> None:
    exchange = make_exchange(surface=Surface("audio", "openai_chat", "/audio/speech"))
    with pytest.raises(InvalidRequest, match="does not serve this operation"):
        await chat_of(exchange)


async def test_a_canonical_answer_is_openai_s() -> None:
    chat: dict[str, Any] = {"id": "1", "choices": []}
    reply = await whole(make_exchange(), chat, Usage(1, 2))
    assert (orjson.loads(reply.body or b""), reply.usage) == (chat, Usage(1, 2))


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (429, "rate_limit_error"), (503, "server_error")]
)
def test_a_refusal_in_the_client_s_dialect(status: int, kind: str) -> None:
    error = refused(make_exchange(target=Target("p", "m")), status, "some_code", "Said.", retry_after=2.0)
    expected = {"message": "Said.", "type": kind, "param": None, "code": "some_code"}
    assert orjson.loads(error.body) == {"error": expected}
    assert (error.target, error.retry_after, error.http_status) == ("p/m", 2.0, status)


def test_a_model_that_is_not_there_is_named_as_what_is_wrong() -> None:
    error = refused(make_exchange(), 404, "model_not_found", "No.")
    assert orjson.loads(error.body)["error"]["param"] == "model" and error.target is None
