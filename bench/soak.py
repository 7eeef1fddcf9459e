"""A long run in search of leaks: ``python -m bench.soak --minutes 20 --rate 40 --json FILE``.

A gateway process with the default chain in front of a scripted upstream; mixed traffic, of which a part fails and a
part walks out. Afterwards everything must be as it was before: exits 1 if it is not. Everything on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import re
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import linear_regression
from time import monotonic
from typing import Any

import attrs

from bench import messages, traffic
from bench.run import raise_descriptors
from bench.traffic import Clients
from gateway.testing import GatewayProcess, ScriptedUpstream

INTERVAL = 10.0
"""Seconds between two samples."""
SETTLING = 300.0
"""Seconds at the start that say nothing about memory: buffers, caches and the allocator's arenas fill up."""
JUDGED = 600.0
"""Seconds of samples it takes to judge a slope."""
SLOPE = 24.0
"""MiB per hour memory may grow by. Below it the noise of a run of minutes is larger than what it looks for."""
QUIET_WITHIN = 30.0
"""Seconds the gateway has to come to rest after the last call: its longest time limit and the pool's keep-alive."""
PER_VISIT = 5
"""Calls a client makes on one connection at most."""
AT_ONCE = 300
"""Clients at most; when the gateway is slower, fewer come."""
_BAD = re.compile(r"Unclosed|never retrieved|Task was destroyed|never awaited|Traceback|Error handling request")


@attrs.frozen
class Sample:
    """What the gateway holds. ``at`` is seconds since the start of the load."""

    at: float
    rss_mib: float
    fds: int
    threads: int
    in_flight: int
    acquired: int
    idle: int
    upstream_open: int
    """Connections by the upstream's own ledger."""

    @property
    def at_rest(self) -> bool:
        return not (self.in_flight or self.acquired or self.idle or self.upstream_open)


@attrs.frozen
class Check:
    """Something that must be so."""

    name: str
    good: bool
    figure: str


@attrs.define
class Report:
    base: Sample
    """At rest after the warm-up."""
    end: Sample
    """At rest after the last call, or what was left when that took too long."""
    samples: list[Sample]
    counts: Counter[str]
    errors: list[str]
    checks: list[Check]

    @property
    def passed(self) -> bool:
        return all(check.good for check in self.checks)

    def text(self) -> str:
        lines = [", ".join(f"{count} {name}" for name, count in self.counts.most_common())]
        lines += [f"{'ok  ' if check.good else 'FAIL'}  {check.name}: {check.figure}" for check in self.checks]
        return "\n".join(lines + self.errors[:10])


