"""Which target is called, and which next: the upstreams' ledgers tell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway import Usage, attempts
from gateway.testing import (
    Call,
    LocalGateway,
    RawClient,
    Response,
    Script,
    ScriptedUpstream,
    Truncated,
    chat,
    chat_body,
    chat_events,
    chat_stream,
    delayed,
    error,
    event,
    fetch,
    fetch_chat,
    free_ports,
    hang_up,
    silent,
    stream,
    whole,
)
from gateway.testing.answers import JSON
from gateway.testing.wire import json_bytes

CHAT = chat_events(2)
OTHER = chat_events(2, model="other")
IN_BAND = event({"error": {"message": "busy", "type": "t", "code": 503}})
NEVER_OPEN = "[breaker]\nfailures = 0\nerror_rate = 0"
QUICK = '[retry]\nbackoff = "1ms"\nmax_backoff = "500ms"\nbudget = 1.0'
NAMES = ("a", "b", "c")


class Clock:
    """The clock of what is known of the targets; ``ahead`` seconds before everybody's."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Scene:
    """Three providers ``a``, ``b`` and ``c``; the model ``m`` is ``a``'s, then ``b``'s, then ``c``'s."""

    def __init__(self, folder: Path, upstreams: dict[str, ScriptedUpstream], stack: AsyncExitStack) -> None:
        self._folder = folder
        self._upstreams = upstreams
        self._stack = stack
        self.gateway: LocalGateway

    def __getattr__(self, name: str) -> ScriptedUpstream:
        return self._upstreams[name]

    async def start(self, settings: str = f"{QUICK}\n{NEVER_OPEN}", *, models: str = "", **more: str) -> None:
        """``more`` are further settings of a provider, ``base_url`` among them."""
        providers = "".join(
            f'[providers.{name}]\ntype = "openai_compat"\n'
            + ("" if "base_url" in more.get(name, "") else f'base_url = "{self._upstreams[name].url}/v1"\n')
            + f'timeouts = {{ first_token = "500ms", idle = "500ms" }}\n{more.get(name, "")}\n'
            for name in NAMES
        )
        models = models or (
            '[models.m]\ntargets = [{ provider = "a" }]\nfallbacks = ["n", "o"]\n'
            '[models.n]\ntargets = [{ provider = "b" }]\n'
            '[models.o]\ntargets = [{ provider = "c", model = "big" }]\n'
            '[models.alone]\ntargets = [{ provider = "a" }]\n'
        )
        text = f'default_provider = "a"\nplugins = {{ chain = [] }}\n{settings}\n{providers}{models}'
        self.gateway = await self._stack.enter_async_context(LocalGateway(self._folder, text))

    def scripts(self, *scripts: Script | list[Script]) -> None:
        for name, script in zip(NAMES, scripts, strict=False):
            self._upstreams[name].script = script

    async def ask(self, model: str = "m", content: str = "hi", **fields: Any) -> Response:
        return await fetch_chat(self.gateway.url, model, content, **fields)

    async def post(self, path: str, **body: Any) -> Response:
        return await fetch(self.gateway.url + path, "POST", JSON, json_bytes(body))

    @property
    def counts(self) -> tuple[int, ...]:
        """Calls of each upstream."""
        return tuple(len(self._upstreams[name].calls) for name in NAMES)

    def tried(self, number: int = -1) -> list[str]:
        return self.gateway.exchanges[number].tried

    def settled(self) -> bool:
        """No call is under way any more, as far as targets and gates know."""
        runtime = self.gateway._plugins.runtime
        states = runtime.targets.snapshot(time.monotonic()).values()
        gates = runtime.admission.gates.values()
        return not any(state["in_flight"] for state in states) and not any(gate.running for gate in gates)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        upstreams = {name: await stack.enter_async_context(ScriptedUpstream(chat(name))) for name in NAMES}
        made = Scene(tmp_path, upstreams, stack)
        yield made
        async with asyncio.timeout(2):
            while not made.settled():  # noqa: ASYNC110 - what is known of a target tells nobody when it changes
                await asyncio.sleep(0.01)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(attempts, "monotonic", made)
    yield made


