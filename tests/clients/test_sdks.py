"""Every client gets its types, its streams, its tool loop and its exceptions, whatever the provider speaks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.testing import GatewayProcess, ScriptedUpstream
from tests.clients.clients import CLIENTS, PROVIDERS, Client, findings
from tests.support.vendors import INPUT, OUTPUT, PLAIN, RETRY_AFTER

WAYS = ("whole", "stream", "tools", "tools stream")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("client")


def each(clients: Iterable[Client]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("client", [pytest.param(client, id=client.name) for client in clients])


@pytest.fixture(scope="module")
def reports(
    request: pytest.FixtureRequest, gateway: GatewayProcess, outside: ScriptedUpstream, folder: Path
) -> Iterator[dict[Client, Future[Any]]]:
    """Of each client that is asked for; two run at a time, for most of it is loading their libraries."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path == request.path]
    clients: dict[Any, None] = dict.fromkeys(test.callspec.params["client"] for test in tests)
    with ThreadPoolExecutor(2) as pool:
        yield {client: pool.submit(findings, client, gateway.url, outside.url, folder) for client in clients}
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def found(client: Client, reports: dict[Client, Future[Any]]) -> Any:
    return reports[client].result()


@each(CLIENTS)
@pytest.mark.parametrize("provider_name", PROVIDERS)
@pytest.mark.parametrize("way", WAYS)
def test_an_answer_arrives(client: Client, found: Any, way: str, provider_name: str) -> None:
    answer = found[f"by-{provider_name}"][way]
    assert "raised" not in answer, answer["raised"]
    if way in ("whole", "stream"):
        assert answer["text"] == PLAIN
        assert not answer["calls"]
    else:
        calls = [(name, json.loads(given) if isinstance(given, str) else given) for name, given in answer["calls"]]
        assert calls == [("weather", {"city": "Oslo"}), ("weather", {"city": "Bergen"})]
        assert re.fullmatch(r"The tools said: .*sunny in Oslo.* and .*sunny in Bergen.*", answer["text"])
    assert answer["usage"] == [INPUT, OUTPUT]


@each(client for client in CLIENTS if client.counts)
@pytest.mark.parametrize("provider_name", PROVIDERS)
def test_tokens_are_counted(client: Client, found: Any, provider_name: str) -> None:
    assert found[f"by-{provider_name}"]["count"] > 0


@each(CLIENTS)
@pytest.mark.parametrize(("what", "status"), [("key", 401), ("model", 404)])
def test_a_refusal_of_the_gateway_is_the_clients_own_exception(
    client: Client, found: Any, what: str, status: int
) -> None:
    error = found["errors"][what]
    assert (error["kind"], error["status"]) == (client.errors[what], status), error["text"]


@each(CLIENTS)
@pytest.mark.parametrize("provider_name", PROVIDERS)
@pytest.mark.parametrize(("status", "what"), [(429, "limit"), (500, "server"), (529, "overloaded")])
def test_a_refusal_of_the_provider_is_the_clients_own_exception(
    client: Client, found: Any, provider_name: str, status: int, what: str
) -> None:
    error = found["errors"][f"{provider_name} {status}"]
    assert (error["kind"], error["status"]) == (client.errors[what], status), error["text"]
    if status == 429:
        assert error["retry_after"] == RETRY_AFTER


@each(CLIENTS)
@pytest.mark.parametrize("provider_name", PROVIDERS)
def test_a_stream_that_breaks_off_raises(client: Client, found: Any, provider_name: str) -> None:
    error = found["errors"][f"{provider_name} cut"]
    assert error["kind"] not in ("none", "AssertionError"), error["text"]
