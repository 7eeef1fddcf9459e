"""Reload: the next generation is built beside the one that serves, and takes over whole or not at all."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway import finder, generation
from gateway.errors import ConfigError
from gateway.testing import (
    LocalGateway,
    Metrics,
    RawClient,
    ScriptedUpstream,
    as_asked,
    chat_stream,
    fetch,
    fetch_chat,
    free_ports,
)
from tests.support.keys import stored
from tests.support.redis import Redis, redis

__all__ = ["redis"]

ECHO = '[providers.echo]\ntype = "echo"\n'
UP = '[providers.up]\ntype = "openai_compat"\n'
STAMP = """
import attrs
from gateway import hookimpl

@attrs.frozen
class Settings:
    text: str = "one"

class Plugin:
    log = []

    def __init__(self, settings, runtime):
        self.text = settings.text

    @hookimpl
    def on_startup(self, runtime):
        runtime.keep("log", list).append("up " + self.text)
        self.log = runtime.keep("log", list)

    @hookimpl
    def on_reply(self, exchange, reply):
        reply.headers["x-stamp"] = self.text + CODE

    @hookimpl
    async def on_shutdown(self):
        self.log.append("down " + self.text)

CODE = ""
"""


def stamped(text: str = "one", more: str = ECHO) -> str:
    return f'[plugins]\nchain = ["metrics", "rate_limit", "cache", "stamp"]\n[plugins.stamp]\ntext = "{text}"\n{more}'


@pytest.fixture
def stamp(tmp_path: Path) -> Path:
    (tmp_path / "plugins").mkdir()
    file = tmp_path / "plugins/stamp.py"
    file.write_text(STAMP)
    return file


@pytest.fixture
async def gateway(tmp_path: Path, stamp: Path) -> AsyncIterator[LocalGateway]:
    async with LocalGateway(tmp_path, stamped()) as running:
        yield running


def write(file: Path, text: str) -> None:
    file.write_text(text)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


async def stamp_of(gateway: LocalGateway) -> str | None:
    return (await fetch_chat(gateway.url, "echo")).header("x-stamp")


async def post_reload(gateway: LocalGateway) -> tuple[int, dict[str, object]]:
    reply = await fetch(f"{gateway.admin_url}/reload", "POST")
    return reply.status, reply.json


async def scrape(gateway: LocalGateway) -> Metrics:
    return Metrics((await fetch(f"{gateway.admin_url}/metrics")).body.decode())


async def test_r53_a_reload_takes_the_new_settings(gateway: LocalGateway, tmp_path: Path) -> None:
    assert await stamp_of(gateway) == "one"
    (tmp_path / "gateway.toml").write_text(stamped("two"))
    assert await post_reload(gateway) == (200, {"generation": 2, "warnings": []})
    assert await stamp_of(gateway) == "two"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[server", 1),
        ("[serevr]\n" + ECHO, 1),
        (stamped(more='[providers.echo]\ntype = "ecko"\n'), 6),
        (stamped().replace("text =", "txet ="), 4),
        (stamped().replace('"metrics",', '"metrics", "metrics",'), 2),
        (stamped().replace('"stamp"', '"stmap"'), 2),
        (stamped(more=ECHO + UP + 'base_url = "http://x"\napi_key = "env:NOT"\n'), 10),
        (stamped(more='[plugins.logging]\ntarget = "/nowhere/at/all"\n' + ECHO).replace('"cache"', '"logging"'), 2),
    ],
    ids=["toml", "table", "provider", "setting", "twice", "plugin", "secret", "startup"],
)  # fmt: skip
async def test_r53_what_does_not_hold_is_told_and_the_old_set_goes_on(
    gateway: LocalGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, line: int
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    status, answer = await post_reload(gateway)
    problems = answer["problems"]
    assert status == 422 and isinstance(problems, list)
    assert any(problem.startswith(f"{file}:{line}: ") for problem in problems), problems
    assert all(problem in caplog.text for problem in problems)
    assert await stamp_of(gateway) == "one"
    assert (await scrape(gateway)).value("hookgate_last_reload_successful") == 0
    await gateway.reload(stamped("two"))
    assert await stamp_of(gateway) == "two"
    assert (await scrape(gateway)).value("hookgate_last_reload_successful") == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[server]\nworkers = 3", "server.workers: changed from 1 to 3, which needs a restart."),
        ("[server]\nreuse_port = true", "server.reuse_port: changed from false to true, which needs a restart."),
        ('[admin]\nhost = "127.0.0.2"', 'admin.host: changed from "127.0.0.1" to "127.0.0.2", which needs a restart.'),
    ],
)
async def test_what_needs_other_sockets_is_refused(gateway: LocalGateway, table: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await gateway.reload(stamped(more=ECHO + table))
    (problem,) = caught.value.problems
    assert problem.endswith(f":8: {message}")


async def test_limits_of_the_listener_are_applied(gateway: LocalGateway) -> None:
    await gateway.reload(
        stamped(more=ECHO + '[server]\nmax_body = 50\nmax_connections_per_peer = 1\nhead_timeout = "9s"')
    )
    assert (await fetch_chat(gateway.url, "echo", "x" * 50)).status == 413
    async with RawClient(gateway.url), RawClient(gateway.url) as second:
        assert await second.wait_closed() == b""


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("raise SystemExit(3)\n", "SystemExit"),
        ("x = 1\n", "has no class Plugin"),
        (STAMP.replace("self.text = settings.text", "raise OSError('gone')"), "gone"),
        (STAMP.replace("def on_reply", "def on_replay"), "there is no hook 'on_replay'"),
        (STAMP.replace("runtime.keep", "1 / 0\n        runtime.keep", 1), "on_startup"),
    ],
    ids=["syntax", "import", "exit", "empty", "constructor", "hook", "startup"],
)  # fmt: skip
async def test_r54_a_plugin_that_breaks_leaves_the_old_set(
    gateway: LocalGateway, stamp: Path, code: str, reason: str
) -> None:
    before = own_modules()
    write(stamp, code)
    status, answer = await post_reload(gateway)
    assert status == 422
    assert reason in str(answer["problems"]) and f"{stamp.parent.parent / 'gateway.toml'}:2: " in str(
        answer["problems"]
    )
    assert await stamp_of(gateway) == "one"
    assert own_modules() == before
    write(stamp, STAMP.replace('CODE = ""', 'CODE = "!"'))
    assert (await post_reload(gateway))[0] == 200
    assert await stamp_of(gateway) == "one!"


def own_modules() -> set[str]:
    return {name for name in sys.modules if name.startswith("hookgate_plugins.")}


async def test_r54_an_import_that_hangs_is_given_up(
    gateway: LocalGateway, stamp: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(finder, "IMPORT_LIMIT", 0.2)
    before = own_modules()
    stop = tmp_path / "stop"
    write(stamp, f"import os, time\nwhile not os.path.exists({str(stop)!r}):\n    time.sleep(0.01)\n" + STAMP)
    status, answer = await post_reload(gateway)
    assert status == 422 and "takes longer than 0.2 s" in str(answer["problems"])
    assert await stamp_of(gateway) == "one"
    assert own_modules() == before
    assert "an earlier import of it still runs" in str((await post_reload(gateway))[1]["problems"])
    stop.touch()
    await until(lambda: not any(thread.is_alive() for thread in finder._hanging.values()))
    assert (await post_reload(gateway))[0] == 200
    assert await stamp_of(gateway) == "one"


async def test_r54_an_on_startup_that_hangs_is_given_up(
    gateway: LocalGateway, stamp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "STARTUP_LIMIT", 0.1)
    slow = "async def on_startup(self, runtime):\n        import asyncio; await asyncio.sleep(60)"
    write(stamp, STAMP.replace("def on_startup(self, runtime):", slow))
    assert "on_startup takes longer" in str((await post_reload(gateway))[1]["problems"])
    assert await stamp_of(gateway) == "one"


async def test_an_old_generation_ends_behind_its_last_exchange(tmp_path: Path, stamp: Path) -> None:
    async with ScriptedUpstream(chat_stream(100, pause=0.02)) as upstream:
        more = f'{UP}base_url = "{upstream.url}/v1"\n'
        async with LocalGateway(tmp_path, stamped("one", more)) as gateway:
            log = gateway.plugin("stamp").log
            async with RawClient(gateway.url) as client:
                await client.chat("up/m", stream=True)
                head = await client.read_head()
                await gateway.reload(stamped("two"))  # the provider in use is gone
                assert await stamp_of(gateway) == "two"
                assert log == ["up one", "up two"]
                events = [event async for event in client.events()]
            assert head.get("x-stamp") == "one"
            assert len(events) == 103 and events[-1] == b"data: [DONE]\n\n"
            await until(lambda: "down one" in log)
            assert await stamp_of(gateway) == "two"
    assert log == ["up one", "up two", "down one", "down two"]


async def test_a_stop_ends_all_generations(tmp_path: Path, stamp: Path) -> None:
    async with ScriptedUpstream(chat_stream(100, after=3, ending="stall")) as upstream:
        more = f'[server]\nshutdown_grace = "100ms"\n{UP}base_url = "{upstream.url}/v1"\n'
        async with LocalGateway(tmp_path, stamped("one", more)) as gateway, RawClient(gateway.url) as client:
            log = gateway.plugin("stamp").log
            await client.chat("up/m", stream=True)
            await client.read_head()
            await gateway.reload(stamped("two", more))
        assert log == ["up one", "up two", "down one", "down two"]


async def test_a_stop_waits_for_a_generation_that_is_just_ending(tmp_path: Path, stamp: Path) -> None:
    slow = STAMP.replace('self.log.append("down', 'import asyncio; await asyncio.sleep(0.3); self.log.append("down')
    write(stamp, slow)
    async with LocalGateway(tmp_path, stamped("one")) as gateway:
        log = gateway.plugin("stamp").log
        await gateway.reload(stamped("two"))
        await asyncio.sleep(0.1)
    assert log == ["up one", "up two", "down one", "down two"]


async def test_warm_connections_survive_unless_the_pool_changes(tmp_path: Path, stamp: Path) -> None:
    async with ScriptedUpstream(as_asked()) as upstream:
        more = f'{UP}base_url = "{upstream.url}/v1"\n'
        async with LocalGateway(tmp_path, stamped("one", more)) as gateway:
            for text in ("one", "two", "three"):
                await gateway.reload(stamped(text, more))
                assert (await fetch_chat(gateway.url, "up/m")).status == 200
            assert len(upstream.connections) == 1
            session = gateway._server.generation.upstream.session
            await gateway.reload(stamped("four", more + "[pool]\nmax_per_host = 7\n"))
            assert (await fetch_chat(gateway.url, "up/m")).status == 200
            assert len(upstream.connections) == 2
            await until(lambda: session.closed)


async def test_the_link_to_redis_is_one_and_survives_unless_its_settings_change(
    tmp_path: Path, stamp: Path, redis: Redis
) -> None:
    state = f'[state]\nredis = "{redis.url}"\n'
    async with LocalGateway(tmp_path, stamped(more=state + ECHO)) as gateway:
        links = [gateway._plugins.runtime.redis]
        assert all(loaded.runtime.redis is links[0] for loaded in gateway._plugins.loaded)
        assert (await scrape(gateway)).value("hookgate_redis_up") == 1
        for text in (state + "ledger = ''\n" + ECHO, state + 'redis_prefix = "other"\n' + ECHO, ECHO):
            await gateway.reload(stamped(more=text))
            links.append(gateway._plugins.runtime.redis)
        first, kept, other, none = links
        assert first is kept is not other and none is None
        assert first is not None and other is not None
        await until(lambda: not (first.up or other.up))  # closed with the last generation that used it
        with pytest.raises(ConfigError):
            await gateway.reload(stamped(more=state + UP + 'base_url = "nowhere"\n'))
    assert redis.ask("INFO", "clients").split()[2] == b"connected_clients:1"  # the one that asks


async def test_a_gateway_starts_without_its_redis(
    tmp_path: Path, stamp: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (port,) = free_ports(1)
    state = f'[state]\nredis = "redis://127.0.0.1:{port}"\n'
    async with LocalGateway(tmp_path, stamped(more=state + ECHO)) as gateway:
        assert (await fetch_chat(gateway.url, "echo")).status == 200
        assert (await scrape(gateway)).value("hookgate_redis_up") == 0
    assert caplog.text.count("Redis is not reachable") == 1


async def test_what_is_known_of_the_keys_survives_unless_their_place_changes(tmp_path: Path) -> None:
    state = "[state]\nkeys = true\n"
    async with stored(f"sqlite:///{tmp_path}/gateway.db") as store:
        key, _ = await store.keys.create("alice", {})
    async with LocalGateway(tmp_path, state + ECHO) as gateway:
        rings = [gateway._plugins.runtime.keys]
        assert (await scrape(gateway)).value("hookgate_keys") == 1
        inline = f'[keys.alice]\nsha256 = "{"a" * 64}"\n'
        for text, status in (
            (state + ECHO + inline, 401), (state + 'redis_timeout = "1s"\n' + ECHO, 200),
            (state + 'ledger = "sqlite:///other.db"\n' + ECHO, 401),
        ):  # fmt: skip
            await gateway.reload(text)
            rings.append(gateway._plugins.runtime.keys)
            assert (await fetch_chat(gateway.url, "echo", key=key)).status == status
        first, second, third, other = rings
        assert first is second is third is not other
        assert first is not None and first._task is not None
        with pytest.raises(ConfigError):
            await gateway.reload(state + UP + 'base_url = "nowhere"\n')
        with pytest.raises(ConfigError, match=r"\[state\] ledger: expected"):
            await gateway.reload(state + 'ledger = "mysql://h/d"\n' + ECHO)
        await until(first._task.done)  # closed with the last generation that used it
        await gateway.reload(ECHO)
        assert gateway._plugins.runtime.keys is None
        assert (await fetch_chat(gateway.url, "echo")).status == 200


async def test_r48_a_gateway_starts_without_its_database_of_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (port,) = free_ports(1)
    state = f'[state]\nkeys = true\nledger = "postgresql://127.0.0.1:{port}/usage"\n'
    async with LocalGateway(tmp_path, state + ECHO) as gateway:
        answer = await fetch_chat(gateway.url, "echo", key="hg-somebody")
        assert (answer.status, answer.header("retry-after")) == (503, "2")
        assert (await fetch_chat(gateway.url, "echo")).status == 401
    assert caplog.text.count("the keys in the database cannot be read") == 1


async def test_plugin_routes_follow(gateway: LocalGateway, stamp: Path) -> None:
    route = """
    @hookimpl
    def routes(self):
        from aiohttp import web
        async def answer(request):
            return web.Response(text="here")
        return [web.get("/there", answer)]