# Which next.


async def test_fallbacks_are_called_in_their_order_each_with_its_own_model(scene: Scene) -> None:
    await scene.start()
    scene.scripts(error(500), error(503), chat("from c"))
    reply = await scene.ask()
    assert (reply.status, reply.header("x-gateway-target")) == (200, "c/big")
    assert b"from c" in reply.body
    assert scene.counts == (1, 1, 1)
    assert scene.tried() == ["a", "b/n", "c/big"]
    assert [each.calls[0].json["model"] for each in (scene.a, scene.b, scene.c)] == ["m", "n", "big"]


async def test_a_target_that_answers_keeps_the_request(scene: Scene) -> None:
    await scene.start()
    assert (await scene.ask()).header("x-gateway-target") == "a"
    assert scene.counts == (1, 0, 0)


@pytest.mark.parametrize(
    "script",
    [error(500), error(503), error(408), hang_up, silent, whole(307, b"")],
    ids=["500", "503", "408", "hung up", "silent", "redirect"],
)
async def test_the_only_target_is_called_again(scene: Scene, script: Script) -> None:
    await scene.start()
    scene.scripts([script, script, chat("third")])
    reply = await scene.ask("alone")
    assert reply.status == 200 and b"third" in reply.body
    assert scene.tried() == ["a", "a", "a"]
    assert scene.counts[0] == 3


async def test_a_retry_sends_the_same_bytes(scene: Scene) -> None:
    await scene.start()
    scene.scripts([error(500), stream(CHAT)])
    await scene.ask("alone", "once more", stream=True)
    first, second = scene.a.calls
    assert first.body == second.body and b"once more" in first.body
    assert first.header("x-request-id") == second.header("x-request-id")


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_the_number_of_calls_is_bounded(scene: Scene, count: int) -> None:
    await scene.start(f"{QUICK}\nattempts = {count}\n{NEVER_OPEN}")
    scene.scripts(error(500), error(502), error(503))
    reply = await scene.ask()
    assert sum(scene.counts) == count
    assert reply.status == {1: 500, 2: 502, 5: 503}[count]
    assert reply.header("x-should-retry") == "false"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
async def test_r44_what_is_the_requests_fault_is_tried_nowhere_else(scene: Scene, status: int) -> None:
    await scene.start()
    scene.scripts(error(status))
    reply = await scene.ask()
    assert reply.status == {401: 502, 403: 502}.get(status, status)
    assert scene.counts == (1, 0, 0)


@pytest.mark.parametrize("status", [402, 501])
async def test_what_only_this_target_cannot_do_another_may(scene: Scene, status: int) -> None:
    await scene.start()
    scene.scripts(error(status))
    assert (await scene.ask()).header("x-gateway-target") == "b/n"
    assert (await scene.ask("alone")).status == status
    assert scene.counts == (2, 1, 0)


async def test_the_last_error_is_the_clients(scene: Scene) -> None:
    await scene.start()
    scene.scripts(error(500), error(404, "Never heard of it."))
    reply = await scene.ask()
    assert (reply.status, reply.json["error"]["message"]) == (404, "Never heard of it.")
    assert scene.counts == (1, 1, 0)


async def test_r44_further_calls_are_a_share_of_the_first_ones(scene: Scene) -> None:
    await scene.start(f'[retry]\nattempts = 2\nbackoff = "1ms"\nbudget = 0.2\n{NEVER_OPEN}')
    scene.scripts(error(500))
    for number in range(20):
        assert (await scene.ask("alone" if number % 2 else "m")).status in (200, 500)
    first, further = 20, sum(scene.counts) - 20
    assert 3 <= further <= 3 + first * 0.2


async def test_without_a_budget_nothing_is_called_twice(scene: Scene) -> None:
    await scene.start(f"[retry]\nbudget = 0\n{NEVER_OPEN}")
    scene.scripts(error(500))
    assert (await scene.ask()).status == 500
    assert scene.counts == (1, 0, 0)


# Streams.


