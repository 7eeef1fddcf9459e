"""Recorded traffic through a gateway whose client and provider speak the same dialect."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.testing import GatewayProcess, ScriptedUpstream, fetch
from gateway.testing.answers import JSON
from tests.support.recordings import Interaction


async def check_byte_for_byte(
    gateway: GatewayProcess, upstream: ScriptedUpstream, interactions: Iterable[Interaction]
) -> None:
    for recorded in interactions:
        upstream.script = recorded.replay()
        reply = await fetch(gateway.url + recorded.path, "POST", JSON, recorded.request)
        call = upstream.calls[-1]  # before it, the list of models may be asked for
        assert (call.target, bytes(call.body)) == (recorded.path, recorded.request)
        assert (reply.status, reply.body) == (recorded.status, recorded.response)
