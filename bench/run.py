"""The one command: ``make bench``, ``python -m bench``."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop

from bench import measure, report, scenarios, servers
from bench.measure import Plan
from bench.process import StartFailed
from bench.report import Row
from bench.servers import Server

DESCRIPTORS = 65536
"""Open files wanted: two for each open stream, in the proxy and in the load."""


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="CPU time of the gateway beside the textbook proxy's"
    )
    choices = ("gateway", "textbook", "raw")
    parser.add_argument("--servers", nargs="+", choices=choices, default=["gateway", "textbook"])
    parser.add_argument("--scenario", nargs="+", choices=scenarios.NAMES, default=list(scenarios.NAMES))
    parser.add_argument("--gateway", default="", metavar="COMMAND", help="with {port} {upstream} {config} filled in")
    parser.add_argument("--chain", nargs="*", metavar="PLUGIN", help="instead of the default chain")
    parser.add_argument("--against", type=Path, metavar="PATH", help="another checkout, measured in the same rounds")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="a round")
    parser.add_argument("--requests", type=int, default=0, help="end a round after so many, if they come sooner")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--streams", type=int, default=1000, help="held open in scenario memory")
    parser.add_argument("--quick", action="store_true", help="two rounds of 0.7 s, 100 open streams")
    parser.add_argument("--cores", metavar="LOAD,SERVER", help="default: the first and the last one allowed")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--enforce", action="store_true", help="exit 1 when a bar is missed")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds, options.streams = 2, 0.7, 100
    return options


def chosen_servers(options: argparse.Namespace) -> tuple[Server, ...]:
    chosen = []
    if "gateway" in options.servers:
        chosen.append(_gateway("gateway", servers.TREE, options.gateway, options.chain))
    if options.against:
        tree = options.against.resolve()
        chosen.append(_gateway("against", tree, "", options.chain))
    if "textbook" in options.servers:
        chosen.append(Server("textbook", servers.textbook))
    if "raw" in options.servers:
        chosen.append(Server("raw", servers.raw, relays=False))
    return tuple(chosen)


def _gateway(name: str, tree: Path, command: str, chain: list[str] | None) -> Server:
    def ruled(rules: str) -> servers.Command:
        return servers.gateway(tree, command, chain, rules)

    return Server(name, servers.gateway(tree, command, chain), tree, gateway=True, rules=ruled)


def machine(load_core: int, server_core: int) -> dict[str, Any]:
    """What the figures depend on."""
    versions = {name: importlib.metadata.version(name) for name in ("aiohttp", "uvloop")}
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        **versions,
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),  # well above 0 before the start: others disturb every figure
        "load_core": load_core,
        "server_core": server_core,
    }


async def run(plan: Plan, names: list[str]) -> list[Row]:
    rows: list[Row] = []
    for scenario in scenarios.loads():
        if scenario.name in names:
            print(f"{scenario.name}: {scenario.title}", file=sys.stderr, flush=True)
            rows += await measure.measure_load(plan, scenario)
    if "start" in names:
        rows += await measure.measure_start(plan)
    if "memory" in names:
        rows += await measure.measure_memory(plan)
    for row in rows:
        row.compare(rows)
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Exits 0 when everything could be measured; 1 when a server would not start, or, asked to, for a missed bar."""
    options = parse_arguments(arguments)
    load_core, server_core = chosen_cores(options.cores)
    raise_descriptors()
    facts = machine(load_core, server_core)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        plan = Plan(
            servers=chosen_servers(options),
            rounds=options.rounds,
            seconds=options.seconds,
            requests=options.requests,
            connections=options.connections,
            streams=options.streams,
            load_core=load_core,
            server_core=server_core,
            folder=Path(folder),
        )
        os.sched_setaffinity(0, {load_core})
        try:
            rows = uvloop.run(run(plan, options.scenario))
        except StartFailed as error:
            sys.exit(f"bench: {error}")
    print(" · ".join(f"{name} {value}" for name, value in facts.items()))
    print(report.table(rows))
    if options.json:
        options.json.write_text(json.dumps(report.as_json(rows, facts), indent=1, ensure_ascii=False) + "\n")
    if options.enforce and any(row.passed() is False for row in rows):
        sys.exit(1)


def chosen_cores(option: str | None) -> tuple[int, int]:
    """Core of the load and core of the servers."""
    if option:
        load, server = map(int, option.split(","))
        return load, server
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) == 1:
        print("bench: only one core is available: load and servers share it, rates and latencies mean little")
    return allowed[0], allowed[-1]


def raise_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
