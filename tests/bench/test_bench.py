"""The benchmark measures what it says; no figure is asserted, only that there is one."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bench import messages, report, servers
from bench.load import Load
from bench.process import Process, StartFailed
from bench.report import Row
from bench.scenarios import PASSING, Bar
from bench.servers import Server
from bench.upstream import Upstream

EVENTS = 3


@pytest_asyncio.fixture
async def port() -> AsyncIterator[int]:
    """Of a mock upstream in this loop."""
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(EVENTS, 0.0), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def answer(port: int, *pieces: bytes) -> bytes:
    """What the upstream says to a request that arrives in these pieces, until a pause."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0.01)
    received = b""
    while not received or not _complete(received):
        part = await asyncio.wait_for(reader.read(65536), 5)
        if not part:
            break
        received += part
    writer.close()
    await writer.wait_closed()
    return received


def _complete(received: bytes) -> bool:
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    return len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")


async def test_upstream_answers_a_request_cut_anywhere(port: int) -> None:
    request = messages.http_request(messages.chat_request(), "bench")
    for cut in (5, request.index(b"\r\n\r\n") + 2, request.index(b"\r\n\r\n") + 4, len(request) - 1):
        received = await answer(port, request[:cut], request[cut:])
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert received.endswith(b"\r\n\r\n" + messages.chat_reply())


@pytest.mark.parametrize("usage", [False, True])
async def test_upstream_reports_usage_only_when_asked(port: int, usage: bool) -> None:
    body = messages.chat_request(stream=True, include_usage=usage)
    received = await answer(port, messages.http_request(body, "bench"))
    assert (b'"usage"' in received) is usage
    assert received.count(b"data: ") == len(messages.stream_events(EVENTS, usage))


async def test_upstream_counts_a_large_body_and_lists_models(port: int) -> None:
    body = messages.chat_request(image_bytes=1_000_000)
    received = await answer(port, messages.http_request(body, "bench"))
    assert json.loads(received.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"] == f"{len(body)} bytes"
    received = await answer(port, b"GET /v1/models HTTP/1.1\r\n\r\n")
    assert json.loads(received.partition(b"\r\n\r\n")[2])["data"][0]["id"] == messages.MODEL


async def test_upstream_refuses_what_it_cannot_measure(port: int) -> None:
    received = await answer(port, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 411 ")


@pytest.mark.parametrize("stream", [False, True])
async def test_load_repeats_a_request_and_counts_whole_answers(port: int, stream: bool) -> None:
    request = messages.http_request(messages.chat_request(stream=stream), "bench")
    expected = messages.stream_body(EVENTS, usage=False) if stream else messages.chat_reply()
    load = Load(port, request, expected, connections=2)
    await load.open()
    await load.go_on(5.0, requests=10)
    await load.drain(5.0)
    assert load.counts.requests >= 10
    assert load.counts.body_bytes == load.counts.requests * len(expected)
    assert not load.busy
    assert load.counts.errors == 0


async def test_load_takes_another_body_for_an_error(port: int) -> None:
    request = messages.http_request(messages.chat_request(), "bench")
    load = Load(port, request, messages.chat_reply() + b" ", connections=2)
    await load.open()
    await load.go_on(5.0)
    load.close()
    assert (load.counts.requests, load.counts.errors) == (0, 2)
    assert "HTTP/1.1 200" in load.counts.first_error


def test_a_ratio_is_taken_round_by_round_and_held_against_the_bar() -> None:
    bar = Bar("ratio", limit=1.0, goal=0.65)
    ours = Row("whole", "gateway", "µs/request", values=[90.0, 110.0, 200.0], bar=bar)
    textbook = Row("whole", "textbook", "µs/request", values=[100.0, 100.0, 250.0])
    ours.compare([ours, textbook])
    assert ours.compared == {"textbook": [0.9, 1.1, 0.8]}
    assert ours.passed() is True
    assert "0.90 x (0.80 … 1.10)" in report.table([ours, textbook])
    ours.errors = 1
    assert ours.passed() is False


def test_a_difference_and_a_value_are_held_against_their_bars() -> None:
    image = Row("image", "gateway", "µs/request", values=[30_000.0], bar=Bar("difference", limit=15_000, goal=5_000))
    image.compare([Row("image", "textbook", "µs/request", values=[10_000.0])])
    assert image.passed() is False
    assert Row("start", "gateway", "s", values=[0.9], bar=Bar("value", limit=1.0, goal=0.5)).passed() is True
    assert Row("start", "textbook", "s", values=[9.0]).passed() is None


def test_a_load_may_be_held_against_another_on_the_same_gateway() -> None:
    ours = Row("translate", "gateway", "µs/request", values=[130.0], bar=Bar("ratio", 1.4, 1.2, PASSING))
    passing = Row("translate", PASSING, "µs/request", values=[100.0])
    ours.compare([ours, passing])
    assert ours.passed() is True and "1.30 x" in report.table([ours, passing])


def test_a_translated_load_runs_beside_the_one_that_passes(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "bench", "--scenario", "translate", "translate-stream", f"--json={result}"]
    limits = ["--rounds=2", "--seconds=0.3", "--requests=10", "--connections=2"]
    run = subprocess.run(command + limits, cwd=servers.TREE, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    rows = json.loads(result.read_text())["rows"]
    # Every answer was what a client of Messages must be given, byte for byte.
    assert [(row["scenario"], row["server"], row["errors"], row["note"]) for row in rows] == [
        (scenario, server, 0, "") for scenario in ("translate", "translate-stream") for server in ("gateway", PASSING)
    ]


async def test_a_server_that_does_not_start_is_reported_with_its_output(port: int, tmp_path: Path) -> None:
    broken = Server("gateway", servers.gateway(servers.TREE, f"{sys.executable} -c 'raise SystemExit(\"no luck\")'"))
    with pytest.raises(StartFailed, match="no luck"):
        await servers.start(broken, 0, tmp_path, port)


def test_a_process_uses_cpu_time_and_memory_and_ends(tmp_path: Path) -> None:
    busy = Process([sys.executable, "-c", "while True: pass"], core=0, path=tmp_path, log=tmp_path / "log")
    try:
        before = busy.cpu_seconds()
        for _ in range(500):
            if busy.cpu_seconds() > before:
                break
        else:
            pytest.fail("a busy process used no time")
        assert busy.rss_bytes() > 100_000
    finally:
        busy.stop()
    with pytest.raises(StartFailed, match="ended with status -15"):
        busy.check()


def test_one_command_gives_a_table_and_json(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "bench", "--servers", "textbook", "--scenario", "whole", "stream-burst", "memory"]
    limits = ["--rounds=2", "--seconds=0.1", "--requests=20", "--connections=2", "--streams=5", f"--json={result}"]
    run = subprocess.run(command + limits, cwd=servers.TREE, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    rows = json.loads(result.read_text())["rows"]
    assert [(row["scenario"], row["server"], row["errors"], row["note"]) for row in rows] == [
        ("whole", "textbook", 0, ""),
        ("stream-burst", "textbook", 0, ""),
        ("memory", "textbook", 0, ""),
        ("memory-streams", "textbook", 0, ""),
    ]
    assert all(row["median"] >= 0 for row in rows)
    assert [len(row["values"]) for row in rows] == [2, 2, 1, 1]
    assert re.search(r"^whole +textbook +[\d.,]+ µs/request ", run.stdout, re.MULTILINE)
