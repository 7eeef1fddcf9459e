"""Clients of the dialects that every provider serves: how each asks, and what it is told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

import attrs

from gateway.testing import GatewayProcess, Response, fetch
from gateway.testing.answers import JSON

CANARY = "sk-canary-4f1c-of-this-provider"
"""A provider's credential."""
THEIRS = "sk-virtual-of-the-client-8d2P"
"""A client's."""
_numbers = count()


def fresh(provider: str = "p") -> str:
    """A model nobody has called yet: no breaker has opened for it, and no wait holds."""
    return f"{provider}/m{next(_numbers)}"


# How clients of each dialect ask, and where the text of a whole and of a streamed answer is.
def _texts(path: tuple[Any, ...], values: Iterable[Any]) -> str:
    found = []
    for value in values:
        for step in path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                value = ""
        found.append(value or "")
    return "".join(found)


@attrs.frozen
class Asks:
    path: str
    body: Mapping[str, Any]
    whole: tuple[Any, ...]
    piece: tuple[Any, ...]
    streamed: str = ""
    """Path of the streamed form, where it has its own."""

    async def send(
        self, gateway: GatewayProcess, model: str, streams: bool, headers: Mapping[str, str] = {}
    ) -> Response:
        path = (self.streamed or self.path) if streams else self.path
        body = {**self.body, **({} if "{model}" in path else {"model": model})}
        if streams and not self.streamed:
            body["stream"] = True
        url = gateway.url + path.replace("{model}", model)
        return await fetch(url, "POST", {**JSON, **headers}, json.dumps(body).encode())

    def text(self, reply: Response, streams: bool) -> str:
        if not streams:
            return _texts(self.whole, [reply.json])
        lines = [line[5:] for line in reply.body.splitlines() if line.startswith(b"data:") and b"[DONE]" not in line]
        return _texts(self.piece, map(json.loads, lines))


_HI = [{"role": "user", "content": "hi"}]
_CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
_PARTS = ("candidates", 0, "content", "parts", 0, "text")
CLIENTS = {
    "chat": Asks(
        "/v1/chat/completions",
        {"messages": _HI},
        ("choices", 0, "message", "content"),
        ("choices", 0, "delta", "content"),
    ),
    "responses": Asks("/v1/responses", {"input": "hi"}, ("output", 0, "content", 0, "text"), ("delta",)),
    "messages": Asks(
        "/v1/messages", {"messages": _HI, "max_tokens": 50}, ("content", 0, "text"), ("delta", "text")
    ),
    "gemini": Asks(
        "/v1beta/models/{model}:generateContent",
        _CONTENTS,
        _PARTS,
        _PARTS,
        "/v1beta/models/{model}:streamGenerateContent?alt=sse",
    ),
}  # fmt: skip
