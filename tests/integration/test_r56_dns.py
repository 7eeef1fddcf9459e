"""R56: constant traffic follows a change of a provider's address, without an error and without cutting a stream."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic

from gateway.testing import LocalGateway, RawClient, ScriptedUpstream, as_asked, chat_stream, fetch_chat
from tests.support.names import Names

MAX_AGE = 2.0
CLIENTS = 5
PAUSE = 0.1  # each client's: 50 requests a second together
CONFIG = """
[plugins]
chain = ["request_id"]
[pool]
max_age = "{max_age}s"
[providers.up]
type = "openai_compat"
base_url = "http://provider.test:{port}/v1"
"""


async def ask_steadily(url: str, until: float, statuses: list[int]) -> None:
    """One request after the other over one connection."""
    async with RawClient(url) as client:
        while monotonic() < until:
            await client.chat("up/m")
            statuses.append((await client.read()).status)
            await asyncio.sleep(PAUSE)


async def test_r56_traffic_follows_a_change_of_address(tmp_path: Path) -> None:
    names = Names(("127.0.0.1", 0))
    async with (
        ScriptedUpstream(as_asked()) as old,
        ScriptedUpstream(as_asked(), host="127.0.0.2", port=old.port) as new,
        LocalGateway(tmp_path, CONFIG.format(max_age=MAX_AGE, port=old.port)) as gateway,
    ):
        gateway._server.generation.upstream.connector._resolver = names
        old.script = [chat_stream(40, pause=0.1), as_asked()]  # four seconds: twice as long as a connection lives
        loop = asyncio.get_running_loop()
        stream = loop.create_task(fetch_chat(gateway.url, "up/m", stream=True))
        await old.wait_calls(1)
        statuses: list[int] = []
        end = monotonic() + 1.5 + MAX_AGE + 6
        clients = [loop.create_task(ask_steadily(gateway.url, end, statuses)) for _ in range(CLIENTS)]
        await asyncio.sleep(1.5)
        assert len(old.calls) > 10 and not new.calls
        names.at = (("127.0.0.2", 0),)
        switched = monotonic()
        await asyncio.gather(*clients)
        assert (await stream).body.endswith(b"data: [DONE]\n\n")

        assert set(statuses) == {200}
        assert len(statuses) == len(old.calls) + len(new.calls) - 1
        assert old.calls[-1].started - switched <= MAX_AGE + 5
        assert len(new.calls) > 10
        # The age ended them, not each request: most found a connection in the pool.
        assert len(old.connections) + len(new.connections) < len(statuses) / 2
