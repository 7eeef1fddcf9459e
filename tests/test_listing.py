"""The list of models in the shape of whoever asks, and only what the caller may use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.testing import LocalGateway, Response, fetch

KEY = "hg-listing-alice"
CONFIG = f"""
plugins = {{ chain = ["auth"] }}
[keys.alice]
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
models = ["echo", "mine", "a/b*"]
[providers.echo]
type = "echo"
[providers.other]
type = "echo"
model = "hidden"
[models.mine]
targets = [{{ provider = "echo", model = "echo" }}]
[models."a/b:1"]
targets = [{{ provider = "echo", model = "echo" }}]
[models."glob-*"]
targets = [{{ provider = "echo" }}]
"""
NAMES = ["mine", "a/b:1", "echo"]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LocalGateway]:
    async with LocalGateway(tmp_path, CONFIG) as running:
        yield running


async def get(gateway: LocalGateway, path: str, headers: Mapping[str, str] = {}) -> Response:
    return await fetch(gateway.url + path, headers={"Authorization": f"Bearer {KEY}", **headers})


async def show(gateway: LocalGateway, **body: Any) -> Response:
    fields = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    return await fetch(f"{gateway.url}/api/show", "POST", fields, json.dumps(body).encode())


async def test_openai_s_clients_get_openai_s_list(gateway: LocalGateway) -> None:
    listed = (await get(gateway, "/v1/models")).json
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == NAMES
    assert all({"id", "object", "created", "owned_by"} <= set(model) for model in listed["data"])
    one = (await get(gateway, "/v1/models/a%2Fb:1")).json
    assert (one["id"], one["object"]) == ("a/b:1", "model")


async def test_anthropic_s_clients_are_known_by_their_version(gateway: LocalGateway) -> None:
    headers = {"anthropic-version": "2023-06-01"}
    listed = (await get(gateway, "/v1/models", headers)).json
    assert [model["id"] for model in listed["data"]] == NAMES
    assert {model["type"] for model in listed["data"]} == {"model"}
    assert listed["has_more"] is False
    assert (await get(gateway, "/v1/models/mine", headers)).json["type"] == "model"


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/models", {"x-goog-api-client": "google-genai-sdk/3.4"}),
        ("/v1beta/models", {}),
    ],
)
async def test_gemini_s_clients_are_known_by_header_or_path(
    gateway: LocalGateway, path: str, headers: dict[str, str]
) -> None:
    listed = (await get(gateway, path, headers)).json
    assert [model["name"] for model in listed["models"]] == [f"models/{name}" for name in NAMES]
    assert (await get(gateway, f"{path}/mine", headers)).json["name"] == "models/mine"


async def test_ollama_s_clients_have_paths_of_their_own(gateway: LocalGateway) -> None:
    listed = (await get(gateway, "/api/tags")).json["models"]
    assert [model["name"] for model in listed] == ["mine:latest", "a/b:1", "echo:latest"]
    assert (await get(gateway, "/api/ps")).json == {"models": []}
    assert set((await get(gateway, "/api/version")).json) == {"version"}


@pytest.mark.parametrize("body", [{"model": "mine"}, {"model": "mine:latest"}, {"name": "mine:latest"}])
async def test_a_model_is_shown_with_and_without_its_tag(gateway: LocalGateway, body: dict[str, str]) -> None:
    shown = (await show(gateway, **body)).json
    assert shown["model_info"]["general.basename"] == "mine"
    assert "completion" in shown["capabilities"]


async def test_who_may_not_use_a_model_is_not_told_of_it(gateway: LocalGateway) -> None:
    assert (await get(gateway, "/v1/models/hidden")).status == 404
    assert (await get(gateway, "/v1beta/models/hidden")).status == 404
    assert (await show(gateway, name="hidden")).status == 404
    assert (await show(gateway, model="hidden")).status == 403
    for path in ("/v1/models", "/v1beta/models", "/api/tags"):
        assert (await fetch(gateway.url + path)).status == 401


async def test_errors_have_the_caller_s_shape(gateway: LocalGateway) -> None:
    assert (await get(gateway, "/v1/models/no")).json["error"]["code"] == "model_not_found"
    assert (await get(gateway, "/v1beta/models/no")).json["error"]["status"] == "NOT_FOUND"
    shown = await show(gateway, name="no")
    assert shown.status == 404 and isinstance(shown.json["error"], str)
    assert (await show(gateway)).status == 400
