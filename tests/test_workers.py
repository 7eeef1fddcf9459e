"""Several processes: all serve, a lost one is replaced, reloads are atomic in each, a stop drains all."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.testing import (
    GatewayProcess,
    RawClient,
    ScriptedUpstream,
    chat_stream,
    fetch,
    fetch_chat,
    silent,
)
from tests.support.ports import neighbours
from tests.support.programs import ROOT

pytest.importorskip("gunicorn")
CONFIG = """
[server]
workers = 2
shutdown_grace = "20s"
[providers.echo]
type = "echo"
[providers.up]
type = "openai_compat"
base_url = "UPSTREAM/v1"
"""


class Several:
    """A gateway with two workers."""

    def __init__(self, folder: Path, config: str) -> None:
        self.admin = neighbours(2)
        self.process = GatewayProcess(folder, config, env={"GATEWAY__ADMIN__PORT": str(self.admin)})
        self.url = self.process.url

    @property
    def pids(self) -> list[int]:
        master = self.process.pid
        return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]

    async def scrape(self, worker: int) -> str | None:
        try:
            return (await fetch(f"http://127.0.0.1:{self.admin + worker}/metrics")).body.decode()
        except (OSError, EOFError):
            return None

    async def ready(self) -> None:
        await until(self._all_up)

    async def _all_up(self) -> bool:
        return len(self.pids) == 2 and None not in [await self.scrape(worker) for worker in (0, 1)]

    async def served(self, worker: int) -> bool:
        return "hookgate_requests_total{" in (await self.scrape(worker) or "")

    def write(self, config: str) -> None:
        self.process.config_path.write_text(config)

    async def command(self) -> tuple[int, str]:
        """``gateway reload``: exit status and all it printed."""
        command = [sys.executable, "-m", "gateway", "reload", "--config", str(self.process.config_path)]
        env = {"PYTHONPATH": str(ROOT), "GATEWAY__ADMIN__PORT": str(self.admin)}
        done = await asyncio.to_thread(subprocess.run, command, env=env, capture_output=True, text=True, timeout=30)
        return done.returncode, done.stdout + done.stderr


async def until(condition: Callable[[], Any], within: float = 15.0) -> None:
    async with asyncio.timeout(within):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.05)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(chat_stream(20, pause=0.05)) as scripted:
        yield scripted


@pytest.fixture
def gateway(tmp_path: Path, upstream: ScriptedUpstream) -> Iterator[Several]:
    several = Several(tmp_path, CONFIG.replace("UPSTREAM", upstream.url))
    several.process.start()
    yield several
    several.process.end(within=25)


async def test_all_workers_serve(gateway: Several) -> None:
    await gateway.ready()

    async def spread() -> bool:
        replies = await asyncio.gather(*(fetch_chat(gateway.url, "echo") for _ in range(10)))
        assert all(reply.status == 200 for reply in replies)
        return await gateway.served(0) and await gateway.served(1)

    await until(spread)


async def test_a_killed_worker_is_replaced_while_the_other_serves(gateway: Several) -> None:
    await gateway.ready()
    lost, kept = gateway.pids
    os.kill(lost, signal.SIGKILL)
    for _ in range(20):
        assert (await fetch_chat(gateway.url, "echo")).status == 200
    await gateway.ready()
    assert kept in gateway.pids and lost not in gateway.pids


async def test_r52_a_stop_drains_every_worker(gateway: Several) -> None:
    await gateway.ready()

    async def stream() -> int:
        async with RawClient(gateway.url) as client:
            await client.chat("up/m", stream=True)
            await client.read_head()
            begun.release()
            return len([event async for event in client.events()])

    begun = asyncio.Semaphore(0)
    streams = [asyncio.ensure_future(stream()) for _ in range(8)]
    for _ in streams:
        await begun.acquire()
    gateway.process.process.send_signal(signal.SIGTERM)
    assert await asyncio.gather(*streams) == [23] * 8
    assert await asyncio.to_thread(gateway.process.process.wait, 10) == 0


async def test_a_second_signal_ends_the_grace_of_all(gateway: Several, upstream: ScriptedUpstream) -> None:
    await gateway.ready()
    upstream.script = silent
    async with RawClient(gateway.url) as client:
        await client.chat("up/m")
        await upstream.wait_calls()
        gateway.process.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert gateway.process.process.poll() is None
        gateway.process.process.send_signal(signal.SIGTERM)
        assert (await client.read()).status == 503
    assert await asyncio.to_thread(gateway.process.process.wait, 5) == 0


async def test_streams_outlive_a_master_that_is_killed(gateway: Several) -> None:
    await gateway.ready()
    workers = gateway.pids
    async with RawClient(gateway.url) as client:
        await client.chat("up/m", stream=True)
        await client.read_head()
        gateway.process.kill()
        assert len([event async for event in client.events()]) == 23

    async def gone() -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in workers)  # noqa: ASYNC240 - no disk

    await until(gone)
    gateway.process.checked = False


async def test_a_broken_configuration_never_takes_the_service_down(gateway: Several) -> None:
    await gateway.ready()
    good = gateway.process.config_path.read_text()
    assert await gateway.command() == (0, "reloaded\n")
    gateway.write(good + "[serevr]\n")
    problem = f"{gateway.process.config_path}:{good.count(chr(10)) + 1}: serevr: unknown key. Did you mean 'server'?\n"
    assert await gateway.command() == (1, problem)
    gateway.process.process.send_signal(signal.SIGHUP)
    # A worker lost now cannot come back before the file is mended, and must not take the others with it.
    os.kill(gateway.pids[0], signal.SIGKILL)
    for _ in range(30):
        assert (await fetch_chat(gateway.url, "echo")).status == 200
        await asyncio.sleep(0.05)
    gateway.write(good)
    await gateway.ready()
    assert await gateway.command() == (0, "reloaded\n")


@pytest.mark.parametrize(
    ("config", "said"),
    [("[serevr]\n", "serevr: unknown key"), ('[plugins]\nchain = ["nobody"]\n', "there is no middleware plugin")],
    ids=["configuration", "plugin"],
)
async def test_a_broken_configuration_refuses_the_start(tmp_path: Path, config: str, said: str) -> None:
    several = Several(tmp_path, "[server]\nworkers = 2\n" + config)
    several.process.launch()
    try:
        assert await asyncio.to_thread(several.process.process.wait, 15) != 0
    finally:
        several.process.kill()
    assert said in several.process.stderr
    assert "Traceback" not in several.process.stderr
