"""What a scrape says, that its size has a bound, and that it is found on the admin listener only."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from gateway import Target, Usage
from gateway.admission import Admission
from gateway.config import Config, Model, ProviderConfig
from gateway.errors import InternalError, Overloaded, Unauthenticated, UpstreamRefused, UpstreamTimeout
from gateway.plugins import HookStats
from gateway.targets import Targets
from gateway.testing import (
    Call,
    GatewayFactory,
    GatewayProcess,
    Metrics,
    RawClient,
    ScriptedUpstream,
    chat,
    error,
    fetch,
    fetch_chat,
    silent,
)
from gateway.watchdog import Guard
from gateway_plugins.middleware import metrics
from tests.support.exchanges import CANARIES, disguises, finished_exchange, make_exchange, make_runtime

CONFIGURED = Config(
    models={"gpt-4o": Model(targets=(Target("openai", "gpt-4o"), Target("azure", "gpt-4o", max_concurrency=2)))},
    providers={name: ProviderConfig(type="openai_compat", queue=1) for name in ("openai", "azure")},
)


class Observed:
    """The plugin with a registry, as the core starts it, and a clock that only the test moves."""

    def __init__(self, **settings: int) -> None:
        upstream = SimpleNamespace(stats=lambda: {"acquired": 3, "idle": 2, "limit": 1000})
        self.targets, self.admission, self.now = Targets(), Admission(CONFIGURED), 1000.0
        self.runtime = make_runtime(
            config=CONFIGURED, upstream=upstream, hook_stats=HookStats(), targets=self.targets, admission=self.admission
        )
        self.plugin = metrics.Plugin(metrics.Settings(**settings), self.runtime)
        self.plugin.clock = lambda: self.now
        self.plugin.on_startup(self.runtime)

    def finish(self, **facts: Any) -> None:
        self.plugin.on_finish(finished_exchange(**facts))

    @property
    def text(self) -> str:
        return generate_latest(self.runtime.registry).decode()

    def value(self, name: str, **labels: str) -> float:
        return Metrics(self.text).value(name, **labels)

    def labels(self, name: str, label: str) -> set[str]:
        return {sample.labels[label] for sample in Metrics(self.text).samples if sample.name == name}


@pytest.fixture
def observed() -> Observed:
    return Observed()


def test_an_exchange_is_counted_under_its_labels(observed: Observed) -> None:
    observed.finish()
    observed.finish(outcome="client_gone", error=asyncio.CancelledError())
    labels = {"surface": "chat", "model": "gpt-4o", "target": "openai/gpt-4o", "status": "200"}
    assert observed.value("hookgate_requests_total", **labels, outcome="ok") == 1
    assert observed.value("hookgate_requests_total", **labels, outcome="client_gone") == 1
    assert observed.value("hookgate_errors_total") == 0


def test_times_fall_into_cumulative_buckets(observed: Observed) -> None:
    observed.finish()
    name = "hookgate_request_duration_seconds"
    assert observed.value(f"{name}_bucket", le="0.01") == 0
    assert observed.value(f"{name}_bucket", le="0.025") == 1
    assert observed.value(f"{name}_bucket", le="+Inf") == 1
    assert observed.value(f"{name}_count") == 1
    assert observed.value(f"{name}_sum") == pytest.approx(0.020)
    assert observed.value("hookgate_time_to_first_byte_seconds_sum") == pytest.approx(0.010)
    assert observed.value("hookgate_overhead_seconds_sum") == pytest.approx(0.001)


def test_without_a_first_byte_there_is_no_time_to_it(observed: Observed) -> None:
    observed.finish(first_byte=0.0, status=0, outcome="client_gone")
    assert observed.value("hookgate_time_to_first_byte_seconds_count") == 0
    assert observed.value("hookgate_overhead_seconds_count") == 0
    assert observed.value("hookgate_requests_total", status="0") == 1


def test_tokens_are_summed_by_kind(observed: Observed) -> None:
    observed.finish(usage=Usage(10, 20, cached_tokens=4, reasoning_tokens=5))
    observed.finish(usage=Usage(1, None))
    observed.finish(usage=None)
    counted = {
        kind: observed.value("hookgate_tokens_total", kind=kind)
        for kind in observed.labels("hookgate_tokens_total", "kind")
    }
    assert counted == {"input": 11, "output": 20, "cached": 4, "reasoning": 5}


def test_unknown_usage_is_no_series_of_zeros(observed: Observed) -> None:
    observed.finish(usage=None)
    assert observed.labels("hookgate_tokens_total", "kind") == set()


def test_cache_states_and_error_codes_are_counted(observed: Observed) -> None:
    observed.finish(cache="hit")
    observed.finish(cache=None, outcome="refused", error=Unauthenticated())
    observed.finish(outcome="upstream_failed", error=UpstreamTimeout("slow"))
    observed.finish(outcome="failed", error=InternalError())
    observed.finish(outcome="failed", error=KeyError("x"))
    assert observed.value("hookgate_cache_total", state="hit") == 1
    assert observed.value("hookgate_errors_total", code="invalid_api_key") == 1
    assert observed.value("hookgate_errors_total", code="upstream_timeout") == 1
    assert observed.value("hookgate_errors_total", code="internal_error") == 2


def test_in_flight_goes_up_and_down_and_never_below_zero(observed: Observed) -> None:
    exchanges = [make_exchange() for _ in range(3)]
    for exchange in exchanges:
        observed.plugin.on_request(exchange)
    assert observed.value("hookgate_in_flight") == 3
    for exchange in exchanges:
        observed.plugin.on_finish(exchange)
    observed.plugin.on_finish(make_exchange())  # refused by a plugin before ours
    assert observed.value("hookgate_in_flight") == 0


def test_ten_thousand_model_names_stay_within_the_bound() -> None:
    observed = Observed(max_models=50)
    names = [f"model-{random.getrandbits(64):x}" for _ in range(10_000)]
    for name in names:
        observed.finish(model=name, target=Target("openai", name))
    labels = observed.labels("hookgate_requests_total", "model")
    assert labels == {*names[:50], "other"}
    assert len(observed.labels("hookgate_requests_total", "target")) == 51
    assert observed.value("hookgate_requests_total") == 10_000
    observed.finish()
    assert observed.value("hookgate_requests_total", model="gpt-4o", target="openai/gpt-4o") == 1


@pytest.mark.parametrize(
    "facts",
    [
        {"outcome": "refused", "status": 403, "target": None},
        {"outcome": "upstream_failed", "status": 502},
        {"outcome": "ok", "status": 404},
        {"outcome": "client_gone"},
    ],
)
def test_only_a_successful_answer_makes_a_name_a_label(observed: Observed, facts: dict[str, Any]) -> None:
    observed.finish(model="guess", **{"target": Target("openai", "guess")} | facts)
    assert observed.labels("hookgate_requests_total", "model") == {"other"}
    assert observed.labels("hookgate_requests_total", "target") <= {"", "openai"}


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=200))
def test_r60_no_model_name_can_break_the_scrape(name: str) -> None:
    observed = Observed()
    observed.finish(model=name, target=Target("openai", name))
    assert observed.value("hookgate_requests_total") == 1
    assert all(line.isprintable() for line in observed.text.split("\n"))


def test_r58_nothing_a_client_or_upstream_said_is_exposed(observed: Observed) -> None:
    key, prompt, header, body = CANARIES
    exchange = finished_exchange(
        {"Authorization": f"Bearer {key}", "X-App": header}, query=f"key={key}", model=prompt, status=400,
        outcome="upstream_failed", error=UpstreamRefused(400, body.encode(), {"x-app": body}), notes={"mine": prompt},
    )  # fmt: skip
    observed.plugin.on_request(exchange)
    observed.plugin.on_finish(exchange)
    for secret in CANARIES:
        assert not [form for form in disguises(secret) if form in observed.text.encode()]


def test_hooks_pool_and_process_are_there(observed: Observed) -> None:
    stat = observed.runtime.hook_stats.stat("auth", "on_request")
    now = perf_counter()
    stat.lap(now - 0.0005)
    stat.lap(now - 2.0)
    labels = {"plugin": "auth", "hook": "on_request"}
    assert observed.value("hookgate_hook_duration_seconds_count", **labels) == 2
    assert observed.value("hookgate_hook_duration_seconds_bucket", **labels, le="0.001") == 1
    assert observed.value("hookgate_hook_duration_seconds_sum", **labels) == pytest.approx(2.0005, abs=0.01)
    assert observed.value("hookgate_upstream_connections", state="acquired") == 3
    assert observed.value("process_resident_memory_bytes") > 1_000_000
    assert observed.value("process_open_fds") > 0
    assert observed.value("process_cpu_seconds_total") > 0


async def test_the_route_speaks_both_formats(observed: Observed) -> None:
    observed.finish()
    application = web.Application()
    application.add_routes(observed.runtime.admin_routes)
    async with TestServer(application) as server, ClientSession() as session:
        async with session.get(server.make_url("/metrics")) as plain:
            assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
            assert Metrics(await plain.text()).value("hookgate_requests_total") == 1
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        async with session.get(server.make_url("/metrics"), headers=accept) as modern:
            assert modern.headers["content-type"].startswith("application/openmetrics-text")
            assert "hookgate_requests" in [family.name for family in parse_openmetrics(await modern.text())]  # type: ignore[no-untyped-call]


async def test_a_scrape_while_series_are_added_is_whole() -> None:
    observed = Observed(max_models=10_000)
    scrape = asyncio.get_running_loop().run_in_executor(None, lambda: [observed.text for _ in range(5)])
    added = 0
    while not scrape.done():
        if added < 300:
            observed.finish(model=f"m{added}", status=200 + added % 100)
            added += 1
        await asyncio.sleep(0)
    for text in await scrape:
        assert Metrics(text).value("hookgate_in_flight") == 0


@contextmanager
def at_collection(number: int, run: Callable[[], None]) -> Iterator[list[bool]]:
    """The garbage collector runs at every allocation, and ``run`` within run ``number``, once; tells whether it did."""
    runs, done = count(), list[bool]()

    def collected(phase: str, _: dict[str, int]) -> None:
        if phase == "stop" and not done and next(runs) == number:
            done.append(True)
            run()

    thresholds = gc.get_threshold()
    held = [(each, each) for each in range(3000)]  # more than CPython keeps to use again without an allocation
    gc.callbacks.append(collected)
    gc.set_threshold(1, 100_000, 100_000)
    try:
        yield done
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(collected)
        del held


def test_a_scrape_is_whole_though_finalizers_let_the_event_loop_run_within_it() -> None:
    # A finalizer that the collector runs in the scraping thread may let go of the interpreter's lock. What the loop
    # would then do is done here in the collector's callback, at each place where it could come, one after the other.
    for number in range(100):
        observed = Observed()
        for new in range(20):
            _meanwhile(observed, new)
        with at_collection(number, lambda observed=observed: _meanwhile(observed, 20)) as done:  # type: ignore[misc]
            assert all(family.name for family in observed.plugin.collect())
        assert done


def _meanwhile(observed: Observed, new: int) -> None:
    """Something new in every dictionary."""
    exchange = finished_exchange(
        model=f"m{new}", target=Target("openai", f"m{new}"), cache=f"c{new}",
        surface=SimpleNamespace(name=f"s{new}"), tried=["openai", f"p{new}/m"], outcome="failed", error=KeyError(),
    )  # fmt: skip
    observed.plugin.on_finish(exchange)
    observed.finish(status=200 + new)
    observed.targets.of(Target("openai", f"m{new}"))
    observed.runtime.hook_stats.stat("p", f"h{new}")


def test_the_state_of_each_target_is_told(observed: Observed) -> None:
    assert observed.value("hookgate_target_state", state="closed") == 4  # two providers, two targets, before any call
    assert observed.value("hookgate_target_opened_total", target="openai/gpt-4o") == 0
    state = observed.targets.of(Target("openai", "gpt-4o"))
    turn = state.begin(observed.now)
    state.answered(turn, observed.now, 0.5)
    name = {"target": "openai/gpt-4o"}
    assert observed.value("hookgate_target_in_flight", **name) == 1
    assert observed.value("hookgate_target_latency_seconds", **name) == 0.5
    state.succeeded(turn, observed.now)
    for _ in range(5):
        state.failed(state.begin(observed.now), observed.now)
    states = [observed.value("hookgate_target_state", **name, state=each) for each in ("closed", "open", "half_open")]
    assert states == [0, 1, 0]
    assert observed.value("hookgate_target_in_flight", **name) == 0
    assert observed.value("hookgate_target_opened_total", **name) == 1
    assert observed.value("hookgate_target_cooldown_seconds", **name) == 5.0
    observed.now += 6
    assert observed.value("hookgate_target_state", **name, state="half_open") == 1
    assert observed.value("hookgate_target_cooldown_seconds", **name) == 0


def test_a_target_that_a_client_named_is_told_once_it_has_answered() -> None:
    observed = Observed(max_models=1)
    for name in ("guess", "real", "more"):
        observed.targets.of(Target("openai", name))
    observed.finish(model="real", target=Target("openai", "real"))
    observed.finish(model="more", target=Target("openai", "more"))
    told = observed.labels("hookgate_target_state", "target")
    assert told == {"openai", "azure", "openai/gpt-4o", "azure/gpt-4o", "openai/real"}


def test_calls_beyond_the_first_are_counted_by_their_target(observed: Observed) -> None:
    observed.finish(tried=["openai/gpt-4o"])
    observed.finish(tried=["openai/gpt-4o", "openai/gpt-4o", "azure/gpt-4o"])
    observed.finish(tried=["openai/guess", "openai/guess"], outcome="upstream_failed")
    counted = {
        target: observed.value("hookgate_further_calls_total", target=target)
        for target in observed.labels("hookgate_further_calls_total", "target")
    }
    assert counted == {"openai/gpt-4o": 1, "azure/gpt-4o": 1, "openai": 1}


async def test_gates_tell_who_runs_waits_and_is_refused(observed: Observed) -> None:
    (gate,) = observed.admission.gates.values()
    for _ in range(2):
        await gate.enter(make_exchange())
    waiting = make_exchange(guard=Guard(asyncio.current_task()))  # type: ignore[arg-type]
    turn = asyncio.ensure_future(gate.enter(waiting))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await gate.enter(make_exchange())
    told = ("running", "waiting", "limit", "refused_total", "wait_seconds_count")
    name = {"gate": "azure/gpt-4o"}
    assert [observed.value(f"hookgate_gate_{each}", **name) for each in told] == [2, 1, 2, 1, 0]
    gate.leave()
    await turn
    assert [observed.value(f"hookgate_gate_{each}", **name) for each in told] == [2, 0, 2, 1, 1]
    assert observed.labels("hookgate_gate_limit", "gate") == {"azure/gpt-4o"}


CONFIG = """
[plugins]
chain = ["request_id", "logging", "metrics"]
[retry]
attempts = $attempts

