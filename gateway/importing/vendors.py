"""LiteLLM's vendors (``vendor/model``) as tables of ``[providers]``.

Facts: LiteLLM's documentation of its providers and of ``config.yaml``, as of November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import attrs

from gateway.importing.fields import Fields

PLACEHOLDER = "https://REPLACE-ME.invalid"
"""Stands for an address nobody knows; the name never resolves (RFC 6761 section 6.4)."""
_CREDENTIAL = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)
_LOOKS_SECRET = re.compile(r"(?:sk|pk|gsk|xai|hf|Bearer|Basic)[-_ ]|[A-Za-z0-9+/_-]{32,}=*")
_API_VERSION = re.compile(r"v1|\d{4}-\d\d-\d\d(?:-preview)?")
_NAME = re.compile(r"[A-Za-z0-9.:_-]+")


@attrs.frozen(kw_only=True)
class Vendor:
    type: str = "openai_compat"
    preset: str | None = None
    key: str = ""
    """The variable LiteLLM takes the key from where the configuration has none."""
    base: tuple[str, ...] = ()
    """Those of the address, likewise."""
    version: str = ""
    """What our ``base_url`` has at its end and theirs may lack."""
    home: bool = True
    """It has an address of its own, so that none need be given."""


VENDORS: dict[str, Vendor] = {
    "openai": Vendor(preset="openai", key="OPENAI_API_KEY", base=("OPENAI_BASE_URL", "OPENAI_API_BASE")),
    "custom_openai": Vendor(home=False),
    "openai_like": Vendor(home=False),
    "litellm_proxy": Vendor(key="LITELLM_PROXY_API_KEY", base=("LITELLM_PROXY_API_BASE",), home=False),
    "azure": Vendor(type="azure_openai", key="AZURE_API_KEY", base=("AZURE_API_BASE",), home=False),
    "anthropic": Vendor(
        type="anthropic", key="ANTHROPIC_API_KEY", base=("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"), version="/v1"
    ),
    "gemini": Vendor(type="gemini", key="GEMINI_API_KEY", version="/v1beta"),
    "vertex_ai": Vendor(type="vertex"),
    "bedrock": Vendor(type="bedrock"),
    "cohere": Vendor(type="cohere", key="COHERE_API_KEY", base=("COHERE_API_BASE",)),
    "ollama": Vendor(type="ollama", base=("OLLAMA_API_BASE",)),
    "groq": Vendor(preset="groq", key="GROQ_API_KEY"),
    "mistral": Vendor(preset="mistral", key="MISTRAL_API_KEY"),
    "deepseek": Vendor(preset="deepseek", key="DEEPSEEK_API_KEY"),
    "openrouter": Vendor(preset="openrouter", key="OPENROUTER_API_KEY"),
    "together_ai": Vendor(preset="together", key="TOGETHERAI_API_KEY"),
    "xai": Vendor(preset="xai", key="XAI_API_KEY"),
    "fireworks_ai": Vendor(preset="fireworks", key="FIREWORKS_API_KEY"),
    "cerebras": Vendor(preset="cerebras", key="CEREBRAS_API_KEY"),
    "perplexity": Vendor(preset="perplexity", key="PERPLEXITYAI_API_KEY"),
    "nvidia_nim": Vendor(preset="nvidia", key="NVIDIA_NIM_API_KEY"),
    "huggingface": Vendor(preset="huggingface", key="HF_TOKEN"),
    "hosted_vllm": Vendor(preset="vllm", key="HOSTED_VLLM_API_KEY", base=("HOSTED_VLLM_API_BASE",)),
    "lm_studio": Vendor(preset="lmstudio", key="LM_STUDIO_API_KEY", base=("LM_STUDIO_API_BASE",)),
    "llamafile": Vendor(home=False),
}
_SAME = {
    "text-completion-openai": "openai", "azure_text": "azure", "vertex_ai_beta": "vertex_ai",
    "bedrock_converse": "bedrock", "cohere_chat": "cohere", "ollama_chat": "ollama",
}  # fmt: skip
# What LiteLLM takes a model without a vendor for, by the start of its name.
_GUESSES = {
    "gpt-": "openai", "chatgpt-": "openai", "o1": "openai", "o3": "openai", "o4": "openai", "dall-e": "openai",
    "whisper": "openai", "tts-": "openai", "text-embedding-": "openai", "claude": "anthropic", "gemini": "vertex_ai",
    "command-": "cohere", "ft:gpt-": "openai",
}  # fmt: skip
# Parts between vendor and model that choose a route over there and are no part of the model's name.
_ROUTES = {
    "openai": ("responses", "chat", "completions"),
    "azure": ("responses", "o_series", "gpt5_series", "chat"),
    "bedrock": ("converse", "invoke", "converse_like"),
    "vertex_ai": ("gemini",),
}
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d+")


def split(fields: Fields) -> tuple[str, str, str]:
    """Vendor, model and region of ``model``; empty: none of ours, and none given."""
    model = fields.text("model") or ""
    given = fields.text("custom_llm_provider")
    vendor, slash, rest = model.partition("/")
    if given and given != vendor:
        vendor, rest = given, model
    elif not slash:
        vendor, rest = _guess(fields, model), model
    vendor, region = _SAME.get(vendor, vendor), ""
    for _ in range(2):  # bedrock/us-east-1/converse/… and bedrock/converse/us-east-1/…
        route, slash, inner = rest.partition("/")
        if slash and vendor == "bedrock" and _REGION.fullmatch(route):
            region, rest = route, inner
        elif slash and route in _ROUTES.get(vendor, ()):
            rest = inner
    return (vendor if vendor in VENDORS else ""), rest, region


def _guess(fields: Fields, model: str) -> str:
    if fields.get("api_base") or fields.get("base_url"):
        return "openai"
    return next((vendor for start, vendor in _GUESSES.items() if model.startswith(start)), "")


def table(vendor: str, model: str, region: str, fields: Fields) -> dict[str, Any]:
    """The provider's table for one deployment, timeouts and headers included."""
    known = VENDORS[vendor]
    build = _BUILDERS.get(known.type, _plain)
    found = {"type": known.type, **build(vendor, model, region, fields)}
    if headers := _headers(fields):
        found["headers"] = headers
    if timeouts := _timeouts(fields):
        found["timeouts"] = timeouts
    return found


