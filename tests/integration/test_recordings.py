"""What real providers sent, through the gateway: unchanged to clients of its dialect, translated to all others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from gateway.exchange import Exchange
from gateway.testing import ScriptedUpstream, whole
from gateway.testing.local import LocalGateway
from gateway.testing.wire import json_bytes
from tests.support import speakers
from tests.support.answers import Counts, Told
from tests.support.programs import recorded_data
from tests.support.recordings import Interaction, Recordings
from tests.support.told import read

PIECES = (61, 1 << 20)
CHATS = {
    "/chat/completions": "openai_compat", "/v1/messages": "anthropic", ":generateContent": "gemini",
    ":streamGenerateContent": "gemini", "/v2/chat": "cohere", "/converse": "bedrock", "/converse-stream": "bedrock",
}  # fmt: skip
"""End of a recorded path → the plugin whose provider answered."""
OTHERS = {
    "/responses": "openai_compat", "/responses/compact": "openai_compat", "/completions": "openai_compat",
    "/embeddings": "openai_compat", "/images/generations": "openai_compat", "/messages/count_tokens": "anthropic",
    ":batchEmbedContents": "gemini",
}  # fmt: skip
"""The same for what passes between equal dialects only."""
PRIVATE = {401: 502, 403: 502}
"""A refused credential of the gateway's is not the client's affair."""
ERRORS = {
    "openai_chat": {400: "invalid_request_error", 404: "invalid_request_error"},
    "openai_responses": {400: "invalid_request_error", 404: "invalid_request_error"},
    "anthropic_messages": {400: "invalid_request_error", 404: "not_found_error"},
    "gemini": {400: "INVALID_ARGUMENT", 404: "NOT_FOUND"},
}


@attrs.frozen
class Recorded:
    """One interaction to replay."""

    name: str
    plugin: str
    interaction: Interaction

    @property
    def path(self) -> str:
        return self.interaction.path.partition("?")[0]

    @property
    def kind(self) -> str:
        return self.interaction.headers.get("content-type", "")

    @property
    def streamed(self) -> bool:
        return "stream" in self.kind or ":streamGenerateContent" in self.path

    @property
    def array(self) -> bool:
        """Gemini's stream without ``alt=sse``."""
        return self.streamed and "stream" not in self.kind

    def told(self) -> Told:
        return read(speakers.PROVIDERS[self.plugin][0], self.interaction.response, self.kind)


def _recorded(ends: dict[str, str]) -> list[Any]:
    try:
        data = Recordings(recorded_data())
    except pytest.skip.Exception as reason:
        return [pytest.param(None, marks=pytest.mark.skip(reason=str(reason)), id="none")]
    found = []
    for name in data.names():
        for number, interaction in enumerate(data.interactions(name)):
            path = interaction.path.partition("?")[0].partition("#")[0]
            for end, plugin in ends.items():
                # Ollama's and Azure's paths end alike; the longest end that fits is the one.
                if path.endswith(end) and not any(path.endswith(o) and len(o) > len(end) for o in (*CHATS, *OTHERS)):
                    found.append(pytest.param(Recorded(name, plugin, interaction), id=f"{name}-{number}"))
    return found


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(whole(500, {})) as scripted:
        yield scripted


