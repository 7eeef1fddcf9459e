"""The clients that are driven through the gateway, and what is particular to each."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from tests.support.programs import ROOT, missing, needs_program

HERE = Path(__file__).parent
PYTHONS = ROOT / ".venv/clients"
NODE_MODULES = HERE / "js/node_modules"
PROVIDERS = ("openai", "anthropic", "gemini")
KEY = "hg-clients-alice"
WITHIN = 90.0
"""Seconds a run of a client may take."""


ERRORS = {
    "key": "AuthenticationError",
    "model": "NotFoundError",
    "limit": "RateLimitError",
    "server": "InternalServerError",
    "overloaded": "InternalServerError",
}
"""The exceptions of most clients."""


@attrs.frozen
class Client:
    """A client and how it is driven."""

    name: str
    driver: str
    """File in ``drivers`` or ``js``."""
    group: str = ""
    """The virtual environment of a Python client; without one it is JavaScript's."""
    kind: str = ""
    """Which of its interfaces, where the driver knows several."""
    errors: Mapping[str, str] = attrs.field(default=ERRORS, hash=False)
    """What went wrong → its exception."""
    counts: bool = False
    """It can ask for the number of tokens."""

    @property
    def command(self) -> list[str]:
        """Skips the test where the client is not installed."""
        if self.group:
            return [python(self.group), str(HERE / "drivers" / self.driver), self.kind]
        return [*node(), str(HERE / "js" / self.driver), self.kind]


def python(group: str) -> str:
    """The interpreter of a group of Python clients (``python/GROUP.txt``)."""
    folder = PYTHONS / group
    if not (folder / ".made").is_file():
        missing(f"the clients of python/{group}.txt are not installed (make test-clients)")
    return str(folder / "bin/python")


def node() -> list[str]:
    if not (NODE_MODULES / ".made").is_file():
        missing("the clients of js/package.json are not installed (make test-clients)")
    return [needs_program("node")]


def run(command: list[str], folder: Path, outside: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a client in ``folder``, with nothing of the machine's own but where programs are: no keys, no configuration.

    ``outside`` is the proxy to any host but this one. Raises ``subprocess.TimeoutExpired``.
    """
    proxies = {name: outside for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")}
    kept = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        command,
        cwd=folder,
        env={**kept, **proxies, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN,
    )


def findings(client: Client, url: str, outside: str, folder: Path) -> Any:
    """What the driver of a client reports."""
    asked = {
        "GATEWAY_URL": url,
        "GATEWAY_KEY": KEY,
        "GATEWAY_MODELS": ",".join(f"by-{provider}" for provider in PROVIDERS),
        "GATEWAY_PROVIDERS": ",".join(PROVIDERS),
    }
    done = run(client.command, folder, outside, asked)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


_ANTHROPIC = {**ERRORS, "overloaded": "OverloadedError"}
_GOOGLE = {
    "key": "ClientError",
    "model": "ClientError",
    "limit": "ClientError",
    "server": "ServerError",
    "overloaded": "ServerError",
}
_LANGCHAIN_OPENAI = {
    "key": "OpenAIAuthenticationError",
    "model": "OpenAIModelNotFoundError",
    "limit": "OpenAIRateLimitError",
    "server": "OpenAIAPIError",
    "overloaded": "OpenAIAPIError",
}
_LANGCHAIN_ANTHROPIC = {
    "key": "AnthropicAuthenticationError",
    "model": "AnthropicModelNotFoundError",
    "limit": "AnthropicRateLimitError",
    "server": "AnthropicAPIError",
    "overloaded": "AnthropicOverloadedError",
}
_PYDANTIC = {
    "key": "ModelAuthenticationError",
    "model": "ModelNotFoundError",
    "limit": "ModelRateLimitError",
    "server": "ModelServerError",
    "overloaded": "ModelOverloadedError",
}
_PYDANTIC_GOOGLE = {**_PYDANTIC, "overloaded": "ModelUnavailableError"}
_VERCEL = dict.fromkeys(_GOOGLE, "APICallError")
_CURRENT, _FRAMEWORKS = "current", "frameworks"
CLIENTS = (
    Client("openai-python-chat", "openai_chat.py", _CURRENT),
    Client("openai-python-responses", "openai_responses.py", _CURRENT),
    Client("llm", "llm_library.py", _CURRENT),
    Client("anthropic-python-2", "anthropic_messages.py", _CURRENT, counts=True, errors=_ANTHROPIC),
    Client("anthropic-python-0", "anthropic_messages.py", "anthropic-0", counts=True, errors=_ANTHROPIC),
    Client("google-genai", "google_genai.py", _CURRENT, counts=True, errors=_GOOGLE),
    Client("langchain-chat", "langchain_models.py", _FRAMEWORKS, "chat", errors=_LANGCHAIN_OPENAI),
    Client("langchain-responses", "langchain_models.py", _FRAMEWORKS, "responses", errors=_LANGCHAIN_OPENAI),
    Client("langchain-anthropic", "langchain_models.py", _FRAMEWORKS, "anthropic", errors=_LANGCHAIN_ANTHROPIC),
    Client("pydantic-ai-chat", "pydantic_agents.py", _FRAMEWORKS, "chat", errors=_PYDANTIC),
    Client("pydantic-ai-responses", "pydantic_agents.py", _FRAMEWORKS, "responses", errors=_PYDANTIC),
    Client("pydantic-ai-anthropic", "pydantic_agents.py", _FRAMEWORKS, "anthropic", errors=_PYDANTIC),
    Client("pydantic-ai-google", "pydantic_agents.py", _FRAMEWORKS, "google", errors=_PYDANTIC_GOOGLE),
    Client("openai-js-chat", "openai_chat.mjs"),
    Client("openai-js-responses", "openai_responses.mjs"),
    Client("anthropic-js", "anthropic_messages.mjs", errors=_ANTHROPIC),
    Client("ai-chat", "ai.mjs", kind="chat", errors=_VERCEL),
    Client("ai-responses", "ai.mjs", kind="responses", errors=_VERCEL),
    Client("ai-anthropic", "ai.mjs", kind="anthropic", errors=_VERCEL),
    Client("ai-google", "ai.mjs", kind="google", errors=_VERCEL),
)
