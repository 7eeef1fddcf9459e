"""OpenAI's own Python client in front of the gateway: it gets its types, its streams and its exceptions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from gateway.testing import (
    Ending,
    GatewayFactory,
    GatewayProcess,
    Script,
    ScriptedUpstream,
    chat_stream,
    error,
    hang_up,
    silent,
    stream,
    whole,
)

KEYS = {name: f"hg-sdk-{name}" for name in ("alice", "bob", "carol")}
LIMITS = {"bob": 'models = ["echo"]', "carol": "requests_per_minute = 1"}
CONFIG = (
    """
default_provider = "stub"
[retry]
attempts = 1
[breaker]
failures = 0
error_rate = 0
[plugins.rate_limit]
requests_per_minute = 0
[providers.echo]
type = "echo"
[providers.stub]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
api_key = "env:STUB_KEY"
timeouts = { first_token = "1s", idle = "1s" }
[models.m]
targets = [{ provider = "stub" }]
"""
    + "\n".join(
        f'[keys.{name}]\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n{LIMITS.get(name, "")}'
        for name, key in KEYS.items()
    )
)  # fmt: skip
MESSAGES: Any = [{"role": "user", "content": "Hello, dear gateway"}]
TOOLS: Any = [
    {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
]  # fmt: skip


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, provider_port: int) -> GatewayProcess:
    return shared_gateway_server(CONFIG, env={"STUB_KEY": "sk-stub"}, port=str(provider_port))


Connect = Callable[[str], AsyncOpenAI]


@pytest.fixture
async def connect(gateway: GatewayProcess) -> AsyncIterator[Connect]:
    """Makes a client that tries once, with the key given."""
    made: list[AsyncOpenAI] = []

    def make(key: str) -> AsyncOpenAI:
        http = DefaultAsyncHttpxClient(trust_env=False)  # no proxy of the environment: this is 127.0.0.1
        made.append(AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0, http_client=http))
        return made[-1]

    yield make
    for client in made:
        await client.close()


@pytest.fixture
def client(connect: Connect) -> AsyncOpenAI:
    return connect(KEYS["alice"])


async def test_chat(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="echo", messages=MESSAGES)
    assert answer.choices[0].message.content == "Hello, dear gateway"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None and answer.usage.total_tokens == 6


@pytest.mark.parametrize("model", ["echo", "m"])
async def test_a_stream_is_whole_and_tells_no_usage_that_nobody_asked_for(
    client: AsyncOpenAI, upstream: ScriptedUpstream, model: str
) -> None:
    chunks = [c async for c in await client.chat.completions.create(model=model, messages=MESSAGES, stream=True)]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == ("Hello, dear gateway" if model == "echo" else "w0 w1 w2 ")
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize(("model", "total"), [("echo", 6), ("m", 7)])
async def test_a_stream_ends_with_the_usage_that_was_asked_for(
    client: AsyncOpenAI, upstream: ScriptedUpstream, model: str, total: int
) -> None:
    create: Any = client.chat.completions.create
    asked = await create(model=model, messages=MESSAGES, stream=True, stream_options={"include_usage": True})
    *_, last = [chunk async for chunk in asked]
    assert last.choices == [] and last.usage.total_tokens == total


async def test_the_streaming_helper_gathers_the_answer(client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(model="echo", messages=MESSAGES) as events:
        final = await events.get_final_completion()
    assert final.choices[0].message.content == "Hello, dear gateway"


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "look_up"}}], ids=["any", "named"]
)
async def test_a_forced_tool_is_called(client: AsyncOpenAI, choice: Any) -> None:
    create: Any = client.chat.completions.create
    answer = await create(model="echo", messages=MESSAGES, tools=TOOLS, tool_choice=choice)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "look_up"
    assert json.loads(call.function.arguments) == {"text": "Hello, dear gateway"}
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_a_streamed_tool_call_is_put_together(client: AsyncOpenAI) -> None:
    make = client.chat.completions.stream
    async with make(model="echo", messages=MESSAGES, tools=TOOLS, tool_choice="required") as events:
        final = await events.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls is not None and calls[0].function.name == "look_up"


async def test_embeddings_arrive_as_numbers_however_they_travel(client: AsyncOpenAI) -> None:
    packed = await client.embeddings.create(model="echo", input=["a", "b"])  # the SDK asks for base64
    plain = await client.embeddings.create(model="echo", input=["a", "b"], encoding_format="float")
    assert [item.index for item in packed.data] == [0, 1]
    assert [len(item.embedding) for item in packed.data] == [8, 8]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)


async def test_legacy_completions_whole_and_streamed(client: AsyncOpenAI) -> None:
    answer = await client.completions.create(model="echo", prompt="once upon")
    assert answer.choices[0].text == "once upon"
    chunks = [chunk async for chunk in await client.completions.create(model="echo", prompt="once upon", stream=True)]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "once upon"


async def test_models_are_listed_and_retrieved(client: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    listed = [model.id async for model in client.models.list()]
    assert "echo" in listed and "m" in listed
    assert (await client.models.retrieve("echo")).owned_by == "echo"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nobody")


async def test_models_are_only_those_of_the_key(connect: Connect, upstream: ScriptedUpstream) -> None:
    assert [model.id async for model in connect(KEYS["bob"]).models.list()] == ["echo"]


OUTPUT = [
    {
        "id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "Good day", "annotations": []}],
    }
]  # fmt: skip
RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1700000000, "model": "m", "status": "completed", "error": None,
    "output": OUTPUT, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "metadata": {},
    "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5,
              "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}},
}  # fmt: skip
RESPONSE_EVENTS = [
    {"type": "response.created", "sequence_number": 0, "response": {**RESPONSE, "status": "in_progress", "output": []}},
    {"type": "response.output_text.delta", "sequence_number": 1, "item_id": "msg_1", "output_index": 0,
     "content_index": 0, "delta": "Good day", "logprobs": []},
    {"type": "response.completed", "sequence_number": 2, "response": RESPONSE},
]  # fmt: skip


async def test_responses_pass_whole(client: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    upstream.script = whole(200, RESPONSE)
    answer = await client.responses.create(model="m", input="hello", store=False)
    assert answer.output_text == "Good day"
    (call,) = upstream.calls
    assert (call.target, call.json) == ("/v1/responses", {"input": "hello", "model": "m", "store": False})


async def test_responses_pass_event_by_event(client: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    upstream.script = stream(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in RESPONSE_EVENTS
    )
    events = [event async for event in await client.responses.create(model="m", input="hello", stream=True)]
    assert [event.type for event in events] == [event["type"] for event in RESPONSE_EVENTS]


async def test_moderations_go_to_the_default_provider(client: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    result = {"flagged": False, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}
    upstream.script = whole(200, {"id": "modr-1", "model": "omni", "results": [result]})
    answer = await client.moderations.create(input="be nice")
    assert answer.results[0].flagged is False
    assert upstream.calls[0].json == {"input": "be nice"}


async def test_a_transcription_uploads_its_sound(client: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    upstream.script = whole(200, {"text": "spoken"})
    sound = bytes(range(256)) * 4000
    answer = await client.audio.transcriptions.create(model="m", file=("a.wav", sound, "audio/wav"))
    assert answer.text == "spoken"
    (call,) = upstream.calls
    assert call.target == "/v1/audio/transcriptions"
    assert sound in call.body and b'name="model"' in call.body


async def test_a_file_is_uploaded(client: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    stored = {"id": "file-1", "object": "file", "bytes": 3, "created_at": 1, "filename": "a.jsonl",
              "purpose": "batch", "status": "processed"}  # fmt: skip
    upstream.script = whole(200, stored)
    assert (await client.files.create(file=("a.jsonl", b"{}\n"), purpose="batch")).id == "file-1"
    assert b"{}\n" in upstream.calls[0].body
    assert (await client.files.retrieve("file-1")).filename == "a.jsonl"
    assert upstream.calls[1].target == "/v1/files/file-1"


async def test_a_wrong_key_is_an_authentication_error(connect: Connect, upstream: ScriptedUpstream) -> None:
    with pytest.raises(openai.AuthenticationError) as raised:
        await connect("hg-nobody").chat.completions.create(model="m", messages=MESSAGES)
    assert raised.value.code == "invalid_api_key"
    assert raised.value.request_id
    assert upstream.requests == []


async def test_a_forbidden_model_is_a_permission_error(connect: Connect, upstream: ScriptedUpstream) -> None:
    with pytest.raises(openai.PermissionDeniedError) as raised:
        await connect(KEYS["bob"]).chat.completions.create(model="m", messages=MESSAGES)
    assert "echo" not in str(raised.value)
    assert upstream.calls == []


async def test_a_spent_limit_is_a_rate_limit_error_that_says_when(connect: Connect) -> None:
    client = connect(KEYS["carol"])
    await client.chat.completions.create(model="echo", messages=MESSAGES)
    with pytest.raises(openai.RateLimitError) as raised:
        await client.chat.completions.create(model="echo", messages=MESSAGES)
    assert 0 < int(raised.value.response.headers["retry-after"]) <= 61
    assert raised.value.response.headers["x-ratelimit-remaining-requests"] == "0"


async def test_a_malformed_request_is_a_bad_request_error(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        create: Any = client.chat.completions.create
        await create(model="echo", messages="not a list")


@pytest.mark.parametrize(
    ("script", "kind", "status", "code"),
    [
        (
            error(400, "too long", code="context_length_exceeded"),
            openai.BadRequestError,
            400,
            "context_length_exceeded",
        ),
        (error(404, "no such model", code="model_not_found"), openai.NotFoundError, 404, "model_not_found"),
        (error(422), openai.UnprocessableEntityError, 422, None),
        (error(429, headers={"Retry-After": "7"}), openai.RateLimitError, 429, None),
        (error(401, "our key is wrong"), openai.InternalServerError, 502, "upstream_refused"),
        (error(500), openai.InternalServerError, 500, None),
        (hang_up, openai.InternalServerError, 502, "upstream_unreachable"),
        (silent, openai.InternalServerError, 504, "upstream_timeout"),
    ],
    ids=["400", "404", "422", "429", "our credential", "500", "closed", "silent"],
)
async def test_what_a_provider_says_becomes_the_error_of_its_kind(
    client: AsyncOpenAI,
    upstream: ScriptedUpstream,
    script: Script,
    kind: type[openai.APIStatusError],
    status: int,
    code: str | None,
) -> None:
    upstream.script = script
    with pytest.raises(kind) as raised:
        # A target of its own: what a 429 keeps away must not be the next test's calls.
        await client.chat.completions.create(model=f"stub/{status}", messages=MESSAGES)
    assert (raised.value.status_code, raised.value.code) == (status, code)
    assert len(upstream.calls) == 1
    if status == 429:
        assert raised.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("ending", ["end", "close", "reset", "half", "stall"])
async def test_a_broken_stream_raises(client: AsyncOpenAI, upstream: ScriptedUpstream, ending: Ending) -> None:
    upstream.script = chat_stream(20, after=5, ending=ending)
    seen = []
    with pytest.raises(openai.APIError) as raised:
        async for chunk in await client.chat.completions.create(model="m", messages=MESSAGES, stream=True):
            seen.append(chunk)
    assert len(seen) == 5
    assert not isinstance(raised.value, openai.APIStatusError)
    assert len(upstream.calls) == 1
