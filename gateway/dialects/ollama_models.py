"""Lists of models as Ollama's clients read them: ``/api/tags``, ``/api/show``, ``/api/ps``, ``/api/version``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

VERSION = "0.13.0"
"""The release of Ollama whose API this is; clients switch features on by it."""
LATEST = ":latest"
"""The tag of a name that has none."""
_ARCHITECTURE = "unknown"
_CAPABILITIES = ["completion", "tools", "vision", "thinking", "embedding"]


def tagged(name: str) -> str:
    """The name with a tag, as clients show and compare it."""
    return name if ":" in name.rpartition("/")[2] else name + LATEST


def tags_body(models: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """OpenAI's model objects as the answer of ``/api/tags``, each once. Sizes and digests are not known here."""
    named = {tagged(str(model.get("id"))): model for model in models}
    return {"models": [_tag(name, model) for name, model in named.items()]}


def show_body(model: Mapping[str, Any]) -> dict[str, Any]:
    """One of them as the answer of ``/api/show``.

    What a model can do is not known here, so that everything is offered; the length of its context only where the
    provider's own list tells it (OpenRouter's ``context_length``, vLLM's ``max_model_len``).
    """
    info: dict[str, Any] = {"general.architecture": _ARCHITECTURE, "general.basename": str(model.get("id"))}
    context = model.get("context_length") or model.get("max_model_len")
    if type(context) is int:
        info[f"{_ARCHITECTURE}.context_length"] = context
    return {
        "license": "", "modelfile": "", "parameters": "", "template": "", "details": _details(), "model_info": info,
        "capabilities": _CAPABILITIES, "modified_at": _moment(model),
    }  # fmt: skip


def ps_body() -> dict[str, Any]:
    """The answer of ``/api/ps``: the gateway keeps no model in memory."""
    return {"models": []}


def version_body() -> dict[str, Any]:
    return {"version": VERSION}


def _tag(name: str, model: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name, "model": name, "modified_at": _moment(model), "size": 0, "digest": "", "details": _details(),
    }  # fmt: skip


def _moment(model: Mapping[str, Any]) -> str:
    created = model.get("created")
    try:
        moment = datetime.fromtimestamp(created if isinstance(created, int) else 0, UTC)
    except (OverflowError, OSError, ValueError):
        moment = datetime.fromtimestamp(0, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z"


def _details() -> dict[str, Any]:
    return {
        "parent_model": "", "format": "", "family": "", "families": [], "parameter_size": "", "quantization_level": "",
    }  # fmt: skip