@pytest.mark.parametrize(
    "script",
    [
        stream([]),
        stream(CHAT[:1], ending="reset"),
        stream([b": ping\n\n", CHAT[0], b": ping\n\n"], ending="close"),
        stream(CHAT[:1], ending="stall"),
        stream([IN_BAND]),
        stream([CHAT[0], IN_BAND]),
        stream([b"data: {oops\n\n"]),
    ],
    ids=["empty", "role", "pings", "stalled", "error", "error behind a role", "malformed"],
)
async def test_before_anything_was_said_another_target_takes_over(scene: Scene, script: Script) -> None:
    await scene.start()
    scene.scripts(script, stream(OTHER))
    reply = await scene.ask(stream=True)
    assert (reply.status, reply.body) == (200, b"".join(OTHER))
    assert reply.header("x-gateway-target") == "b/n"
    assert scene.counts == (1, 1, 0)


@pytest.mark.parametrize(
    "script",
    [
        stream(CHAT[:2], ending="reset"),
        stream(CHAT[:2], ending="stall"),
        stream([*CHAT[:2], IN_BAND]),
        stream([b"".join([*CHAT[:2], IN_BAND])]),
    ],
    ids=["reset", "stalled", "error", "error in the same read"],
)
async def test_r34_behind_the_first_word_nothing_is_tried_again(scene: Scene, script: Script) -> None:
    await scene.start()
    scene.scripts(script, stream(OTHER))
    with pytest.raises(Truncated) as cut:
        await scene.ask(stream=True)
    assert cut.value.received.startswith(b"".join(CHAT[:2]))
    assert b"other" not in cut.value.received
    assert scene.counts == (1, 0, 0)


async def test_an_error_in_a_stream_of_the_only_target_passes_on_with_its_status(scene: Scene) -> None:
    await scene.start()
    scene.scripts(stream([IN_BAND]))
    reply = await scene.ask("alone", stream=True)
    assert (reply.status, reply.header("content-type")) == (503, "application/json")
    assert reply.json["error"]["message"] == "busy"
    assert scene.counts == (3, 0, 0)


async def test_the_limits_of_a_stream_that_was_left_are_over(scene: Scene) -> None:
    """It is left between two reads, and what cleans up behind it comes later, while the next call is under way."""
    await scene.start()
    scene.scripts(stream([IN_BAND], ending="stall"), silent, stream(OTHER))
    reply = await scene.ask(stream=True)
    assert reply.body == b"".join(OTHER)
    assert scene.counts == (1, 1, 1)


async def test_a_wait_before_a_retry_is_under_no_limit_of_the_call_before(scene: Scene) -> None:
    limited = event({"error": {"message": "slow down", "code": 429}})  # a second, and the time limits are half of one
    await scene.start(f'[retry]\nmax_backoff = "4s"\n{NEVER_OPEN}')
    scene.scripts([stream([limited], ending="stall"), stream(OTHER)])
    assert (await scene.ask("alone", stream=True)).body == b"".join(OTHER)
    assert scene.tried() == ["a", "a"]


@pytest.mark.parametrize("status", [429, 503])
async def test_an_error_in_a_whole_success_is_one(scene: Scene, status: int) -> None:
    await scene.start()
    body = {"error": {"message": "busy", "code": status}}
    scene.scripts(whole(200, body))
    assert (await scene.ask()).header("x-gateway-target") == "b/n"
    await scene.start(f"[retry]\nattempts = 1\n{NEVER_OPEN}")
    reply = await scene.ask("alone")
    assert (reply.status, reply.json) == (status, body)


async def test_a_success_may_hold_the_word_error(scene: Scene) -> None:
    await scene.start()
    body = b'{"error":null,' + chat_body("fine")[1:]
    scene.scripts(whole(200, body))
    assert (await scene.ask()).body == body
    assert scene.counts == (1, 0, 0)


# What must not be done twice.


