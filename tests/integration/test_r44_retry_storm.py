"""R44 and R45: a failing provider is not buried in retries, and no target is called before the time it asked for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from time import monotonic, time
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from gateway.testing import (
    Call,
    GatewayFactory,
    GatewayProcess,
    Received,
    Response,
    ScriptedUpstream,
    as_asked,
    chat,
    fetch_chat,
)
from gateway.testing import error as refuse

RESERVE = 3
"""Further calls a target's failures may cause before its first calls have paid for any: ``gateway.targets.RESERVE``."""
RATE = 200  # requests a second, as far as the machine gets
STORM = """
[retry]
backoff = "50ms"
max_backoff = "1s"
[breaker]
$breaker
[plugins]
chain = ["request_id", "metrics"]
[providers.flaky]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
[models.m]
targets = [{ provider = "flaky" }]
"""
MESSAGES: Any = [{"role": "user", "content": "hi"}]


class Storm:
    """Calls through the official SDK with its own retries on, as many a second as asked for."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.failed: list[float] = []
        """When each call that failed for good had begun."""
        self.answered = 0
        self.requests = 0
        """HTTP requests the SDK sent, its own retries too."""
        hooks: Any = {"request": [self._count]}
        http = DefaultAsyncHttpxClient(trust_env=False, event_hooks=hooks)
        self.client = AsyncOpenAI(api_key="k", base_url=f"{gateway.url}/v1", max_retries=2, http_client=http)
        self._running: set[asyncio.Task[None]] = set()

    async def _count(self, _: object) -> None:
        self.requests += 1

    async def _call(self) -> None:
        began = monotonic()
        try:
            await self.client.chat.completions.create(model="m", messages=MESSAGES)
            self.answered += 1
        except openai.APIError:
            self.failed.append(began)

    async def blow(self, seconds: float) -> None:
        began = monotonic()
        for number in range(int(seconds * RATE)):
            if (ahead := began + number / RATE - monotonic()) > 0:
                await asyncio.sleep(ahead)
            elif monotonic() > began + 2 * seconds:
                break  # a machine this slow has had enough
            task = asyncio.ensure_future(self._call())
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def calm(self) -> None:
        await asyncio.gather(*self._running)


@asynccontextmanager
async def storm(gateway: GatewayProcess) -> AsyncIterator[Storm]:
    made = Storm(gateway)
    yield made
    await made.calm()
    await made.client.close()


@pytest.mark.alone
async def test_r44_a_provider_half_failing_gets_a_fifth_more_calls_at_most(gateway_server: GatewayFactory) -> None:
    """Without the breaker, so that only the budget stands between the retries and the provider."""
    seen = 0

    async def half(call: Call) -> None:
        nonlocal seen
        seen += 1
        await (chat() if seen % 2 else refuse(500))(call)

    async with ScriptedUpstream(half) as upstream:
        gateway = gateway_server(STORM, port=str(upstream.port), breaker="failures = 0\nerror_rate = 0.0")
        async with storm(gateway) as calls:
            await calls.blow(4.0)
        metrics = await gateway.metrics()
        reached = metrics.value("hookgate_requests_total")
        assert reached == calls.requests
        assert len(upstream.calls) > reached  # retries there are …
        assert len(upstream.calls) <= 1.2 * reached + RESERVE  # … within the budget
        # The gateway has used up its tries, and says so: SDK times gateway is not multiplied.
        assert calls.requests <= 1.05 * (calls.answered + len(calls.failed))
        assert calls.answered >= 0.55 * (calls.answered + len(calls.failed))


@pytest.mark.alone
async def test_r44_a_dead_provider_is_spared_and_found_well_again(gateway_server: GatewayFactory) -> None:
    async with ScriptedUpstream(refuse(500)) as upstream:
        gateway = gateway_server(STORM, port=str(upstream.port), breaker='open_for = "1s"\nmax_open = "2s"')
        async with storm(gateway) as calls:
            await calls.blow(5.0)
            during = len(upstream.calls)
            assert during <= 40  # what opened the breaker, what was under way, and the probes
            assert during <= 1.2 * calls.requests + RESERVE
            upstream.script = chat()
            well = monotonic()
            await calls.blow(5.0)
        assert calls.answered > 0
        found = next(call.started for call in upstream.calls if call.started > well)
        assert found - well <= 10.0
        assert not [began for began in calls.failed if began > found + 1.0]
        assert (await fetch_chat(gateway.url)).status == 200


Say = Callable[[], tuple[dict[str, str], float]]


def by_date() -> tuple[dict[str, str], float]:
    until = math.ceil(time()) + 1
    return {"Retry-After": formatdate(until, usegmt=True)}, until - time() - 0.01


# How a wait is told, and the floor in seconds.
SAYINGS: dict[str, Say] = {
    "milliseconds": lambda: ({"retry-after-ms": "300"}, 0.3),
    "both": lambda: ({"retry-after-ms": "250", "Retry-After": "9"}, 0.25),
    "seconds": lambda: ({"Retry-After": "1"}, 1.0),
    "fraction": lambda: ({"Retry-After": "0.4"}, 0.4),
    "date": by_date,
}
COPIES = 4
TARGETS = [f"{saying} {copy}" for saying in SAYINGS for copy in range(COPIES)]
FLOORS = (
    """