[providers.stub]
type = "openai_compat"
base_url = "$upstream/v1"

[models.m]
targets = [{ provider = "stub" }]

[models.falls]
targets = [{ provider = "stub", model = "down" }]
fallbacks = ["m"]
"""


@pytest.fixture
def gateway(gateway_server: GatewayFactory, upstream: ScriptedUpstream) -> GatewayProcess:
    return gateway_server(CONFIG, upstream=upstream.url, attempts="1")


@pytest.fixture
async def upstream() -> Any:
    async with ScriptedUpstream(chat("hello")) as scripted:
        yield scripted


async def test_a_real_gateway_counts_and_shows_it_on_the_admin_listener_only(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    assert (await fetch_chat(gateway.url, "m")).status == 200
    upstream.script = error(429, headers={"Retry-After": "0"})
    assert (await fetch_chat(gateway.url, "m")).status == 429
    upstream.script = silent
    async with RawClient(gateway.url) as client:
        await client.chat("m")
        await upstream.wait_calls(3)
        assert (await gateway.metrics()).value("hookgate_in_flight") == 1
        client.leave()
        await upstream.wait_aborted()
    scraped = await gateway.metrics()
    assert (
        scraped.value("hookgate_requests_total", surface="chat", model="m", target="stub", status="200", outcome="ok")
        == 1
    )
    assert scraped.value("hookgate_requests_total", model="m", status="429", outcome="upstream_failed") == 1
    assert scraped.value("hookgate_requests_total", model="m", status="0", outcome="client_gone") == 1
    assert scraped.value("hookgate_errors_total", code="upstream_refused") == 1
    assert scraped.value("hookgate_in_flight") == 0
    assert scraped.value("hookgate_tokens_total", kind="input") > 0
    assert scraped.value("hookgate_hook_duration_seconds_count", plugin="request_id", hook="on_request") >= 3
    assert scraped.value("hookgate_upstream_connections", state="limit") == 1000
    for target in ("stub", "stub/down", "stub/m"):
        assert scraped.value("hookgate_target_state", target=target, state="closed") == 1
        assert scraped.value("hookgate_target_in_flight", target=target) == 0
    public = await fetch(f"{gateway.url}/metrics", "GET")
    assert public.status == 404
    assert b"hookgate_" not in public.body


def test_counts_and_labels_go_on_over_reloads_within_their_bound() -> None:
    kept: dict[str, Any] = {}

    def generation(**settings: int) -> Observed:
        observed = Observed.__new__(Observed)
        observed.runtime = make_runtime(
            config=CONFIGURED, upstream=SimpleNamespace(stats=dict), hook_stats=HookStats(),
            keep=lambda key, make: kept.setdefault(key, make()), targets=Targets(), admission=Admission(CONFIGURED),
        )  # fmt: skip
        observed.plugin = metrics.Plugin(metrics.Settings(**settings), observed.runtime)
        observed.plugin.on_startup(observed.runtime)
        return observed

    before = generation(max_models=2)
    running = make_exchange()
    before.plugin.on_request(running)
    for number in range(3):
        before.finish(model=f"learnt-{number}")
    after = generation(max_models=3)
    for number in range(3, 6):
        after.finish(model=f"learnt-{number}")
    assert [after.value("hookgate_requests_total", model=f"learnt-{number}") for number in range(5)] == [1, 1, 0, 1, 0]
    assert after.value("hookgate_requests_total", model=metrics.OTHER) == 3
    assert after.value("hookgate_requests_total") == 6
    assert after.value("hookgate_in_flight") == 1


async def test_a_real_gateway_counts_its_fallbacks(gateway_server: GatewayFactory, upstream: ScriptedUpstream) -> None:
    gateway = gateway_server(CONFIG, upstream=upstream.url, attempts="2")

    async def script(call: Call) -> None:
        await (error(503) if call.request.json["model"] == "down" else chat("hello"))(call)

    upstream.script = script
    for _ in range(2):
        reply = await fetch_chat(gateway.url, "falls")
        assert (reply.status, reply.header("x-gateway-target")) == (200, "stub/m")
    assert (await gateway.metrics()).value("hookgate_further_calls_total", target="stub/m") == 2