class Watch:
    """Reads what the gateway holds, from the kernel, from its metrics and from the upstream's ledger."""

    def __init__(self, gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
        self._gateway = gateway
        self._upstream = upstream
        self._began = monotonic()

    async def sample(self) -> Sample:
        metrics = await self._gateway.metrics()
        pool = {
            state: int(metrics.value("hookgate_upstream_connections", state=state)) for state in ("acquired", "idle")
        }
        status = _status(self._gateway.pid)
        self._forget()
        return Sample(
            at=round(monotonic() - self._began, 1),
            rss_mib=round(status["VmRSS"] / 1024, 2),
            fds=_fds(self._gateway.pid),
            threads=status["Threads"],
            in_flight=int(metrics.value("hookgate_in_flight")),
            upstream_open=self._upstream.open_connections,
            **pool,
        )

    async def rest(self) -> Sample:
        """The first sample at rest with no connection of a client left, or the last one within the limit."""
        deadline = monotonic() + QUIET_WITHIN
        last = await self.sample()
        while monotonic() < deadline:
            await asyncio.sleep(0.5)
            before, last = last, await self.sample()
            if last.at_rest and before.at_rest and last.fds == before.fds:
                break
        return last

    async def every(self, seconds: float) -> list[Sample]:
        """A sample every ``INTERVAL`` for so long."""
        samples = []
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            await asyncio.sleep(min(INTERVAL, left))
            samples.append(await self.sample())
        return samples

    def _forget(self) -> None:
        """The ledger is for tests of seconds: keep what is open."""
        for connection in self._upstream.connections:
            del connection.requests[:-1]
        self._upstream.connections[:] = [each for each in self._upstream.connections if each.closed is None]
        self._upstream.requests.clear()


def _status(pid: int) -> dict[str, int]:
    """Resident memory in KiB and the number of threads; proc(5)."""
    text = Path(f"/proc/{pid}/status").read_text()
    return {name: int(value) for name, value in re.findall(r"^(VmRSS|Threads):\s+(\d+)", text, re.MULTILINE)}


def _fds(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def load(clients: Clients, seconds: float, rate: float) -> None:
    """Clients that come at random moments, and make ``rate`` calls a second together."""
    running: set[asyncio.Task[None]] = set()
    end = monotonic() + seconds
    while monotonic() < end:
        calls = random.randint(1, PER_VISIT)
        if len(running) < AT_ONCE:
            task = asyncio.create_task(clients.visit(calls))
            running.add(task)
            task.add_done_callback(running.discard)
        # Walkers-out and faults end some visits early; so a few more clients come than the arithmetic says.
        await asyncio.sleep(random.expovariate(rate / calls / 0.85))
    if running:
        await asyncio.wait(running)
    for task in running:
        task.result()


async def soak(seconds: float, rate: float, folder: Path, warm: float = 10.0) -> Report:
    """Run it. Raises ``RuntimeError`` when the gateway does not start, ``TimeoutError`` when it hangs."""
    async with asyncio.timeout(seconds + warm + 4 * QUIET_WITHIN), ScriptedUpstream(traffic.provide) as upstream:
        with _refusing_port() as closed:
            gateway = GatewayProcess(folder, configuration(upstream.port, closed, folder / "exchanges.log"))
            gateway.checked = False  # judged here
            await asyncio.to_thread(gateway.start)
            try:
                return await _watched(gateway, upstream, seconds, rate, warm)
            finally:
                gateway.kill()


async def _watched(
    gateway: GatewayProcess, upstream: ScriptedUpstream, seconds: float, rate: float, warm: float
) -> Report:
    clients = Clients(gateway.url)
    watch = Watch(gateway, upstream)
    await load(clients, warm, rate)
    base = await watch.rest()
    watch = Watch(gateway, upstream)
    samples, _ = await asyncio.gather(watch.every(seconds), load(clients, seconds, rate))
    end = await watch.rest()
    exchanges = int((await gateway.metrics()).value("hookgate_requests_total"))
    await gateway.stop()
    lines = [json.loads(line) for line in _lines(gateway.folder / "exchanges.log")]
    checks = [*_at_rest(base, end), _slope(samples), *_told(clients, lines, exchanges), *_clean(gateway)]
    return Report(base, end, samples, clients.counts, clients.errors, checks)


def _at_rest(base: Sample, end: Sample) -> Iterator[Check]:
    yield Check("in flight", end.in_flight == 0, str(end.in_flight))
    yield Check("pool", end.acquired == end.idle == 0, f"{end.acquired} acquired, {end.idle} idle")
    yield Check("upstream's open connections", end.upstream_open == 0, str(end.upstream_open))
    yield Check("descriptors", abs(end.fds - base.fds) <= 2, f"{base.fds} before, {end.fds} after")
    yield Check("threads", abs(end.threads - base.threads) <= 2, f"{base.threads} before, {end.threads} after")


def _slope(samples: list[Sample]) -> Check:
    later = [sample for sample in samples if sample.at > SETTLING]
    if len(later) < 2 or later[-1].at - later[0].at < JUDGED:
        return Check("memory", True, f"up to {max(each.rss_mib for each in samples)} MiB; too short to tell a slope")
    slope = linear_regression([each.at / 3600 for each in later], [each.rss_mib for each in later]).slope
    figure = f"{later[0].rss_mib} to {later[-1].rss_mib} MiB, slope {slope:.1f} MiB/h"
    return Check("memory", slope <= SLOPE, figure)


def _told(clients: Clients, lines: list[dict[str, Any]], exchanges: int) -> Iterator[Check]:
    """Errors nobody injected, and one line for each exchange."""
    errors, calls = clients.counts["errors"], sum(clients.counts[name] for name in ("plain", "faulty", "left"))
    yield Check("errors not injected", errors == 0, f"{errors} of {calls}")
    ids = Counter(line.get("id") for line in lines)
    unlogged = sum(ids[each] != 1 for each in clients.answered)
    yield Check("log lines", len(lines) == exchanges == len(ids), f"{len(lines)} for {exchanges} exchanges")
    yield Check("answers without their one line", unlogged == 0, f"{unlogged} of {len(clients.answered)}")


def _clean(gateway: GatewayProcess) -> Iterator[Check]:
    status = gateway.process.returncode
    yield Check("exit status", status == 0, str(status))
    bad = _BAD.findall(gateway.stdout + gateway.stderr)
    yield Check("complaints", not bad, ", ".join(f"{count} x {name}" for name, count in Counter(bad).items()) or "none")
    said = [line for line in gateway.stderr.splitlines() if not line.startswith("INFO ")]
    yield Check("stderr", not said, "\n".join(said[:20]) or "nothing but information")


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


@contextmanager
def _refusing_port() -> Iterator[int]:
    """A port that is taken and refuses connections: bound, not listening."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


def configuration(upstream: int, closed: int, log: Path) -> str:
    """A gateway.toml with one key, time limits of seconds, and a pool and a cache small enough to show a leak."""
    provider = 'type = "openai_compat"\ntimeouts = { connect = "5s", first_token = "3s", idle = "2s" }'
    return f"""\
[plugins.logging]
target = {json.dumps(str(log))}

[plugins.cache]
memory = "1MiB"

[keys.soak]
sha256 = "{hashlib.sha256(messages.KEY.encode()).hexdigest()}"
requests_per_minute = 1_000_000
max_concurrency = 1_000

[pool]
max_connections = 50
keepalive = "2s"

[retry]
attempts = 2
[breaker]  # off: the faults would be kept away from the gateway
failures = 0
error_rate = 0

[providers.{traffic.PROVIDER}]
base_url = "http://127.0.0.1:{upstream}/v1"
{provider}

[providers.refusing]
base_url = "http://127.0.0.1:{closed}/v1"
{provider}

[models."{messages.MODEL}"]
targets = [{{ provider = "{traffic.PROVIDER}" }}]

[models."{traffic.REFUSING}"]
targets = [{{ provider = "refusing" }}]
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="mixed traffic in search of leaks")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=40.0, help="calls a second")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    raise_descriptors()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        report = asyncio.run(soak(options.minutes * 60, options.rate, Path(folder)))
    print(report.text())
    if options.json:
        options.json.write_text(json.dumps(attrs.asdict(report), indent=1) + "\n")
    sys.exit(0 if report.passed else 1)


if __name__ == "__main__":
    main()
