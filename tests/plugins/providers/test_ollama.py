"""The ollama provider in a real gateway, in front of a scripted Ollama; called with raw bytes and the official SDK."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from gateway.testing import (
    Call,
    Ending,
    GatewayFactory,
    GatewayProcess,
    RawClient,
    Script,
    ScriptedUpstream,
    Truncated,
    fetch,
    fetch_chat,
    free_ports,
    stream,
    whole,
)
from gateway_plugins.providers.ollama import Settings
from tests.contract.provider import ProviderContract
from tests.contract.spoken import Spoken
from tests.support import golden
from tests.support.recordings import Recordings

NDJSON = {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}
MOMENT = "2025-07-07T20:22:19.184789Z"
COUNTS = {"done": True, "done_reason": "stop", "prompt_eval_count": 26, "eval_count": 4}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

CONFIG = """
[plugins]
folders = ["$plugins"]
chain = ["spy"]

[retry]
attempts = 1
[breaker]
failures = 0
error_rate = 0

[providers.ollama]
type = "ollama"
base_url = "http://127.0.0.1:$port"
api_key = "env:OLLAMA_API_KEY"
options = { num_ctx = 8192 }
keep_alive = "10m"
timeouts = { connect = "1s", first_token = "2s", idle = "2s" }
"""
SPY = """
import json, os
from gateway import hookimpl

class Plugin:
    def __init__(self, settings, runtime):
        self._file = open(os.environ["SPY"], "a", buffering=1)

    @hookimpl
    async def on_finish(self, exchange):
        usage = exchange.usage
        seen = None if usage is None else [usage.input_tokens, usage.output_tokens, usage.provenance]
        self._file.write(json.dumps([exchange.outcome, seen]) + "\\n")

    @hookimpl
    async def on_shutdown(self):
        self._file.close()
"""


def part(**message: Any) -> dict[str, Any]:
    return {"model": "llama3", "created_at": MOMENT, "message": {"role": "assistant", "content": "", **message}}


def lines(*parts: Any) -> list[bytes]:
    return [json.dumps(each).encode() + b"\n" for each in parts]


def ndjson(*parts: Any, ending: Ending = "end") -> Script:
    return stream(lines(*parts), headers=NDJSON, ending=ending)


HELLO = ndjson(part(content="Hel"), part(content="lo"), part() | COUNTS)


LAST = part() | COUNTS | {"prompt_eval_count": 5, "eval_count": 2}


class TestContract(ProviderContract):
    type = "ollama"
    spoken = Spoken(
        body=json.dumps(LAST | part(content="Hello")).encode(),
        events=tuple(lines(part(content="Hel"), part(content="lo"), LAST)),
        error=lambda status, message: {"error": message},
        failure=lines({"error": "It broke."})[0],
        text="Hello",
        first=b"Hel",
        headers=NDJSON,
    )


class Spy:
    """What the gateway's own books say: (outcome, usage) of each exchange."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def exchanges(self) -> list[Any]:
        return [json.loads(line) for line in self._file.read_text().splitlines()]

    async def last(self) -> Any:
        async with asyncio.timeout(2):
            while not self.exchanges():  # noqa: ASYNC110 - the writer is another process
                await asyncio.sleep(0.01)
        return self.exchanges()[-1]


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spy")
    (folder / "spy.py").write_text(SPY)
    return folder


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, port: int, folder: Path) -> GatewayProcess:
    env = {"OLLAMA_API_KEY": "sk-ollama-canary", "SPY": str(folder / "log")}
    return shared_gateway_server(CONFIG, env=env, port=str(port), plugins=str(folder))


@pytest.fixture
def spy(folder: Path) -> Spy:
    (folder / "log").write_text("")
    return Spy(folder / "log")


@pytest.fixture
async def ollama(port: int) -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(HELLO, port=port, models=()) as upstream:
        yield upstream


@pytest.fixture
async def sdk(gateway: GatewayProcess, ollama: ScriptedUpstream) -> AsyncIterator[Any]:
    openai = pytest.importorskip("openai", reason="the openai SDK is not installed")
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as client:
        yield client


