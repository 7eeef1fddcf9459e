"""The servers that are compared, and how each is started in front of the mock upstream."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shlex
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep

import attrs

from bench import messages
from bench.load import Load
from bench.process import Process
from gateway.testing import free_ports

TREE = Path(__file__).resolve().parent.parent
START_LIMIT = 20.0
"""Seconds a server may take to give its first answer."""

Command = Callable[[int, int, Path], list[str]]
"""(port, upstream's port, folder for files) → command line."""


@attrs.frozen
class Server:
    """One server to compare."""

    name: str
    command: Command
    path: Path = TREE
    """Checkout its modules are imported from."""
    gateway: bool = False
    rules: Callable[[str], Command] | None = None
    """Its command with further lines of ``gateway.toml``."""
    relays: bool = True
    """It passes on what the upstream answers, so that streams and the cache mean something."""


def textbook(port: int, upstream: int, folder: Path) -> list[str]:
    return [sys.executable, "-m", "bench.textbook", f"--port={port}", f"--upstream=http://127.0.0.1:{upstream}"]


def raw(port: int, upstream: int, folder: Path) -> list[str]:
    return [sys.executable, "-m", "bench.fixed", f"--port={port}"]


def gateway(tree: Path, command: str = "", chain: Sequence[str] | None = None, rules: str | None = None) -> Command:
    """The gateway of a checkout, or another command whose ``{port}``, ``{upstream}``, ``{config}`` are filled in."""

    def build(port: int, upstream: int, folder: Path) -> list[str]:
        config = folder / "gateway.toml"
        config.touch(mode=0o600)  # the gateway refuses a configuration that others may read
        config.write_text(configuration(port, upstream, tree, chain, rules))
        if command:
            return shlex.split(command.format(port=port, upstream=upstream, config=config))
        return [sys.executable, "-m", "gateway", "serve", "--config", str(config)]

    return build


def governed(redis: str = "") -> str:
    """Lines of a gateway.toml by which all is counted, in Redis or in memory, and written to the ledger."""
    state = f'[state]\nredis = "{redis}"\n' if redis else ""
    return f"""\
tokens_per_minute = 1_000_000_000_000
budget = {{ usd = 1_000_000, per = "month" }}
{state}
[prices.models."*"]
input = 2.5
output = 10
"""


def configuration(
    port: int, upstream: int, tree: Path, chain: Sequence[str] | None = None, rules: str | None = None
) -> str:
    """A gateway.toml with this chain (the default one), one virtual key and the mock upstream as its only provider.

    With ``rules`` (``governed``), lines that begin in the key's table, the ledger is in the chain."""
    if rules is not None:
        chain = [*(chain or ("request_id", "logging", "metrics", "auth", "rate_limit", "cache")), "ledger"]
    plugins = "" if chain is None else f"chain = {json.dumps(list(chain))}\n"
    digest = hashlib.sha256(messages.KEY.encode()).hexdigest()
    return f"""\
default_provider = "mock"

[server]
host = "127.0.0.1"
port = {port}

[admin]
host = "127.0.0.1"
port = {free_ports(1)[0]}

[plugins]
folders = ["{tree / "plugins"}"]
{plugins}
[keys.bench]
sha256 = "{digest}"
requests_per_minute = 1_000_000_000
max_concurrency = 1_000_000
{rules or ""}
[pool]
max_connections = 10_000

[providers.mock]
type = "openai_compat"
base_url = "http://127.0.0.1:{upstream}/v1"

[models."{messages.MODEL}"]
targets = [{{ provider = "mock" }}]
"""


@contextmanager
def redis(core: int, folder: Path) -> Iterator[str]:
    """A Redis of its own, and its URL. Raises ``FileNotFoundError`` where it is not installed."""
    (port,) = free_ports(1)
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = Process(command, core=core, path=TREE, log=folder / "redis.log")
    try:
        deadline = perf_counter() + START_LIMIT
        while perf_counter() < deadline:
            process.check()
            try:
                socket.create_connection(("127.0.0.1", port), 0.1).close()
                break
            except OSError:
                sleep(0.01)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.stop()


async def start_upstream(core: int, folder: Path, interval: float, events: int) -> tuple[Process, int]:
    """The mock upstream and its port."""
    command = [sys.executable, "-m", "bench.upstream", f"--interval={interval}", f"--events={events}"]
    process = Process(command, core=core, path=TREE, log=folder / "upstream.log")
    deadline = perf_counter() + START_LIMIT
    while not (port := process.output().strip()).isdigit():
        process.check()
        if perf_counter() > deadline:
            process.stop()
            raise process.failed("did not print its port")
        await asyncio.sleep(0.01)
    return process, int(port)


async def start(server: Server, core: int, parent: Path, upstream: int) -> tuple[Process, int, float]:
    """The server's process, its port, and the seconds from the command to its first answer.

    It gets an empty folder of its own below ``parent``, so that nothing a previous one stored answers for it.
    """
    (port,) = free_ports(1)
    folder = Path(tempfile.mkdtemp(prefix=f"{server.name}-", dir=parent))
    command = server.command(port, upstream, folder)
    began = perf_counter()
    process = Process(command, core=core, path=server.path, log=folder / "output.log")
    try:
        await _first_answer(process, port, began + START_LIMIT)
    except BaseException:
        process.stop()
        raise
    return process, port, perf_counter() - began


async def _first_answer(process: Process, port: int, deadline: float) -> None:
    request = messages.http_request(messages.chat_request(), f"127.0.0.1:{port}")
    while perf_counter() < deadline:
        process.check()
        load = Load(port, request, messages.chat_reply(), connections=1)
        try:
            await load.open()
        except ConnectionRefusedError:
            await asyncio.sleep(0.005)
            continue
        await load.go_on(deadline - perf_counter(), requests=1)
        await load.drain(1.0)
        if load.counts.requests:
            return
        raise process.failed(f"gave a wrong first answer: {load.counts.first_error}")
    raise process.failed("did not answer in time")
