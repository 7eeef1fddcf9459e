"""Each hook once per exchange, on every route and in every mode; nothing after the last byte is lost."""

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import dispatch
from gateway.exchange import Exchange
from gateway.testing import (
    Call,
    GatewayFactory,
    GatewayProcess,
    LocalGateway,
    RawClient,
    Script,
    ScriptedUpstream,
    Truncated,
    chat,
    chat_events,
    chat_stream,
    delayed,
    error,
    fetch_chat,
    hang_up,
    silent,
)
from gateway.testing.answers import SSE

RECORDER = """
import attrs
from gateway import Reply, hookimpl
from gateway.errors import Forbidden

@attrs.frozen
class Settings:
    file: str

class Plugin:
    def __init__(self, settings, runtime):
        self.file, self.name = settings.file, runtime.name

    def note(self, exchange, hook):
        with open(self.file, "a") as out:
            out.write(f"{exchange.id} {self.name} {hook} {exchange.outcome} {exchange.status}\\n")

    @hookimpl
    def on_request(self, exchange):
        self.note(exchange, "on_request")
        wish = exchange.headers.get("x-app")
        if self.name == "inner" and wish == "short":
            return Reply(200, {"content-type": "application/json"}, b"{}")
        if self.name == "inner" and wish == "refuse":
            raise Forbidden("no")
        if self.name == "inner" and wish == "break":
            raise KeyError("secret detail")
        if self.name == "inner" and wish == "garbage":
            return 42

    @hookimpl
    async def on_reply(self, exchange, reply):
        self.note(exchange, "on_reply")
        if self.name == "inner" and exchange.headers.get("x-app") == "late":
            raise ValueError("late")

    @hookimpl
    def on_error(self, exchange, error):
        self.note(exchange, "on_error")

    @hookimpl
    async def on_finish(self, exchange):
        if self.name == "inner" and exchange.headers.get("x-app") == "observer":
            self.note(exchange, "on_finish")
            raise RuntimeError("an observer broke")
        self.note(exchange, "on_finish")
"""

CONFIG = """
[retry]
attempts = 2
[plugins]
folders = ["$folder"]
chain = ["outer", "inner"]
[plugins.outer]
file = "$log"
[plugins.inner]
file = "$log"
[providers.up]
type = "openai_compat"
base_url = "$upstream/v1"
timeouts = { first_token = "1s", idle = "1s" }
[models.m]
targets = [{ provider = "up" }]
"""


class Recorder:
    """A gateway whose chain is two plugins that write down every call."""

    def __init__(self, tmp_path: Path, start: GatewayFactory) -> None:
        self._log = tmp_path / "calls.log"
        self._log.touch()
        for name in ("outer", "inner"):
            (tmp_path / f"{name}.py").write_text(RECORDER)
        self._folder = tmp_path
        self._start = start

    def start(self, upstream: ScriptedUpstream) -> GatewayProcess:
        return self._start(CONFIG, folder=str(self._folder), log=str(self._log), upstream=upstream.url)

    def calls(self) -> list[str]:
        return [" ".join(line.split()[1:3]) for line in self._log.read_text().splitlines()]

    def endings(self) -> set[tuple[str, str]]:
        lines = [line.split() for line in self._log.read_text().splitlines()]
        return {(line[3], line[4]) for line in lines if line[2] == "on_finish"}


@pytest.fixture
def recorder(tmp_path: Path, gateway_server: GatewayFactory) -> Recorder:
    return Recorder(tmp_path, gateway_server)


ALL = ["outer on_request", "inner on_request", "inner on_reply", "outer on_reply", "inner on_finish", "outer on_finish"]
FAILED = [*ALL[:2], "outer on_error", "inner on_error", *ALL[2:]]