async def post(gateway: GatewayProcess, path: str, **body: Any) -> Any:
    raw = json.dumps({"model": "ollama/llama3", **body}).encode()
    return await fetch(gateway.url + path, "POST", {"Content-Type": "application/json"}, raw)


async def test_a_whole_chat(gateway: GatewayProcess, ollama: ScriptedUpstream, spy: Spy) -> None:
    ollama.script = whole(200, part(content="Hello") | COUNTS)
    reply = await fetch_chat(gateway.url, "ollama/llama3", temperature=0, user="u1", options={"top_k": 5})
    assert reply.status == 200
    assert reply.json["choices"][0]["message"]["content"] == "Hello"
    assert reply.json["usage"] == {"prompt_tokens": 26, "completion_tokens": 4, "total_tokens": 30}
    assert reply.header("content-type") == "application/json"
    assert reply.header("x-gateway-dropped") == "user"
    (call,) = ollama.calls
    assert (call.method, call.target) == ("POST", "/api/chat")
    assert call.json == {
        "model": "llama3",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": False,
        "options": {"num_ctx": 8192, "temperature": 0, "top_k": 5},
        "keep_alive": "10m",
    }
    assert call.header("content-type") == "application/json"
    assert call.header("authorization") == "Bearer sk-ollama-canary"
    assert await spy.last() == ["ok", [26, 4, "reported"]]


async def events(gateway: GatewayProcess, **fields: Any) -> list[bytes]:
    async with RawClient(gateway.url) as client:
        await client.chat("ollama/llama3", stream=True, **fields)
        head = await client.read_head()
        assert head.start.split(" ")[1] == "200"
        assert (head.get("content-type") or "").startswith("text/event-stream")
        return [event async for event in client.events()]


def deltas(received: Iterable[bytes]) -> list[Any]:
    chunks = [json.loads(event[6:]) for event in received if event != b"data: [DONE]\n\n"]
    return [choice["delta"] for chunk in chunks for choice in chunk["choices"]]


async def test_a_streamed_chat(gateway: GatewayProcess, ollama: ScriptedUpstream, spy: Spy) -> None:
    received = await events(gateway)
    role = {"role": "assistant", "content": "", "refusal": None}
    assert deltas(received) == [role, {"content": "Hel"}, {"content": "lo"}, {}]
    assert received[-1] == b"data: [DONE]\n\n"
    assert not any(b'"usage"' in event for event in received)
    assert ollama.calls[0].json["stream"] is True
    assert await spy.last() == ["ok", [26, 4, "reported"]]


async def test_usage_is_streamed_to_who_asks(gateway: GatewayProcess, ollama: ScriptedUpstream) -> None:
    received = await events(gateway, stream_options={"include_usage": True})
    assert json.loads(received[-2][6:])["usage"] == {"prompt_tokens": 26, "completion_tokens": 4, "total_tokens": 30}
    assert "stream_options" not in ollama.calls[0].json


async def test_a_cached_prompt_is_not_counted_as_empty(
    gateway: GatewayProcess, ollama: ScriptedUpstream, spy: Spy
) -> None:
    ollama.script = ndjson(part(content="Hi"), part() | {"done": True, "eval_count": 4})
    await events(gateway, stream_options={"include_usage": True})
    assert await spy.last() == ["ok", [None, 4, "partial"]]


async def test_a_last_line_without_its_line_feed(gateway: GatewayProcess, ollama: ScriptedUpstream, spy: Spy) -> None:
    ollama.script = stream([b"".join(lines(part(content="Hi"), part() | COUNTS)).rstrip()], headers=NDJSON)
    assert (await events(gateway))[-1] == b"data: [DONE]\n\n"
    assert await spy.last() == ["ok", [26, 4, "reported"]]


