"""R35: who leaves at nine tenths of a stream is counted once, for what was delivered, in the gateway's own log."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from gateway.testing import (
    Call,
    GatewayFactory,
    GatewayProcess,
    RawClient,
    ScriptedUpstream,
    error,
    free_ports,
    hang_up,
    silent,
    stream,
    whole,
)
from gateway.testing.wire import json_bytes
from tests.support import speakers, spoken

WORDS, DELIVERED = 100, 90
SAID = spoken.Said(tuple(f"w{number:03} " for number in range(WORDS)))
LAST = f"w{DELIVERED - 1:03} ".encode()
VISITS = 100
PLAIN, DRAIN = "hg-r35-plain", "hg-r35-drain"
# Client, provider, input tokens the provider has told by then; and, where it is fewer, how many of them leave.
PAIRS: tuple[tuple[str, str, int | None, int], ...] = (
    ("openai_chat", "openai_compat", None, VISITS),
    ("anthropic_messages", "anthropic", 100, VISITS),
    ("gemini", "gemini", 100, VISITS),
    ("openai_chat", "anthropic", 100, 20),
    ("anthropic_messages", "openai_compat", None, 20),
    ("openai_responses", "chat_only", None, 20),
    ("gemini", "cohere", None, 20),
    ("ollama", "ollama", None, 20),
)


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, port: int) -> GatewayProcess:
    top = 'plugins = { chain = ["request_id", "logging", "auth"] }'
    digests = [hashlib.sha256(key.encode()).hexdigest() for key in (PLAIN, DRAIN)]
    keys = '\n[keys.plain]\nsha256 = "{}"\n[keys.drain]\nsha256 = "{}"\non_disconnect = "drain"\n'.format(*digests)
    return shared_gateway_server(speakers.configuration(port, top) + keys, env=speakers.ENVIRON)


@pytest.fixture
async def upstream(port: int) -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(silent, port=port) as scripted:
        yield scripted


def said_by(plugin: str) -> list[bytes]:
    return spoken.pieces("openai_compat" if plugin == "chat_only" else plugin, SAID)


def most_of(plugin: str, go_on: asyncio.Event) -> Any:
    """Nine tenths of the words in chunks of several events, then nothing until told to."""
    pieces = said_by(plugin)
    last = next(at for at, piece in enumerate(pieces) if LAST in piece) + 1

    async def script(call: Call) -> None:
        await call.head(200, spoken.head(plugin))
        at = 0
        while at < last:
            count = min(random.choice((1, 2, 4, 8)), last - at)
            await call.chunk(b"".join(pieces[at : at + count]))
            at += count
        await go_on.wait()
        for piece in pieces[last:]:
            await call.chunk(piece)
        await call.chunk(b"")

    return script


async def walk_out(gateway: GatewayProcess, client_: str, plugin: str, key: str = PLAIN) -> None:
    path = speakers.path_of(client_, f"x-{plugin}", True)
    body = json_bytes(speakers.request_of(client_, f"x-{plugin}", True))
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    async with RawClient(gateway.url) as client:
        await client.request("POST", path, headers, body)
        await client.read_head()
        received = b""
        async for piece in client.body():
            received += piece
            if LAST in received:
                break
        assert sum(word.encode() in received for word in SAID.texts) == DELIVERED


async def crowd(count: int, visit: Any) -> None:
    """Ten at a time."""
    for start in range(0, count, 10):
        await asyncio.gather(*(visit() for _ in range(min(10, count - start))))


async def rows(gateway: GatewayProcess, seen: int, count: int) -> Sequence[dict[str, Any]]:
    """The log lines behind the first ``seen``; all ``count`` of them, and no more."""
    async with asyncio.timeout(5):
        while len(gateway.log_lines()) < seen + count:  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)  # longer than the log's own interval
    return gateway.log_lines()[seen:]


@pytest.mark.parametrize(("client", "plugin", "told", "visits"), PAIRS, ids=[f"{c}-{p}" for c, p, _, _ in PAIRS])
async def test_r35_what_was_delivered_is_counted_once(
    gateway: GatewayProcess, upstream: ScriptedUpstream, client: str, plugin: str, told: int | None, visits: int
) -> None:
    upstream.script = most_of(plugin, asyncio.Event())
    seen = len(gateway.log_lines())
    await crowd(visits, lambda: walk_out(gateway, client, plugin))
    lines = await rows(gateway, seen, visits)
    assert len(lines) == len({line["id"] for line in lines}) == visits
    assert {line["outcome"] for line in lines} == {"client_gone"}
    used = [line["usage"] for line in lines]
    assert sum(each["output"] for each in used) == pytest.approx(DELIVERED * visits, rel=0.05)
    assert max(abs(each["output"] - DELIVERED) for each in used) <= DELIVERED * 0.1
    assert {each["provenance"] for each in used} == {"estimated" if told is None else "partial"}
    assert {each["input"] for each in used} == {5 if told is None else told}
    assert all(call.aborted is not None for call in upstream.calls)


@pytest.mark.parametrize(("client", "plugin"), [(each[0], each[1]) for each in PAIRS[::2]])
async def test_r35_who_pays_for_all_of_it_is_told_what_it_was(
    gateway: GatewayProcess, upstream: ScriptedUpstream, client: str, plugin: str
) -> None:
    go_on = asyncio.Event()
    upstream.script = most_of(plugin, go_on)
    seen = len(gateway.log_lines())
    await crowd(10, lambda: walk_out(gateway, client, plugin, DRAIN))
    await asyncio.sleep(0.3)
    assert gateway.log_lines()[seen:] == [], "their calls go on"
    assert not any(call.aborted or call.finished for call in upstream.calls)
    go_on.set()
    lines = await rows(gateway, seen, 10)
    assert {line["outcome"] for line in lines} == {"client_gone"}
    counts = {(each["input"], each["output"], each["provenance"]) for each in (line["usage"] for line in lines)}
    assert counts == {(100, 40, "reported")}, "not an estimate: the words were 100"
    await upstream.until(lambda: all(call.finished is not None for call in upstream.calls))
    assert not any(call.aborted for call in upstream.calls)


BROKEN = {
    "cut": (stream(said_by("openai_compat")[:51], headers=spoken.head("openai_compat"), ending="close"), True, (5, 50)),
    "refused": (error(503), True, None),
    "no answer": (hang_up, False, None),
    "no answer in a 200": (whole(200, {"error": {"message": "busy", "code": 503}}), False, None),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
async def test_r35_a_call_that_fails_costs_what_it_gave(
    gateway: GatewayProcess, upstream: ScriptedUpstream, name: str
) -> None:
    upstream.script, streamed, expected = BROKEN[name]
    seen = len(gateway.log_lines())
    async with RawClient(gateway.url) as client:
        await client.chat("x-openai_compat", "hi", stream=streamed, key=PLAIN)
        await client.wait_closed(5) if name == "cut" else await client.read()
    (line,) = await rows(gateway, seen, 1)
    assert line["outcome"] == "upstream_failed"
    used = line.get("usage")
    assert used == (expected and {"input": expected[0], "output": expected[1], "provenance": "estimated"})
