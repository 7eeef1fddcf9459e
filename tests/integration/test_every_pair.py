"""Every client's dialect in front of every provider's: stream and whole agree, however the stream is cut; what cannot
be carried is named, or refused."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects import (
    anthropic_messages_stream,
    bedrock_converse_stream,
    cohere_reply,
    gemini_stream,
    ollama_reply,
    openai_chat_provider,
)
from gateway.dialects.registry import CLIENTS
from gateway.testing import ScriptedUpstream
from gateway.testing.local import LocalGateway
from gateway.translation import Decoder
from tests.support import speakers
from tests.support.spoken import CALLS, SAID, TEXT, USAGES, pieces, script
from tests.support.told import events

DECODERS: dict[str, Callable[[], Decoder]] = {
    "openai_compat": openai_chat_provider.Decoder,
    "anthropic": anthropic_messages_stream.Decoder,
    "gemini": gemini_stream.Decoder,
    "cohere": lambda: cohere_reply.Decoder("upstream-model"),
    "bedrock": lambda: bedrock_converse_stream.Decoder("upstream-model", "1"),
    "ollama": lambda: ollama_reply.ChatStream("0123456789abcdef"),
}
PAIRS = [
    pytest.param(client, plugin, id=f"{client}-{plugin}")
    for client in speakers.CLIENTS
    for plugin, (dialect, _, _) in speakers.PROVIDERS.items()
    if not client.startswith(dialect)  # /api/generate is Ollama's too
]
ANSWERS = [
    pytest.param(*pair.values, said, id=f"{pair.id}-{said}")
    for pair in PAIRS
    for said in SAID
    if pair.values[0] != "ollama_generate" or not SAID[said].calls  # it has no tools to ask for
]
SAMPLING = {"seed": 1, "logit_bias": {"50": 1}}
# Client, plugin, what it asks for beyond the question, and how that is named when it is left out.
UNCARRIED: list[tuple[str, str, dict[str, Any], list[str]]] = [
    ("openai_chat", "anthropic", SAMPLING, ["seed", "logit_bias"]),
    ("openai_chat", "gemini", {"logit_bias": {"50": 1}, "parallel_tool_calls": False}, ["logit_bias"]),
    ("openai_chat", "cohere", {"logit_bias": {"50": 1}}, ["logit_bias"]),
    ("openai_chat", "bedrock", SAMPLING, ["seed", "logit_bias"]),
    ("openai_chat", "ollama", {"logit_bias": {"50": 1}, "parallel_tool_calls": False}, ["logit_bias"]),
    ("openai_responses", "chat_only", {"max_tool_calls": 3, "truncation": "auto"}, ["max_tool_calls"]),
    ("openai_responses", "anthropic", {"max_tool_calls": 3}, ["max_tool_calls"]),
    ("openai_responses", "gemini", {"max_tool_calls": 3}, ["max_tool_calls"]),
    ("openai_responses", "ollama", {"max_tool_calls": 3}, ["max_tool_calls"]),
    ("anthropic_messages", "chat_only", {"top_k": 5, "container": "c"}, ["top_k", "container"]),
    ("anthropic_messages", "gemini", {"container": "c"}, ["container"]),
    ("anthropic_messages", "bedrock", {"container": "c"}, ["container"]),
    ("anthropic_messages", "ollama", {"container": "c"}, ["container"]),
    ("gemini", "chat_only", {"safetySettings": [{"category": "c", "threshold": "t"}]}, ["safetySettings"]),
    ("gemini", "anthropic", {"generationConfig": {"seed": 1}}, ["seed"]),
    ("gemini", "cohere", {"safetySettings": [{"category": "c", "threshold": "t"}]}, ["safetySettings"]),
    ("gemini", "ollama", {"safetySettings": [{"category": "c", "threshold": "t"}]}, ["safetySettings"]),
    ("ollama", "chat_only", {"keep_alive": "5m", "options": {"num_ctx": 4096}}, ["keep_alive", "options.num_ctx"]),
    ("ollama", "anthropic", {"options": {"seed": 1}}, ["seed"]),
    ("ollama", "gemini", {"options": {"mirostat": 1}}, ["options.mirostat"]),
    ("ollama", "cohere", {"options": {"min_p": 0.1}}, ["min_p"]),
    ("ollama", "bedrock", {"options": {"seed": 1}}, ["seed"]),
    ("ollama_generate", "chat_only", {"suffix": "s", "raw": True}, ["suffix", "raw"]),
    ("ollama_generate", "anthropic", {"template": "t", "context": [1, 2]}, ["template", "context"]),
    ("ollama_generate", "gemini", {"keep_alive": 0}, ["keep_alive"]),
    ("ollama_generate", "cohere", {"suffix": "s"}, ["suffix"]),
    ("ollama_generate", "bedrock", {"options": {"seed": 1}}, ["seed"]),
]


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(script("openai_compat", TEXT, False)) as scripted:
        yield scripted


@pytest.fixture
async def gateway(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[LocalGateway]:
    async with LocalGateway(tmp_path, speakers.configuration(upstream.port), speakers.ENVIRON) as local:
        yield local


def model_of(client: str, plugin: str) -> str:
    return "x-chat_only" if (client, plugin) == ("openai_responses", "openai_compat") else f"x-{plugin}"


@pytest.mark.parametrize(("client", "plugin", "said"), ANSWERS)
async def test_stream_and_whole_agree(
    gateway: LocalGateway, upstream: ScriptedUpstream, client: str, plugin: str, said: str
) -> None:
    answers = []
    model = model_of(client, plugin)
    for streamed in (False, True):
        upstream.script = script(plugin, SAID[said], streamed)
        reply, cut = await speakers.ask(
            gateway.url, speakers.path_of(client, model, streamed), speakers.request_of(client, model, streamed)
        )
        assert reply.status == 200 and not cut
        answers.append(speakers.accepted(client, reply))
    whole, stream = answers
    assert (stream.text, stream.calls, stream.finish) == (whole.text, whole.calls, whole.finish)
    assert whole.text == "".join(SAID[said].texts)
    assert [name for name, _ in whole.calls] == [name for name, _ in SAID[said].calls]
    assert whole.finish == SAID[said].finish
    assert stream.counts is not None and whole.counts is not None and stream.counts.known() == whole.counts.known()


VOLATILE = {
    "id", "created", "created_at", "item_id", "call_id", "responseId", "encrypted_content", "total_duration",
    "prompt_eval_duration", "eval_duration",
}  # fmt: skip


def without_names(value: Any) -> Any:
    """Without what is another each time."""
    if isinstance(value, dict):
        return {name: without_names(each) for name, each in value.items() if name not in VOLATILE}
    return [without_names(each) for each in value] if isinstance(value, list) else value


def told(client: str, plugin: str, parts: list[bytes]) -> list[Any]:
    """The client's events of a provider's stream that arrives in these parts."""
    decoder, encoder = DECODERS[plugin](), CLIENTS[client].encoder(speakers.request_of(client, "m", True))
    chunks = [chunk for part in parts for chunk in decoder.feed(part)]
    made = [encoder.feed(chunk) for chunk in (*chunks, *decoder.end())]
    found = events(b"".join([*made, encoder.end()]))
    assert decoder.done
    return [without_names(event) for event in found]


def cut(data: bytes, places: set[int]) -> list[bytes]:
    at = [0, *sorted(place % len(data) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(at) if start != end]


@pytest.mark.parametrize(("client", "plugin"), PAIRS)
@settings(max_examples=20)
@given(places=st.sets(st.integers(0, 1 << 16), max_size=40))
def test_a_stream_says_the_same_wherever_it_is_cut(client: str, plugin: str, places: set[int]) -> None:
    data = b"".join(pieces(plugin, CALLS))
    assert told(client, plugin, cut(data, places)) == told(client, plugin, [data])


@pytest.mark.parametrize("plugin", USAGES)
def test_a_stream_says_the_same_cut_at_any_one_place(plugin: str) -> None:
    data = b"".join(pieces(plugin, TEXT))
    whole = told("openai_chat", plugin, [data])
    for place in range(1, len(data)):
        assert told("openai_chat", plugin, [data[:place], data[place:]]) == whole
    assert told("openai_chat", plugin, [data[at : at + 1] for at in range(len(data))]) == whole


def asked(client: str, plugin: str, more: dict[str, Any]) -> dict[str, Any]:
    return speakers.request_of(client, f"x-{plugin}", False, **more)


@pytest.mark.parametrize(("client", "plugin", "more", "names"), UNCARRIED)
async def test_what_the_provider_cannot_be_given_is_named(
    gateway: LocalGateway, upstream: ScriptedUpstream, client: str, plugin: str, more: dict[str, Any], names: list[str]
) -> None:
    upstream.script = script(plugin.replace("chat_only", "openai_compat"), TEXT, False)
    path = speakers.path_of(client, f"x-{plugin}", False)
    reply, _ = await speakers.ask(gateway.url, path, asked(client, plugin, {}))
    before = {name.strip() for name in (reply.header("x-gateway-dropped") or "").split(",")} - {""}
    reply, _ = await speakers.ask(gateway.url, path, asked(client, plugin, more))
    assert reply.status == 200
    listed = {name.strip() for name in (reply.header("x-gateway-dropped") or "").split(",")}
    assert not before, "the plain question is carried in full"
    assert set(names) <= listed


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("client", "plugin", "more", "names"), UNCARRIED)
async def test_strict_refuses_it_before_anything_is_sent(
    upstream: ScriptedUpstream, tmp_path: Path, client: str, plugin: str, more: dict[str, Any], names: list[str],
    streamed: bool,
) -> None:  # fmt: skip
    config = speakers.configuration(upstream.port, "strict = true")
    model = f"x-{plugin}"
    async with LocalGateway(tmp_path, config, speakers.ENVIRON) as gateway:
        path = speakers.path_of(client, model, streamed)
        reply, _ = await speakers.ask(gateway.url, path, speakers.request_of(client, model, streamed, **more))
        assert reply.status == 400
        error = reply.json["error"]
        message = error if client.startswith("ollama") else error["message"]
        assert any(name in message for name in names)
        if not client.startswith("ollama"):  # its errors are of no kinds
            kind = error["status"] if client == "gemini" else error["type"]
            assert kind == ("INVALID_ARGUMENT" if client == "gemini" else "invalid_request_error")
        assert upstream.requests == []
        upstream.script = script(plugin.replace("chat_only", "openai_compat"), TEXT, streamed)
        reply, cut_ = await speakers.ask(gateway.url, path, speakers.request_of(client, model, streamed))
        assert reply.status == 200 and not cut_
