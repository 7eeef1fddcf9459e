"""R42: many streams to one provider at once, and what happens when there are more than it may get."""

from __future__ import annotations

import asyncio
import hashlib
from time import perf_counter

import attrs
import pytest

from gateway.testing import Call, GatewayFactory, RawClient, ScriptedUpstream, chat, chat_events
from gateway.testing.answers import SSE

KEYS = {name: f"hg-r42-{name}" for name in ("alice", "bob")}
CONFIG = (
    """
[pool]
max_connections = 2000
[plugins]
chain = ["request_id", "metrics", "auth"]
[providers.stub]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
max_concurrency = $limit
queue = 50
queue_timeout = "60s"
[models.m]
targets = [{ provider = "stub" }]
"""
    + "\n".join(f'[keys.{name}]\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"' for name, key in KEYS.items())
)  # fmt: skip
CALLERS = 500


@attrs.frozen
class Answer:
    status: int
    retry_after: str | None
    seconds: float
    """From the request to the first byte of the answer's body."""


async def streamed(client: RawClient, gate: asyncio.Event, key: str = KEYS["alice"]) -> Answer:
    """Ask when the gate opens; read the answer to its end."""
    await gate.wait()
    began = perf_counter()
    await client.chat("m", stream=True, key=key)
    head = await client.read_head()
    pieces = client.body()
    await anext(pieces)
    seconds = perf_counter() - began
    async for _ in pieces:
        pass
    return Answer(int(head.start.split(" ")[1]), head.get("retry-after"), seconds)


def share(answers: list[Answer], part: float) -> float:
    seconds = sorted(answer.seconds for answer in answers)
    return seconds[int(len(seconds) * part) - 1]


@pytest.mark.alone
async def test_r42_five_hundred_streams_at_once_wait_for_nothing(gateway_server: GatewayFactory) -> None:
    """They all run at once: none of them ends before the last one has begun."""
    everybody = asyncio.Event()

    async def script(call: Call) -> None:
        events = chat_events(3)
        await call.head(200, SSE)
        for event in events[:2]:
            await call.chunk(event)
        if len(upstream.calls) == CALLERS:
            everybody.set()
        await everybody.wait()
        for event in [*events[2:], b""]:
            await call.chunk(event)

    async with ScriptedUpstream(script) as upstream:
        gateway = gateway_server(CONFIG, port=str(upstream.port), limit="1000")
        answers: list[Answer] = []
        clients = [RawClient(gateway.url, timeout=30) for _ in range(CALLERS)]
        for client in clients:
            await client.__aenter__()
        try:
            gates = [asyncio.Event() for _ in clients]
            running = [
                asyncio.ensure_future(streamed(client, gate)) for client, gate in zip(clients, gates, strict=True)
            ]
            for number, gate in enumerate(gates):  # 500 a second: what is measured is waiting, not the machine's pace
                gate.set()
                if number % 5 == 4:
                    await asyncio.sleep(0.01)
            answers = await asyncio.gather(*running)
        finally:
            for client in clients:
                await client.__aexit__()
        assert {answer.status for answer in answers} == {200}
        # An invisible limit of 100 would have made this wait for ever, or for others' streams.
        assert share(answers, 0.99) <= 0.25 + share(answers, 0.5)


@pytest.mark.alone
async def test_r42_beyond_limit_and_queue_the_answer_is_a_quick_503(gateway_server: GatewayFactory) -> None:
    finish = asyncio.Event()

    async def script(call: Call) -> None:
        events = chat_events(3)
        await call.head(200, SSE)
        for event in events[:2]:
            await call.chunk(event)
        await finish.wait()
        for event in [*events[2:], b""]:
            await call.chunk(event)

    async with ScriptedUpstream(script) as upstream:
        gateway = gateway_server(CONFIG, port=str(upstream.port), limit="50")
        gate = asyncio.Event()
        clients = [RawClient(gateway.url, timeout=30) for _ in range(CALLERS)]
        for client in clients:
            await client.__aenter__()
        try:
            running = [asyncio.ensure_future(streamed(client, gate)) for client in clients]
            gate.set()
            early, waiting = 0, set(running)
            while early < 400:
                ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                early += len(ended)
            await asyncio.sleep(0.2)
            assert sum(task.done() for task in running) == 400
            assert len(upstream.calls) == 50
            finish.set()
            answers = await asyncio.gather(*running)
        finally:
            for client in clients:
                await client.__aexit__()
        refused = [answer for answer in answers if answer.status == 503]
        assert len(refused) == 400
        assert sum(answer.status == 200 for answer in answers) == 100  # and no time-out
        assert len(upstream.calls) == 100
        assert all(int(answer.retry_after or 0) >= 1 for answer in refused)
        # All of them came in one moment, so the last one also waited for 499 others' bytes on one core.
        assert share(refused, 1.0) <= 2.0


async def test_r42_a_crowd_of_one_key_delays_anothers_call_by_one_turn(gateway_server: GatewayFactory) -> None:
    order: list[str] = []
    go_on = asyncio.Semaphore(0)

    async def script(call: Call) -> None:
        order.append(call.request.json["messages"][0]["content"])
        await go_on.acquire()
        await chat()(call)

    async with ScriptedUpstream(script) as upstream:
        gateway = gateway_server(CONFIG, port=str(upstream.port), limit="1")

        async def ask(name: str) -> int:
            async with RawClient(gateway.url, timeout=30) as client:
                await client.chat("m", name, key=KEYS[name])
                return (await client.read()).status

        crowd = [asyncio.ensure_future(ask("alice")) for _ in range(20)]
        await upstream.wait_calls(1, within=5)
        await asyncio.sleep(0.3)  # the crowd waits
        others = [asyncio.ensure_future(ask("bob")) for _ in range(3)]
        await asyncio.sleep(0.3)
        for _ in range(23):
            go_on.release()
        assert await asyncio.gather(*crowd, *others) == [200] * 23
        assert order[0] == "alice"
        # In turn as long as both have somebody waiting.
        assert sorted(order[1:3]) == sorted(order[3:5]) == sorted(order[5:7]) == ["alice", "bob"]
        assert order.count("bob") == 3
