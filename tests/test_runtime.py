"""What plugins keep across reloads, their background tasks, and the times of their hooks."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from time import perf_counter

import pytest

from gateway import Runtime, Target, Usage, config
from gateway.pricing.settings import ModelPrice, Prices
from gateway.runtime import HookStats
from gateway.state.database import connect
from gateway.state.ledger import Counts, Ledger
from gateway.upstream import Upstream


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    opened = Upstream(config.Config().pool)
    yield opened
    await opened.close()


async def test_what_is_kept_outlives_a_reload_and_not_a_change_of_code(upstream: Upstream) -> None:
    first = Runtime(config.Config(), upstream)
    meters: dict[str, int] = first.named("limit", "code 1").keep("meters", dict)
    assert first.named("limit", "code 1").keep("meters", dict) is meters
    second = Runtime(config.Config(), upstream, kept_before=dict(first.kept))
    assert second.named("limit", "code 2").keep("meters", dict) is not meters
    assert second.named("other", "code 1").keep("meters", dict) is not meters
    assert second.named("limit", "code 1").keep("others", dict) is not meters
    assert second.named("limit", "code 1").keep("meters", dict) is meters


async def test_all_plugins_share_the_prices_of_their_configuration(upstream: Upstream) -> None:
    price = ModelPrice(input=1.0, output=2.0)
    providers = {"a": config.ProviderConfig(type="openai_compat")}
    runtime = Runtime(config.Config(providers=providers, prices=Prices(models={"a/m": price})), upstream)
    found = runtime.named("limit", "code").prices.of(Target("a", "m"), None)
    assert found is not None and found.cost(Usage(1000, 1000)) == 3_000_000
    assert runtime.named("other", "code").prices is runtime.prices


async def test_background_tasks_end_with_the_generation_and_their_failures_are_logged(
    upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = Runtime(config.Config(), upstream)

    async def fails() -> None:
        raise ValueError("no")

    waits = runtime.named("a", "").spawn(asyncio.Event().wait(), "waits")
    failed = runtime.named("b", "").spawn(fails(), "fails")
    with caplog.at_level(logging.ERROR, "hookgate"):
        await asyncio.wait([failed])
        await asyncio.sleep(0)  # its callbacks run
    assert [record.message for record in caplog.records] == ["background task fails failed"]
    assert runtime.tasks == {waits}
    await runtime.stop_tasks()
    assert waits.cancelled() and not runtime.tasks


def test_hook_times_go_on_and_those_of_lost_plugins_go() -> None:
    before = HookStats()
    before.stat("a", "on_request").lap(perf_counter() - 0.5)
    before.stat("b", "on_request").lap(perf_counter() - 0.5)
    after = HookStats(before)
    assert after.stat("a", "on_request").runs == 1
    assert [key for key, _ in after.items()] == [("a", "on_request")]


async def test_what_one_plugin_offers_all_find(upstream: Upstream, tmp_path: Path) -> None:
    runtime = Runtime(config.Config(), upstream, folder=tmp_path)
    asks = runtime.named("rate_limit", "")
    runtime.named("ledger", "").services.ledger = ledger = Ledger(connect(None, asks.folder), Counts())
    assert asks.services.ledger is ledger
    assert ledger.database.name == f"sqlite:///{tmp_path}/gateway.db"
