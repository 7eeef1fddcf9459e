"""Whose prices hold at a provider: from where it is called, else from its type.

Facts: the vendors' API references; the names of genai-prices 0.2 and of LiteLLM's price list, as of November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs

from gateway.dialects.presets import PRESETS


@attrs.frozen
class Vendor:
    """A vendor under the names that sources of prices have for it."""

    genai: str = ""
    """Its id in genai-prices."""
    prefixes: tuple[str, ...] = ()
    """What stands before the model's name in LiteLLM's list."""
    bare: tuple[str, ...] = ()
    """Beginnings of ``litellm_provider`` of models that stand there without a prefix."""

    def keys(self, model: str) -> Iterator[str]:
        """Where LiteLLM's list may have the model, without the bare name."""
        return (f"{prefix}/{model}" for prefix in self.prefixes)

    def is_bare(self, listed: Any) -> bool:
        """Whether an entry under the bare name is this vendor's, by its ``litellm_provider``."""
        return isinstance(listed, str) and any(listed == name or listed.startswith(f"{name}-") for name in self.bare)


_OPENAI = Vendor("openai", ("openai",), ("openai", "text-completion-openai"))
_ANTHROPIC = Vendor("anthropic", ("anthropic",), ("anthropic",))
_GOOGLE = Vendor("google", ("gemini",))
_VERTEX = Vendor("google", ("vertex_ai",), ("vertex_ai",))
_AZURE = Vendor("azure", ("azure", "azure_ai"), ("azure",))
_AWS = Vendor("aws", ("bedrock",), ("bedrock", "bedrock_converse"))
_COHERE = Vendor("cohere", ("cohere",), ("cohere", "cohere_chat"))
_TYPES = {
    "anthropic": _ANTHROPIC, "gemini": _GOOGLE, "vertex": _VERTEX, "azure_openai": _AZURE, "bedrock": _AWS,
    "cohere": _COHERE,
}  # fmt: skip
# A host, or what it ends in.
_HOSTS: Mapping[str, Vendor] = {
    "api.openai.com": _OPENAI,
    "api.anthropic.com": _ANTHROPIC,
    "generativelanguage.googleapis.com": _GOOGLE,
    "googleapis.com": _VERTEX,
    "openai.azure.com": _AZURE,
    "services.ai.azure.com": _AZURE,
    "cognitiveservices.azure.com": _AZURE,
    "api.cohere.com": _COHERE,
    "api.cohere.ai": _COHERE,
    "api.groq.com": Vendor("groq", ("groq",)),
    "api.mistral.ai": Vendor("mistral", ("mistral", "codestral")),
    "api.deepseek.com": Vendor("deepseek", ("deepseek",)),
    "openrouter.ai": Vendor("openrouter", ("openrouter",)),
    "api.together.xyz": Vendor("together", ("together_ai",)),
    "api.x.ai": Vendor("x-ai", ("xai",)),
    "api.fireworks.ai": Vendor("fireworks", ("fireworks_ai",)),
    "api.cerebras.ai": Vendor("cerebras", ("cerebras",)),
    "api.perplexity.ai": Vendor("perplexity", ("perplexity",)),
    "integrate.api.nvidia.com": Vendor("", ("nvidia_nim",)),
    "api.deepinfra.com": Vendor("", ("deepinfra",)),
    "api.novita.ai": Vendor("novita", ("novita",)),
    "api.moonshot.ai": Vendor("moonshotai", ("moonshot",)),
    "api.moonshot.cn": Vendor("moonshotai", ("moonshot",)),
    "api.z.ai": Vendor("zai", ("zai",)),
    "api.minimax.io": Vendor("minimax", ("minimax",)),
    "dashscope.aliyuncs.com": Vendor("", ("dashscope",)),
    "dashscope-intl.aliyuncs.com": Vendor("", ("dashscope",)),
    "api.sambanova.ai": Vendor("", ("sambanova",)),
    "api.voyageai.com": Vendor("voyageai", ("voyage",)),
}

_BEDROCK = re.compile(r"bedrock[a-z-]*\..*(amazonaws\.com|amazonaws\.com\.cn|api\.aws)")


def address_of(table: Mapping[str, Any]) -> str:
    """The ``base_url`` in a table of ``[providers]``, or that of its ``preset``; empty where neither is written."""
    url, preset = table.get("base_url"), table.get("preset")
    if isinstance(url, str) and url:
        return url
    return PRESETS[preset].base_url if isinstance(preset, str) and preset in PRESETS else ""


def vendor_of(kind: str, base_url: str) -> Vendor | None:
    """The vendor of a provider of type ``kind``; ``None`` for a server nobody but its operator knows the price of.

    An address that is a vendor's own decides: Anthropic's API is spoken elsewhere, too. Any other is taken for a proxy
    in front of the vendor whose type it is.
    """
    try:
        host = urlsplit(base_url).hostname or ""
    except ValueError:
        host = ""
    if _BEDROCK.fullmatch(host):
        return _AWS
    while host:
        if host in _HOSTS:
            return _HOSTS[host]
        host = host.partition(".")[2]
    return _TYPES.get(kind)