@pytest.fixture
async def gateway(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[LocalGateway]:
    config = speakers.configuration(upstream.port, 'default_provider = "openai_compat"')
    async with LocalGateway(tmp_path, config, speakers.ENVIRON) as local:
        yield local


def counts_of(exchange: Exchange) -> Counts | None:
    """What the provider reported."""
    used = exchange.usage
    if used is None or used.provenance == "estimated":
        return None
    return Counts(
        used.input_tokens, used.output_tokens, used.cached_tokens, used.cache_write_tokens, used.reasoning_tokens
    )


async def finished(gateway: LocalGateway) -> Exchange:
    """The exchange of the answer that has just come."""
    for _ in range(1000):
        if gateway.exchanges:
            break
        await asyncio.sleep(0)  # its last byte may be here before the gateway's own turn comes
    return gateway.exchanges.pop()


def own_request(recorded: Recorded) -> tuple[str, bytes]:
    """Path and body as the client that was recorded sent them, but for the model, and the usage it did not ask for."""
    interaction = recorded.interaction
    request = {**interaction.request_json, "model": f"x-{recorded.plugin}"}
    path = recorded.path
    if recorded.plugin == "gemini":
        tail = path.rpartition(":")[2]
        del request["model"]
        query = "?alt=sse" if recorded.streamed and not recorded.array else ""
        return f"/v1beta/models/x-gemini:{tail}{query}", json_bytes(request)
    if recorded.streamed and path.endswith("/completions"):
        request["stream_options"] = {**(request.get("stream_options") or {}), "include_usage": True}
    end = next(each for each in (*OTHERS, *CHATS) if path.endswith(each))
    return f"/v1{end.removeprefix('/v1')}", json_bytes(request)


PASSING = [each for each in _recorded(CHATS | OTHERS) if each.values[0] is None or each.values[0].plugin in (
    "openai_compat", "anthropic", "gemini")]  # fmt: skip


@pytest.mark.parametrize("recorded", PASSING)
async def test_a_recording_passes_unchanged(
    gateway: LocalGateway, upstream: ScriptedUpstream, recorded: Recorded
) -> None:
    interaction = recorded.interaction
    chat = any(recorded.path.endswith(end) for end in CHATS)
    path, body = own_request(recorded)
    for piece in PIECES:
        upstream.script = interaction.replay(piece)
        reply, cut = await speakers.ask(gateway.url, path, body)
        exchange = await finished(gateway)
        if chat and interaction.status == 200 and recorded.told().error:
            _broken("openai_chat", reply.status, reply.body, cut)
            assert not cut or interaction.response.startswith(reply.body)
            assert exchange.outcome == "upstream_failed"
            continue
        assert not cut
        assert reply.status == PRIVATE.get(interaction.status, interaction.status)
        if not recorded.kind:
            continue  # recorded without its head and body
        assert reply.header("content-type") == recorded.kind
        assert reply.body == interaction.response
        assert exchange.outcome == ("ok" if interaction.status == 200 else "upstream_failed")
        if interaction.status == 200 and chat:
            assert counts_of(exchange) == recorded.told().counts
        elif interaction.status == 200:
            assert_counts_of_others(recorded, exchange)


def assert_counts_of_others(recorded: Recorded, exchange: Exchange) -> None:
    """Surfaces whose answers are no chats: the usage object, wherever it stands last."""
    text = recorded.interaction.response.decode()
    at = text.rfind('"usage"')
    if at < 0 or recorded.path.endswith("/compact"):  # what is served on no surface of its own is not counted
        return
    usage = json.JSONDecoder().raw_decode(text[text.index("{", at) :])[0]
    found = counts_of(exchange)
    assert found is not None
    assert found.input == usage.get("prompt_tokens", usage.get("input_tokens"))
    assert found.output == usage.get("completion_tokens", usage.get("output_tokens"))


TRANSLATED = [
    pytest.param(recorded, client, id=f"{each.id}-{client}", marks=each.marks)
    for each in _recorded(CHATS)
    for recorded in each.values
    for client in speakers.CLIENTS
    if client != "ollama_generate"  # it has no tools to ask for
    if recorded is None or client != speakers.PROVIDERS[recorded.plugin][0]
]


@pytest.mark.parametrize(("recorded", "client"), TRANSLATED)
async def test_a_recording_is_told_in_every_other_dialect(
    gateway: LocalGateway, upstream: ScriptedUpstream, recorded: Recorded, client: str
) -> None:
    interaction = recorded.interaction
    model = f"x-{recorded.plugin.replace('openai_compat', 'chat_only')}"
    request = speakers.request_of(client, model, recorded.streamed)
    upstream.script = interaction.replay(61 if recorded.streamed else 1 << 20)
    reply, cut = await speakers.ask(gateway.url, speakers.path_of(client, model, recorded.streamed), request)
    exchange = await finished(gateway)
    if interaction.status != 200:
        assert reply.status == PRIVATE.get(interaction.status, interaction.status)
        _is_error(client, reply.status, reply.json)
        assert exchange.outcome == "upstream_failed"
        return
    expected = recorded.told()
    if expected.error:
        _broken(client, reply.status, reply.body, cut)
        assert exchange.outcome == "upstream_failed"
        return
    assert reply.status == 200 and not cut, reply.body
    answer = speakers.accepted(client, reply)
    assert answer.text == expected.text
    assert answer.calls == expected.calls
    ends = ("stop", "length", "tool_calls") if client == "ollama" else (expected.finish,)
    assert answer.finish == (expected.finish if expected.finish in ends else "stop")
    assert exchange.outcome == "ok"
    assert counts_of(exchange) == expected.counts
    _same_counts(client, answer.counts, expected.counts)


def _same_counts(client: str, told: Counts | None, expected: Counts | None) -> None:
    """The client's own fields add up to what the provider said. Gemini has no word for what was written to a cache,
    Ollama none for the parts of the whole."""
    if expected is None:
        assert told is None or told == Counts().known() or client == "anthropic_messages"
        return
    assert told is not None
    without = {"gemini": {"written": 0}, "ollama": {"cached": 0, "written": 0, "reasoning": 0}}.get(client, {})
    assert told.known() == attrs.evolve(expected.known(), **without)


def _is_error(client: str, status: int, body: Any) -> None:
    error = body["error"]
    if client == "ollama":
        assert error and isinstance(error, str)
        return
    assert error["message"]
    word = error["status"] if client == "gemini" else error["type"]
    known = ERRORS[client].get(status)
    assert word == known or (known is None and word)
    assert error.get("code", status) == status if client == "gemini" else True


def _broken(client: str, status: int, body: bytes, cut: bool) -> None:
    """The provider's own error ends it: inside the stream behind content, as a whole error before any."""
    assert b'"error"' in body and b"[DONE]" not in body
    assert b"message_stop" not in body and b"response.completed" not in body and b"finishReason" not in body
    assert b'"done":true' not in body
    if cut:
        assert read(client, body, "text/event-stream").error
    else:
        assert status >= 400


@pytest.mark.parametrize("dialect", speakers.CLIENTS)
def test_the_official_sdk_has_a_say(dialect: str) -> None:
    pytest.importorskip(speakers.SDKS[dialect], reason=f"{speakers.SDKS[dialect]}: its types did not check the answers")
