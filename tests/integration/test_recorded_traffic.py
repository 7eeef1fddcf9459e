"""Recorded OpenAI traffic passes byte for byte, both ways."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.testing import ScriptedUpstream
from tests.integration.conftest import Door
from tests.support.programs import recorded_data
from tests.support.recordings import Interaction, Recordings

PREFIXES = ("openai-", "deepseek-", "mistral-", "groq-", "xai-")


def _recorded() -> list[Any]:
    """Calls whose path is below ``/v1`` at the provider, by name and place."""
    try:
        recordings = Recordings(recorded_data())
    except pytest.skip.Exception as missing:
        return [pytest.param("none", None, marks=pytest.mark.skip(reason=str(missing)))]
    return [
        (f"{name} {number}", interaction)
        for prefix in PREFIXES
        for name in recordings.names(prefix)
        for number, interaction in enumerate(recordings.interactions(name))
        if interaction.path.startswith("/v1/") and interaction.method == "POST"
    ]


@pytest.mark.parametrize("piece", [1 << 20, 7])
@pytest.mark.parametrize(
    ("name", "interaction"), _recorded(), ids=lambda value: value if isinstance(value, str) else ""
)
async def test_a_recorded_call_passes_unchanged(
    door: Door, upstream: ScriptedUpstream, name: str, interaction: Interaction, piece: int
) -> None:
    upstream.script = interaction.replay(piece)
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    reply = await door.fetch(interaction.path, "POST", headers, interaction.request)
    assert (reply.status, reply.body) == (interaction.status, interaction.response)
    (call,) = upstream.calls
    assert call.target == f"/base{interaction.path}"
    sent = json.loads(call.body)
    if interaction.request_json.get("stream"):
        sent["stream_options"] = interaction.request_json.get("stream_options")
        assert {key: value for key, value in sent.items() if value is not None} == interaction.request_json
    else:
        assert bytes(call.body) == interaction.request
