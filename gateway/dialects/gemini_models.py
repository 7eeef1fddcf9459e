"""Lists of models: Gemini's (``models/…``, ``supportedGenerationMethods``) ⇄ OpenAI's; and counts of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.dialects.gemini_candidate import malformed

_CHAT = ("generateContent", "streamGenerateContent", "countTokens")
_EMBED = ("embedContent", "batchEmbedContents")


def models_to_openai(body: Any) -> list[dict[str, Any]]:
    """An answer of ``GET /models`` as OpenAI's model objects; a list goes on at ``nextPageToken``.

    Raises ``UpstreamProtocolError``.
    """
    models = body.get("models", []) if isinstance(body, dict) else None
    if not isinstance(models, list):
        raise malformed()
    result: list[dict[str, Any]] = []
    for model in models:
        name = model.get("name") if isinstance(model, dict) else None
        if not isinstance(name, str):
            raise malformed()
        result.append({"id": name.rpartition("models/")[2], "object": "model", "created": 0, "owned_by": "google"})
    return result


def models_body(models: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """OpenAI's model objects as the answer to a client that speaks Gemini."""
    return {"models": [model_body(model) for model in models]}


def model_body(model: Mapping[str, Any]) -> dict[str, Any]:
    """One of them. What a model can do is not known here, so that every method is offered."""
    name = str(model.get("id"))
    return {
        "name": f"models/{name}", "version": "", "displayName": name, "description": "",
        "supportedGenerationMethods": [*_CHAT, *_EMBED],
    }  # fmt: skip


def count_of(body: Any) -> int:
    """The tokens in an answer of ``countTokens``. Raises ``UpstreamProtocolError``."""
    tokens = body.get("totalTokens", 0) if isinstance(body, dict) else None  # 0 is not written
    if type(tokens) is not int or tokens < 0:
        raise malformed()
    return tokens