@pytest.mark.parametrize("script", [error(500), hang_up, silent], ids=["500", "hung up", "silent"])
async def test_what_changes_something_is_not_done_twice(scene: Scene, script: Script) -> None:
    await scene.start()
    scene.scripts(script)
    assert (await scene.post("/v1/images/generations", model="m", prompt="x")).status >= 500
    assert scene.counts == (1, 0, 0)


async def test_what_was_not_sent_or_not_done_may_be_done_elsewhere(scene: Scene) -> None:
    await scene.start(a=f'base_url = "http://127.0.0.1:{free_ports(1)[0]}/v1"')
    assert (await scene.post("/v1/images/generations", model="m", prompt="x")).status == 200
    assert scene.counts == (0, 1, 0)
    scene.scripts(chat(), error(429))
    assert (await scene.post("/v1/images/generations", model="m", prompt="x")).header("x-gateway-target") == "c/big"
    assert scene.counts == (0, 2, 1)


async def test_a_read_may_be_done_again(scene: Scene) -> None:
    await scene.start()
    scene.scripts([error(500), whole(200, {"id": "f"})])
    assert (await fetch(f"{scene.gateway.url}/v1/files/f")).status == 200
    assert scene.counts == (2, 0, 0)


@pytest.mark.parametrize(
    ("store", "script", "calls"),
    [(None, silent, (1, 0, 0)), (True, hang_up, (1, 0, 0)), (False, silent, (1, 1, 0)), (None, error(500), (1, 1, 0))],
    ids=["stored", "asked to be stored", "not stored", "refused"],
)
async def test_a_response_that_is_stored_is_not_made_twice(
    scene: Scene, store: bool | None, script: Script, calls: tuple[int, ...]
) -> None:
    await scene.start()
    scene.scripts(script)
    await scene.post("/v1/responses", model="m", input="x", **({} if store is None else {"store": store}))
    assert scene.counts == calls


@pytest.mark.parametrize("script", [error(500), error(429), hang_up], ids=["500", "429", "hung up"])
async def test_an_upload_that_was_streamed_is_never_sent_twice(scene: Scene, script: Script) -> None:
    await scene.start()
    scene.scripts(script)
    form = b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n' + (
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n' + b"s" * 100_000 + b"\r\n--x--\r\n"
    )
    media = {"Content-Type": "multipart/form-data; boundary=x"}
    reply = await fetch(f"{scene.gateway.url}/v1/audio/transcriptions", "POST", media, form)
    assert reply.status in (429, 500, 502)
    assert scene.counts == (1, 0, 0)


async def test_a_provider_named_by_the_path_has_no_fallback(scene: Scene) -> None:
    await scene.start(a=f'base_url = "http://127.0.0.1:{free_ports(1)[0]}/v1"')
    body = {"model": "m", "messages": []}
    assert (await scene.post("/p/a/chat/completions", **body)).status == 502
    await scene.start("[breaker]\nfailures = 1\n[retry]\nattempts = 1")
    scene.scripts(error(500))
    assert (await scene.post("/p/a/chat/completions", **body)).status == 500
    assert (await scene.post("/p/a/chat/completions", **body)).status == 503
    assert scene.counts == (1, 0, 0)


async def test_a_fallback_too_small_for_the_request_is_passed_over(scene: Scene) -> None:
    await scene.start(
        models='[models.m]\ntargets = [{ provider = "a" }]\nfallbacks = ["n", "o"]\n'
        '[models.n]\ntargets = [{ provider = "b" }]\ncontext = 100\n'
        '[models.o]\ntargets = [{ provider = "c" }]\ncontext = 1000\n'
    )
    scene.scripts(error(500))
    assert (await scene.ask()).header("x-gateway-target") == "b/n"
    assert (await scene.ask(content="word " * 400)).header("x-gateway-target") == "c/o"
    assert (await scene.ask(content="word " * 1600)).status == 500


# Cooldown.