@pytest.mark.parametrize(
    ("wish", "script", "stream", "status", "calls", "ending"),
    [
        ("whole", chat("hi"), False, 200, ALL, ("ok", "200")),
        ("streamed", chat_stream(3), True, 200, ALL, ("ok", "200")),
        ("short", chat("hi"), False, 200, ALL, ("ok", "200")),
        ("refuse", chat("hi"), False, 403, FAILED, ("refused", "403")),
        ("break", chat("hi"), False, 500, FAILED, ("failed", "500")),
        ("garbage", chat("hi"), False, 500, FAILED, ("failed", "500")),
        ("down", error(500), False, 500, FAILED, ("upstream_failed", "500")),
        ("silent", silent, False, 504, FAILED, ("upstream_failed", "504")),
    ],
)
async def test_r19_every_hook_runs_once(
    recorder: Recorder, wish: str, script: Script, stream: bool, status: int, calls: list[str], ending: tuple[str, str]
) -> None:
    async with ScriptedUpstream(script) as upstream:
        gateway = recorder.start(upstream)
        gateway.checked = False  # broken hooks are logged with their traceback
        fields: dict[str, Any] = {"stream": True} if stream else {}
        reply = await fetch_chat(gateway.url, "m", headers={"x-app": wish}, **fields)
        assert reply.status == status
        assert b"secret detail" not in reply.body
        tries = {"short": 0, "refuse": 0, "break": 0, "garbage": 0, "down": 2, "silent": 2}
        assert len(upstream.calls) == tries.get(wish, 1)
    await settled(recorder, len(calls))
    assert recorder.calls() == calls
    assert recorder.endings() == {ending}


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_r19_a_reply_hook_that_breaks_refuses_and_the_rest_still_run(
    recorder: Recorder, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "inner.py").write_text(RECORDER.replace("async def on_reply", f"{kind} on_reply"))
    async with ScriptedUpstream(chat("hi")) as upstream:
        gateway = recorder.start(upstream)
        gateway.checked = False
        reply = await fetch_chat(gateway.url, "m", headers={"x-app": "late"})
        assert reply.status == 500
        assert 'raise ValueError("late")' in gateway.stderr  # where it broke, not only that it did
    await settled(recorder, 8)
    assert sorted(recorder.calls()) == sorted(FAILED)


async def test_r19_a_failing_observer_harms_nobody(recorder: Recorder) -> None:
    async with ScriptedUpstream(chat("hi")) as upstream:
        gateway = recorder.start(upstream)
        gateway.checked = False
        reply = await fetch_chat(gateway.url, "m", headers={"x-app": "observer"})
        assert reply.status == 200
    await settled(recorder, 6)
    assert recorder.calls() == ALL


@pytest.mark.parametrize(
    "script", [delayed(5, chat("late")), chat_stream(200, pause=0.05)], ids=["waiting", "streaming"]
)
async def test_r19_hooks_finish_once_when_the_client_is_gone(recorder: Recorder, script: Script) -> None:
    async with ScriptedUpstream(script) as upstream:
        gateway = recorder.start(upstream)
        async with RawClient(gateway.url) as client:
            await client.chat("m", stream=True)
            await upstream.wait_calls()
            await asyncio.sleep(0.3)
        await upstream.wait_aborted(within=1.0)
        await asyncio.sleep(0.3)
    calls = recorder.calls()
    assert calls[:2] == ALL[:2] and calls[-2:] == ALL[-2:]
    assert len(calls) == len(set(calls))
    assert {outcome for outcome, _ in recorder.endings()} == {"client_gone"}


async def test_a_client_that_leaves_at_the_marker_has_had_it_all(recorder: Recorder) -> None:
    async def script(call: Call) -> None:
        await call.head(200, SSE)
        for event in chat_events():
            await call.chunk(event)
        await call.stall()  # the end of the body is still to come when OpenAI's SDK closes the connection

    async with ScriptedUpstream(script) as upstream:
        gateway = recorder.start(upstream)
        async with RawClient(gateway.url) as client:
            await client.chat("m", stream=True)
            await client.read_head()
            async for event in client.events():
                if b"[DONE]" in event:
                    break
        await upstream.wait_aborted(within=1.0)
    await settled(recorder, 6)
    assert recorder.endings() == {("ok", "200")}


