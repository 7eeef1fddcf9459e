"""The soak runs, and says so when something is left over."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import attrs
import pytest

from bench import soak, traffic
from bench.soak import Report, Sample
from bench.traffic import Clients, Errand
from gateway.testing import Head, ScriptedUpstream

REST = Sample(at=0.0, rss_mib=60.0, fds=15, threads=7, in_flight=0, acquired=0, idle=0, upstream_open=0)


@pytest.mark.alone
async def test_r55_a_short_run_leaves_nothing_behind(tmp_path: Path) -> None:
    report = await soak.soak(3.0, 40.0, tmp_path, warm=1.0)
    assert report.passed, report.text()
    assert report.counts["plain"] > 20
    assert report.samples[-1].rss_mib > 20


@pytest.mark.parametrize("left", [{"in_flight": 1}, {"acquired": 1}, {"idle": 1}, {"upstream_open": 1}, {"fds": 18}])
def test_what_is_left_over_fails(left: dict[str, int]) -> None:
    checks = list(soak._at_rest(REST, attrs.evolve(REST, **left)))
    assert [check.good for check in checks].count(False) == 1
    assert not Report(REST, REST, [], Counter(), [], checks).passed


@pytest.mark.parametrize(("growth", "good"), [(0.0, True), (23.0, True), (25.0, False)])
def test_growing_memory_fails(growth: float, good: bool) -> None:
    samples = [attrs.evolve(REST, at=at, rss_mib=60 + growth * at / 3600) for at in range(0, 1200, 10)]
    assert soak._slope(samples).good is good
    assert soak._slope(samples[:60]).good


def test_an_exchange_without_its_line_and_an_error_fail() -> None:
    clients = Clients("http://127.0.0.1:1")
    clients.answered.update(["a", "b"])
    assert [check.good for check in soak._told(clients, [{"id": "a"}, {"id": "b"}], 2)] == [True, True, True]
    assert [check.good for check in soak._told(clients, [{"id": "a"}, {"id": "a"}], 2)] == [True, False, False]
    clients.counts["errors"] = 1
    assert not next(soak._told(clients, [], 0)).good


@pytest.mark.parametrize(
    ("start", "body", "wrong"),
    [
        ("HTTP/1.1 200 OK", b'{"m": "<stream 1>"}\n\ndata: [DONE]\n\n', ""),
        ("HTTP/1.1 502 X", b"<stream 1>", "HTTP/1.1 502 X"),
        ("HTTP/1.1 200 OK", b"<stream 2>data: [DONE]\n\n", "not its own answer"),
        ("HTTP/1.1 200 OK", b"<stream 1>", "no end"),
        ("HTTP/1.1 200 OK", b'<stream 1>"prompt_tokens"data: [DONE]\n\n', "usage where none was asked for, or none"),
    ],
)
def test_an_answer_is_judged(start: str, body: bytes, wrong: str) -> None:
    assert traffic._wrong(Errand("stream", "<stream 1>", 1), Head(start, [], b""), body) == wrong


# Without the others: it takes a gateway to end or to refuse them.
@pytest.mark.parametrize("fault", ["reset", "500", "429", "cut", "reset inside", "unfinished"])
async def test_a_fault_is_no_success(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    errand = Errand("stream", f"<{fault} 1>", 1000, fault=fault)
    monkeypatch.setattr(traffic, "draw", lambda number: errand)
    async with ScriptedUpstream(traffic.provide) as upstream:
        clients = Clients(upstream.url)
        await clients.visit(1)
        assert len(upstream.calls) == 1
    assert not clients.errors


async def test_a_fault_that_comes_through_as_success_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "draw", lambda number: Errand("stream", "<stream 1>", 1000, fault="cut"))
    async with ScriptedUpstream(traffic.provide) as upstream:
        clients = Clients(upstream.url)
        await clients.visit(1)
    assert "looks like success" in clients.errors[0]


@pytest.mark.parametrize("kind", traffic.KINDS)
@pytest.mark.parametrize("leave", ["", *traffic.LEAVES])
async def test_every_kind_is_answered_and_left(kind: str, leave: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "draw", lambda number: Errand(kind, f"<{kind} 1>", 1000, leave=leave))
    async with ScriptedUpstream(traffic.provide) as upstream:
        clients = Clients(upstream.url)
        await clients.visit(2)
        await upstream.until(lambda: upstream.open_connections == 0, within=2)
    assert not clients.errors
    assert clients.counts == ({"left": 1} if leave else {"plain": 2})
