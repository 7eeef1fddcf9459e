"""The measurements: rounds of load against servers in turn, start-up, memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import quantiles
from time import perf_counter

import attrs

from bench import messages, scenarios, servers
from bench.load import Load
from bench.process import Process
from bench.report import Row
from bench.scenarios import Bar, Scenario
from bench.servers import Server

WARM_SECONDS = 0.5
DRAIN_SECONDS = 10.0


@attrs.frozen
class Plan:
    """How much is measured, and where."""

    servers: tuple[Server, ...]
    rounds: int
    seconds: float
    """Longest a round may take."""
    requests: int
    """Requests after which a round ends early; 0 is no such limit."""
    connections: int
    streams: int
    """Streams held open while memory is read."""
    load_core: int
    server_core: int
    folder: Path


@attrs.frozen
class Running:
    """A started server."""

    server: Server
    process: Process
    port: int


async def measure_load(plan: Plan, scenario: Scenario) -> list[Row]:
    """CPU time per unit of work: the servers take turns, in another order each round."""
    compared = [server for server in plan.servers if server.relays or not scenario.relayed]
    if scenario.beside is not None:
        compared = [server for server in compared if server.gateway]
    async with AsyncExitStack() as stack:
        if scenario.governed:
            compared = _governed(plan, stack, compared, scenario.governed)
        turns = [
            (one, scenario, _row(scenario, one.server.name, scenario.bar if one.server.gateway else None))
            for one in await _start_all(plan, stack, compared, scenario.interval)
        ]
        if scenario.beside is not None and turns:
            turns.append((turns[0][0], scenario.beside, _row(scenario, scenarios.PASSING, None)))
        for number in range(plan.rounds if turns else 0):
            turn = number % len(turns)
            for one, load, row in turns[turn:] + turns[:turn]:
                await _round(plan, load, one, row)
    return [row for _, _, row in turns]


def _governed(plan: Plan, stack: AsyncExitStack, compared: list[Server], where: str) -> list[Server]:
    redis = stack.enter_context(servers.redis(plan.load_core, plan.folder)) if where == "redis" else ""
    rules = servers.governed(redis)
    return [
        server if server.rules is None else attrs.evolve(server, command=server.rules(rules)) for server in compared
    ]


def _row(scenario: Scenario, name: str, bar: Bar | None) -> Row:
    return Row(scenario.name, name, f"µs/{scenario.unit}", bar=bar)


async def measure_start(plan: Plan) -> list[Row]:
    """Seconds from the command to the first answer; the first start, which writes byte code, does not count."""
    rows = [Row("start", server.name, "s", bar=scenarios.START if server.gateway else None) for server in plan.servers]
    async with AsyncExitStack() as stack:
        upstream = await _start_upstream(plan, stack, 0.0)
        for number in range(plan.rounds + 1):
            for server, row in zip(plan.servers, rows, strict=True):
                process, _, seconds = await servers.start(server, plan.server_core, plan.folder, upstream)
                process.stop()
                if number:
                    row.values.append(seconds)
    return rows


async def measure_memory(plan: Plan) -> list[Row]:
    """Resident memory after one answer, and what each of many open streams adds to it."""
    rows = []
    body = messages.chat_request(stream=True)
    async with AsyncExitStack() as stack:
        for one in await _start_all(plan, stack, [server for server in plan.servers if server.relays], 0.5):
            idle = one.process.rss_bytes()
            bar = scenarios.IDLE_MEMORY if one.server.gateway else None
            rows.append(Row("memory", one.server.name, "MB idle", values=[idle / 1e6], bar=bar))
            load = Load(one.port, messages.http_request(body, f"127.0.0.1:{one.port}"), b"", plan.streams)
            await load.open()
            await load.go_on(2 * plan.seconds)
            added = (one.process.rss_bytes() - idle) / plan.streams
            bar = scenarios.STREAM_MEMORY if one.server.gateway else None
            lost = plan.streams - len(load.busy)
            note = f"{lost} of {plan.streams} streams were not open: {load.counts.first_error}" if lost else ""
            rows.append(Row("memory-streams", one.server.name, "KB/stream", values=[added / 1e3], bar=bar, note=note))
            load.close()
    return sorted(rows, key=lambda row: row.scenario)


async def _round(plan: Plan, scenario: Scenario, one: Running, row: Row) -> None:
    request = messages.http_request(scenario.request, f"127.0.0.1:{one.port}", scenario.path)
    load = Load(one.port, request, scenario.reply, scenario.connections or plan.connections)
    counts = load.counts
    await load.open()
    await load.go_on(min(WARM_SECONDS, plan.seconds), plan.requests)
    cpu, began, size, first = one.process.cpu_seconds(), perf_counter(), counts.body_bytes, len(counts.latencies)
    await load.go_on(plan.seconds, plan.requests)
    cpu, elapsed = one.process.cpu_seconds() - cpu, perf_counter() - began
    work = (counts.body_bytes - size) * scenario.units / len(scenario.reply)
    await load.drain(DRAIN_SECONDS)
    row.errors += counts.errors
    row.note = row.note or counts.first_error
    if work:
        row.values.append(cpu / work * 1e6)
        row.rates.append(work / elapsed)
        row.busy.append(cpu / elapsed)
        _add_latencies(row, counts.latencies[first:])
    else:
        row.note = row.note or f"no answer within {plan.seconds} s"
    if one.server.gateway and scenario.gateway_head not in load.head.lower():
        row.note = row.note or f"no {scenario.gateway_head.decode()!r} in the head {load.head!r}"


def _add_latencies(row: Row, seconds: list[float]) -> None:
    if len(seconds) > 1:
        cuts = quantiles(seconds, n=100)
        row.p50.append(cuts[49] * 1e3)
        row.p99.append(cuts[98] * 1e3)


async def _start_all(plan: Plan, stack: AsyncExitStack, compared: Sequence[Server], interval: float) -> list[Running]:
    upstream = await _start_upstream(plan, stack, interval)
    running = []
    for server in compared:
        process, port, _ = await servers.start(server, plan.server_core, plan.folder, upstream)
        stack.callback(process.stop)
        running.append(Running(server, process, port))
    await asyncio.sleep(0.2)  # what a server does after its first answer is not the load's cost
    return running


async def _start_upstream(plan: Plan, stack: AsyncExitStack, interval: float) -> int:
    process, port = await servers.start_upstream(plan.load_core, plan.folder, interval, scenarios.EVENTS)
    stack.callback(process.stop)
    return port