async def test_r32_each_line_is_sent_on_as_it_comes(gateway: GatewayProcess, ollama: ScriptedUpstream) -> None:
    seen = asyncio.Event()

    async def script(call: Call) -> None:
        await call.head(200, NDJSON)
        first, last = lines(part(content="Hel"), part() | COUNTS)
        await call.chunk(first)
        await asyncio.wait_for(seen.wait(), 2)
        await call.chunk(last)
        await call.chunk(b"")

    ollama.script = script
    async with RawClient(gateway.url) as client:
        await client.chat("ollama/llama3", stream=True)
        await client.read_head()
        received = b""
        async for event in client.events():
            received += event
            if b"Hel" in event:
                seen.set()
    assert received.endswith(b"data: [DONE]\n\n")


async def test_the_connection_is_used_again_after_a_stream(gateway: GatewayProcess, ollama: ScriptedUpstream) -> None:
    for _ in range(3):
        await events(gateway)
    assert len(ollama.connections) == 1


async def test_r27_a_client_that_leaves_frees_the_model(gateway: GatewayProcess, ollama: ScriptedUpstream) -> None:
    ollama.script = ndjson(part(content="Hel"), ending="stall")
    async with RawClient(gateway.url) as client:
        await client.chat("ollama/llama3", stream=True)
        await client.read_head()
        client.leave()
    await ollama.wait_aborted(within=1.0)


@pytest.mark.parametrize("ending", ["end", "close", "reset", "stall"])
async def test_r28_r29_a_stream_without_its_last_line_ends_in_an_error(
    gateway: GatewayProcess, ollama: ScriptedUpstream, spy: Spy, ending: Ending
) -> None:
    ollama.script = ndjson(part(content="Hel"), ending=ending)
    received = await broken(gateway)
    assert b"Hel" in received
    assert (await spy.last())[0] == "upstream_failed"


async def broken(gateway: GatewayProcess) -> bytes:
    """What a client gets of a stream that must end in one error event and a cut connection."""
    received = b""
    async with RawClient(gateway.url) as client:
        await client.chat("ollama/llama3", stream=True)
        assert (await client.read_head()).start.split(" ")[1] == "200"
        with pytest.raises(Truncated):
            async for event in client.events():
                received += event
    assert b"[DONE]" not in received
    assert b'"finish_reason":"' not in received
    last = json.loads(received.rstrip().rsplit(b"\n\n", 1)[-1].removeprefix(b"data: "))
    assert last["error"]["message"]
    return received


async def test_r30_an_error_line_becomes_an_error_event(gateway: GatewayProcess, ollama: ScriptedUpstream) -> None:
    # One chunk per line: the text is on its way before the error is known.
    ollama.script = paused(part(content="Hel"), {"error": "an error was encountered while running the model"})
    assert b"an error was encountered while running the model" in await broken(gateway)


def paused(*parts: Any) -> Script:
    return stream(lines(*parts), headers=NDJSON, pause=0.1)


