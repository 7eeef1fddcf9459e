"""Google's own Python SDK reads what the dialect ``gemini`` writes, and the dialect reads what it sends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from gateway.dialects import gemini_client, gemini_embed, gemini_error, gemini_models, gemini_reply
from gateway.dialects.gemini_encoder import Encoder
from gateway.testing import Script, ScriptedUpstream, stream, whole

genai: Any = pytest.importorskip("google.genai", reason="google-genai is not installed (extra test)")
# The SDK's own class below aiohttp's session; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

JSON = {"Content-Type": "application/json"}
EVENTS = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
SIGNED = {**CALL, "extra_content": {"google": {"thought_signature": "c2lnbg=="}}}
USAGE = {"prompt_tokens": 3, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}


def answer(body: Any) -> Script:
    return whole(200, orjson.dumps(body), JSON)


def streamed(*deltas: Any, end: bytes | None = None) -> Script:
    encoder = Encoder({})
    chunks = [{"id": "x", "model": "m", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    events = [encoder.feed(chunk) for chunk in chunks]
    if end is None:
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}], "usage": USAGE}
        end = encoder.feed(last) + encoder.end()
    return stream([*[event for event in events if event], end], headers=EVENTS)


@asynccontextmanager
async def sdk(script: Script) -> AsyncIterator[tuple[Any, ScriptedUpstream]]:
    async with ScriptedUpstream(script, models=()) as upstream:
        options = {"base_url": upstream.url, "retry_options": {"attempts": 1}}
        client = genai.Client(api_key="k", http_options=options)
        try:
            yield client.aio.models, upstream
        finally:
            await client.aio.aclose()
            client.close()


async def test_a_whole_answer() -> None:
    message = {"role": "assistant", "content": "Hi", "tool_calls": [SIGNED]}
    chat = {"id": "x", "model": "m", "usage": USAGE,
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}  # fmt: skip
    async with sdk(answer(gemini_reply.reply_from_chat(chat, {}))) as (models, upstream):
        config = {"system_instruction": "Be brief.", "max_output_tokens": 5, "response_mime_type": "application/json"}
        reply = await models.generate_content(model="m", contents="hi", config=config)
        asked, dropped = gemini_client.request_to_chat(upstream.calls[0].json)
    assert asked == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "max_completion_tokens": 5,
        "response_format": {"type": "json_object"},
    }
    assert dropped == []
    assert reply.candidates[0].content.parts[0].text == "Hi" and reply.function_calls[0].args == {"a": 1}
    assert reply.candidates[0].content.parts[1].thought_signature == b"sign"
    assert reply.usage_metadata.candidates_token_count == 5 and reply.usage_metadata.thoughts_token_count == 4


async def test_a_stream() -> None:
    call = {"tool_calls": [{"index": 0, **SIGNED}]}
    async with sdk(streamed({"content": "Grü"}, {"content": "ße"}, call)) as (models, _):
        pieces = [piece async for piece in await models.generate_content_stream(model="m", contents="hi")]
    parts = [part for piece in pieces for part in piece.candidates[0].content.parts]
    assert "".join(part.text or "" for part in parts) == "Grüße"
    assert [part.function_call.args for part in parts if part.function_call] == [{"a": 1}]
    assert pieces[-1].candidates[0].finish_reason == "STOP" and pieces[-1].usage_metadata.total_token_count == 12


async def test_an_error_inside_a_stream_is_raised() -> None:
    error = gemini_error.error_event(503, "overloaded", "Busy.", "id1")
    async with sdk(streamed({"content": "a"}, end=error)) as (models, _):
        with pytest.raises(genai.errors.ServerError, match="Busy"):
            _ = [piece async for piece in await models.generate_content_stream(model="m", contents="hi")]


async def test_an_error_is_raised_with_its_status() -> None:
    error = gemini_error.error_body(429, "rate_limit_exceeded", "Slow down.", "id1", retry_after=2)
    async with sdk(whole(429, error, JSON)) as (models, _):
        with pytest.raises(genai.errors.ClientError) as caught:
            await models.generate_content(model="m", contents="hi")
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")


async def test_counts_embeddings_and_models() -> None:
    async with sdk(answer(gemini_client.count_body(7))) as (models, upstream):
        assert (await models.count_tokens(model="m", contents="hi")).total_tokens == 7
        assert gemini_client.count_to_chat(upstream.calls[0].json)[0]["messages"] == [{"role": "user", "content": "hi"}]
    vectors = gemini_embed.embed_from_canonical({"data": [{"index": 0, "embedding": [0.5]}]}, batch=True)
    async with sdk(answer(vectors)) as (models, upstream):
        reply = await models.embed_content(model="e", contents=["hi"], config={"output_dimensionality": 1})
        assert reply.embeddings[0].values == [0.5]
        asked, _ = gemini_embed.embed_to_canonical(upstream.calls[0].json)
        assert asked == {"input": ["hi"], "encoding_format": "float", "dimensions": 1}
    async with sdk(answer(gemini_models.models_body([{"id": "a"}]))) as (models, _):
        assert [model.name async for model in await models.list()] == ["models/a"]
