"""The echo provider in a real gateway: whole and streamed answers say the same."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from gateway.testing import LocalGateway, RawClient, Response, fetch, fetch_chat

CONFIG = """
plugins = { chain = [] }
[providers.echo]
type = "echo"
[providers.slow]
type = "echo"
model = "slow"
delay = "50ms"
"""
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("look", "leap")]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LocalGateway]:
    async with LocalGateway(tmp_path, CONFIG) as running:
        yield running


async def post(gateway: LocalGateway, path: str, **body: Any) -> Response:
    raw = json.dumps({"model": "echo", **body}).encode()
    return await fetch(f"{gateway.url}/v1/{path}", "POST", {"Content-Type": "application/json"}, raw)


async def chunks(gateway: LocalGateway, path: str, **body: Any) -> list[Any]:
    """The events of a stream without its marker, which must be there."""
    reply = await post(gateway, path, stream=True, **body)
    assert (reply.header("content-type") or "").startswith("text/event-stream")
    *events, marker, rest = reply.body.split(b"\n\n")
    assert (marker, rest) == (b"data: [DONE]", b"")
    return [json.loads(event.removeprefix(b"data: ")) for event in events]


async def test_the_last_user_message_comes_back(gateway: LocalGateway) -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": [{"type": "text", "text": "three "}, {"type": "text", "text": "four"}]},
    ]
    whole = (await post(gateway, "chat/completions", messages=messages)).json
    assert whole["choices"][0]["message"]["content"] == "three four"
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["usage"] == {"prompt_tokens": 6, "completion_tokens": 2, "total_tokens": 8}
    streamed = await chunks(gateway, "chat/completions", messages=messages, stream_options={"include_usage": True})
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in streamed[:-1]) == "three four"
    assert streamed[-2]["choices"][0]["finish_reason"] == "stop"
    assert (streamed[-1]["choices"], streamed[-1]["usage"]) == ([], whole["usage"])


async def test_usage_is_streamed_to_nobody_who_did_not_ask(gateway: LocalGateway) -> None:
    streamed = await chunks(gateway, "chat/completions", messages=[{"role": "user", "content": "hi"}])
    assert not [chunk for chunk in streamed if "usage" in chunk]
    (exchange,) = gateway.exchanges
    assert exchange.usage is not None and exchange.usage.total_tokens == 2


@pytest.mark.parametrize(
    ("choice", "name"), [("required", "look"), ({"type": "function", "function": {"name": "leap"}}, "leap")]
)
async def test_a_demanded_tool_is_called(gateway: LocalGateway, choice: Any, name: str) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "tools": TOOLS, "tool_choice": choice}
    (whole,) = (await post(gateway, "chat/completions", **body)).json["choices"]
    (call,) = whole["message"]["tool_calls"]
    assert (whole["finish_reason"], whole["message"]["content"]) == ("tool_calls", None)
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == (name, {"text": "hi"})
    deltas = [chunk["choices"][0]["delta"] for chunk in await chunks(gateway, "chat/completions", **body)]
    assert [delta["tool_calls"] for delta in deltas if "tool_calls" in delta] == [[{"index": 0, **call}]]


async def test_completions(gateway: LocalGateway) -> None:
    (whole,) = (await post(gateway, "completions", prompt="so it goes")).json["choices"]
    assert (whole["text"], whole["finish_reason"]) == ("so it goes", "stop")
    streamed = await chunks(gateway, "completions", prompt="so it goes")
    assert "".join(chunk["choices"][0]["text"] for chunk in streamed) == "so it goes"


async def test_embeddings(gateway: LocalGateway) -> None:
    plain = (await post(gateway, "embeddings", input=["a", "b c", "a"])).json
    vectors = [item["embedding"] for item in plain["data"]]
    assert vectors[0] == vectors[2] != vectors[1]
    assert plain["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    (packed,) = (await post(gateway, "embeddings", input="a", encoding_format="base64")).json["data"]
    unpacked = struct.unpack("<8f", base64.b64decode(packed["embedding"]))
    assert unpacked == pytest.approx(vectors[0])


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("chat/completions", {"messages": "hi"}, 400),
        ("chat/completions", {"messages": ["hi"]}, 400),
        ("completions", {"prompt": 5}, 400),
        ("completions", {"prompt": {"a": 1}}, 400),
        ("embeddings", {"input": []}, 400),
        ("embeddings", {"input": [[1, 2]]}, 400),
        ("rerank", {"query": "hi", "documents": []}, 404),
    ],
)
async def test_what_it_cannot_do_is_refused(gateway: LocalGateway, path: str, body: Any, status: int) -> None:
    reply = await post(gateway, path, **body)
    assert reply.status == status
    assert reply.json["error"]["message"]


async def test_a_delay_paces_the_events(gateway: LocalGateway) -> None:
    began = perf_counter()
    async with RawClient(gateway.url) as client:
        await client.chat("slow", "a b", stream=True)
        await client.read_head()
        arrivals = [perf_counter() - began async for _ in client.events()]
    assert arrivals[-1] - arrivals[0] > 0.1


async def test_it_lists_its_model_and_is_well(gateway: LocalGateway) -> None:
    listed = (await fetch(f"{gateway.url}/v1/models")).json["data"]
    assert [model["id"] for model in listed] == ["echo", "slow"]
    assert (await fetch_chat(gateway.url, "slow")).header("x-gateway-target") == "slow"
    assert (await fetch(f"{gateway.url}/health")).json["status"] == "ok"


GEMINI = {"contents": [{"role": "user", "parts": [{"text": "so it goes"}]}]}
MESSAGES = {"messages": [{"role": "user", "content": "so it goes"}]}


async def ask(gateway: LocalGateway, path: str, **body: Any) -> Response:
    raw = json.dumps(body).encode()
    return await fetch(gateway.url + path, "POST", {"Content-Type": "application/json"}, raw)


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/v1/responses", {"model": "echo", "input": "so it goes"}, ["output", 0, "content", 0, "text"]),
        ("/v1/messages", {"model": "echo", "max_tokens": 9, **MESSAGES}, ["content", 0, "text"]),
        ("/v1beta/models/echo:generateContent", GEMINI, ["candidates", 0, "content", "parts", 0, "text"]),
        ("/api/chat", {"model": "echo", "stream": False, **MESSAGES}, ["message", "content"]),
        ("/api/generate", {"model": "echo", "stream": False, "prompt": "so it goes"}, ["response"]),
    ],
)
async def test_it_speaks_every_dialect(gateway: LocalGateway, path: str, body: Any, place: list[Any]) -> None:
    reply = await ask(gateway, path, **body)
    assert reply.status == 200
    found = reply.json
    for name in place:
        found = found[name]
    assert found == "so it goes"
    (exchange,) = gateway.exchanges
    assert exchange.usage is not None and exchange.usage.total_tokens == 6


@pytest.mark.parametrize(
    ("path", "body", "kind", "last"),
    [
        ("/v1/responses", {"model": "echo", "input": "so it goes", "stream": True}, "text/event-stream",
         b"response.completed"),
        ("/v1/messages", {"model": "echo", "max_tokens": 9, "stream": True, **MESSAGES}, "text/event-stream",
         b"message_stop"),
        ("/v1beta/models/echo:streamGenerateContent?alt=sse", GEMINI, "text/event-stream", b"finishReason"),
        ("/api/chat", {"model": "echo", **MESSAGES}, "application/x-ndjson", b'"done":true'),
        ("/api/generate", {"model": "echo", "prompt": "so it goes"}, "application/x-ndjson", b'"done":true'),
    ],
)  # fmt: skip
async def test_it_streams_in_every_dialect(gateway: LocalGateway, path: str, body: Any, kind: str, last: bytes) -> None:
    reply = await ask(gateway, path, **body)
    assert reply.status == 200
    assert (reply.header("content-type") or "").startswith(kind)
    events = [event for event in reply.body.replace(b"\r", b"").split(b"\n") if event]
    assert sum(word in event for event in events for word in (b'" it"', b'" it')) > 0
    assert last in reply.body[-1500:]
    (exchange,) = gateway.exchanges
    assert exchange.outcome == "ok"
    assert exchange.usage is not None and exchange.usage.total_tokens == 6


async def test_it_embeds_in_every_dialect(gateway: LocalGateway) -> None:
    plain = (await post(gateway, "embeddings", input="a")).json["data"][0]["embedding"]
    assert (await ask(gateway, "/api/embed", model="echo", input=["a"])).json["embeddings"] == [plain]
    assert (await ask(gateway, "/api/embeddings", model="echo", prompt="a")).json["embedding"] == plain
    content = {"parts": [{"text": "a"}]}
    one = await ask(gateway, "/v1beta/models/echo:embedContent", content=content)
    assert one.json["embedding"]["values"] == plain
    many = await ask(gateway, "/v1beta/models/echo:batchEmbedContents", requests=[{"content": content}])
    assert many.json["embeddings"] == [{"values": plain}]
