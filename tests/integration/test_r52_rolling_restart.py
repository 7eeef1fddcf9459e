"""R52: a successor takes over behind a real nginx, under load, and nobody notices."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.testing import Call, GatewayProcess, RawClient, ScriptedUpstream, as_asked, chat_stream, fetch
from tests.support.nginx import HOST, Nginx
from tests.support.ports import neighbours

CONFIG = """
[server]
reuse_port = true
workers = WORKERS
drain_delay = "DELAY"
[plugins.rate_limit]
requests_per_minute = 0
[providers.up]
type = "openai_compat"
base_url = "UPSTREAM/v1"
"""
STREAMS = 20
CLIENTS = 8


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    whole, streamed = as_asked(), chat_stream(30, pause=0.1)

    async def script(call: Call) -> None:
        await (streamed if call.request.json.get("stream") else whole)(call)

    async with ScriptedUpstream(script) as scripted:
        yield scripted


class Rolling:
    """Two gateways for one port, and nginx in front of it."""

    def __init__(self, folder: Path, upstream: ScriptedUpstream, delay: str, workers: int) -> None:
        config = CONFIG.replace("UPSTREAM", upstream.url).replace("DELAY", delay)
        config = config.replace("WORKERS", str(workers))
        self.old, self.new = (_gateway(folder / name, config, workers) for name in ("old", "new"))
        self.new.port = self.old.port
        self.old.start()
        self.nginx = Nginx(_made(folder / "nginx"), self.old.port)
        # As deployed: many kept connections, any of which may be in use when it is closed.
        self.nginx.config = self.nginx.config.replace("keepalive 1;", "keepalive 64;")
        self.nginx.start()
        self.answers: Counter[int] = Counter()
        self.over = False

    async def post(self) -> None:
        """Ask for chat after chat, until the load is over, on connections of many requests."""
        while True:
            async with RawClient(self.nginx.url, host=HOST) as client:
                for _ in range(50):
                    if self.over:
                        return
                    await client.chat("up/m")
                    self.answers[(await client.read()).status] += 1

    async def stream(self, begun: asyncio.Semaphore) -> list[bytes]:
        async with RawClient(self.nginx.url, host=HOST) as client:
            await client.chat("up/m", stream=True)
            assert (await client.read_head()).start == "HTTP/1.1 200 OK"
            begun.release()
            return [event async for event in client.events()]

    async def new_is_up(self) -> None:
        self.new.launch()
        async with asyncio.timeout(10):
            while True:
                try:
                    if (await fetch(f"{self.new.admin_url}/metrics")).status == 200:
                        return
                except OSError:
                    await asyncio.sleep(0.02)

    def end(self) -> None:
        self.nginx.stop()
        self.old.end()
        self.new.end()


def _gateway(folder: Path, config: str, workers: int) -> GatewayProcess:
    admin = neighbours(workers)
    gateway = GatewayProcess(_made(folder), config, env={"GATEWAY__ADMIN__PORT": str(admin)})
    gateway.admin_port = admin
    return gateway


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(params=[("0s", 1), ("500ms", 1), ("0s", 2)], ids=["at once", "delayed", "workers"])
def rolling(request: pytest.FixtureRequest, tmp_path: Path, upstream: ScriptedUpstream) -> Iterator[Rolling]:
    both = Rolling(tmp_path, upstream, *request.param)
    yield both
    both.end()


async def test_r52_a_rolling_restart_loses_no_request_and_cuts_no_stream(rolling: Rolling) -> None:
    begun = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as load:
        streams = [load.create_task(rolling.stream(begun)) for _ in range(STREAMS)]
        for _ in streams:
            await begun.acquire()
        for _ in range(CLIENTS):
            load.create_task(rolling.post())
        await asyncio.sleep(0.3)
        await rolling.new_is_up()
        await rolling.old.stop(signal.SIGTERM, within=15)
        await asyncio.sleep(0.3)
        rolling.over = True
    assert set(rolling.answers) == {200}, rolling.nginx.error_log
    assert rolling.answers[200] > 100
    assert [len(stream.result()) for stream in streams] == [33] * STREAMS
    assert all(stream.result()[-1] == b"data: [DONE]\n\n" for stream in streams)
    assert "upstream prematurely closed" not in rolling.nginx.error_log
