"""Prometheus metrics on the admin listener.

A request costs a few dictionary look-ups and additions; everything else happens when somebody scrapes. No label is
unbounded: model names are those of the configuration and a limited number of others that a provider has answered to.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import monotonic
from typing import Any

import attrs
from aiohttp import web
from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from gateway import Exchange, Runtime, Target, Usage, hookimpl
from gateway.errors import GatewayError
from gateway.routing import named_targets
from gateway.targets import TargetState

_NOTE = "metrics"
OTHER = "other"
"""Stands for all model names beyond the bound."""
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
OVERHEAD = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)
_Family = type[GaugeMetricFamily] | type[CounterMetricFamily]
_STATES = ("closed", "open", "half_open")
# What is told of each target and each gate: name, kind, meaning, value.
_OF_TARGETS: tuple[tuple[str, _Family, str, Callable[[TargetState, float], float]], ...] = (
    ("in_flight", GaugeMetricFamily, "Calls under way, streams until their end.", lambda state, _: state.in_flight),
    (
        "latency_seconds", GaugeMetricFamily, "Time to the first byte, the worse of late counting more; 0 is unknown.",
        lambda state, now: state.latency(now),
    ),
    ("opened", CounterMetricFamily, "How often its breaker has opened.", lambda state, _: state.opened),
    ("cooldown_seconds", GaugeMetricFamily, "Until it may be called again.", lambda state, now: state.wait(now)),
)  # fmt: skip
_OF_GATES: tuple[tuple[str, _Family, str, Callable[[Any], float]], ...] = (
    ("running", GaugeMetricFamily, "Calls let in.", lambda gate: gate.running),
    ("waiting", GaugeMetricFamily, "Calls waiting for their turn.", lambda gate: gate.waiting),
    ("limit", GaugeMetricFamily, "Calls let in at once.", lambda gate: gate.limit),
    ("refused", CounterMetricFamily, "Calls that met a full queue or waited too long.", lambda gate: gate.refused),
)
_KINDS = ("input", "output", "cached", "reasoning")
_LONGEST = 128
_MOST_KNOWN = 4096


@attrs.frozen(kw_only=True)
class Settings:
    max_models: int = attrs.field(default=200, validator=attrs.validators.in_(range(0, 10_001)))
    """Model names that become labels although no configuration names them: the first ones answered successfully."""


class Histogram:
    """Counts per bucket and the sum, without locks: only the event loop adds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Series:
    """What is counted per surface, model and target."""

    __slots__ = ("duration", "first_byte", "requests", "tokens")

    def __init__(self) -> None:
        self.requests: Counter[tuple[int, str]] = Counter()
        """By status and outcome."""
        self.duration = Histogram(SECONDS)
        self.first_byte = Histogram(SECONDS)
        self.tokens: list[int] | None = None
        """In the order of ``_KINDS``; ``None`` while no usage was known."""

    def use(self, usage: Usage) -> None:
        tokens = self.tokens
        if tokens is None:
            tokens = self.tokens = [0, 0, 0, 0]
        tokens[0] += usage.input_tokens or 0
        tokens[1] += usage.output_tokens or 0
        if usage.cached_tokens:
            tokens[2] += usage.cached_tokens
        if usage.reasoning_tokens:
            tokens[3] += usage.reasoning_tokens


class Labels:
    """A bounded set of names: those configured, and ``room`` more that proved to be real."""

    def __init__(self) -> None:
        self._names: dict[str | None, str] = {None: ""}
        self._learned = 0
        self._room = 0

    def allow(self, known: Iterable[str], room: int) -> None:
        """Take over the names configured now. What was a label stays one: its counters go on."""
        self._names.update((name, name) for name in known)
        self._room = max(0, room - self._learned)

    def of(self, name: str | None, real: bool, otherwise: str) -> str:
        label = self._names.get(name)
        if label is not None:
            return label
        # Not printable includes lone surrogates, which would break every scrape from then on.
        if not real or name is None or not self._room or len(name) > _LONGEST or not name.isprintable():
            return otherwise
        self._room -= 1
        self._learned += 1
        self._names[name] = name
        return name

    def __contains__(self, name: str) -> bool:
        return name in self._names