@pytest.mark.parametrize(
    ("headers", "rest"), [({"Retry-After": "30"}, 30.0), ({"retry-after-ms": "12500"}, 12.5), ({}, 1.0)]
)
async def test_r45_a_target_that_asked_for_rest_is_left_alone_until_then(
    scene: Scene, clock: Clock, headers: dict[str, str], rest: float
) -> None:
    await scene.start()
    scene.scripts([error(429, headers=headers), chat("rested")])
    for number in range(1, 6):
        assert (await scene.ask()).header("x-gateway-target") == "b/n"
        assert scene.counts == (1, number, 0)
    clock.ahead = rest
    assert (await scene.ask()).header("x-gateway-target") == "a"


async def test_r45_a_short_rest_is_waited_for(scene: Scene) -> None:
    await scene.start()
    scene.scripts([error(429, headers={"retry-after-ms": "150"}), chat("rested")])
    reply = await scene.ask("alone")
    assert reply.status == 200
    first, second = scene.a.calls
    assert first.read is not None and second.started - first.read >= 0.15
    overhead = reply.header("x-gateway-overhead-ms")
    assert overhead is not None and float(overhead) < 150


async def test_r45_where_all_rest_the_smallest_wait_is_told(scene: Scene) -> None:
    await scene.start()
    scene.scripts(*(error(429, headers={"Retry-After": wait}) for wait in ("60", "20", "40")))
    reply = await scene.ask()
    assert (reply.status, reply.header("retry-after"), reply.header("x-should-retry")) == (429, "20", None)
    for _ in range(3):
        reply = await scene.ask()
        assert (reply.status, reply.json["error"]["code"]) == (503, "overloaded")
        assert reply.header("retry-after") == "20"
    assert (await scene.ask("alone")).header("retry-after") == "60"
    assert scene.counts == (1, 1, 1)
    assert scene.tried() == []


async def test_r45_a_rest_that_grows_while_it_is_waited_for_is_kept(scene: Scene) -> None:
    together = asyncio.Event()

    async def soon(call: Call) -> None:
        await together.wait()
        await error(429, headers={"retry-after-ms": "100"})(call)

    async def late(call: Call) -> None:
        together.set()
        await asyncio.sleep(0.03)
        await error(429, headers={"Retry-After": "30"})(call)

    await scene.start()
    scene.scripts([soon, late, chat()])
    replies = await asyncio.gather(scene.ask("alone"), scene.ask("alone"))
    assert [(reply.status, reply.header("retry-after")) for reply in replies] == [(429, "30"), (429, "30")]
    assert scene.counts == (2, 0, 0)


# Breaker.


async def test_a_target_that_keeps_failing_is_left_alone(scene: Scene) -> None:
    await scene.start("[retry]\nattempts = 1\n[breaker]\nfailures = 3")
    scene.scripts(error(500))
    for _ in range(3):
        assert (await scene.ask("alone")).status == 500
    reply = await scene.ask("alone")
    assert (reply.status, reply.header("retry-after")) == (503, "5")
    assert reply.header("x-gateway-target") is None
    assert (await scene.ask()).header("x-gateway-target") == "b/n"
    assert scene.counts == (3, 1, 0)


async def test_streams_that_break_count_as_failures(scene: Scene) -> None:
    await scene.start("[breaker]\nfailures = 3")
    scene.scripts(stream(CHAT[:2], ending="close"))
    for _ in range(3):
        with pytest.raises(Truncated):
            await scene.ask("alone", stream=True)
    assert (await scene.ask("alone", stream=True)).status == 503
    assert scene.counts == (3, 0, 0)


async def test_clients_that_leave_count_as_nothing(scene: Scene) -> None:
    await scene.start("[breaker]\nfailures = 1")
    for number, script in enumerate((silent, stream(CHAT[:1], ending="stall"), stream(CHAT[:2], ending="stall")), 1):
        scene.scripts(script)
        async with RawClient(scene.gateway.url) as client:
            await client.chat("alone", stream=True)
            await scene.a.wait_calls(number)
            if number == 3:
                await client.read_head()
        await scene.a.wait_aborted(number)
    scene.scripts(chat("well"))
    assert (await scene.ask("alone")).status == 200


