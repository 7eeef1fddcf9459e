"""Start, stop, and which listener answers which path."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import pytest

from gateway.testing import (
    GatewayFactory,
    GatewayProcess,
    RawClient,
    ScriptedUpstream,
    Truncated,
    as_asked,
    chat,
    chat_stream,
    delayed,
    fetch,
    fetch_chat,
    silent,
)

CONFIG = """
[server]
shutdown_grace = "$grace"
[providers.echo]
type = "echo"
[providers.up]
type = "openai_compat"
base_url = "$upstream/v1"
[models.m]
targets = [{ provider = "up" }]
"""


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(as_asked()) as scripted:
        yield scripted


async def ended(gateway: GatewayProcess, within: float) -> int:
    """The exit status; raises ``TimeoutExpired``."""
    return await asyncio.to_thread(gateway.process.wait, within)


async def ask(client: RawClient, target: str) -> tuple[int, str | None]:
    await client.request("GET", target)
    reply = await client.read()
    return reply.status, reply.header("connection")


async def test_a_stop_lets_running_streams_finish(gateway_server: GatewayFactory, upstream: ScriptedUpstream) -> None:
    upstream.script = chat_stream(20, pause=0.05)
    gateway = gateway_server(CONFIG, grace="30s", upstream=upstream.url)
    async with RawClient(gateway.url) as client, RawClient(gateway.url) as kept:
        assert (await ask(kept, "/health/ready"))[0] == 200
        await client.chat("m", stream=True)
        await client.read_head()
        gateway.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        assert (await ask(kept, "/health/ready"))[0] == 503
        with pytest.raises(ConnectionRefusedError):
            await fetch(f"{gateway.url}/health/ready")
        events = [event async for event in client.events()]
    assert len(events) == 23 and events[-1] == b"data: [DONE]\n\n"
    assert await ended(gateway, 3) == 0


async def test_r52_readiness_fails_before_the_listener_closes(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream
) -> None:
    gateway = gateway_server(
        CONFIG.replace("[server]", '[server]\ndrain_delay = "1s"'), grace="30s", upstream=upstream.url
    )
    async with RawClient(gateway.url) as kept:
        assert (await ask(kept, "/health/ready"))[0] == 200
        began = monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert (await fetch(f"{gateway.url}/health/ready")).status == 503
        assert (await fetch(f"{gateway.url}/health/live")).status == 200
        reply = await fetch_chat(gateway.url, "m")
        assert (reply.status, reply.header("connection")) == (200, "close")
        await kept.chat("m")
        reply = await kept.read()  # it came on a connection from before, and is served
        assert (reply.status, reply.header("connection")) == (200, "close")
        assert await ended(gateway, 5) == 0
    assert monotonic() - began > 1.0


async def test_a_second_signal_ends_the_delay(gateway_server: GatewayFactory, upstream: ScriptedUpstream) -> None:
    gateway = gateway_server(
        CONFIG.replace("[server]", '[server]\ndrain_delay = "1m"'), grace="30s", upstream=upstream.url
    )
    gateway.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.3)
    gateway.process.send_signal(signal.SIGTERM)
    assert await ended(gateway, 3) == 0


async def test_r52_a_kept_connection_may_still_be_used_right_after_a_stop_began(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream
) -> None:
    gateway = gateway_server(CONFIG, grace="30s", upstream=upstream.url)
    async with RawClient(gateway.url) as kept:
        assert (await ask(kept, "/health/ready"))[0] == 200
        await asyncio.sleep(0.6)  # idle for long when the stop begins: that is no reason to close it at once
        gateway.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        await kept.chat("m")
        assert (await kept.read()).status == 200
    assert await ended(gateway, 5) == 0


async def test_sighup_reloads(gateway_server: GatewayFactory, upstream: ScriptedUpstream) -> None:
    gateway = gateway_server(CONFIG, grace="30s", upstream=upstream.url)
    good = gateway.config_path.read_text()
    gateway.config_path.write_text(good + "[nonsense]\n")
    gateway.process.send_signal(signal.SIGHUP)
    await said(gateway, f"ERROR hookgate: {gateway.config_path}:{good.count(chr(10)) + 1}: nonsense: unknown key.")
    await said(gateway, "not reloaded: generation 1 goes on")
    gateway.config_path.write_text(good.replace("[server]", "[server]\nmax_body = 10"))
    gateway.process.send_signal(signal.SIGHUP)
    await said(gateway, "reloaded: generation 2 serves")
    assert (await fetch_chat(gateway.url, "m")).status == 413


async def said(gateway: GatewayProcess, text: str) -> None:
    async with asyncio.timeout(5):
        while True:
            if text in gateway.stderr:
                return
            await asyncio.sleep(0.02)


async def test_r61_a_reload_reads_secrets_anew(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    secret = tmp_path / "key"
    secret.touch(mode=0o600)
    secret.write_text("first")
    config = CONFIG.replace("[models.m]", f'api_key = "file:{secret}"\n[models.m]')
    gateway = gateway_server(config, grace="30s", upstream=upstream.url)

    async def sent() -> str | None:
        assert (await fetch_chat(gateway.url, "m")).status == 200
        return upstream.calls[-1].header("authorization")

    assert await sent() == "Bearer first"
    secret.write_text("second")
    assert (await fetch(f"{gateway.admin_url}/reload", "POST")).status == 200
    assert await sent() == "Bearer second"
    secret.chmod(0o644)
    reply = await fetch(f"{gateway.admin_url}/reload", "POST")
    assert reply.status == 422 and b"chmod 600" in reply.body and b"second" not in reply.body
    assert await sent() == "Bearer second"


async def test_a_stop_gives_streams_their_error_when_the_grace_is_over(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream
) -> None:
    upstream.script = chat_stream(20, after=3, ending="stall")
    gateway = gateway_server(CONFIG, grace="300ms", upstream=upstream.url)
    async with RawClient(gateway.url) as client:
        await client.chat("m", stream=True)
        await client.read_head()
        gateway.process.send_signal(signal.SIGTERM)
        events: list[bytes] = []
        with pytest.raises(Truncated):
            async for event in client.events():
                events.append(event)
    assert len(events) == 4
    assert b"The gateway is stopping" in events[-1] and b"[DONE]" not in b"".join(events)
    assert await ended(gateway, 3) == 0
    await upstream.wait_aborted()


async def test_a_stop_answers_those_who_wait_with_503(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream
) -> None:
    upstream.script = silent
    gateway = gateway_server(CONFIG, grace="300ms", upstream=upstream.url)
    async with RawClient(gateway.url) as client:
        await client.chat("m")
        await upstream.wait_calls()
        gateway.process.send_signal(signal.SIGTERM)
        reply = await client.read()
    assert (reply.status, reply.json["error"]["code"]) == (503, "overloaded")
    assert (reply.header("retry-after"), reply.header("connection")) == ("1", "close")
    assert await ended(gateway, 3) == 0


async def test_a_whole_answer_still_comes_within_the_grace(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream
) -> None:
    upstream.script = delayed(0.6, chat("late"))
    gateway = gateway_server(CONFIG, grace="30s", upstream=upstream.url)
    async with RawClient(gateway.url) as client:
        await client.chat("m")
        await upstream.wait_calls()
        gateway.process.send_signal(signal.SIGTERM)
        reply = await client.read()
    assert reply.status == 200 and reply.json["choices"][0]["message"]["content"] == "late"
    assert reply.header("connection") == "close"
    assert await ended(gateway, 3) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_grace(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream, number: signal.Signals
) -> None:
    upstream.script = silent
    gateway = gateway_server(CONFIG, grace="30s", upstream=upstream.url)
    async with RawClient(gateway.url) as client:
        await client.chat("m")
        await upstream.wait_calls()
        gateway.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert gateway.process.poll() is None
        gateway.process.send_signal(number)
        assert (await client.read()).status == 503
    assert await ended(gateway, 2) == 0


async def test_idle_connections_do_not_hold_a_stop_up(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream
) -> None:
    gateway = gateway_server(CONFIG, grace="30s", upstream=upstream.url)
    async with (
        RawClient(gateway.url) as silent_one,
        RawClient(gateway.url) as kept,
        RawClient(gateway.admin_url) as admin,
    ):
        assert (await ask(kept, "/v1/models"))[0] == 200
        assert (await ask(admin, "/metrics"))[0] == 200
        began = monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        assert await ended(gateway, 5) == 0
        assert monotonic() - began < 2.0
        assert await silent_one.wait_closed() == b""


@pytest.mark.parametrize("listener", ["public", "admin"])
async def test_a_taken_port_is_said_in_a_line(tmp_path: Path, listener: str) -> None:
    gateway = GatewayProcess(tmp_path, '[providers.echo]\ntype = "echo"\n')
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", gateway.port if listener == "public" else gateway.admin_port))
        taken.listen()
        gateway.launch()
        try:
            assert await ended(gateway, 10) == 1
        finally:
            gateway.kill()
    assert "address already in use" in gateway.stderr
    assert "Traceback" not in gateway.stderr and "Unclosed" not in gateway.stderr


@pytest.fixture(scope="module")
def running(shared_gateway_server: GatewayFactory) -> GatewayProcess:
    return shared_gateway_server('[providers.echo]\ntype = "echo"\n')


async def test_r18_metrics_are_on_the_admin_listener_alone(running: GatewayProcess) -> None:
    assert b"# HELP" in (await fetch(f"{running.admin_url}/metrics")).body
    assert (await fetch(f"{running.url}/metrics")).status == 404


@pytest.mark.parametrize(
    "target", ["/", "/health", "/health/live", "/v1/models", "/v1/chat/completions", "/p/echo/models"]
)
async def test_r18_the_admin_listener_knows_no_route_of_clients(running: GatewayProcess, target: str) -> None:
    assert (await fetch(running.admin_url + target)).status == 404


async def test_the_admin_listener_can_be_left_out(gateway_server: GatewayFactory) -> None:
    gateway = gateway_server('[admin]\nenabled = false\n[providers.echo]\ntype = "echo"\n')
    with pytest.raises(ConnectionRefusedError):
        await fetch(f"{gateway.admin_url}/metrics")
    assert (await fetch_chat(gateway.url, "echo")).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("target", ["/", "/health/live", "/health/ready"])
async def test_probes_are_answered(running: GatewayProcess, method: str, target: str) -> None:
    async with RawClient(running.url) as client:
        await client.request(method, target, {"Connection": "close"})
        head = await client.read_head()
        body = await client.wait_closed()
    assert head.start == "HTTP/1.1 200 OK"
    assert head.get("content-type") == "text/plain; charset=utf-8"
    assert (body != b"") == (method == "GET")


@pytest.mark.parametrize("target", ["/v1/responses", "/v1/realtime", "/nowhere"])
async def test_a_websocket_is_refused_with_426(running: GatewayProcess, target: str) -> None:
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "eA==",
    }
    async with RawClient(running.url) as client:
        await client.request("GET", target, headers)
        reply = await client.read()
    assert (reply.status, reply.json["error"]["code"]) == (426, "upgrade_required")


async def test_a_path_can_name_its_provider(gateway_server: GatewayFactory, upstream: ScriptedUpstream) -> None:
    gateway = gateway_server(CONFIG, grace="1s", upstream=upstream.url)
    upstream.script = chat("here")
    reply = await fetch(f"{gateway.url}/p/up/some/thing%2Felse?a=b%20c", "POST", {"Content-Type": "text/plain"}, b"hi")
    assert reply.status == 200
    (call,) = upstream.calls
    assert (call.method, call.target, bytes(call.body)) == ("POST", "/v1/some/thing%2Felse?a=b%20c", b"hi")
    assert (await fetch(f"{gateway.url}/p/nobody/some")).status == 404
    assert len(upstream.calls) == 1