class Counts:
    """All that is counted. Outlives reloads: counters that fell would look like restarts to Prometheus."""

    __slots__ = ("cache", "errors", "further", "in_flight", "models", "overhead", "series", "targets")

    def __init__(self) -> None:
        self.models = Labels()
        self.targets = Labels()
        self.series: dict[tuple[str, str, str], Series] = {}
        self.overhead: dict[str, Histogram] = {}
        self.errors: Counter[str] = Counter()
        self.cache: Counter[str] = Counter()
        self.further: Counter[str] = Counter()
        self.in_flight = 0


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        config = runtime.config
        self._runtime = runtime
        self._counts = counts = runtime.keep("counts", Counts)
        counts.models.allow(config.models, settings.max_models)
        self._configured = named_targets(config)
        counts.targets.allow(self._configured, settings.max_models)
        self._models, self._targets = counts.models, counts.targets
        self._series, self._overhead = counts.series, counts.overhead
        self._errors, self._cache, self._further = counts.errors, counts.cache, counts.further
        self.clock = monotonic
        self._known: dict[tuple[str, str | None, Target | None], Series] = {}

    @hookimpl
    def on_startup(self, runtime: Runtime) -> None:
        self._runtime = runtime
        for target in self._configured.values():
            runtime.targets.of(target)  # a counter that is not there before its first event hides this event
        runtime.registry.register(self)
        ProcessCollector(registry=runtime.registry)
        runtime.admin_routes.append(web.get("/metrics", self.scrape))

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        exchange.notes[_NOTE] = True
        self._counts.in_flight += 1

    @hookimpl
    def on_finish(self, exchange: Exchange) -> None:
        if _NOTE in exchange.notes:
            self._counts.in_flight -= 1
        series = self._series_of(exchange)
        series.requests[exchange.status, exchange.outcome] += 1
        started, first_byte, finished = exchange.started, exchange.first_byte, exchange.finished
        series.duration.add(finished - started)
        if first_byte:
            series.first_byte.add(first_byte - started)
            overhead = self._overhead.get(exchange.surface.name) or self._overhead_of(exchange.surface.name)
            overhead.add(max(0.0, first_byte - started - exchange.upstream_seconds))
        if exchange.usage is not None:
            series.use(exchange.usage)
        if exchange.cache is not None:
            self._cache[exchange.cache] += 1
        if exchange.error is not None and exchange.outcome != "client_gone":
            error = exchange.error
            self._errors[error.code if isinstance(error, GatewayError) else "internal_error"] += 1
        if len(exchange.tried) > 1:
            for name in exchange.tried[1:]:
                self._further[self._targets.of(name, False, name.partition("/")[0])] += 1

    def _series_of(self, exchange: Exchange) -> Series:
        target = exchange.target
        asked = (exchange.surface.name, exchange.model, target)
        series = self._known.get(asked)
        if series is not None:
            return series
        real = target is not None and exchange.outcome == "ok" and exchange.status < 400
        key = (
            exchange.surface.name,
            self._models.of(exchange.model, real, OTHER),
            "" if target is None else self._targets.of(target.name, real, target.provider),
        )
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = Series()
        if real and OTHER not in key and len(self._known) < _MOST_KNOWN:
            self._known[asked] = series
        return series

    def _overhead_of(self, surface: str) -> Histogram:
        return self._overhead.setdefault(surface, Histogram(OVERHEAD))

    async def scrape(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # In a thread: thousands of series would hold up every stream of the process.
        body = await asyncio.to_thread(encode, self._runtime.registry)
        return web.Response(body=body, headers={"content-type": content_type})

    def collect(self) -> Iterator[Metric]:
        """For ``prometheus_client``, from a thread: every dictionary is copied before it is walked, by ``dict(…)``.

        Nothing comes between its steps. ``list(….items())`` makes a tuple for each item instead; before Python 3.12
        each may set off the garbage collector, whose finalizers let go of the interpreter's lock in the midst of it.
        """
        yield from self._of_requests()
        yield from self._of_times()
        tokens = CounterMetricFamily(
            "hookgate_tokens", "Tokens used, as far as known.", labels=["model", "target", "kind"]
        )
        for labels, amount in self._tokens().items():
            tokens.add_metric(labels, amount)
        yield tokens
        yield _counts("hookgate_cache", "Exchanges by what the cache did.", "state", self._cache)
        yield _counts("hookgate_errors", "Exchanges that ended in an error, by its code.", "code", self._errors)
        yield GaugeMetricFamily("hookgate_in_flight", "Exchanges under way.", value=self._counts.in_flight)
        yield self._of_hooks()
        pool = GaugeMetricFamily(
            "hookgate_upstream_connections", "Connections to providers: acquired, idle; and the limit, 0 is none.",
            labels=["state"],
        )  # fmt: skip
        for state, connections in self._runtime.upstream.stats().items():
            pool.add_metric([state], connections)
        yield pool
        yield from self._of_targets()
        yield from self._of_gates()

    def _of_targets(self) -> Iterator[Metric]:
        now = self.clock()
        # States of the names that clients made up stay out. What is read here changes nothing.
        states = {name: state for name, state in self._runtime.targets.states().items() if name in self._targets}
        breakers = GaugeMetricFamily(
            "hookgate_target_state", "1 for the state the target's breaker is in.", labels=["target", "state"]
        )
        for name, state in states.items():
            present = state.state(now)
            for each in _STATES:
                breakers.add_metric([name, each], float(each == present))
        yield breakers
        for what, kind, text, value in _OF_TARGETS:
            family = kind(f"hookgate_target_{what}", text, labels=["target"])
            for name, state in states.items():
                family.add_metric([name], value(state, now))
            yield family
        yield _counts("hookgate_further_calls", "Retries and fallbacks, by the target called.", "target", self._further)

    def _of_gates(self) -> Iterator[Metric]:
        admission = self._runtime.admission
        gates = dict(admission.gates)
        for what, kind, text, value in _OF_GATES:
            family = kind(f"hookgate_gate_{what}", text, labels=["gate"])
            for name, gate in gates.items():
                family.add_metric([name], value(gate))
            yield family
        waits = HistogramMetricFamily(
            "hookgate_gate_wait_seconds", "How long calls waited that found no room.", labels=["gate"]
        )
        for name, gate in gates.items():
            _add(waits, (name,), gate.waits.BOUNDS, gate.waits.counts, gate.waits.sum)
        yield waits

    def _of_requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "hookgate_requests", "Finished exchanges; status 0 is a client that left before the answer.",
            labels=["surface", "model", "target", "status", "outcome"],
        )  # fmt: skip
        for key, series in dict(self._series).items():
            for (status, outcome), count in dict(series.requests).items():
                requests.add_metric([*key, str(status), outcome], count)
        yield requests

    def _of_times(self) -> Iterator[Metric]:
        for name, attribute, text in (
            ("request_duration", "duration", "From the request's head to the answer's last byte."),
            ("time_to_first_byte", "first_byte", "From the request's head to the answer's first byte."),
        ):
            family = HistogramMetricFamily(f"hookgate_{name}_seconds", text, labels=["surface", "model", "target"])
            for key, series in dict(self._series).items():
                histogram: Histogram = getattr(series, attribute)
                _add(family, key, histogram.bounds, histogram.counts, histogram.sum)
            yield family
        overhead = HistogramMetricFamily(
            "hookgate_overhead_seconds", "Time to the first byte that was not spent waiting for a provider.",
            labels=["surface"],
        )  # fmt: skip
        for surface, histogram in dict(self._overhead).items():
            _add(overhead, (surface,), histogram.bounds, histogram.counts, histogram.sum)
        yield overhead

    def _tokens(self) -> Counter[tuple[str, str, str]]:
        sums: Counter[tuple[str, str, str]] = Counter()
        for (_, model, target), series in dict(self._series).items():
            if series.tokens is not None:
                for kind, amount in zip(_KINDS, series.tokens, strict=True):
                    sums[model, target, kind] += amount
        return sums

    def _of_hooks(self) -> Metric:
        stats = self._runtime.hook_stats
        family = HistogramMetricFamily("hookgate_hook_duration_seconds", "Time in one hook.", labels=["plugin", "hook"])
        for key, stat in stats.items():
            _add(family, key, stats.BOUNDS, stat.buckets, stat.seconds)
        return family


def _counts(name: str, text: str, label: str, counts: Counter[str]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in dict(counts).items():
        family.add_metric([value], count)
    return family


def _add(
    family: HistogramMetricFamily, labels: Sequence[str], bounds: Sequence[float], counts: Sequence[int], total: float
) -> None:
    """Add one histogram; Prometheus wants the buckets cumulative."""
    buckets = []
    below = 0
    for bound, count in zip([*map(repr, bounds), "+Inf"], list(counts), strict=True):
        below += count
        buckets.append((bound, float(below)))
    family.add_metric(labels, buckets, total)
