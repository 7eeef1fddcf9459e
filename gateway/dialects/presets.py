"""Services and servers that nearly speak OpenAI's API: what differs, as data, for ``preset`` of ``openai_compat``.

Facts: the vendors' API references and recorded traffic, as of November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class Preset:
    """One of them."""

    base_url: str = ""
    stream_usage: bool = True
    """Takes ``stream_options.include_usage``."""
    done_marker: bool = True
    """Ends streams with ``[DONE]``."""
    responses: bool = True
    """Serves ``/responses``."""
    messages: bool = False
    """Serves Anthropic's ``/messages``."""
    capabilities: Mapping[str, Any] = attrs.field(factory=dict)
    """Flags of all of its models (``Capabilities``)."""
    refuses: frozenset[str] = frozenset()
    """Fields of a request it answers 400 or 422 to."""
    names: Mapping[str, str] = attrs.field(factory=dict)
    """OpenAI's name of a field → its own."""
    developer: bool = True
    """Knows the role ``developer``."""

    def fit(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """A translated request as this server takes it, and the names of what it does not."""
        if self.developer and not self.refuses and not self.names:
            return request, []
        dropped = [name for name in request if name in self.refuses and name != "stream_options"]
        fitted = {self.names.get(name, name): value for name, value in request.items() if name not in self.refuses}
        if not self.developer:
            fitted["messages"] = [
                {**message, "role": "system"} if message.get("role") == "developer" else message
                for message in fitted.get("messages") or ()
            ]
        return fitted, dropped


_OPENAI_ONLY = frozenset({
    "metadata", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "safety_identifier",
    "service_tier", "store", "verbosity", "web_search_options", "prediction", "moderation",
})  # fmt: skip
_PLAIN: dict[str, Any] = {"responses": False, "developer": False, "refuses": _OPENAI_ONLY}
_MAX_TOKENS = {"max_completion_tokens": False}

PRESETS: dict[str, Preset] = {
    "openai": Preset(base_url="https://api.openai.com/v1"),
    "groq": Preset(base_url="https://api.groq.com/openai/v1", refuses=_OPENAI_ONLY - {"service_tier"}),
    "mistral": Preset(
        base_url="https://api.mistral.ai/v1",
        responses=False,
        developer=False,
        stream_usage=False,  # comes without being asked for, and unknown fields are a 422
        capabilities=_MAX_TOKENS,
        refuses=_OPENAI_ONLY | {"stream_options", "user", "logprobs", "top_logprobs", "logit_bias"},
        names={"seed": "random_seed"},
    ),
    "deepseek": Preset(
        base_url="https://api.deepseek.com/v1", developer=False, capabilities=_MAX_TOKENS, refuses=_OPENAI_ONLY
    ),
    "openrouter": Preset(base_url="https://openrouter.ai/api/v1", responses=False),
    "together": Preset(base_url="https://api.together.xyz/v1", capabilities=_MAX_TOKENS, **_PLAIN),
    "xai": Preset(base_url="https://api.x.ai/v1", refuses=_OPENAI_ONLY),
    "fireworks": Preset(base_url="https://api.fireworks.ai/inference/v1", capabilities=_MAX_TOKENS, **_PLAIN),
    "cerebras": Preset(base_url="https://api.cerebras.ai/v1", **_PLAIN),
    "perplexity": Preset(base_url="https://api.perplexity.ai", capabilities=_MAX_TOKENS, **_PLAIN),
    "nvidia": Preset(base_url="https://integrate.api.nvidia.com/v1", capabilities=_MAX_TOKENS, **_PLAIN),
    "huggingface": Preset(base_url="https://router.huggingface.co/v1", capabilities=_MAX_TOKENS, **_PLAIN),
    "vllm": Preset(base_url="http://127.0.0.1:8000/v1", messages=True, developer=False),
    "llama_cpp": Preset(base_url="http://127.0.0.1:8080/v1", messages=True, developer=False),
    "lmstudio": Preset(base_url="http://127.0.0.1:1234/v1", developer=False),
    "sglang": Preset(base_url="http://127.0.0.1:30000/v1", developer=False),
}
"""By the name that ``preset`` gives. A setting of the provider's own table comes on top."""
