"""What the soak sends and what its upstream answers: ordinary calls, faults, clients that walk out."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from typing import Any

import attrs

from bench import messages
from gateway.testing import Call, Head, RawClient, Script, Truncated, answers, wire

KINDS = {"whole": 28, "stream": 25, "usage": 12, "tools": 10, "embeddings": 10, "cached": 10, "upload": 5}
"""Kind of call → its weight."""
PLAIN_FAULTS = ("refuse", "silent", "reset", "500", "429")
STREAM_FAULTS = ("cut", "reset inside", "stall", "malformed", "unfinished")
LEAVES = ("head", "body", "sent", "answer")
"""Where a client walks out: inside its request's head or body, before the answer, inside the answer."""
LEAVING, FAULTY = 0.10, 0.05
"""Shares of the calls."""
LARGE, SMALLEST, LARGEST = 0.1, 1_000, 2_000_000
"""Share of the bodies above 32 KB; bytes of the smallest and the largest one."""
REFUSING = "refusing-model"
"""Routed to a port where nobody listens."""
PROVIDER = "mock"
"""The provider that answers as ``provide`` does."""
_PATHS = {"embeddings": "/v1/embeddings", "upload": "/v1/audio/transcriptions"}
_FORM = b'--soak\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n'
_TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}


@attrs.frozen
class Errand:
    """One call to make."""

    kind: str
    mark: str
    """Stands in the request and in its answer: nobody may get another one's."""
    size: int
    """Bytes of the body, about."""
    fault: str = ""
    leave: str = ""

    @property
    def streams(self) -> bool:
        return self.kind in ("stream", "usage", "tools")

    def body(self) -> bytes:
        if self.kind == "upload":
            parts = _FORM % (b"model", messages.MODEL.encode()) + _FORM % (b"mark", self.mark.encode())
            return parts + _FORM % (b"file", b"\0" * self.size) + b"--soak--\r\n"
        fields: dict[str, Any] = {"model": self._model(), "user": self.mark}
        text = "x" * self.size
        if self.kind == "embeddings":
            return json.dumps(fields | {"input": text}).encode()
        fields["messages"] = [{"role": "user", "content": text}]
        if self.kind == "cached":
            fields["temperature"] = 0
        if self.kind == "tools":
            fields["tools"] = [_TOOL]
        if self.streams:
            fields["stream"] = True
        if self.kind == "usage":
            fields["stream_options"] = {"include_usage": True}
        return json.dumps(fields).encode()

    def _model(self) -> str:
        if not self.fault:
            return messages.MODEL
        # A target of its own for each fault: what a 429 keeps away must not be the good calls.
        return REFUSING if self.fault == "refuse" else f"{PROVIDER}/{self.fault}"

    def request(self, host: str) -> tuple[bytes, bytes]:
        """Head and body."""
        body = self.body()
        media = "multipart/form-data; boundary=soak" if self.kind == "upload" else "application/json"
        fields = {"Host": host, "Authorization": f"Bearer {messages.KEY}", "Content-Type": media}
        fields["Content-Length"] = str(len(body))
        path = _PATHS.get(self.kind, messages.CHAT_PATH)
        return wire.encode_head(f"POST {path} HTTP/1.1", fields), body


def draw(number: int) -> Errand:
    """The ``number``-th call."""
    kind = random.choices(list(KINDS), list(KINDS.values()))[0]
    low, high = (32_000, LARGEST) if random.random() < LARGE else (SMALLEST, 32_000)
    size = int(low * (high / low) ** random.random())
    chance = random.random()
    if chance < FAULTY:
        fault = random.choice(PLAIN_FAULTS + STREAM_FAULTS)
        kind = "stream" if fault in STREAM_FAULTS else "whole"
        return Errand(kind, f"<{fault} {number}>", size, fault=fault)
    if kind == "cached":
        return Errand(kind, f"<cached {number % 32}>", SMALLEST)
    leave = random.choice(LEAVES) if chance < FAULTY + LEAVING else ""
    return Errand(kind, f"<{kind} {number}>", size, leave=leave)


async def provide(call: Call) -> None:
    """The upstream's script: answers an errand as its kind wants, or fails as its mark says."""
    body = bytes(call.request.body)
    call.request.body.clear()  # the ledger would keep it until it is emptied
    start = body.index(b"<")
    mark = body[start : body.index(b">", start) + 1].decode()
    name = mark[1:-1].rpartition(" ")[0]
    await asyncio.sleep(random.uniform(0, 0.2))
    await (_plain_fault(name) or _stream(name, mark, body[-500:] + body[:500]))(call)


