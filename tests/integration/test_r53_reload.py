"""R53: reloads under load, some broken, the others removing the provider in use; no exchange sees two of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.testing import Call, GatewayProcess, RawClient, ScriptedUpstream, chat, chat_stream, fetch

RELOADS = 60
BROKEN_EVERY = 10
CONFIG = """
[plugins]
chain = ["request_id", "logging", "metrics", "auth", "rate_limit", "cache", "witness"]
[plugins.witness]
number = NUMBER
[plugins.rate_limit]
requests_per_minute = 0
[providers.PROVIDER]
type = "openai_compat"
base_url = "UPSTREAM/v1"
headers = { X-Number = "NUMBER" }
[models.m]
targets = [{ provider = "PROVIDER" }]
"""
WITNESS = """
import attrs
from aiohttp import web
from gateway import hookimpl

@attrs.frozen
class Settings:
    number: int

class Plugin:
    def __init__(self, settings, runtime):
        self.number = settings.number
        self.counts = runtime.keep("counts", lambda: {"begun": 0, "finished": 0, "mixed": 0})

    @hookimpl
    def on_startup(self, runtime):
        runtime.admin_routes.append(web.get("/witness", self.tell))

    @hookimpl
    def on_request(self, exchange):
        exchange.notes["number"] = self.number
        self.counts["begun"] += 1

    @hookimpl
    def on_reply(self, exchange, reply):
        reply.headers["x-numbers"] = f"{exchange.notes['number']} {self.number}"

    @hookimpl
    async def on_finish(self, exchange):
        self.counts["finished"] += 1
        self.counts["mixed"] += exchange.notes["number"] != self.number

    async def tell(self, request):
        return web.json_response(self.counts)
"""


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """Answers with the number of the configuration that called it."""

    async def script(call: Call) -> None:
        number = call.request.header("x-number")
        answer = chat_stream(10, pause=0.03) if call.request.json.get("stream") else chat(str(number))
        await answer(call)

    async with ScriptedUpstream(script) as scripted:
        yield scripted


class Reloaded:
    def __init__(self, folder: Path, upstream: ScriptedUpstream) -> None:
        (folder / "plugins").mkdir()
        (folder / "plugins/witness.py").write_text(WITNESS)
        self.config = CONFIG.replace("UPSTREAM", upstream.url)
        self.process = GatewayProcess(folder, self._numbered(0)).start()
        self.over = False
        self.streams = self.wholes = 0

    def _numbered(self, number: int) -> str:
        return self.config.replace("NUMBER", str(number)).replace("PROVIDER", f"p{number % 2}")

    async def reload(self, number: int) -> None:
        broken = number % BROKEN_EVERY == 0
        self.process.config_path.write_text(self._numbered(number) + ("[nonsense]\n" if broken else ""))
        reply = await fetch(f"{self.process.admin_url}/reload", "POST")
        assert reply.status == (422 if broken else 200), reply.body

    async def ask(self) -> None:
        """Whole answers, on one connection that sees all generations."""
        async with RawClient(self.process.url) as client:
            while not self.over:
                await client.chat("m")
                reply = await client.read()
                assert reply.status == 200, reply.body
                number = reply.json["choices"][0]["message"]["content"]
                assert reply.header("x-numbers") == f"{number} {number}"
                self.wholes += 1

    async def stream(self) -> None:
        async with RawClient(self.process.url) as client:
            while not self.over:
                await client.chat("m", stream=True)
                head = await client.read_head()
                assert head.start == "HTTP/1.1 200 OK"
                begun, replied = (head.get("x-numbers") or "").split()
                assert begun == replied
                events = [event async for event in client.events()]
                assert len(events) == 13 and events[-1] == b"data: [DONE]\n\n"
                self.streams += 1

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


@pytest.fixture
def gateway(tmp_path: Path, upstream: ScriptedUpstream) -> Iterator[Reloaded]:
    reloaded = Reloaded(tmp_path, upstream)
    yield reloaded
    reloaded.process.end()


async def test_r53_no_exchange_fails_or_sees_two_configurations(gateway: Reloaded) -> None:
    before = gateway.descriptors
    async with asyncio.TaskGroup() as load:
        for _ in range(20):
            load.create_task(gateway.stream())
        for _ in range(3):
            load.create_task(gateway.ask())
        for number in range(1, RELOADS + 1):
            await gateway.reload(number)
            await asyncio.sleep(0.02)
        gateway.over = True
    assert gateway.streams >= 40 and gateway.wholes >= RELOADS
    counts = (await fetch(f"{gateway.process.admin_url}/witness")).json
    assert counts == {"begun": gateway.streams + gateway.wholes, "finished": counts["begun"], "mixed": 0}
    metrics = await gateway.process.metrics()
    assert metrics.value("hookgate_in_flight") == 0
    assert metrics.value("hookgate_requests_total", outcome="ok", surface="chat") == counts["begun"]
    assert metrics.value("hookgate_generation") == 1 + RELOADS - RELOADS // BROKEN_EVERY
    async with asyncio.timeout(10):  # the pool keeps idle connections for 4 s
        while True:
            if gateway.descriptors <= before + 1:
                break
            await asyncio.sleep(0.1)