[retry]
attempts = $attempts
[plugins]
chain = ["request_id", "metrics"]
[providers.limited]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
"""
    + "".join(f'[models."{name}"]\ntargets = [{{ provider = "limited", model = "{name}" }}]\n' for name in TARGETS)
    + """
[models.three]
targets = [
    { provider = "limited", model = "x30" }, { provider = "limited", model = "x12" },
    { provider = "limited", model = "x20" },
]
"""
)


class Limited:
    """Refuses a target's every other call, and notes the time before which it must not be called again."""

    def __init__(self) -> None:
        self.floors: dict[str, list[float]] = {}
        self.seen: dict[str, int] = {}

    async def __call__(self, call: Call) -> None:
        name = call.request.json["model"]
        self.seen[name] = self.seen.get(name, 0) + 1
        if self.seen[name] % 2:
            headers, floor = SAYINGS[name.split(" ")[0]]()
            self.floors.setdefault(name, []).append(monotonic() + floor)
            await refuse(429, headers=headers)(call)
        else:
            await chat()(call)


def early(calls: list[Received], floors: dict[str, list[float]]) -> list[tuple[str, float]]:
    """Calls that came between a refusal and its floor: target, and seconds too early."""
    found = []
    for name, ends in floors.items():
        mine = [call for call in calls if call.json["model"] == name]
        for number, end in enumerate(ends):
            if 2 * number + 1 < len(mine) and (missing := end - mine[2 * number + 1].started) > 0:
                found.append((name, missing))
    return found


async def test_r45_no_target_is_called_before_its_time(gateway_server: GatewayFactory) -> None:
    """Each trial: a refusal, at once five more calls that must not get through, and one when the time is over."""
    limited = Limited()
    async with ScriptedUpstream(limited) as upstream:
        gateway = gateway_server(FLOORS, port=str(upstream.port), attempts="1")

        async def trial(name: str) -> None:
            reply = await fetch_chat(gateway.url, name)
            floor = limited.floors[name][-1]
            assert reply.status == 429
            assert int(reply.header("retry-after") or 0) >= 1
            burst = await asyncio.gather(*(fetch_chat(gateway.url, name) for _ in range(5)))
            if monotonic() < floor - 0.02:  # else the machine was too slow for a burst in time
                assert [each.status for each in burst] == [503] * 5
                assert all(int(each.header("retry-after") or 0) >= 1 for each in burst)
                await asyncio.sleep(floor - monotonic() + 0.05)
            if limited.seen[name] % 2:
                assert (await fetch_chat(gateway.url, name)).status == 200

        async def trials(name: str) -> None:
            for _ in range(6):
                await trial(name)

        await asyncio.gather(*map(trials, TARGETS))
        assert sum(map(len, limited.floors.values())) >= 100
        assert early(upstream.calls, limited.floors) == []