def _plain(vendor: str, model: str, region: str, fields: Fields) -> dict[str, Any]:
    known = VENDORS[vendor]
    found: dict[str, Any] = {}
    base = _base(fields, known)
    if base and known.version and not re.search(r"/v\d\w*$", base):
        base += known.version
    if known.type == "cohere":
        base = re.sub(r"/v\d.*$", "", base)
    if known.type == "ollama":
        base = re.sub(r"/(api|v1)$", "", base)
    default = known.key
    if known.preset == "openai" and base:  # another server than OpenAI's own, which has no claim to OpenAI's key
        default = ""
        if fields.get("api_key") is None:
            fields.note(None, f"there is no api_key: {known.key} is not sent to an address that is given.")
    elif known.preset:
        found["preset"] = known.preset
    if base:
        found["base_url"] = base
    if key := fields.secret("api_key", f"{vendor}_KEY", default):
        found["api_key"] = key
    return found


def _azure(vendor: str, model: str, region: str, fields: Fields) -> dict[str, Any]:
    base = re.sub(r"/openai(/.*)?$", "", _base(fields, VENDORS[vendor]))
    found: dict[str, Any] = {"base_url": base}
    version = fields.text("api_version", "AZURE_API_VERSION")
    if version in ("preview", "latest"):
        version = "v1"
    if version and _API_VERSION.fullmatch(version):
        found["api_version"] = version
    elif version:
        fields.note("api_version", "expected a date such as 2024-10-21, or v1; left out.")
    identity = [name for name in ("tenant_id", "client_id", "client_secret") if fields.get(name) is not None]
    token = fields.secret("azure_ad_token", "AZURE_TOKEN")
    if fields.get("api_key") is not None or not (token or identity):
        found["api_key"] = fields.secret("api_key", "AZURE_KEY", "AZURE_API_KEY")
    elif token:
        found["token"] = token
    else:
        fields.note(
            identity[0],
            "client credentials must be there at start and are not carried over: write "
            'entra = { tenant, client_id, client_secret = "env:NAME" } into the provider\'s table.',
        )
    return found


def _bedrock(vendor: str, model: str, region: str, fields: Fields) -> dict[str, Any]:
    given = fields.text("aws_region_name", *(() if region else _AWS_REGION)) or ""
    region = region or given
    if not _NAME.fullmatch(region):
        fields.note("aws_region_name", "no region is known: us-east-1 is written in its place.")
        region = "us-east-1"
    found: dict[str, Any] = {"region": region}
    base = fields.text("aws_bedrock_runtime_endpoint", "AWS_BEDROCK_RUNTIME_ENDPOINT") or fields.text("api_base")
    if base:
        found["base_url"] = _clean(fields, "aws_bedrock_runtime_endpoint", base)
    if fields.get("api_key") is not None:
        found["api_key"] = fields.secret("api_key", "BEDROCK_KEY")
    elif fields.get("aws_access_key_id") is not None and fields.get("aws_secret_access_key") is not None:
        for ours, theirs in _AWS.items():
            if reference := fields.secret(theirs, ours):
                found[ours] = reference
    return found


