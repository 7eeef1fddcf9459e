"""The clients that are driven through the gateway, and what is particular to each."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from functools import cache
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


@attrs.frozen(kw_only=True)
class Client:
    """A client and how it is driven."""

    name: str
    driver: str
    """File in ``drivers`` or ``js``."""
    group: str = ""
    """The virtual environment of a Python client; without one it is JavaScript's."""
    key: str = "AuthenticationError"
    """Its exceptions, by what went wrong."""
    model: str = "NotFoundError"
    limit: str = "RateLimitError"
    server: str = "InternalServerError"
    overloaded: str = "InternalServerError"
    reports_usage: bool = True
    counts: bool = False

    @property
    def command(self) -> list[str]:
        """Skips the test where the client is not installed."""
        if self.group:
            return [python(self.group), str(HERE / "drivers" / self.driver)]
        return [*node(), str(HERE / "js" / self.driver)]


def python(group: str) -> str:
    """The interpreter of a group of Python clients (``python/GROUP.txt``)."""
    path = PYTHONS / group / "bin/python"
    return str(path) if path.is_file() else missing(f"the clients of python/{group}.txt are not installed")


def node() -> list[str]:
    if not NODE_MODULES.is_dir():
        missing("the clients of js/package.json are not installed")
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


@cache
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


CLIENTS = (
    Client(name="openai-js-chat", driver="openai_chat.mjs"),
    Client(name="openai-js-responses", driver="openai_responses.mjs"),
    Client(name="anthropic-js", driver="anthropic_messages.mjs", overloaded="OverloadedError"),
    Client(name="openai-python-chat", driver="openai_chat.py", group="current"),
    Client(name="openai-python-responses", driver="openai_responses.py", group="current"),
    *(
        Client(
            name=f"anthropic-python-{n}",
            driver="anthropic_messages.py",
            group=group,
            overloaded="OverloadedError",
            counts=True,
        )
        for n, group in ((2, "current"), (0, "anthropic-0"))
    ),
)
