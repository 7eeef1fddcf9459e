"""The cache plugin, walked through by hand in front of a provider that counts its calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from types import SimpleNamespace
from typing import Any

import attrs
from prometheus_client import CollectorRegistry

from gateway import Exchange, Principal, Reply, Surface, Target, Usage
from gateway.body import parse
from gateway.state.redis_link import Link
from gateway.watchdog import Guard
from gateway_plugins.middleware import cache
from tests.support.exchanges import make_exchange

CHAT = Surface("chat", "openai_chat", "/chat/completions", "json", True, True)
EMBEDDINGS = Surface("embeddings", "openai_chat", "/embeddings", "json", True, True)
ALICE, BOB = Principal("alice"), Principal("bob")
ASK = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": "hello"}]}
STREAM = {**ASK, "stream": True}
JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


def whole(text: str = "hi", reason: str | None = "stop", **more: Any) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return Reply(200, JSON, json.dumps({"choices": [choice], **more}).encode(), usage=Usage(3, 4))


def event(text: str, reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def streamed(*chunks: bytes, headers: Mapping[str, str] = EVENTS) -> Reply:
    async def source() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return Reply(200, headers, stream=source())


@attrs.define
class Seen:
    """What the client and the rest of the chain saw of one exchange."""

    exchange: Exchange
    reply: Reply
    body: bytes

    @property
    def cache(self) -> str | None:
        return self.exchange.cache


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


async def asked(plugin: cache.Plugin, exchange: Exchange) -> Reply | None:
    """What ``on_request`` says, at once or later."""
    reply = plugin.on_request(exchange)
    return reply if reply is None or isinstance(reply, Reply) else await reply


class Chain:
    """The plugin, walked through as the dispatcher does, in front of a provider that counts its calls."""

    def __init__(self, configuration: Any = None, link: Link | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.calls = 0
        self.runtime = SimpleNamespace(
            config=configuration or routes(), spawn=self._spawn, keep=lambda key, make: make(), redis=link,
            registry=CollectorRegistry(),
        )  # fmt: skip
        self.plugin = cache.Plugin(cache.Settings(**settings), self.runtime, self.clock)
        self.tasks: list[asyncio.Task[Any]] = []

    def _spawn(self, coro: Any, name: str) -> asyncio.Task[Any]:
        self.tasks.append(asyncio.get_running_loop().create_task(coro, name=name))
        return self.tasks[-1]

    async def ask(
        self,
        body: Mapping[str, Any] | bytes = ASK,
        headers: Any = JSON,
        *,
        answer: Callable[[], Reply] = whole,
        outcome: str = "ok",
        arrived: bool = True,
        later: Callable[[Reply], None] = lambda reply: None,
        **more: Any,
    ) -> Seen:
        """One exchange. ``later`` is the on_reply of a plugin further out; an ``outcome`` but ``ok`` cuts a stream."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        exchange = make_exchange(headers, **{"principal": ALICE, "surface": CHAT, **more})

        async def read(exchange: Exchange) -> Any:
            payload = await parse(raw)
            exchange.model, exchange.stream = payload.model, payload.stream
            return payload

        exchange._reader = read
        exchange.guard = Guard(asyncio.current_task())  # type: ignore[arg-type]
        if arrived:
            exchange._arrived = raw
        reply = await asked(self.plugin, exchange)
        if reply is None:
            self.calls += 1
            exchange.target = Target("stub")
            reply = answer()
        self.plugin.on_reply(exchange, reply)
        later(reply)
        exchange.status = reply.status
        exchange.usage = exchange.usage or reply.usage
        sent = [block async for block in reply.stream] if reply.stream is not None else [reply.body or b""]
        for block in sent if outcome == "ok" else sent[:-1]:
            for tap in reply.taps:
                tap(block)
        exchange.outcome = outcome  # type: ignore[assignment]
        self.plugin.on_finish(exchange)
        return Seen(exchange, reply, b"".join(sent))


def routes(**more: Any) -> Any:
    return SimpleNamespace(**{"default_provider": "stub", "providers": {}, "models": {}} | more)


@contextlib.asynccontextmanager
async def running(chain: Chain) -> AsyncIterator[Chain]:
    await chain.plugin.on_startup(chain.runtime)
    try:
        yield chain
    finally:
        await chain.plugin.on_shutdown()
        for task in chain.tasks:
            task.cancel()
        await asyncio.gather(*chain.tasks, return_exceptions=True)


def control(value: str) -> dict[str, str]:
    return {**JSON, "Cache-Control": value}
