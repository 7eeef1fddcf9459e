"""Answers locally with the last user message: the demo that needs no key, and a test double that needs no network.

It speaks every dialect of its clients.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from hashlib import sha256
from time import time
from typing import Any

import attrs
import orjson

from gateway import Duration, Exchange, Reply, Runtime, Target, Usage, hookimpl
from gateway.errors import InvalidRequest, RouteNotFound
from gateway.translation import chat_of, embedded, embeddings_of, told, whole


@attrs.frozen(kw_only=True)
class Settings:
    model: str = "echo"
    """The one model it lists."""
    delay: Duration = Duration(0.0)
    """Wait before the answer, and between the events of a stream."""


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._settings = settings

    @hookimpl
    async def forward(self, exchange: Exchange, target: Target) -> Reply:
        surface = exchange.surface
        if surface.chat:
            body = await chat_of(exchange)
        elif surface.name == "completions":
            body = (await exchange.read()).json()
        elif surface.embeds:
            body = await embeddings_of(exchange)
        else:
            raise RouteNotFound("The echo provider serves chat, completions and embeddings.")
        if self._settings.delay:
            await asyncio.sleep(self._settings.delay)
        if surface.embeds:
            listed = _embeddings(body, exchange.model)
            return await embedded(exchange, listed, Usage(input_tokens=listed["usage"]["prompt_tokens"]))
        answer = _Answer(body, surface.chat, exchange.model)
        if exchange.stream:
            return await told(exchange, self._paced(answer.events()), answer.usage)
        return await whole(exchange, answer.whole(), answer.usage)

    async def _paced(self, chunks: Iterable[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        for chunk in chunks:
            yield chunk
            if self._settings.delay:
                await asyncio.sleep(self._settings.delay)

    @hookimpl
    def list_models(self) -> Iterable[dict[str, Any]]:
        return [{"id": self._settings.model, "object": "model", "created": 0, "owned_by": "echo"}]

    @hookimpl
    def check_health(self) -> str | None:
        return None


class _Answer:
    """One answer, the same whole and streamed: the last user message, or the tool call that is demanded."""

    def __init__(self, body: dict[str, Any], chat: bool, model: str | None) -> None:
        self._chat = chat
        self._model = model
        self._created = int(time())
        prompt = _prompt(body, chat)
        self.text = prompt[-1] if prompt else ""
        self.call = _demanded_call(body, self.text) if chat else None
        out = _tokens(self.call["function"]["arguments"] if self.call else self.text)
        self.usage = Usage(input_tokens=sum(map(_tokens, prompt)), output_tokens=out)

    def _usage(self) -> dict[str, int]:
        given, made = self.usage.input_tokens or 0, self.usage.output_tokens or 0
        return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-echo-{self._created}", "object": kind, "created": self._created, "model": self._model,
            "choices": choices,
        }  # fmt: skip

    def whole(self) -> dict[str, Any]:
        if not self._chat:
            choice: dict[str, Any] = {"index": 0, "text": self.text, "logprobs": None, "finish_reason": "stop"}
            return {**self._frame("text_completion", [choice]), "usage": self._usage()}
        message: dict[str, Any] = {"role": "assistant", "content": self.text, "refusal": None}
        if self.call is not None:
            message = {**message, "content": None, "tool_calls": [self.call]}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._reason()}
        return {**self._frame("chat.completion", [choice]), "usage": self._usage()}

    def _reason(self) -> str:
        return "tool_calls" if self.call is not None else "stop"

    def events(self) -> Iterable[dict[str, Any]]:
        """The chunks; the last one is the usage."""
        yield from self._chat_events() if self._chat else self._text_events()
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        yield {**self._frame(kind, []), "usage": self._usage()}

    def _text_events(self) -> Iterable[dict[str, Any]]:
        for word in [*_words(self.text), None]:
            reason = "stop" if word is None else None
            choice = {"index": 0, "text": word or "", "logprobs": None, "finish_reason": reason}
            yield self._frame("text_completion", [choice])

    def _chat_events(self) -> Iterable[dict[str, Any]]:
        yield self._delta({"role": "assistant", "content": None if self.call else ""})
        if self.call is not None:
            yield self._delta({"tool_calls": [{"index": 0, **self.call}]})
        else:
            for word in _words(self.text):
                yield self._delta({"content": word})
        yield self._delta({}, self._reason())

    def _delta(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._frame("chat.completion.chunk", [choice])


def _embeddings(body: dict[str, Any], model: str | None) -> dict[str, Any]:
    inputs: Any = body.get("input")
    texts = inputs if isinstance(inputs, list) else [inputs]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest("The echo provider embeds text.")
    data = [{"object": "embedding", "index": index, "embedding": _vector(text)} for index, text in enumerate(texts)]
    tokens = sum(map(_tokens, texts))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _prompt(body: dict[str, Any], chat: bool) -> list[str]:
    """The texts of the prompt; the last one is what is echoed."""
    if not chat:
        prompt = body.get("prompt")
        if prompt is not None and not isinstance(prompt, str | list):
            raise InvalidRequest("prompt must be a text or a list of texts.")
        return [prompt] if isinstance(prompt, str) else [str(item) for item in prompt or []]
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise InvalidRequest("messages must be a list of objects.")
    texts = [(message.get("role"), _text(message.get("content"))) for message in messages]
    users = [text for role, text in texts if role == "user"]
    return [text for role, text in texts if role != "user"] + users


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _demanded_call(body: dict[str, Any], text: str) -> dict[str, Any] | None:
    """The tool call that ``tool_choice`` demands, with ``text`` as its argument: the named tool, or the first one."""
    choice, tools = body.get("tool_choice"), body.get("tools")
    tool = tools[0] if choice == "required" and isinstance(tools, list) and tools else choice
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        return None
    arguments = orjson.dumps({"text": text}).decode()
    return {"id": "call_echo", "type": "function", "function": {"name": name, "arguments": arguments}}


def _words(text: str) -> list[str]:
    head, *rest = text.split(" ")
    return [head, *(f" {word}" for word in rest)] if text else []


def _tokens(text: str) -> int:
    """Words: a stand-in for tokens that anyone can check by eye."""
    return len(text.split())


def _vector(text: str) -> list[float]:
    return [round(byte / 127.5 - 1, 6) for byte in sha256(text.encode()).digest()[:8]]
