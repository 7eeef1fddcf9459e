"""One line per exchange, nothing in it that a client can forge or that must stay secret, and no sink that delays."""

from __future__ import annotations

import asyncio
import errno
import json
import logging as standard_logging
import os
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import Principal, Target, Usage
from gateway.errors import PluginError, Unauthenticated, UpstreamRefused
from gateway.testing import (
    GatewayFactory,
    GatewayProcess,
    RawClient,
    ScriptedUpstream,
    Truncated,
    chat,
    chat_stream,
    error,
    fetch,
    fetch_chat,
    free_ports,
    silent,
)
from gateway_plugins.middleware import logging
from tests.support.exchanges import CANARIES, disguises, finished_exchange, make_runtime

TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=300)


class Logged:
    """The plugin, started, writing to ``target``."""

    def __init__(self, target: str, queue: int = 8192) -> None:
        self.runtime = make_runtime()
        self.plugin = logging.Plugin(logging.Settings(target=target, queue=queue), self.runtime)
        self.plugin.on_startup(self.runtime)

    def finish(self, count: int = 1, **facts: Any) -> None:
        for _ in range(count):
            self.plugin.on_finish(finished_exchange(**facts))

    async def stop(self) -> None:
        await self.plugin.on_shutdown()

    @property
    def dropped(self) -> float:
        return float(self.runtime.registry.get_sample_value("hookgate_log_lines_dropped_total"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "INTERVAL", 0.01)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Reading and writing end; the test closes what it wants closed."""
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError as problem:
            assert problem.errno == errno.EBADF


def content(file: Path) -> bytes:
    return file.read_bytes()


def lines(data: bytes) -> list[dict[str, Any]]:
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data[:-1].split(b"\n")]


async def written(file: Path, **facts: Any) -> dict[str, Any]:
    """The one line of one exchange."""
    logged = Logged(str(file))
    logged.finish(**facts)
    await logged.stop()
    (line,) = lines(content(file))
    return line


async def eventually(condition: Any, within: float = 2.0) -> None:
    async with asyncio.timeout(within):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


def test_the_standard_library_is_not_shadowed() -> None:
    assert logging.__name__ == "gateway_plugins.middleware.logging"
    assert logging.logging is sys.modules["logging"] is standard_logging
    assert "LogRecord" in vars(standard_logging)


async def test_a_line_has_all_fields(file: Path) -> None:
    line = await written(file, stream=True, dropped=["logit_bias"], notes={"request_id": "own-1"}, cost=1_500)
    assert line.pop("time").endswith("Z")
    assert line == {
        "id": "req-1", "gateway_id": "own-1", "method": "POST", "surface": "chat", "path": "/v1/chat/completions",
        "model": "gpt-4o", "stream": True, "status": 200, "outcome": "ok", "key": "alice", "client_ip": "192.0.2.7",
        "target": "openai/gpt-4o", "tried": ["openai/gpt-4o"], "cache": "miss", "cost_nano": 1_500,
        "usage": {"input": 10, "output": 20, "provenance": "reported"}, "bytes": 321,
        "duration_ms": pytest.approx(20, abs=0.01), "ttfb_ms": pytest.approx(10, abs=0.01),
        "overhead_ms": pytest.approx(1, abs=0.01), "dropped": ["logit_bias"],
    }  # fmt: skip


async def test_a_principal_s_team_stands_beside_its_name(file: Path) -> None:
    line = await written(file, principal=Principal("jwt:bob", ("*",), team="red"))
    assert (line["key"], line["team"]) == ("jwt:bob", "red")


async def test_what_is_not_known_is_absent_and_zero_is_zero(file: Path) -> None:
    line = await written(
        file, model=None, target=None, tried=[], principal=None, cache=None, status=0, first_byte=0.0, reply_bytes=0,
        outcome="client_gone", error=asyncio.CancelledError(), usage=Usage(0, None, provenance="partial"),
    )  # fmt: skip
    assert not line.keys() & {"model", "target", "tried", "key", "team", "cache", "ttfb_ms", "dropped"}
    assert line["usage"] == {"input": 0, "provenance": "partial"}
    assert (line["bytes"], line["status"], line["error"]) == (0, 0, "CancelledError")


async def test_an_error_is_named_by_its_code(file: Path) -> None:
    assert (await written(file, outcome="refused", error=Unauthenticated()))["error"] == "invalid_api_key"


def test_time_is_rfc_3339_in_utc() -> None:
    assert logging._rfc3339(1_700_000_000.0426) == "2023-11-14T22:13:20.042Z"
    assert logging._rfc3339(1_700_000_001.0) == "2023-11-14T22:13:21.000Z"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT, TEXT, TEXT), min_size=1, max_size=5))
async def test_r60_no_text_forges_or_breaks_a_line(
    tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str, str, str, str]]
) -> None:
    file = tmp_path_factory.mktemp("r60") / "log"
    logged = Logged(str(file))
    for own_id, method, path, model, name in texts:
        logged.finish(
            id=own_id, method=method, path=path, model=model, client_ip=name, principal=Principal(name), cache=name,
            target=Target(name, model), tried=[name, path], dropped=[name, path], notes={"request_id": own_id},
        )  # fmt: skip
    await logged.stop()
    data = content(file)
    assert len(lines(data)) == len(texts)
    assert all(0x20 <= byte <= 0x7E for byte in data.replace(b"\n", b""))


@pytest.mark.parametrize("char", [0x00, 0x0A, 0x1B, 0x7F, 0x85, 0x200B, 0x2028, 0x2029, 0x202E, 0x2066, 0x2069, 0xD800])
async def test_r60_a_control_character_is_escaped_and_kept(file: Path, char: int) -> None:
    line = await written(file, model=f"a{chr(char)}b")
    assert line["model"] == f"a{chr(char)}b"
    assert chr(char).encode(errors="surrogatepass") not in content(file).rstrip(b"\n")


async def test_r60_lengths_are_capped(file: Path) -> None:
    long = "x" * 1_000_000
    line = await written(
        file, method=long, path=long, model=long, target=Target(long), tried=[long] * 100, dropped=[long] * 100
    )
    assert (len(line["path"]), len(line["model"])) == (256, 128)
    assert len(content(file)) < 6000


async def test_a_count_beyond_64_bits_is_a_line_all_the_same(file: Path) -> None:
    assert (await written(file, usage=Usage(10**30, 1)))["usage"]["input"] == 10**30


async def test_r58_no_secret_and_no_prompt_reaches_the_log(file: Path) -> None:
    key, prompt, header, body = CANARIES
    await written(
        file, headers={"Authorization": f"Bearer {key}", "X-App": header}, query=f"key={key}", payload=prompt,
        notes={"cache": prompt}, outcome="upstream_failed", error=UpstreamRefused(400, body.encode(), {"x-app": body}),
    )  # fmt: skip
    data = content(file)
    for secret in CANARIES:
        assert not [form for form in disguises(secret) if form in data]


@pytest.mark.parametrize("name", ["aiohttp.server", "aiohttp.internal", "aiohttp.client", "asyncio"])
def test_r58_library_warnings_tell_no_contents(file: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Logged(str(file))
    library = standard_logging.getLogger(name)
    handler = standard_logging.StreamHandler()
    library.addHandler(handler)
    try:
        try:
            raise ValueError(f"cannot parse {CANARIES[1]}") from KeyError(CANARIES[0])
        except ValueError:
            library.exception("Error handling request from %s", CANARIES[2])
        library.error(f"Task exception was never retrieved\nfuture: <Task exception=ValueError('{CANARIES[1]}')>")
        library.error(f"Exception in callback Protocol.data_received(b'{CANARIES[0]}')")
    finally:
        library.removeHandler(handler)
    said = capsys.readouterr().err
    assert "Error handling request from" in said
    assert "Task exception was never retrieved" in said
    assert "in test_r58_library_warnings_tell_no_contents" in said
    assert "ValueError" in said
    for secret in CANARIES:
        assert not [form for form in disguises(secret) if form in said.encode()]


async def test_a_file_may_be_rotated(file: Path) -> None:
    logged = Logged(str(file))
    logged.finish(2)
    await eventually(lambda: content(file).count(b"\n") == 2)
    moved = file.with_suffix(".1")
    os.rename(file, moved)
    logged.finish(3)
    await logged.stop()
    assert (len(lines(content(moved))), len(lines(content(file)))) == (2, 3)
    assert os.stat(file).st_mode & 0o007 == 0


async def test_a_target_that_cannot_be_written_refuses_the_start(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no/log: No such file"):
        Logged(str(tmp_path / "no" / "log"))


async def test_a_standard_stream_that_was_closed_refuses_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "__stdout__", None)
    with pytest.raises(PluginError, match="stdout is closed"):
        Logged("stdout")


def read_all(end: int, count: int) -> bytes:
    """Read until ``count`` lines came."""
    data = b""
    while data.count(b"\n") < count:
        data += os.read(end, 1 << 16)
    return data


@pytest.mark.alone
async def test_a_blocked_sink_delays_nothing_and_is_told_of_when_it_recovers(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(logging._STREAMS, "stdout", pipe[1])
    logged = Logged("stdout", queue=500)
    exchange = finished_exchange()
    slowest, count = 0.0, 0
    tracemalloc.start()
    until = perf_counter() + 0.5
    while perf_counter() < until or not logged.dropped:
        began = perf_counter()
        logged.plugin.on_finish(exchange)
        slowest = max(slowest, perf_counter() - began)
        count += 1
        await asyncio.sleep(0)
    memory = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert slowest < 0.05  # the machine's own pauses; a write that waits would never end
    assert memory < 2_000_000
    lost = int(logged.dropped)
    assert 0 < lost < count
    read = lines(await asyncio.to_thread(read_all, pipe[0], count - lost + 1))
    assert read[-1].pop("time")
    assert read[-1] == {"event": "log_lines_dropped", "count": lost}
    assert {line["id"] for line in read[:-1]} == {"req-1"}
    logged.finish(7)
    assert len(lines(await asyncio.to_thread(read_all, pipe[0], 7))) == 7
    await logged.stop()


async def test_a_stop_does_not_wait_for_a_blocked_sink(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(logging._STREAMS, "stdout", pipe[1])
    monkeypatch.setattr(logging, "STOP_LIMIT", 0.2)
    logged = Logged("stdout")
    logged.finish(2000)
    began = perf_counter()
    await logged.stop()
    assert 0.1 < perf_counter() - began < 1.0
    os.close(pipe[0])
    logged.plugin._writer._thread.join(2)


async def test_pieces_sent_to_a_pipe_are_whole_lines_no_other_worker_can_cut(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(logging._STREAMS, "stdout", pipe[1])
    pieces: list[bytes] = []
    real_write = os.write

    def write(sink: int, data: bytes) -> int:
        pieces.append(data)
        return real_write(sink, data)

    monkeypatch.setattr(os, "write", write)
    logged = Logged("stdout")
    logged.finish(100)
    await logged.stop()
    assert len(pieces) > 5
    assert all(len(piece) <= 4096 and piece.endswith(b"\n") for piece in pieces)
    assert len(lines(os.read(pipe[0], 1 << 16))) == 100


async def test_a_closed_pipe_keeps_a_bounded_queue_and_warns_once(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(logging._STREAMS, "stdout", pipe[1])
    os.close(pipe[0])
    logged = Logged("stdout", queue=50)
    for _ in range(20):
        logged.finish(10)
        await asyncio.sleep(0.01)
    assert logged.dropped > 100
    await logged.stop()
    assert [record.getMessage() for record in caplog.records] == ["stdout takes no log lines: Broken pipe"]


async def test_a_full_disk_costs_only_lines_beyond_the_queue(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = True
    real_write = os.write

    def write(sink: int, data: bytes) -> int:
        if full:
            real_write(sink, data[:7])  # the last bytes that fit
            monkeypatch.setattr(os, "write", refuse)
            return 7
        return real_write(sink, data)

    def refuse(sink: int, data: bytes) -> int:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(sink, data)

    monkeypatch.setattr(os, "write", write)
    logged = Logged(str(file), queue=50)
    logged.finish(10)
    await eventually(lambda: os.write is refuse)
    logged.finish(100)
    lost = int(logged.dropped)
    assert 0 < lost < 100
    full = False
    await logged.stop()
    read = lines(content(file))
    assert len(read) == 110 - lost + 1
    assert read[-1]["count"] == lost


async def test_a_named_pipe_without_a_reader_is_waited_for(file: Path) -> None:
    os.mkfifo(file)
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    logged = Logged(str(file))
    os.close(reader)
    logged.finish(3)
    await asyncio.sleep(0.05)
    reader = os.open(file, os.O_RDONLY)
    assert len(lines(await asyncio.to_thread(read_all, reader, 3))) == 3
    await logged.stop()
    os.close(reader)


CONFIG = """
[plugins]
chain = ["request_id", "logging"]

[retry]
attempts = 1
[breaker]
failures = 0
error_rate = 0
[providers.stub]
type = "openai_compat"
base_url = "$upstream/v1"

[models.m]
targets = [{ provider = "stub" }]
"""


@pytest.fixture
async def upstream() -> Any:
    async with ScriptedUpstream(chat("hello")) as scripted:
        yield scripted


@pytest.fixture
def gateway(gateway_server: GatewayFactory, upstream: ScriptedUpstream) -> GatewayProcess:
    return gateway_server(CONFIG, upstream=upstream.url)


async def test_r60_a_real_gateway_writes_one_line_per_exchange_however_it_ends(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    prompt = CANARIES[1]

    async def ask(name: str, **fields: Any) -> None:
        await fetch_chat(gateway.url, "m", prompt, headers=[("X-Request-ID", name)], **fields)

    await ask("whole")
    upstream.script = chat_stream(5)
    await ask("streamed", stream=True)
    upstream.script = error(500, CANARIES[3])
    await ask("upstream-failed")
    upstream.script = chat_stream(5, done=False, ending="close")
    with pytest.raises(Truncated):
        await ask("cut", stream=True)
    await fetch(f"{gateway.url}/v1/chat/completions", "POST", [("X-Request-ID", "refused")], b"{")
    await fetch(f"{gateway.url}/nowhere?key={CANARIES[0]}", "GET", [("X-Request-ID", "unrouted")])
    upstream.script = silent
    async with RawClient(gateway.url) as client:
        await client.chat("m", prompt, headers=[("X-Request-ID", "gone")])
        await upstream.wait_calls(5)
        client.leave()
        await upstream.wait_aborted()
    await gateway.stop()
    found = gateway.log_lines()
    outcomes = {line["id"]: (line["status"], line["outcome"], line.get("error")) for line in found}
    assert outcomes.pop("cut")[:2] == (200, "upstream_failed")
    assert outcomes == {
        "whole": (200, "ok", None),
        "streamed": (200, "ok", None),
        "upstream-failed": (500, "upstream_failed", "upstream_refused"),
        "refused": (400, "refused", "invalid_request"),
        "unrouted": (404, "refused", "not_found"),
        "gone": (0, "client_gone", "CancelledError"),
    }
    assert len(found) == len(outcomes) + 1
    streamed = next(line for line in found if line["id"] == "streamed")
    assert streamed["stream"] is True
    assert streamed["target"] == "stub"
    for secret in CANARIES:
        assert not [form for form in disguises(secret) if form in (gateway.stdout + gateway.stderr).encode()]


@pytest.mark.parametrize("failures", [0, 5])
async def test_r60_a_dead_upstream_costs_at_most_two_lines_a_request(
    gateway_server: GatewayFactory, failures: int
) -> None:
    (nobody,) = free_ports(1)
    config = CONFIG.replace("failures = 0", f"failures = {failures}")
    gateway = gateway_server(config, upstream=f"http://127.0.0.1:{nobody}")
    before = (gateway.stdout + gateway.stderr).count("\n")
    statuses = [(await fetch_chat(gateway.url, "m")).status for _ in range(100)]
    called = failures or 100
    assert set(statuses[:called]) == {502}
    # Every five seconds one call finds out whether it is well again.
    assert set(statuses[called:]) <= {502, 503} and statuses[called:].count(502) < 20
    await gateway.stop()
    assert len(gateway.log_lines()) == 100
    assert (gateway.stdout + gateway.stderr).count("\n") - before <= 200


async def test_a_real_gateway_answers_and_stops_while_nobody_reads_its_stdout(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    os.mkfifo(tmp_path / "stdout")
    reader = os.open(tmp_path / "stdout", os.O_RDONLY | os.O_NONBLOCK)
    gateway = GatewayProcess(tmp_path, CONFIG.replace("$upstream", upstream.url))
    try:
        gateway.start()
        async with RawClient(gateway.url) as client:
            for _ in range(400):  # lines for more than the 64 KiB a pipe holds
                began = perf_counter()
                await client.chat("m")
                assert (await client.read()).status == 200
                assert perf_counter() - began < 0.5
        began = perf_counter()
        await gateway.stop()
        assert perf_counter() - began < 4.0
    finally:
        gateway.end()
        os.close(reader)
