"""A provider's stream told in another dialect is as honest as one that passes: complete only if the provider's was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.testing import Ending, ScriptedUpstream, event, stream
from gateway.testing.local import LocalGateway
from tests.integration.test_every_pair import PAIRS, model_of
from tests.support import speakers
from tests.support.spoken import TEXT, head, pieces, script
from tests.support.told import read

LAST = {
    "openai_chat": b"[DONE]", "openai_responses": b"response.completed", "anthropic_messages": b"message_stop",
    "gemini": b"finishReason", "ollama": b'"done":true', "ollama_generate": b'"done":true',
}  # fmt: skip
"""What a client takes for the end of a good answer."""
LOUD = """
from gateway import hookimpl


class Plugin:
    def __init__(self, settings, runtime):
        self.seen = 0

    @hookimpl
    def on_event(self, exchange, event):
        self.seen += 1
        event.data = event.data.replace(b"Hel", b"HEL")
"""


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(script("openai_compat", TEXT, True)) as scripted:
        yield scripted


@pytest.fixture
async def gateway(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[LocalGateway]:
    async with LocalGateway(tmp_path, speakers.configuration(upstream.port), speakers.ENVIRON) as local:
        yield local


def broken_off(plugin: str, count: int | None, ending: Ending) -> Any:
    return stream(pieces(plugin, TEXT)[:count], headers=head(plugin), ending=ending)


async def asked(gateway: LocalGateway, client: str, plugin: str) -> tuple[Any, bool]:
    model = model_of(client, plugin)
    return await speakers.ask(
        gateway.url, speakers.path_of(client, model, True), speakers.request_of(client, model, True)
    )


@pytest.mark.parametrize(("client", "plugin"), PAIRS)
async def test_what_breaks_off_is_told_as_an_error_and_cut(
    gateway: LocalGateway, upstream: ScriptedUpstream, client: str, plugin: str
) -> None:
    whole = len(pieces(plugin, TEXT))
    least = {"openai_compat": 1, "anthropic": 1, "gemini": 1, "cohere": 1, "bedrock": 2, "ollama": 1}[plugin]
    for count in range(1, whole - least + 1):
        for ending in ("end", "close"):
            upstream.script = broken_off(plugin, count, ending)
            reply, cut = await asked(gateway, client, plugin)
            assert LAST[client] not in reply.body
            if cut:
                assert read(client, reply.body, "text/event-stream").error
            else:
                assert reply.status == 502
            assert gateway.exchanges.pop().outcome == "upstream_failed"


@pytest.mark.parametrize(("client", "plugin"), [pair for pair in PAIRS if "gemini" != pair.values[1]])
@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_behind_the_terminal_marker_nothing_is_missing(
    gateway: LocalGateway, upstream: ScriptedUpstream, client: str, plugin: str, ending: Ending
) -> None:
    upstream.script = broken_off(plugin, None, ending)
    reply, cut = await asked(gateway, client, plugin)
    assert reply.status == 200 and not cut
    assert speakers.accepted(client, reply).text == "".join(TEXT.texts)
    assert LAST[client] in reply.body
    assert gateway.exchanges.pop().outcome == "ok"


@pytest.mark.parametrize("client", speakers.CLIENTS)
async def test_a_plugin_sees_the_client_s_events_and_may_change_them(
    upstream: ScriptedUpstream, tmp_path: Path, client: str
) -> None:
    (tmp_path / "middleware").mkdir(mode=0o700)
    (tmp_path / "middleware" / "loud.py").write_text(LOUD)
    plugin = "cohere"
    upstream.script = script(plugin, TEXT, True)
    chain = f'plugins = {{ folders = ["{tmp_path}"], chain = ["loud"] }}'
    config = speakers.configuration(upstream.port, chain)
    async with LocalGateway(tmp_path, config, speakers.ENVIRON) as gateway:
        reply, cut = await asked(gateway, client, plugin)
        assert reply.status == 200 and not cut
        assert b"HEL" in reply.body and b"Hel" not in reply.body
        assert gateway.plugin("loud").seen >= len(TEXT.texts)


@pytest.mark.parametrize("told", [True, False], ids=["with content", "before content"])
async def test_an_answer_that_failed_ends_a_responses_stream_as_failed(
    gateway: LocalGateway, upstream: ScriptedUpstream, told: bool
) -> None:
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": {"content": "a"}}]}] if told else []
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]})
    upstream.script = stream([*map(event, chunks), event(b"[DONE]")])
    reply, _ = await asked(gateway, "openai_responses", "openai_compat")
    assert b"response.completed" not in reply.body
    assert (b"response.failed" in reply.body) is told or reply.status >= 500
    assert gateway.exchanges.pop().outcome == "upstream_failed"
