"""What every client is told it used, in its own fields, by every provider, whole and as a stream: the table."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from gateway.exchange import Usage
from gateway.testing import Response, ScriptedUpstream, chat_body, chat_events, stream, whole
from gateway.testing.local import LocalGateway
from tests.support import speakers
from tests.support.spoken import TEXT, USAGES, head, pieces, script
from tests.support.told import events

# Plugin → how many of the 30 cached, 20 written and 15 thought tokens its provider has a word for.
TOLD: dict[str, tuple[int | None, int | None, int | None]] = {
    "openai_compat": (30, 20, 15),
    "anthropic": (30, 20, 15),
    "gemini": (30, None, 15),
    "cohere": (30, None, None),
    "bedrock": (30, 20, None),
    "ollama": (None, None, None),
}


def chat(cached: int, written: int, thought: int) -> dict[str, Any]:
    return {
        "prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140,
        "prompt_tokens_details.cached_tokens": cached, "prompt_tokens_details.cache_write_tokens": written,
        "completion_tokens_details.reasoning_tokens": thought,
    }  # fmt: skip


def responses(cached: int, written: int, thought: int) -> dict[str, Any]:
    return {
        "input_tokens": 100, "output_tokens": 40, "total_tokens": 140, "input_tokens_details.cached_tokens": cached,
        "input_tokens_details.cache_write_tokens": written, "output_tokens_details.reasoning_tokens": thought,
    }  # fmt: skip


def messages(cached: int, written: int, thought: int) -> dict[str, Any]:
    return {
        "input_tokens": 100 - cached - written, "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": written, "output_tokens": 40, "output_tokens_details.thinking_tokens": thought,
    }  # fmt: skip


def gemini(cached: int, written: int, thought: int) -> dict[str, Any]:
    return {
        "promptTokenCount": 100, "cachedContentTokenCount": cached, "candidatesTokenCount": 40 - thought,
        "thoughtsTokenCount": thought, "totalTokenCount": 140,
    }  # fmt: skip


def ollama(cached: int, written: int, thought: int) -> dict[str, Any]:
    return {"prompt_eval_count": 100, "eval_count": 40}


FIELDS = {
    "openai_chat": chat, "openai_responses": responses, "anthropic_messages": messages, "gemini": gemini,
    "ollama": ollama, "ollama_generate": ollama,
}  # fmt: skip
"""Client → its fields for so many cached, written and thought tokens."""


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(script("openai_compat", TEXT, False)) as scripted:
        yield scripted


@pytest.fixture
async def gateway(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[LocalGateway]:
    async with LocalGateway(tmp_path, speakers.configuration(upstream.port), speakers.ENVIRON) as local:
        yield local


def told(client: str, reply: Response, streamed: bool) -> dict[str, Any]:
    """The usage object of an answer; of several in a stream each adds to those before."""
    parts = events(reply.body) if streamed else [reply.json]
    found: dict[str, Any] = {}
    for part in parts:
        if client.startswith("ollama"):
            found |= {name: part[name] for name in ("prompt_eval_count", "eval_count") if name in part}
            continue
        for holder in (part, part.get("response") or {}, part.get("message") or {}):
            found |= holder.get("usage") or holder.get("usageMetadata") or {}
    return found


def value(usage: dict[str, Any], path: str) -> int:
    found: Any = usage
    for name in path.split("."):
        found = (found or {}).get(name)
    return found or 0  # a count of zero may be left out


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("plugin", USAGES)
@pytest.mark.parametrize("client", speakers.CLIENTS)
async def test_usage_is_what_the_provider_said_in_the_client_s_fields(
    gateway: LocalGateway, upstream: ScriptedUpstream, client: str, plugin: str, streamed: bool
) -> None:
    model = f"x-{plugin}" if (client, plugin) != ("openai_responses", "openai_compat") else "x-chat_only"
    spoken = client if (client, plugin) == ("ollama_generate", "ollama") else plugin
    upstream.script = script(spoken, TEXT, streamed)
    reply, cut = await speakers.ask(
        gateway.url, speakers.path_of(client, model, streamed), speakers.request_of(client, model, streamed)
    )
    assert reply.status == 200 and not cut
    cached, written, thought = TOLD[plugin]
    usage = told(client, reply, streamed)
    expected = FIELDS[client](cached or 0, written or 0, thought or 0)
    assert {path: value(usage, path) for path in expected} == expected
    (exchange,) = gateway.exchanges
    assert exchange.usage == Usage(100, 40, cached, written, thought)


@pytest.mark.parametrize("plugin", USAGES)
async def test_a_stream_whose_client_asks_for_no_usage_is_counted_all_the_same(
    gateway: LocalGateway, upstream: ScriptedUpstream, plugin: str
) -> None:
    upstream.script = script(plugin, TEXT, True)
    request = speakers.request_of("openai_chat", f"x-{plugin}", True, stream_options=None)
    reply, _ = await speakers.ask(gateway.url, "/v1/chat/completions", request)
    assert b'"usage":{' not in reply.body and reply.body.endswith(b"data: [DONE]\n\n")
    (exchange,) = gateway.exchanges
    assert exchange.usage == Usage(100, 40, *TOLD[plugin])


async def test_r35_what_no_provider_said_is_estimated_for_us_and_not_told(
    gateway: LocalGateway, upstream: ScriptedUpstream
) -> None:
    async def silent(call: Any) -> None:
        body = json.loads(call.request.body)
        made = stream(chat_events(40)) if body.get("stream") else whole(200, chat_body("word " * 28, usage=None))
        await made(call)

    upstream.script = silent
    for streamed in (False, True):
        for client in speakers.CLIENTS:
            request = speakers.request_of(client, "x-chat_only", streamed)
            reply, _ = await speakers.ask(gateway.url, speakers.path_of(client, "x-chat_only", streamed), request)
            assert reply.status == 200
            used = gateway.exchanges.pop().usage
            off = 0.25 if client == "openai_responses" else 0.05  # which tells all of it again at the end
            assert used == Usage(5, pytest.approx(40, rel=off), provenance="estimated")  # type: ignore[arg-type]
            if client.startswith("ollama"):
                assert told(client, reply, streamed) == {}


@pytest.mark.parametrize("client", speakers.CLIENTS)
async def test_what_ollama_left_out_is_not_zero(gateway: LocalGateway, upstream: ScriptedUpstream, client: str) -> None:
    """Ollama leaves out what is zero, and older servers the count of a prompt that was in their cache."""
    spoken = client if client == "ollama_generate" else "ollama"
    for streamed in (False, True):
        last = pieces(spoken, attrs.evolve(TEXT, texts=()))[-1]
        for missing, usage in (
            ({"prompt_eval_count"}, Usage(None, 40, provenance="partial")),
            ({"eval_count"}, Usage(100, None, provenance="partial")),
            ({"prompt_eval_count", "eval_count"}, None),
        ):
            line = {name: value for name, value in json.loads(last).items() if name not in missing}
            told_ = [*pieces(spoken, TEXT)[:-1], json.dumps(line).encode() + b"\n"]
            upstream.script = stream(told_, headers=head(spoken)) if streamed else whole(200, line)
            request = speakers.request_of(client, "x-ollama", streamed)
            reply, cut = await speakers.ask(gateway.url, speakers.path_of(client, "x-ollama", streamed), request)
            assert reply.status == 200 and not cut
            counted = gateway.exchanges.pop().usage
            assert counted == usage or (usage is None and counted and counted.provenance == "estimated")
            if client.startswith("ollama"):
                assert not missing & told(client, reply, streamed).keys()


@pytest.mark.parametrize("client", ["ollama", "ollama_generate"])
async def test_lines_that_pass_are_counted_wherever_they_are_cut(
    gateway: LocalGateway, upstream: ScriptedUpstream, client: str
) -> None:
    data = b"".join(pieces(client, TEXT))
    for size in (1, 7, 64, len(data)):
        for sent in (data, data[:-1]):  # the last line may go without its line feed
            parts = [sent[at : at + size] for at in range(0, len(sent), size)]
            upstream.script = stream(parts, headers=head(client))
            request = speakers.request_of(client, "x-ollama", True)
            reply, cut = await speakers.ask(gateway.url, speakers.path_of(client, "x-ollama", True), request)
            assert not cut and reply.body.rstrip() == data.rstrip()
            assert reply.header("content-type") == "application/x-ndjson"
            assert gateway.exchanges.pop().usage == Usage(100, 40)