@pytest.mark.parametrize("second", [silent, error(500)], ids=["is asked", "refuses, too"])
async def test_r35_only_a_call_that_was_not_refused_costs_who_leaves(scene: Scene, second: Script) -> None:
    await scene.start('[retry]\nattempts = 5\nbackoff = "2s"\nmax_backoff = "5s"\nbudget = 1.0\n' + NEVER_OPEN)
    scene.scripts(error(500), second, [error(500)])
    async with RawClient(scene.gateway.url) as client:
        await client.chat("m", "x" * 35)
        await scene.b.wait_calls()
        if second is not silent:
            await scene.c.wait_calls()
            await asyncio.sleep(0.05)  # the wait before the next one, which is not to come
        else:
            assert not scene.gateway.exchanges
        client.leave()
        await asyncio.sleep(0.1)
    ended = [(each.outcome, each.usage) for each in scene.gateway.exchanges]
    assert ended == [("client_gone", Usage(14, 0, provenance="estimated") if second is silent else None)]


async def test_one_call_finds_out_whether_a_target_is_well_again(scene: Scene, clock: Clock) -> None:
    await scene.start('[retry]\nattempts = 1\n[breaker]\nfailures = 1\nmax_open = "60s"')
    scene.scripts([error(500), delayed(0.1, error(500)), delayed(0.1, chat("well")), chat("well")])
    assert (await scene.ask("alone")).status == 500
    for ahead, outcome, wait in ((5.0, 500, "10"), (15.0, 200, None)):
        clock.ahead = ahead
        before = scene.counts[0]
        replies = await asyncio.gather(*(scene.ask("alone") for _ in range(4)))
        assert sorted(reply.status for reply in replies) == sorted([outcome, 503, 503, 503])
        assert {reply.header("retry-after") for reply in replies if reply.status == 503} == {"1"}
        assert scene.counts[0] == before + 1
        told = await scene.ask("alone")
        assert (told.status, told.header("retry-after")) == ((503, wait) if wait else (200, None))


# Gates.


async def test_a_target_with_room_comes_before_one_with_a_queue(scene: Scene) -> None:
    await scene.start(
        models='[models.m]\ntargets = [{ provider = "a" }, { provider = "b" }]\n',
        a="max_concurrency = 1",
        b="max_concurrency = 1",
    )
    scene.scripts(delayed(0.1, chat("a")), delayed(0.1, chat("b")))
    for number in range(1, 6):
        await asyncio.gather(scene.ask(), scene.ask())
        assert scene.counts == (number, number, 0)


async def test_whoever_waited_for_a_target_that_now_rests_is_told_so(scene: Scene) -> None:
    await scene.start(a="max_concurrency = 1")
    scene.scripts([delayed(0.1, error(429, headers={"Retry-After": "30"})), chat("too soon")])
    first, second = await asyncio.gather(scene.ask("alone"), scene.ask("alone"))
    assert sorted([first.status, second.status]) == [429, 503]
    assert (first.header("retry-after"), second.header("retry-after")) == ("30", "30")
    assert scene.counts == (1, 0, 0)


async def test_a_place_is_held_until_a_stream_has_ended(scene: Scene) -> None:
    await scene.start(a="max_concurrency = 1")
    scene.scripts([chat_stream(5, pause=0.05), chat("second")])
    streamed, second = await asyncio.gather(scene.ask("alone", stream=True), scene.ask("alone"))
    assert (streamed.status, second.status) == (200, 200)
    one, other = scene.a.calls
    assert one.finished is not None
    assert other.started >= one.finished - 0.05


async def test_a_wait_before_a_retry_holds_no_place(scene: Scene) -> None:
    await scene.start(a="max_concurrency = 1")
    scene.scripts([error(503, headers={"retry-after-ms": "300"}), chat(), chat()])
    waiting = asyncio.ensure_future(scene.ask("alone"))
    await scene.a.wait_calls(1)
    await scene.a.until(lambda: scene.a.calls[0].finished is not None)
    gate = scene.gateway._plugins.runtime.admission.gates["a"]
    while gate.running:  # noqa: ASYNC110 - a gate tells nobody
        await asyncio.sleep(0.005)
    assert len(scene.a.calls) == 1
    assert (await waiting).status == 200