async def test_r30_an_error_before_any_content_is_a_plain_error(
    gateway: GatewayProcess, ollama: ScriptedUpstream
) -> None:
    ollama.script = ndjson({"error": "llama runner process has terminated"})
    reply = await fetch_chat(gateway.url, "ollama/llama3", stream=True)
    assert reply.status == 502
    assert "llama runner process has terminated" in reply.json["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"<html>", b'{"done":true}'])
async def test_a_whole_answer_that_is_none_is_a_502(
    gateway: GatewayProcess, ollama: ScriptedUpstream, body: bytes
) -> None:
    ollama.script = whole(200, body)
    reply = await fetch_chat(gateway.url, "ollama/llama3")
    assert reply.status == 502
    assert reply.json["error"]["code"] == "upstream_protocol_error"


async def test_an_error_that_claims_success_is_a_502(gateway: GatewayProcess, ollama: ScriptedUpstream) -> None:
    ollama.script = whole(200, {"error": "boom"})
    reply = await fetch_chat(gateway.url, "ollama/llama3")
    assert reply.status == 502
    assert reply.json["error"]["message"].startswith("boom")


async def test_refusals_keep_ollama_s_status_and_message(gateway: GatewayProcess, ollama: ScriptedUpstream) -> None:
    for status, message in ((400, "invalid options"), (404, "model 'x' not found"), (500, "out of memory")):
        ollama.script = whole(status, {"error": message})
        for streamed in (False, True):
            reply = await fetch_chat(gateway.url, "ollama/llama3", stream=streamed)
            assert reply.status == status
            assert reply.json["error"]["message"].startswith(message)
            assert reply.header("content-type") == "application/json"


async def test_a_refused_credential_is_not_the_client_s(gateway: GatewayProcess, ollama: ScriptedUpstream) -> None:
    ollama.script = whole(401, {"error": "unauthorized", "signin_url": "https://ollama.com/connect?key=abc"})
    reply = await fetch_chat(gateway.url, "ollama/llama3")
    assert reply.status == 502
    assert b"signin" not in reply.body


async def test_an_error_that_shows_our_credential_is_not_passed_on(
    gateway: GatewayProcess, ollama: ScriptedUpstream
) -> None:
    ollama.script = whole(400, {"error": "bad header Authorization: Bearer sk-ollama-canary"})
    reply = await fetch_chat(gateway.url, "ollama/llama3")
    assert reply.status == 400
    assert b"sk-ollama-canary" not in reply.body


@pytest.mark.parametrize("value", ["7", "6.2"])
async def test_a_retry_after_reaches_the_client(gateway: GatewayProcess, ollama: ScriptedUpstream, value: str) -> None:
    headers = {"Content-Type": "application/json", "Retry-After": value}
    ollama.script = whole(429, {"error": "too many"}, headers)
    # A target of its own: what a 429 keeps away must not be the next test's calls.
    reply = await fetch_chat(gateway.url, f"ollama/llama3:{value}")
    assert (reply.status, reply.header("retry-after")) == (429, "7")
    assert reply.json["error"]["type"] == "rate_limit_error"


async def test_r23_image_addresses_are_refused_and_not_fetched(
    gateway: GatewayProcess, ollama: ScriptedUpstream
) -> None:
    async with ScriptedUpstream(whole(200, b"secret")) as canary:
        content = [{"type": "image_url", "image_url": {"url": f"{canary.url}/x.png"}}]
        reply = await post(gateway, "/v1/chat/completions", messages=[{"role": "user", "content": content}])
        assert reply.status == 400
        assert "data: URL" in reply.json["error"]["message"]
        assert canary.connections == []
    assert ollama.calls == []


@pytest.mark.parametrize("path", ["/v1/moderations", "/v1/rerank"])
async def test_other_surfaces_are_not_found(gateway: GatewayProcess, ollama: ScriptedUpstream, path: str) -> None:
    reply = await post(gateway, path, input="x")
    assert reply.status == 404
    assert "The ollama provider serves chat, completions and embeddings." in reply.json["error"]["message"]
    assert ollama.calls == []


async def test_embeddings_are_encoded_for_sdks_that_ask_for_base64(
    gateway: GatewayProcess, ollama: ScriptedUpstream, spy: Spy
) -> None:
    vectors = [[0.5, -1.25], [3.0, 0.0]]
    answer = {"model": "all-minilm", "embeddings": vectors, "prompt_eval_count": 8}
    ollama.script = whole(200, answer)
    reply = await post(gateway, "/v1/embeddings", input=["a", "b"], encoding_format="base64", dimensions=2)
    packed = [base64.b64decode(item["embedding"]) for item in reply.json["data"]]
    assert [list(struct.unpack("<2f", each)) for each in packed] == vectors
    assert reply.json["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    (call,) = ollama.calls
    assert call.target == "/api/embed"
    expected = {"model": "llama3", "input": ["a", "b"], "dimensions": 2}
    assert call.json == expected | {"options": {"num_ctx": 8192}, "keep_alive": "10m"}
    assert (await spy.last())[1][0] == 8


async def test_token_ids_are_refused(gateway: GatewayProcess, ollama: ScriptedUpstream) -> None:
    reply = await post(gateway, "/v1/embeddings", input=[[1, 2, 3]])
    assert reply.status == 400
    assert "token ids" in reply.json["error"]["message"]


@pytest.mark.parametrize("time", ["10m", "1h30m", "0", "-1m", "1.5h", "300s"])
def test_keep_alive_is_a_time_as_ollama_reads_it(time: str) -> None:
    assert Settings(keep_alive=time).keep_alive == time


@pytest.mark.parametrize("time", ["", "10", "-1", "10 m", "1d", "forever"])
def test_another_keep_alive_is_noticed_at_start(time: str) -> None:
    with pytest.raises(ValueError, match="as Ollama spells it"):
        Settings(keep_alive=time)


def test_a_model_may_take_its_time_to_load_whatever_else_is_set() -> None:
    assert Settings().timeouts.first_token == 300
    assert Settings().timeouts.connect == 5


def script_for(**answers: Any) -> Script:
    """Answers ``GET /api/<name>`` with the named body."""

    async def script(call: Call) -> None:
        await whole(200, answers[call.request.target.removeprefix("/api/")])(call)

    return script


async def test_models_are_listed_and_reachable_without_the_tag(gateway_server: GatewayFactory, tmp_path: Path) -> None:
    tags = golden.cases("ollama", "models")["tags"]["input"]
    config = '[plugins]\nchain = []\n[providers.home]\ntype = "ollama"\nbase_url = "$url"\n'
    async with ScriptedUpstream(script_for(tags=tags, version={"version": "0.12"}), models=()) as upstream:
        gateway = gateway_server(config, url=upstream.url)
        listed = (await fetch(f"{gateway.url}/v1/models")).json["data"]
        assert [model["id"] for model in listed] == ["llama3:latest", "llama3", "ann/coder:7b"]
        health = await fetch(f"{gateway.url}/health")
        assert health.status == 200
        assert [request.target for request in upstream.requests] == ["/api/tags", "/api/version"]
        assert all(request.header("authorization") is None for request in upstream.requests)
        upstream.script = whole(200, part(content="Hello") | COUNTS)
        assert (await fetch_chat(gateway.url, "llama3")).json["choices"][0]["message"]["content"] == "Hello"
        assert upstream.requests[-1].json["model"] == "llama3"
        upstream.script = whole(500, b"")
        assert (await fetch(f"{gateway.url}/health")).status == 503


async def test_a_recorded_stream_reaches_the_client(
    gateway: GatewayProcess, ollama: ScriptedUpstream, test_data: Recordings
) -> None:
    (recorded,) = test_data.interactions("ollama-chat-stream-ndjson")
    pieces = [recorded.response[at : at + 700] for at in range(0, len(recorded.response), 700)]
    ollama.script = stream(pieces, headers=NDJSON)
    received = await events(gateway)
    text = "".join(delta.get("content") or "" for delta in deltas(received))
    assert text.startswith("Why did the OpenTelemetry agent go to therapy?")
    assert received[-1] == b"data: [DONE]\n\n"


# The official SDK, as its users call it.

MESSAGES = [{"role": "user", "content": "hi"}]
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
CALL = part(tool_calls=[{"function": {"name": "get_weather", "arguments": {"city": "Tokyo"}}}])


async def test_sdk_chat_with_ollama_s_own_fields(sdk: Any, ollama: ScriptedUpstream) -> None:
    ollama.script = whole(200, part(content="42", thinking="Six times seven.") | COUNTS)
    extra = {"think": "high", "options": {"num_ctx": 32768}, "keep_alive": -1}
    answer = await sdk.chat.completions.create(model="ollama/qwen3", messages=MESSAGES, extra_body=extra)
    assert answer.choices[0].message.content == "42"
    assert answer.choices[0].message.reasoning_content == "Six times seven."
    assert answer.usage.total_tokens == 30
    sent = ollama.calls[0].json
    assert (sent["think"], sent["options"], sent["keep_alive"]) == ("high", {"num_ctx": 32768}, -1)


async def test_sdk_image(sdk: Any, ollama: ScriptedUpstream) -> None:
    ollama.script = whole(200, part(content="A dot.") | COUNTS)
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    content = [{"type": "text", "text": "What is this?"}, image]
    await sdk.chat.completions.create(model="ollama/llava", messages=[{"role": "user", "content": content}])
    assert ollama.calls[0].json["messages"] == [{"role": "user", "content": "What is this?", "images": [PNG]}]


async def test_sdk_stream(sdk: Any, ollama: ScriptedUpstream) -> None:
    ollama.script = ndjson(part(thinking="Hm."), part(content="Hel"), part(content="lo"), part() | COUNTS)
    chunks = [
        chunk
        async for chunk in await sdk.chat.completions.create(
            model="ollama/llama3", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    ]
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "Hello"
    assert chunks[1].choices[0].delta.reasoning_content == "Hm."
    assert chunks[-1].usage.completion_tokens == 4
    assert len({chunk.id for chunk in chunks}) == 1


async def test_sdk_tool_round_trip(sdk: Any, ollama: ScriptedUpstream) -> None:
    ollama.script = [whole(200, CALL | COUNTS), whole(200, part(content="Sunny.") | COUNTS)]
    first = await sdk.chat.completions.create(model="ollama/llama3", messages=MESSAGES, tools=[WEATHER])
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Tokyo"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "sun"}
    messages = [*MESSAGES, choice.message, result]
    second = await sdk.chat.completions.create(model="ollama/llama3", messages=messages, tools=[WEATHER])
    assert second.choices[0].message.content == "Sunny."
    sent = ollama.calls[1].json["messages"]
    assert sent[1]["tool_calls"] == [
        {"id": call.id, "function": {"name": "get_weather", "arguments": {"city": "Tokyo"}}}
    ]
    assert sent[2] == {"role": "tool", "content": "sun", "tool_call_id": call.id, "tool_name": "get_weather"}


async def test_sdk_streamed_tools(sdk: Any, ollama: ScriptedUpstream) -> None:
    ollama.script = ndjson(CALL, CALL, part() | COUNTS)
    async with sdk.chat.completions.stream(model="ollama/llama3", messages=MESSAGES, tools=[WEATHER]) as events:
        answer = await events.get_final_completion()
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert [call.function.arguments for call in choice.message.tool_calls] == ['{"city":"Tokyo"}'] * 2
    assert len({call.id for call in choice.message.tool_calls}) == 2


async def test_sdk_embeddings(sdk: Any, ollama: ScriptedUpstream) -> None:
    ollama.script = whole(200, {"model": "e", "embeddings": [[0.5, -1.25]], "prompt_eval_count": 3})
    answer = await sdk.embeddings.create(model="ollama/e", input="Why?")
    assert answer.data[0].embedding == [0.5, -1.25]
    assert answer.usage.prompt_tokens == 3
    answer = await sdk.embeddings.create(model="ollama/e", input="Why?", encoding_format="float")
    assert answer.data[0].embedding == [0.5, -1.25]


async def test_sdk_legacy_completions(sdk: Any, ollama: ScriptedUpstream) -> None:
    def text(response: str, **more: Any) -> dict[str, Any]:
        return {"model": "llama3", "created_at": MOMENT, "response": response, "done": False, **more}

    ollama.script = whole(200, text("Hello", **COUNTS))
    answer = await sdk.completions.create(model="ollama/llama3", prompt="Say", suffix="!", max_tokens=9)
    assert (answer.choices[0].text, answer.usage.total_tokens) == ("Hello", 30)
    assert ollama.calls[0].target == "/api/generate"
    assert ollama.calls[0].json["options"] == {"num_ctx": 8192, "num_predict": 9}
    ollama.script = ndjson(text("Hel"), text("lo"), text("", **COUNTS))
    chunks = [chunk async for chunk in await sdk.completions.create(model="ollama/m", prompt="Say", stream=True)]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello"
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_sdk_errors_are_typed(sdk: Any, ollama: ScriptedUpstream) -> None:
    import openai

    ollama.script = whole(404, {"error": "model 'x' not found"})
    with pytest.raises(openai.NotFoundError, match="model 'x' not found") as caught:
        await sdk.chat.completions.create(model="ollama/x", messages=MESSAGES)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    ollama.script = paused(part(content="Hel"), {"error": "boom"})
    with pytest.raises(openai.APIError, match="boom"):
        async for _ in await sdk.chat.completions.create(model="ollama/x", messages=MESSAGES, stream=True):
            pass


# Clients that speak Ollama themselves: bytes pass, but for what the operator set and the client did not.


async def native(gateway: GatewayProcess, path: str, raw: bytes) -> Any:
    return await fetch(f"{gateway.url}/api/{path}", "POST", {"Content-Type": "application/json"}, raw)


async def test_what_a_client_of_ollama_says_passes_unchanged(
    gateway_server: GatewayFactory, ollama: ScriptedUpstream, port: int
) -> None:
    config = '[plugins]\nchain = []\n[providers.ollama]\ntype = "ollama"\nbase_url = "http://127.0.0.1:$port"\n'
    plain = gateway_server(config + '[models.m]\ntargets = [{ provider = "ollama" }]\n', port=str(port))
    raw = b'{"model": "m",  "messages": [{"role":"user","content":"hi"}], "tools":[], "stream":false, "x": 1e0}'
    answer = json.dumps(part(content="Hello") | COUNTS, indent=1).encode()
    ollama.script = whole(200, answer)
    reply = await native(plain, "chat", raw)
    assert reply.body == answer
    assert ollama.calls[-1].body == raw
    assert ollama.calls[-1].target == "/api/chat"
    tagged = await native(plain, "chat", raw.replace(b'"m"', b'"m:latest"'))
    assert tagged.status == 200
    assert ollama.calls[-1].body == raw, "the gateway knows it as m, and so does Ollama"


@pytest.mark.parametrize("path", ["chat", "generate", "embed", "embeddings"])
async def test_the_operator_s_settings_hold_where_the_client_says_nothing(
    gateway: GatewayProcess, ollama: ScriptedUpstream, path: str
) -> None:
    ollama.script = whole(200, {"model": "llama3", "done": True})
    await native(gateway, path, b'{"model":"ollama/llama3","options":{"seed":1},"stream":false}')
    sent = ollama.calls[-1].json
    assert ollama.calls[-1].target == f"/api/{path}"
    assert sent == {
        "model": "llama3", "stream": False, "options": {"num_ctx": 8192, "seed": 1}, "keep_alive": "10m",
    }  # fmt: skip
    await native(gateway, path, b'{"model":"ollama/llama3","options":{"num_ctx":1},"keep_alive":0,"stream":false}')
    sent = ollama.calls[-1].json
    assert (sent["options"], sent["keep_alive"]) == ({"num_ctx": 1}, 0)


async def test_usage_of_what_passes_is_counted(gateway: GatewayProcess, ollama: ScriptedUpstream, spy: Spy) -> None:
    ollama.script = whole(200, part(content="Hello") | COUNTS)
    await native(gateway, "chat", b'{"model":"ollama/llama3","stream":false}')
    assert await spy.last() == ["ok", [26, 4, "reported"]]


async def native_stream(gateway: GatewayProcess, path: str = "chat") -> tuple[bytes, bool]:
    """The lines a client gets, and whether the answer was whole."""
    received = b""
    body = b'{"model":"ollama/llama3"}'
    async with RawClient(gateway.url) as client:
        await client.request("POST", f"/api/{path}", {"Content-Type": "application/json"}, body)
        head = await client.read_head()
        assert head.start.split(" ")[1] == "200"
        assert (head.get("content-type") or "").startswith("application/x-ndjson")
        assert head.get("x-accel-buffering") == "no"
        try:
            async for block in client.body():
                received += block
        except Truncated:
            return received, False
    return received, True


async def test_a_stream_of_lines_passes_unchanged(gateway: GatewayProcess, ollama: ScriptedUpstream, spy: Spy) -> None:
    assert await native_stream(gateway) == (
        b"".join(lines(part(content="Hel"), part(content="lo"), part() | COUNTS)),
        True,
    )
    assert ollama.calls[0].json["model"] == "llama3"
    assert await spy.last() == ["ok", [26, 4, "reported"]]


@pytest.mark.parametrize("ending", ["end", "close", "reset", "stall", "half"])
async def test_r28_r29_lines_without_the_last_end_in_an_error_line(
    gateway: GatewayProcess, ollama: ScriptedUpstream, spy: Spy, ending: Ending
) -> None:
    ollama.script = ndjson(part(content="Hel"), part(content="lo"), ending=ending)
    received, complete = await native_stream(gateway)
    assert not complete
    *_, last = received.splitlines()
    assert set(json.loads(last)) == {"error", "status"}
    assert b'"done": true' not in received
    assert (await spy.last())[0] == "upstream_failed"


async def test_r30_an_error_line_is_the_last(gateway: GatewayProcess, ollama: ScriptedUpstream) -> None:
    ollama.script = paused(part(content="Hel"), {"error": "out of memory"})
    received, complete = await native_stream(gateway)
    assert (json.loads(received.splitlines()[-1]), complete) == ({"error": "out of memory"}, False)


async def test_r30_an_error_line_at_once_is_a_plain_error(gateway: GatewayProcess, ollama: ScriptedUpstream) -> None:
    ollama.script = ndjson({"error": "out of memory", "status": 500})
    reply = await native(gateway, "chat", b'{"model":"ollama/llama3"}')
    assert (reply.status, reply.json["error"]) == (500, "out of memory")


async def test_a_refusal_passes_as_it_is(gateway: GatewayProcess, ollama: ScriptedUpstream) -> None:
    ollama.script = whole(404, b'{ "error": "model \'x\' not found" }')
    reply = await native(gateway, "chat", b'{"model":"ollama/x"}')
    assert (reply.status, reply.body) == (404, b'{ "error": "model \'x\' not found" }')
    reply = await native(gateway, "chat", b'{"model":"nowhere"}')
    assert reply.status == 404
    assert reply.json["error"].startswith("The model does not exist")


# Clients of other dialects.


async def test_a_client_of_anthropic_is_translated(gateway: GatewayProcess, ollama: ScriptedUpstream) -> None:
    ollama.script = whole(200, part(content="42", thinking="Hm.") | COUNTS)
    body = {"max_tokens": 9, "messages": MESSAGES, "system": "Be brief."}
    reply = (await post(gateway, "/v1/messages", **body)).json
    assert reply["content"][-1]["text"] == "42"
    assert (reply["usage"]["input_tokens"], reply["usage"]["output_tokens"]) == (26, 4)
    sent = ollama.calls[0].json
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert sent["options"]["num_predict"] == 9


async def test_a_client_of_gemini_is_translated(gateway: GatewayProcess, ollama: ScriptedUpstream) -> None:
    body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    reply = await post(gateway, "/v1beta/models/ollama%2Fllama3:streamGenerateContent?alt=sse", **body)
    assert b"Hel" in reply.body and b'"finishReason":"STOP"' in reply.body
    ollama.script = whole(200, {"model": "e", "embeddings": [[0.5]], "prompt_eval_count": 1})
    reply = await post(gateway, "/v1beta/models/ollama%2Fe:embedContent", content=body["contents"][0])
    assert reply.json == {"embedding": {"values": [0.5]}, "usageMetadata": {"promptTokenCount": 1}}


async def test_a_client_of_responses_is_translated(gateway: GatewayProcess, ollama: ScriptedUpstream) -> None:
    reply = await post(gateway, "/v1/responses", input="hi", stream=True)
    assert b"response.completed" in reply.body and b"Hello" in reply.body