_AWS_REGION = ("AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION")
_AWS = {
    "access_key": "aws_access_key_id", "secret_key": "aws_secret_access_key", "session_token": "aws_session_token",
}  # fmt: skip


def _vertex(vendor: str, model: str, region: str, fields: Fields) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for ours, theirs, variable, fallback in (
        ("project", "vertex_project", "VERTEXAI_PROJECT", "REPLACE-ME"),
        ("location", "vertex_location", "VERTEXAI_LOCATION", "us-central1"),
    ):
        value = fields.text(theirs, variable) or ""
        if not _NAME.fullmatch(value):
            fields.note(theirs, f"none is known: {fallback} is written in its place.")
            value = fallback
        found[ours] = value
    if model.startswith("claude"):
        found["publisher"] = "anthropic"
    if fields.get("api_base") is not None:
        found["base_url"] = _base(fields, VENDORS[vendor])
    credentials = fields.get("vertex_credentials")
    if isinstance(credentials, str) and credentials.startswith("/"):
        found["credentials"] = f"file:{credentials}?"
        fields.note("vertex_credentials", "the file is read if it is there and nobody else can read it (chmod 600).")
    elif reference := fields.secret("vertex_credentials", "VERTEX_CREDENTIALS"):
        found["credentials"] = reference
        fields.note("vertex_credentials", "the variable must hold the JSON of the key, not the name of a file.")
    return found


_BUILDERS: dict[str, Callable[[str, str, str, Fields], dict[str, Any]]] = {
    "azure_openai": _azure, "bedrock": _bedrock, "vertex": _vertex,
}  # fmt: skip


def _base(fields: Fields, known: Vendor) -> str:
    """The address that is given; empty where the vendor has one of its own and none is given."""
    key = "base_url" if fields.get("api_base") is None and fields.get("base_url") is not None else "api_base"
    value = fields.text(key, *known.base)
    if value is None:
        if known.home and fields.get(key) is None:
            return ""
        fields.note(key, f"no address is known: {PLACEHOLDER} is written in its place.")
        return PLACEHOLDER
    return _clean(fields, key, value)


def _clean(fields: Fields, key: str, value: str) -> str:
    """An address without the endpoint, and without what may be a credential."""
    try:
        parts = urlsplit(value.strip())
        port = f":{parts.port}" if parts.port is not None else ""
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    except ValueError:
        parts, port, host = urlsplit(""), "", ""
    path = re.sub(r"/(chat/completions|completions|embeddings|messages)$", "", parts.path.rstrip("/"))
    cleaned = f"{parts.scheme}://{host}{port}{path}"
    if parts.scheme not in ("http", "https") or not re.fullmatch(r"[!-~]+", cleaned) or set("?#@\\") & set(cleaned):
        fields.note(key, f"not an address: {PLACEHOLDER} is written in its place.")
        return PLACEHOLDER
    if parts.username or parts.password or parts.query or parts.fragment:
        fields.note(key, "the address is written without its user, password and query.")
    return cleaned


def _headers(fields: Fields) -> dict[str, str]:
    found: dict[str, str] = {}
    for key in ("headers", "extra_headers"):
        for name, value in fields.table(key).items():
            text = str(value)
            if not re.fullmatch(r"[\w-]+", name, re.ASCII) or not text.isprintable():
                fields.note(key, "a header is left out: expected a name of letters and digits, and a printable value.")
            elif text.startswith("os.environ/") or _CREDENTIAL.search(name) or _LOOKS_SECRET.match(text):
                fields.note(key, f"the value of {name} may be a secret and is not copied: write it as \"env:NAME\" "
                            "into the headers of the provider's table.")  # fmt: skip
            else:
                found[name] = text
    organization = fields.get("organization")
    if isinstance(organization, str) and not organization.startswith("os.environ/"):
        found["OpenAI-Organization"] = organization
    elif organization is not None:
        fields.note("organization", 'belongs into the headers of the provider\'s table: { OpenAI-Organization = "…" }.')
    return found


def _timeouts(fields: Fields) -> dict[str, float]:
    """Their limits are for the wait for the next bytes."""
    found: dict[str, float] = {}
    whole, stream = fields.number("timeout"), fields.number("stream_timeout")
    if whole:
        found |= {"first_token": whole, "idle": whole}
    if stream:
        found["idle"] = stream
        fields.note(
            "stream_timeout",
            "carried over as idle, between two pieces of an answer; the wait for the first is first_token in the "
            "provider's timeouts, for streams and whole answers alike.",
        )
    return found