def _plain_fault(name: str) -> Script | None:
    match name:
        case "silent":
            return answers.silent
        case "reset":
            return answers.raw(b"", "reset")
        case "500" | "429":
            return answers.error(int(name), headers={"Retry-After": "1"})
    return None


def _stream(name: str, mark: str, body: bytes) -> Script:
    if name == "upload":
        return answers.whole(200, {"text": mark})
    if name == "embeddings":
        data = [{"object": "embedding", "index": 0, "embedding": [0.25] * 64}]
        return answers.whole(200, {"object": "list", "data": data, "model": mark, "usage": answers.USAGE})
    if b'"stream": true' not in body:
        return answers.chat(mark)
    usage = answers.USAGE if b'"include_usage": true' in body else None
    events = answers.chat_events(random.randint(3, 30), model=mark, usage=usage)
    if name == "tools":
        function = {"index": 0, "id": "call_1", "function": {"name": "look_up", "arguments": mark}}
        choice = {"index": 0, "delta": {"tool_calls": [function]}, "finish_reason": None}
        events.insert(1, answers.event({"object": "chat.completion.chunk", "choices": [choice]}))
    pause = random.uniform(0.005, 0.03)
    match name:
        case "cut":
            return answers.stream(events[:3], pause=pause, ending="half")
        case "reset inside":
            return answers.stream(events[:3], pause=pause, ending="reset")
        case "stall":
            return answers.stream(events[:3], pause=pause, ending="stall")
        case "malformed":
            return answers.stream([*events[:2], b'data: {"choices": [}\n\n', *events[2:]], pause=pause)
        case "unfinished":
            return answers.stream(events[:-2], pause=pause)
    return answers.stream(events, pause=pause)


class Clients:
    """Makes calls and judges the answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.counts: Counter[str] = Counter()
        self.errors: list[str] = []
        """What went wrong without being meant to; the first hundred."""
        self.answered: Counter[str] = Counter()
        """The ids of the answers."""
        self._number = 0

    async def visit(self, calls: int) -> None:
        """Up to ``calls`` calls on one connection."""
        try:
            async with RawClient(self.url) as client:
                for _ in range(calls):
                    self._number += 1
                    if not await self._run(client, draw(self._number)):
                        return
        except (OSError, TimeoutError) as error:
            self._error(f"connection: {error!r}")

    async def _run(self, client: RawClient, errand: Errand) -> bool:
        """Whether the connection can be used again."""
        self.counts["left" if errand.leave else "faulty" if errand.fault else "plain"] += 1
        head, body = errand.request(client.host)
        if errand.leave:
            await self._walk_out(client, errand, head, body)
            return False
        try:
            await client.send(head + body)
            answer = await client.read_head()
            self.answered[answer.get("x-request-id") or ""] += 1
            received = b"".join([piece async for piece in client.body()])
        except (Truncated, ConnectionError, TimeoutError) as error:
            if not errand.fault:
                self._error(f"{errand.mark}: {error!r}")
            return False
        wrong = _wrong(errand, answer, received)
        if bool(wrong) != bool(errand.fault):
            self._error(f"{errand.mark}: {wrong or 'a fault that looks like success'}: {received[-200:]!r}")
        return (answer.get("connection") or "").lower() != "close"

    async def _walk_out(self, client: RawClient, errand: Errand, head: bytes, body: bytes) -> None:
        try:
            if errand.leave == "head":
                await client.send(head[: len(head) // 2])
            elif errand.leave == "body":
                await client.send(head + body[: len(body) // 2])
            else:
                await client.send(head + body)
            if errand.leave == "answer":
                self.answered[(await client.read_head()).get("x-request-id") or ""] += 1
                await anext(client.body(), b"")
            else:
                await asyncio.sleep(random.uniform(0, 0.1))
        except (Truncated, ConnectionError) as error:
            self._error(f"{errand.mark} before it left: {error!r}")
        if random.random() < 0.5:
            client.abort()
        else:
            client.leave()

    def _error(self, text: str) -> None:
        self.counts["errors"] += 1
        if len(self.errors) < 100:
            self.errors.append(text)


def _wrong(errand: Errand, head: Head, body: bytes) -> str:
    """Why this is not the complete and only answer to the errand; empty if it is."""
    if " 200 " not in head.start:
        return head.start
    if errand.mark.encode() not in body:
        return "not its own answer"
    if not errand.streams:
        return ""
    if not body.endswith(b"data: [DONE]\n\n"):
        return "no end"
    return "" if (b'"prompt_tokens"' in body) == (errand.kind == "usage") else "usage where none was asked for, or none"
