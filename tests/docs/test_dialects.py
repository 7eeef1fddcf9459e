"""The generated page of what translations carry is what the translations do."""

from __future__ import annotations

import pytest

from docs.dialects import NOTHING, PAGE, PROVIDERS, SPEAK, Fate, fate, page
from docs.probes import ONLY, PROBES
from gateway.dialects.registry import CLIENTS

# Lost without a word, and why nobody misses it.
SILENT = {
    ("cache marks", "openai_compat, azure_openai"): "caching is automatic there",
    ("cache marks", "ollama"): "it caches every prompt by itself",
    ("service tier", "*"): "the client asks for the standard tier, which is what it gets",
}


def test_the_page_is_what_is_generated() -> None:
    assert PAGE.read_text() == page(), "run: make docs"


@pytest.mark.parametrize("provider", PROVIDERS, ids=[each.name for each in PROVIDERS])
@pytest.mark.parametrize("feature", PROBES)
def test_nothing_is_lost_in_silence(feature: str, provider: object) -> None:
    for client in PROBES[feature]:
        found = fate(feature, client, provider)  # type: ignore[arg-type]
        known = (feature, provider.name) in SILENT or (feature, "*") in SILENT  # type: ignore[attr-defined]
        assert found != Fate(NOTHING) or known, (client, "asks, and nothing is sent or said")


def test_every_dialect_of_clients_is_on_the_page() -> None:
    assert set(SPEAK) == {each for probe in PROBES.values() for each in probe} <= set(CLIENTS)
    assert set(ONLY) <= set(PROBES)
