"""Lists of models as Ollama's clients read them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects import ollama_models

MODEL = {"id": "gpt-4o", "object": "model", "created": 1_700_000_000, "owned_by": "openai"}


@pytest.mark.parametrize(
    ("name", "tagged"),
    [
        ("llama3", "llama3:latest"), ("llama3:8b", "llama3:8b"), ("ann/coder", "ann/coder:latest"),
        ("host:11434/x", "host:11434/x:latest"), ("deepseek/r1:free", "deepseek/r1:free"),
    ],
)  # fmt: skip
def test_every_name_has_a_tag(name: str, tagged: str) -> None:
    assert ollama_models.tagged(name) == tagged


def test_a_model_with_and_without_its_tag_is_one() -> None:
    models = ollama_models.tags_body([MODEL, {"id": "llama3:latest"}, {"id": "llama3"}, {"id": "llama3:8b"}])["models"]
    assert [model["name"] for model in models] == ["gpt-4o:latest", "llama3:latest", "llama3:8b"]
    assert all(model["model"] == model["name"] for model in models)
    assert models[0]["modified_at"] == "2023-11-14T22:13:20Z"


@pytest.mark.parametrize(
    ("more", "context"),
    [
        ({}, None),
        ({"context_length": 128_000}, 128_000),
        ({"max_model_len": 4096}, 4096),
        ({"context_length": "x"}, None),
    ],
)
def test_a_context_is_told_where_it_is_known(more: dict[str, Any], context: int | None) -> None:
    info = ollama_models.show_body({**MODEL, **more})["model_info"]
    assert info.get(f"{info['general.architecture']}.context_length") == context


@pytest.mark.parametrize("created", [None, "yesterday", 10**30, -(10**30)])
def test_a_moment_that_is_none_is_the_beginning_of_time(created: Any) -> None:
    (model,) = ollama_models.tags_body([{"id": "m", "created": created}])["models"]
    assert model["modified_at"] == "1970-01-01T00:00:00Z"


def test_the_official_client_s_types_accept_them() -> None:
    types = pytest.importorskip("ollama", reason="the ollama client is not installed")
    (model,) = types.ListResponse.model_validate(ollama_models.tags_body([MODEL])).models
    assert model.model == "gpt-4o:latest"
    shown = types.ShowResponse.model_validate(ollama_models.show_body(MODEL))
    assert "tools" in shown.capabilities
    assert types.ProcessResponse.model_validate(ollama_models.ps_body()).models == []
    assert ollama_models.version_body() == {"version": ollama_models.VERSION}
