"""Where the gateway listens, and that leaving a shared port loses nobody who had come."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from gateway import listening
from gateway.config import Server
from gateway.testing import GatewayFactory, GatewayProcess, fetch

ECHO = '[providers.echo]\ntype = "echo"\n'


async def said(gateway: GatewayProcess, text: str) -> None:
    async with asyncio.timeout(10):
        while True:
            if text in gateway.stderr:
                return
            await asyncio.sleep(0.02)


async def over_unix(path: Path, target: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.fixture
def on_socket(tmp_path: Path) -> Iterator[tuple[GatewayProcess, Path]]:
    path = tmp_path / "gateway.sock"
    gateway = GatewayProcess(tmp_path, f'[server]\nhost = "unix:{path}"\n{ECHO}')
    gateway.launch()
    yield gateway, path
    gateway.end()


async def test_it_listens_on_a_unix_socket(on_socket: tuple[GatewayProcess, Path]) -> None:
    gateway, path = on_socket
    await said(gateway, f"listens on unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert b" 200 OK\r\n" in await over_unix(path, "/health/ready")
    assert b'"id":"echo"' in await over_unix(path, "/v1/models")


async def test_a_port_is_not_shared_unasked(gateway_server: GatewayFactory, tmp_path: Path) -> None:
    first = gateway_server(ECHO)
    second = GatewayProcess(tmp_path, ECHO)
    second.port = first.port
    second.launch()
    assert await asyncio.to_thread(second.process.wait, 10) == 1
    assert "address already in use" in second.stderr


async def test_both_ports_can_be_shared_with_a_successor(gateway_server: GatewayFactory, tmp_path: Path) -> None:
    config = f"[server]\nreuse_port = true\n{ECHO}"
    first = gateway_server(config)
    second = GatewayProcess(tmp_path, config, env={"GATEWAY__ADMIN__PORT": str(first.admin_port)})
    second.port = first.port
    second.launch()
    try:
        await said(second, "[server] listens")
        await first.stop(signal.SIGTERM)
        assert (await fetch(f"{first.url}/health/ready")).status == 200
        assert (await fetch(f"{first.admin_url}/metrics")).status == 200
    finally:
        second.end()


async def test_r52_who_waits_to_be_accepted_is_served_before_a_shared_port_is_left() -> None:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    application = web.Application()
    application.router.add_get("/", hello)
    runner = web.AppRunner(application)
    await runner.setup()
    settings = Server(host="127.0.0.1", port=0, reuse_port=True)
    host, port = await listening.listen(runner, settings)
    with contextlib.ExitStack() as stack:
        # Connected while this event loop is busy here, so not accepted yet.
        early = [stack.enter_context(socket.create_connection((host, port))) for _ in range(50)]
        for each in early:
            each.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await listening.leave(runner, settings)
        await asyncio.sleep(0.05)
        assert all(each.recv(4096).startswith(b"HTTP/1.1 200 OK") for each in early)
    await runner.cleanup()


async def test_r52_who_comes_while_a_shared_port_is_left_is_the_successors() -> None:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    settings = Server(host="127.0.0.1", port=0, reuse_port=True)
    _, port = await listening.listen(runner, settings)
    leaving = asyncio.get_running_loop().create_task(listening.leave(runner, settings))
    await asyncio.sleep(0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"successor")
        writer.close()
        await writer.wait_closed()

    successor = await asyncio.start_server(answer, "127.0.0.1", port, reuse_port=True)

    async def come() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        said = await reader.read()
        writer.close()
        await writer.wait_closed()
        return said

    async with asyncio.timeout(10):
        assert await asyncio.gather(*(come() for _ in range(30))) == [b"successor"] * 30
    await leaving
    successor.close()
    await successor.wait_closed()
    await runner.cleanup()