async def test_r45_the_gateways_own_retry_waits_as_long(gateway_server: GatewayFactory) -> None:
    limited = Limited()
    async with ScriptedUpstream(limited) as upstream:
        gateway = gateway_server(FLOORS, port=str(upstream.port), attempts="3")
        replies = await asyncio.gather(*(fetch_chat(gateway.url, name) for name in TARGETS))
        assert [reply.status for reply in replies] == [200] * len(TARGETS)
        assert early(upstream.calls, limited.floors) == []


async def test_r45_a_retry_that_waits_hears_of_a_later_time(gateway_server: GatewayFactory) -> None:
    """Two calls under way are refused one after the other: the first one's retry must not come before the second's."""
    floor = 0.0

    async def script(call: Call) -> None:
        nonlocal floor
        number = len(upstream.calls)
        if number > 2:
            await chat()(call)
            return
        await upstream.wait_calls(2, within=5)
        await asyncio.sleep(0.3 * (number - 1))
        floor = monotonic() + 0.5
        await refuse(429, headers={"retry-after-ms": "500"})(call)

    async with ScriptedUpstream(script) as upstream:
        gateway = gateway_server(FLOORS, port=str(upstream.port), attempts="3")
        replies = await asyncio.gather(*(fetch_chat(gateway.url, "seconds 0") for _ in range(2)))
        assert {reply.status for reply in replies} <= {200, 429}
        assert all(call.started >= floor for call in upstream.calls[2:])


async def test_r45_all_targets_cooling_is_a_503_with_the_shortest_wait(gateway_server: GatewayFactory) -> None:
    async def script(call: Call) -> None:
        await refuse(429, headers={"Retry-After": call.request.json["model"].removeprefix("x")})(call)

    async with ScriptedUpstream(script) as upstream:
        gateway = gateway_server(FLOORS, port=str(upstream.port), attempts="3")
        first = await fetch_chat(gateway.url, "three")
        assert first.status == 429 and 11 <= int(first.header("retry-after") or 0) <= 12
        assert sorted(call.json["model"] for call in upstream.calls) == ["x12", "x20", "x30"]
        later = await fetch_chat(gateway.url, "three")
        assert later.status == 503 and 10 <= int(later.header("retry-after") or 0) <= 12
        assert len(upstream.calls) == 3


async def test_r45_calls_that_wait_for_room_hear_of_it_too(gateway_server: GatewayFactory) -> None:
    floor = math.inf

    async def script(call: Call) -> None:
        nonlocal floor
        await upstream.until(lambda: gateways_queue_is_full, within=5)
        floor = monotonic() + 2.0
        await refuse(429, headers={"Retry-After": "2"})(call)

    gateways_queue_is_full = False
    async with ScriptedUpstream(script) as upstream:
        config = FLOORS.replace("[providers.limited]", "[providers.limited]\nmax_concurrency = 1")
        gateway = gateway_server(config, port=str(upstream.port), attempts="1")
        running = [asyncio.ensure_future(fetch_chat(gateway.url, "seconds 0")) for _ in range(10)]
        await upstream.wait_calls(1, within=5)
        await asyncio.sleep(0.3)
        gateways_queue_is_full = True
        upstream.changed()
        statuses = sorted(reply.status for reply in await asyncio.gather(*running))
        assert statuses == [429] + [503] * 9
        assert len(upstream.calls) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_r44_what_no_repeat_can_mend_is_not_repeated(gateway_server: GatewayFactory, status: int) -> None:
    async with ScriptedUpstream([refuse(status), as_asked()]) as upstream:
        gateway = gateway_server(FLOORS, port=str(upstream.port), attempts="3")
        reply: Response = await fetch_chat(gateway.url, "seconds 0")
        assert reply.status == (502 if status in (401, 403) else status)
        assert len(upstream.calls) == 1
