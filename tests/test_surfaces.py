"""The table of paths: what is exact, what is not, and that no path is served past the dispatcher."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway import surfaces
from gateway.testing import LocalGateway, fetch


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LocalGateway]:
    async with LocalGateway(tmp_path, 'default_provider = "echo"\n[providers.echo]\ntype = "echo"\n') as running:
        yield running


def test_a_path_stands_in_the_table_once() -> None:
    places = [(method, path) for method, path, _ in surfaces.SURFACES]
    assert len(places) == len(set(places))


def test_the_way_below_v1_is_the_way_below_the_provider() -> None:
    assert all(surface.path == path for _, path, surface in surfaces.SURFACES)


async def test_paths_without_a_variable_part_are_found_at_once(gateway: LocalGateway) -> None:
    exact = gateway._server.generation.routes.exact
    wanted = {("POST", f"/v1{path}") for method, path, _ in surfaces.SURFACES if method == "POST"}
    assert wanted <= set(exact)
    assert not [place for place in exact if "{" in place[1] or place[0] == "*"]


@pytest.mark.parametrize(
    ("method", "target", "name"),
    [
        ("GET", "/v1/models", "models"), ("GET", "/v1/models/echo", "models"), ("GET", "/health", "health"),
        ("POST", "/v1/chat/completions", "chat"), ("POST", "/v1/embeddings?a=b", "embeddings"),
        ("GET", "/v1/files/f/content", "files"), ("DELETE", "/v1/files/f", "files"), ("GET", "/v1/files", "files"),
        ("GET", "/v1/chat/completions", "passthrough"), ("PUT", "/v1/some/thing", "passthrough"),
        ("POST", "/api/chat", "ollama_chat"), ("POST", "/api/generate", "ollama_generate"),
        ("POST", "/api/embed", "ollama_embed"), ("POST", "/api/embeddings", "ollama_embeddings"),
        ("GET", "/api/tags", "models"), ("POST", "/api/show", "models"), ("GET", "/api/version", "models"),
        ("GET", "/api/ps", "models"), ("POST", "/api/pull", "none"),
        ("GET", "/p/echo/x", "passthrough"), ("GET", "/elsewhere", "none"), ("POST", "/health", "none"),
    ],
)  # fmt: skip
async def test_each_path_has_its_surface(gateway: LocalGateway, method: str, target: str, name: str) -> None:
    await fetch(gateway.url + target, method, body=b"{}" if method == "POST" else None)
    assert [exchange.surface.name for exchange in gateway.exchanges] == [name]


async def test_a_client_of_gemini_is_told_in_its_own_shape_that_nothing_is_there(gateway: LocalGateway) -> None:
    # Where Vercel's SDK goes when a model's name has a slash.
    reply = await fetch(f"{gateway.url}/v1beta/vendor/model:generateContent", "POST", body=b"{}")
    assert (reply.status, reply.json["error"]["status"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("target", "tail"), [("/v1/models/a%2Fb", "a%2Fb"), ("/v1/files/%20x/y?z=1", "%20x/y"), ("/p/echo/a//b", "a//b")]
)
async def test_the_tail_is_passed_on_as_it_was_sent(gateway: LocalGateway, target: str, tail: str) -> None:
    await fetch(gateway.url + target)
    assert [exchange.tail for exchange in gateway.exchanges] == [tail]
