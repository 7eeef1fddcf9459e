"""Chat answers for chat clients: who gets usage, legacy completions, errors."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from gateway.dialects.complete import is_complete
from gateway.dialects.openai_chat import ChatStream
from gateway.dialects.openai_chat_reply import (
    Encoder,
    TextEncoder,
    error_body,
    error_event,
    reply_from_chat,
    text_reply_from_chat,
    text_request_to_chat,
)
from gateway.dialects.sse import parse_events
from gateway.errors import InvalidRequest

HEAD = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
ASKED = {"stream_options": {"include_usage": True}}
TOKEN = {"token": "Hi", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "Ho", "logprob": -1.5}]}


def chunk(delta: Any = None, **more: Any) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": 0, "delta": delta or {}, "finish_reason": None, **more}]}


CHUNKS = [
    chunk({"role": "assistant", "content": ""}), chunk({"content": "Hi"}), chunk(finish_reason="stop"),
    {**HEAD, "choices": [], "usage": USAGE},
]  # fmt: skip


def told(encoder: Encoder) -> list[dict[str, Any]]:
    block = b"".join([encoder.feed(each) for each in CHUNKS]) + encoder.end()
    *found, last = [data for _, _, data in parse_events(block)]
    assert last == b"[DONE]"
    reader = ChatStream()
    assert all(reader.event(None, data) == 0 for data in [*found, last]) and reader.done
    assert is_complete("chat" if type(encoder) is Encoder else "completions", block, True)
    return [orjson.loads(data) for data in found]


def test_usage_goes_to_who_asked() -> None:
    assert told(Encoder({})) == CHUNKS[:3]
    asked = told(Encoder(ASKED))
    assert [each["usage"] for each in asked] == [None, None, None, USAGE]
    for each in asked:
        ChatCompletionChunk.model_validate(each)


def test_usage_on_a_chunk_with_text_is_taken_off_where_nobody_asked() -> None:
    both = {**chunk({"content": "x"}), "usage": USAGE}
    assert b"usage" not in Encoder({}).feed(both) and b'"x"' in Encoder({}).feed(both)
    assert b"usage" in Encoder(ASKED).feed(both)


def test_legacy_completions_get_the_text() -> None:
    found = told(TextEncoder(ASKED))
    assert [each["choices"][0]["text"] if each["choices"] else None for each in found] == ["Hi", "", None]
    assert found[-1]["usage"] == USAGE
    for each in found[:-1]:
        Completion.model_validate({**each, "choices": [{**c, "finish_reason": "stop"} for c in each["choices"]]})
    assert all(each["object"] == "text_completion" for each in found)
    assert [each["choices"][0]["finish_reason"] for each in told(TextEncoder({}))] == [None, "stop"]


def test_a_whole_completion() -> None:
    message = {"role": "assistant", "content": "Hi", "reasoning_content": "hm"}
    chat = {
        **HEAD,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": {"content": [TOKEN]}}],
    }
    assert reply_from_chat(chat, {}) is chat
    made = text_reply_from_chat({**chat, "usage": USAGE}, {})
    Completion.model_validate(made)
    choice = made["choices"][0]
    assert (choice["text"], choice["reasoning_content"], made["usage"]) == ("Hi", "hm", USAGE)
    assert choice["logprobs"]["token_logprobs"] == [-0.5] and choice["logprobs"]["top_logprobs"] == [{"Ho": -1.5}]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (401, "authentication_error"), (403, "permission_error"),
     (404, "invalid_request_error"), (429, "rate_limit_error"), (502, "server_error"), (529, "server_error")],
)  # fmt: skip
def test_errors(status: int, kind: str) -> None:
    body = orjson.loads(error_body(status, "c", "m", "rid"))
    assert body == {"error": {"message": "m (request id: rid)", "type": kind, "param": None, "code": "c"}}
    event = error_event(status, "model_not_found", "m", "")
    assert ChatStream().event(None, event[6:-2]) == 2
    assert orjson.loads(event[6:-2])["error"]["param"] == "model"


def test_a_legacy_prompt_becomes_a_message() -> None:
    body = {
        "model": "m",
        "prompt": ["Once"],
        "max_tokens": 5,
        "logprobs": 2,
        "echo": True,
        "best_of": 1,
        "stream": True,
    }
    chat, dropped = text_request_to_chat(body)
    assert chat == {
        "model": "m", "max_tokens": 5, "stream": True, "logprobs": True, "top_logprobs": 2,
        "messages": [{"role": "user", "content": "Once"}],
    }  # fmt: skip
    assert dropped == ["echo"]


@pytest.mark.parametrize("prompt", [None, 5, [1, 2], ["a", "b"], [[1]]])
def test_other_prompts_are_refused(prompt: Any) -> None:
    with pytest.raises(InvalidRequest, match="prompt: "):
        text_request_to_chat({"prompt": prompt})
