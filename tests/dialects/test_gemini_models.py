"""Lists of models and counts of tokens."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types import Model

from gateway.dialects import gemini_models
from gateway.errors import UpstreamProtocolError


def test_a_provider_s_list() -> None:
    body = {"models": [{"name": "models/gemini-x", "supportedGenerationMethods": ["generateContent"]},
                       {"name": "publishers/google/models/y"}], "nextPageToken": "p"}  # fmt: skip
    made = gemini_models.models_to_openai(body)
    assert [Model.model_validate(each).id for each in made] == ["gemini-x", "y"]
    assert gemini_models.models_to_openai({}) == []


def test_our_list() -> None:
    made = gemini_models.models_body([{"id": "a"}, {"id": "org/b"}])["models"]
    assert [each["name"] for each in made] == ["models/a", "models/org/b"]
    assert "streamGenerateContent" in made[0]["supportedGenerationMethods"]
    types = pytest.importorskip("google.genai.types")
    known = {"name", "version", "displayName", "description"}
    assert types.Model.model_validate({name: made[0][name] for name in known}).name == "models/a"


@pytest.mark.parametrize("body", [[], {"models": {}}, {"models": [1]}, {"models": [{"name": 5}]}])
def test_what_is_no_list_is_an_error(body: Any) -> None:
    with pytest.raises(UpstreamProtocolError):
        gemini_models.models_to_openai(body)


def test_counts() -> None:
    assert gemini_models.count_of({"totalTokens": 7}) == 7
    assert gemini_models.count_of({}) == 0
    for wrong in (None, {"totalTokens": "7"}, {"totalTokens": -1}):
        with pytest.raises(UpstreamProtocolError):
            gemini_models.count_of(wrong)