CODE = ""
"""
    assert (await fetch(f"{gateway.url}/there")).status == 404
    write(stamp, STAMP.replace('CODE = ""\n', route))
    await gateway.reload()
    assert (await fetch(f"{gateway.url}/there")).body == b"here"
    write(stamp, STAMP)
    await gateway.reload()
    assert (await fetch(f"{gateway.url}/there")).status == 404


async def test_routes_that_cannot_be_served_are_a_problem(gateway: LocalGateway, stamp: Path) -> None:
    bad = "    @hookimpl\n    def routes(self):\n        raise KeyError('x')\n\nCODE"
    write(stamp, STAMP.replace("CODE =", bad + " ="))
    assert "routes cannot be served" in str((await post_reload(gateway))[1]["problems"])
    assert await stamp_of(gateway) == "one"


async def test_counters_never_fall(gateway: LocalGateway) -> None:
    for _ in range(3):
        await fetch_chat(gateway.url, "echo")
    before = await scrape(gateway)
    await gateway.reload(stamped("two"))
    after = await scrape(gateway)
    for name in ("hookgate_requests_total", "hookgate_request_duration_seconds_count"):
        assert after.value(name, surface="chat") == before.value(name, surface="chat") == 3
    hooks = {"plugin": "stamp", "hook": "on_reply"}
    assert after.value("hookgate_hook_duration_seconds_count", **hooks) == 3
    assert after.value("hookgate_generation") == 2


async def test_a_limit_is_not_reset_and_follows_the_configuration(gateway: LocalGateway) -> None:
    def limited(requests: int) -> str:
        return stamped(more=f"[plugins.rate_limit]\nrequests_per_minute = {requests}\n{ECHO}")

    async def left() -> str | None:
        return (await fetch_chat(gateway.url, "echo")).header("x-ratelimit-remaining-requests")

    await gateway.reload(limited(5))
    assert [await left() for _ in range(4)] == ["4", "3", "2", "1"]
    await gateway.reload(limited(5))
    assert [await left() for _ in range(2)] == ["0", "0"]
    assert (await fetch_chat(gateway.url, "echo")).status == 429
    await gateway.reload(limited(8))
    assert [await left() for _ in range(3)] == ["2", "1", "0"]
    await gateway.reload(limited(2))
    assert (await fetch_chat(gateway.url, "echo")).status == 429


async def test_cached_answers_are_kept_while_their_provider_is_the_same(tmp_path: Path, stamp: Path) -> None:
    async with ScriptedUpstream(as_asked()) as upstream, ScriptedUpstream(as_asked()) as other:

        def with_provider(text: str, url: str) -> str:
            return stamped(text, f'{UP}base_url = "{url}/v1"\n')

        async with LocalGateway(tmp_path, with_provider("one", upstream.url)) as gateway:

            async def state() -> str | None:
                return (await fetch_chat(gateway.url, "up/m", temperature=0)).header("x-gateway-cache")

            assert [await state(), await state()] == ["miss", "hit"]
            await gateway.reload(with_provider("two", upstream.url))
            assert await state() == "hit"
            await gateway.reload(with_provider("two", other.url))
            assert await state() == "miss"


async def test_nothing_is_registered_twice(gateway: LocalGateway, stamp: Path) -> None:
    modules = len(own_modules())
    filters = {name: len(logging.getLogger(name).filters) for name in ("aiohttp.server", "asyncio")}
    for number in range(5):
        write(stamp, STAMP.replace('CODE = ""', f'CODE = "{number}"'))
        await gateway.reload(stamped(str(number)).replace('"cache"', '"logging"'))
        assert await stamp_of(gateway) == f"{number}{number}"
    await until(lambda: len(own_modules()) == modules)
    assert all(len(logging.getLogger(name).filters) <= max(1, count) for name, count in filters.items())


async def test_reloads_at_once_come_one_after_another(gateway: LocalGateway, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(stamped("two"))
    answers = await asyncio.gather(*(post_reload(gateway) for _ in range(5)))
    assert [status for status, _ in answers] == [200] * 5
    assert (await scrape(gateway)).value("hookgate_generation") == 6


async def test_a_web_page_cannot_reload(gateway: LocalGateway) -> None:
    reply = await fetch(f"{gateway.admin_url}/reload", "POST", [("Origin", "http://evil.example")])
    assert reply.status == 403
    assert (await fetch(f"{gateway.url}/reload", "POST")).status == 404
    assert (await scrape(gateway)).value("hookgate_generation") == 1
