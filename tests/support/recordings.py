"""Recorded provider traffic: requests to send, and scripts that answer as the provider did."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from gateway.testing import Script, stream, whole
from gateway.testing.wire import json_bytes


def _body(message: Mapping[str, Any]) -> bytes:
    """A recorded body: parsed JSON, text, or base64 of anything else."""
    if "body_b64" in message:
        return base64.b64decode(message["body_b64"])
    if "body" in message:
        text: str = message["body"]
        return text.encode()
    return json_bytes(message.get("json"))


@attrs.frozen
class Interaction:
    """One recorded request with its answer."""

    method: str
    path: str
    """Path and query at the provider."""
    request: bytes
    status: int
    headers: Mapping[str, str]
    response: bytes

    @property
    def request_json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.request)
        return parsed

    @property
    def streamed(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    def replay(self, piece: int = 1000) -> Script:
        """Answers as recorded: status, content type and body; a stream in chunks of ``piece`` bytes."""
        headers = {"Content-Type": self.headers.get("content-type", "application/json")}
        if not self.streamed:
            return whole(self.status, self.response, headers)
        pieces = [self.response[at : at + piece] for at in range(0, len(self.response), piece)]
        return stream(pieces, headers=headers | {"Transfer-Encoding": "chunked"}, status=self.status)


class Recordings:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "normalised"

    def names(self, prefix: str = "") -> list[str]:
        return sorted(path.stem for path in self.folder.glob(f"{prefix}*.json"))

    def interactions(self, name: str) -> list[Interaction]:
        return [_interaction(each) for each in json.loads((self.folder / f"{name}.json").read_bytes())["interactions"]]


def _interaction(recorded: Mapping[str, Any]) -> Interaction:
    request, response = recorded["request"], recorded["response"]
    url = urlsplit(request["url"])
    return Interaction(
        method=request["method"],
        path=url.path + (f"?{url.query}" if url.query else ""),
        request=_body(request),
        status=response["status"],
        headers=response["headers"],
        response=_body(response),
    )
