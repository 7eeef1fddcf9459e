"""What plugin authors test with: a scripted provider, a raw client, and the gateway, in the test or as a process.

A pytest plugin (entry point ``hookgate``) with the fixtures ``gateway_server`` and ``shared_gateway_server``; the
rest is imported. A test has the shape of an nginx or Varnish test script:

    async def test_the_answer_comes_through(gateway_server):
        async with ScriptedUpstream(chat("hello")) as upstream:
            gateway = gateway_server(CONFIG, upstream=upstream.url)
            reply = await fetch_chat(gateway.url, "m")
            assert reply.status == 200
            assert len(upstream.calls) == 1
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Protocol

import pytest

from gateway.testing.answers import (
    WHOLE_FAULTS,
    Ending,
    as_asked,
    chat,
    chat_body,
    chat_events,
    chat_stream,
    delayed,
    error,
    event,
    hang_up,
    raw,
    redirect,
    silent,
    stream,
    stream_faults,
    whole,
)
from gateway.testing.client import RawClient, Response, fetch, fetch_chat
from gateway.testing.local import LocalGateway
from gateway.testing.process import GatewayProcess, Metrics
from gateway.testing.upstream import Call, Connection, Received, Script, ScriptedUpstream
from gateway.testing.wire import Head, Truncated, free_ports

__all__ = [
    "WHOLE_FAULTS",
    "Call",
    "Connection",
    "Ending",
    "GatewayFactory",
    "GatewayProcess",
    "Head",
    "LocalGateway",
    "Metrics",
    "RawClient",
    "Received",
    "Response",
    "Script",
    "ScriptedUpstream",
    "Truncated",
    "as_asked",
    "chat",
    "chat_body",
    "chat_events",
    "chat_stream",
    "delayed",
    "error",
    "event",
    "fetch",
    "fetch_chat",
    "free_ports",
    "hang_up",
    "raw",
    "redirect",
    "silent",
    "stream",
    "stream_faults",
    "whole",
]


class GatewayFactory(Protocol):
    def __call__(
        self, config: str, *, env: Mapping[str, str] | None = None, arguments: tuple[str, ...] = (), **values: str
    ) -> GatewayProcess:
        """Start a gateway from the text of a ``gateway.toml`` in which ``$name`` stands for ``values["name"]``."""


def _gateways(folder: Path) -> Iterator[GatewayFactory]:
    running: list[GatewayProcess] = []

    def start(
        config: str, *, env: Mapping[str, str] | None = None, arguments: tuple[str, ...] = (), **values: str
    ) -> GatewayProcess:
        place = folder / f"gateway-{len(running)}"
        place.mkdir(mode=0o700)
        running.append(GatewayProcess(place, Template(config).substitute(values), env=env, arguments=arguments))
        return running[-1].start()

    try:
        yield start
    finally:
        for process in running:
            process.end()


@pytest.fixture
def gateway_server(tmp_path: Path) -> Iterator[GatewayFactory]:
    """Starts gateways (``GatewayFactory``); after the test they are stopped and must have ended cleanly."""
    yield from _gateways(tmp_path)


@pytest.fixture(scope="module")
def shared_gateway_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayFactory]:
    """As ``gateway_server``, for a module: a start costs half a second.

    Its upstream lives in a single test's event loop: give it a port of ``free_ports`` in the configuration, and each
    test a ``ScriptedUpstream`` on that port.
    """
    yield from _gateways(tmp_path_factory.mktemp("shared"))
