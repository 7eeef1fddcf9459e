"""A row in the usage ledger for every exchange of a proxied route: who asked for what, what it used and what it cost.

Where the ledger is, ``[state] ledger`` says. Rows are written behind the exchanges (``gateway.state.ledger``), so that
a database that is slow or down holds up nobody; they wait in memory then. ``gateway usage`` adds them up.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from time import time
from typing import Any

import attrs
from attrs.validators import and_, ge, gt, le
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway import Duration, Exchange, Principal, Runtime, Usage, hookimpl
from gateway.demand import demand
from gateway.errors import GatewayError, PluginError
from gateway.pricing.prices import Prices
from gateway.state.database import DEFAULT, DatabaseError, connect
from gateway.state.journal import Journal
from gateway.state.ledger import Counts, Ledger
from gateway.state.rows import LOST, Row

LOCAL = frozenset({"health", "models", "none", "plugin"})
"""Surfaces the gateway answers itself."""
_DAY = 86400.0
_LONGEST = 1024  # characters of a client's text that wait in the queue; fewer are stored


def _longer_than_budgets(instance: Settings, attribute: attrs.Attribute[Any], value: Duration) -> None:
    if 0 < value < 32 * _DAY:
        raise ValueError("'keep': expected at least 32d, because budgets of a month are counted here; 0 keeps all.")


@attrs.frozen(kw_only=True)
class Settings:
    queue: int = attrs.field(default=100_000, validator=and_(ge(1), le(10_000_000)))
    """Rows that wait in memory while the database does not take them, about 1 KiB each; further ones are lost, which is
    logged and counted."""
    interval: Duration = attrs.field(default=Duration(0.5), validator=and_(gt(Duration(0.0)), le(Duration(60.0))))
    """Time between two writes; 500 rows are written at once. A gateway that is killed (``kill -9``, a power cut) loses
    the rows of this time, one that is stopped none, unless the database does not take them within 5 s. With ``[state]
    redis`` another gateway writes the rows of a killed one, those of its running calls as ``lost``."""
    strangers: bool = True
    """Write a row also for requests of nobody known: without a key where one is needed, or with a wrong one. Off, they
    cannot fill the database."""
    keep: Duration = attrs.field(default=Duration(0.0), validator=_longer_than_budgets)
    """How old rows get before they are removed, such as ``"400d"``; 0 keeps them for ever. A budget ``per = "total"``
    forgets with them."""


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._settings = settings
        url = runtime.config.state.ledger
        place = sha256(f"{runtime.folder}\0{url.reveal() if url else DEFAULT}".encode()).hexdigest()
        self._counts = counts = runtime.keep("counts", Counts)
        # Kept over reloads, so that no row is lost in one; where it is another's place, another.
        self._ledger = runtime.keep(place, lambda: Ledger(connect(url, runtime.folder), counts))
        runtime.services.ledger = self._ledger
        self._prices = runtime.prices
        self._journal: Journal | None = None
        self._opened = False

    @hookimpl
    async def on_startup(self, runtime: Runtime) -> None:
        ledger, settings = self._ledger, self._settings
        await runtime.prices.load()
        try:
            await ledger.open()
        except DatabaseError as error:
            raise PluginError(str(error)) from error
        self._opened = True
        ledger.capacity, ledger.interval, ledger.keep = settings.queue, settings.interval, settings.keep
        runtime.registry.register(self)
        if runtime.redis is not None:
            self._journal = Journal(runtime.redis, ledger)

    @hookimpl
    async def on_shutdown(self) -> None:
        if self._opened:
            await self._ledger.close()
        if self._journal is not None:
            self._journal.close()

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        if self._journal is not None and exchange.surface.name not in LOCAL:
            self._journal.note(_begun(exchange))

    @hookimpl
    def on_finish(self, exchange: Exchange) -> None:
        surface, outcome, principal = exchange.surface.name, exchange.outcome, exchange.principal
        if surface in LOCAL or (principal is None and outcome == "refused" and not self._settings.strangers):
            return
        row = self._row(exchange, surface, outcome, principal)
        self._ledger.add(row)
        if self._journal is not None:
            self._journal.note(row)

    def _row(self, exchange: Exchange, surface: str, outcome: str, principal: Principal | None) -> Row:
        model, target, usage, error = exchange.model, exchange.target, exchange.usage, exchange.error
        started, first_byte, finished = exchange.started, exchange.first_byte, exchange.finished
        own_id = exchange.id
        return Row(
            exchange.notes.get("request_id") or own_id,
            own_id,
            int((time() - finished + started) * 1000),
            None if principal is None else principal.name,
            None if principal is None else principal.team,
            surface,
            model and model[:_LONGEST],
            None if target is None else target.name[:_LONGEST],
            exchange.stream,
            exchange.status,
            outcome,
            None if error is None else error.code if isinstance(error, GatewayError) else type(error).__name__,
            exchange.cache,
            *(_NOTHING if usage is None else _used(usage)),
            _cost(exchange, self._prices),
            (finished - started) * 1000,
            (first_byte - started) * 1000 if first_byte else None,
            max(0.0, (first_byte or finished) - started - exchange.upstream_seconds) * 1000,
            len(exchange.tried),
        )

    def collect(self) -> Iterator[Metric]:
        counts = self._counts
        yield CounterMetricFamily("hookgate_ledger_rows_written", "Rows written to the ledger.", counts.written)
        yield CounterMetricFamily("hookgate_ledger_rows_dropped", "Rows that are lost.", counts.dropped)
        yield GaugeMetricFamily("hookgate_ledger_queue", "Rows that wait to be written.", self._ledger.waiting)
        yield GaugeMetricFamily(
            "hookgate_ledger_last_failure_timestamp_seconds", "When a write last failed; 0 is never.", counts.failed_at
        )


def _begun(exchange: Exchange) -> Row:
    """What is told of a call if its gateway dies before it ends."""
    own_id, principal, model = exchange.id, exchange.principal, exchange.model
    given = demand(exchange).input_tokens or None
    return Row(
        id=exchange.notes.get("request_id") or own_id,
        request_id=own_id,
        started=int(time() * 1000),
        principal=None if principal is None else principal.name,
        team=None if principal is None else principal.team,
        surface=exchange.surface.name,
        model=model and model[:_LONGEST],
        target=None,
        stream=exchange.stream,
        status=0,
        outcome=LOST,
        error=None,
        cache=None,
        input_tokens=given,
        output_tokens=None,
        cached_tokens=None,
        cache_write_tokens=None,
        reasoning_tokens=None,
        provenance=None if given is None else "estimated",
        cost_nano=None,
        duration_ms=0.0,
        ttfb_ms=None,
        overhead_ms=0.0,
        tried=0,
    )


_NOTHING = (None,) * 6


def _used(usage: Usage) -> tuple[int | None, int | None, int | None, int | None, int | None, str | None]:
    return (
        usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens,
        usage.provenance,
    )  # fmt: skip


def _cost(exchange: Exchange, prices: Prices) -> int | None:
    """Nano-dollars. A call that was not made, did not get there or failed before it used anything cost nothing."""
    if not exchange.tried:
        return 0
    if exchange.usage is None and (not exchange.sent or exchange.outcome == "upstream_failed"):
        return 0
    return prices.settle(exchange)