async def test_r28_a_stream_that_breaks_is_counted_as_failed(recorder: Recorder) -> None:
    async with ScriptedUpstream(chat_stream(3, after=2, ending="reset")) as upstream:
        gateway = recorder.start(upstream)
        with pytest.raises(Truncated) as cut:
            await fetch_chat(gateway.url, "m", stream=True)
        assert b'"error"' in cut.value.received and b"[DONE]" not in cut.value.received
    await settled(recorder, 6)
    assert recorder.calls() == ALL
    assert recorder.endings() == {("upstream_failed", "200")}


async def settled(recorder: Recorder, count: int) -> None:
    """on_finish runs after the last byte: the client may be here first."""
    for _ in range(100):
        if len(recorder.calls()) >= count:
            return
        await asyncio.sleep(0.02)


async def test_r58_what_a_broken_hook_says_is_logged_without_its_words(recorder: Recorder) -> None:
    async with ScriptedUpstream(chat("hi")) as upstream:
        gateway = recorder.start(upstream)
        gateway.checked = False
        await fetch_chat(gateway.url, "m", headers={"x-app": "break"})
        await gateway.stop()
    assert "plugin inner, on_request: KeyError" in gateway.stderr
    assert "inner.py" in gateway.stderr and "secret detail" not in gateway.stderr.replace(
        'KeyError("secret detail")', ""
    )


HANGS = """
import asyncio
import attrs
from gateway import hookimpl

@attrs.frozen
class Settings:
    hook: str

class Plugin:
    def __init__(self, settings, runtime):
        self.hook = settings.hook

    @hookimpl
    async def on_request(self, exchange):
        if self.hook == "on_request":
            await asyncio.sleep(60)

    @hookimpl
    async def on_reply(self, exchange, reply):
        if self.hook == "on_reply":
            await asyncio.sleep(60)
"""


@pytest.mark.parametrize("hook", ["on_request", "on_reply"])
async def test_r19_a_hook_that_hangs_is_cut_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    monkeypatch.setattr(dispatch, "HOOK_LIMIT", 0.2)
    (tmp_path / "hangs.py").write_text(HANGS)
    config = f"""
[plugins]
folders = ["{tmp_path}"]
chain = ["hangs"]
[plugins.hangs]
hook = "{hook}"
[providers.echo]
type = "echo"
[models.m]
targets = [{{ provider = "echo" }}]
"""
    async with LocalGateway(tmp_path, config) as gateway:
        reply = await fetch_chat(gateway.url, "m")
        assert reply.status == 500
        assert reply.json["error"]["code"] == "internal_error"
        assert gateway.exchanges[0].outcome == "failed"


BROKEN = {
    "closed without an answer": hang_up,
    "refused": error(500),
    "silent": silent,
    "cut": chat_stream(9, after=3, ending="close"),
    "reset": chat_stream(9, after=3, ending="reset"),
    "stalled": chat_stream(9, after=3, ending="stall"),
    "left": chat_stream(9, after=3, pause=0.3),
}


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("name", BROKEN)
async def test_r55_a_failed_exchange_and_its_body_are_gone_without_the_collector(name: str, tmp_path: Path) -> None:
    async with ScriptedUpstream(BROKEN[name]) as upstream:
        config = f"""
[providers.up]
type = "openai_compat"
base_url = "{upstream.url}/v1"
timeouts = {{ first_token = "300ms", idle = "300ms" }}
[models.m]
targets = [{{ provider = "up" }}]
"""
        async with LocalGateway(tmp_path, config) as gateway:
            async with RawClient(gateway.url) as client:
                await client.chat("m", stream=True)
                if name == "left":
                    await client.read_head()
                else:
                    with contextlib.suppress(Truncated):
                        await client.read()
            await asyncio.sleep(0.3)
            assert [each.outcome != "ok" for each in gateway.exchanges] == [True]
            gateway.exchanges.clear()
            assert [each for each in gc.get_objects() if type(each) is Exchange] == []
