"""Clients of every dialect in front of every provider: how each asks, what its official SDK takes for an answer."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from gateway.testing import RawClient, Response, Truncated
from gateway.testing.wire import Head, json_bytes
from tests.support import told
from tests.support.answers import Told

CLIENTS = ("openai_chat", "openai_responses", "anthropic_messages", "gemini", "ollama", "ollama_generate")
PROVIDERS = {
    "openai_compat": ("openai_chat", "/v1", "responses = true"),
    "anthropic": ("anthropic_messages", "/v1", ""),
    "gemini": ("gemini", "/v1beta", ""),
    "cohere": ("cohere", "", ""),
    "bedrock": ("bedrock", "", 'api_key = "env:BEDROCK_KEY"'),
    "ollama": ("ollama", "", ""),
}
"""Plugin → the dialect it speaks, the end of its base_url, further settings."""
ENVIRON = {"BEDROCK_KEY": "b-key-of-the-tests"}
SDKS = {
    "openai_chat": "openai", "openai_responses": "openai", "anthropic_messages": "anthropic", "gemini": "google.genai",
    "ollama": "ollama", "ollama_generate": "ollama",
}  # fmt: skip
_PATHS = {
    "openai_chat": "/v1/chat/completions", "openai_responses": "/v1/responses", "anthropic_messages": "/v1/messages",
    "ollama": "/api/chat", "ollama_generate": "/api/generate",
}  # fmt: skip


def configuration(port: int, top: str = "") -> str:
    """A gateway with all providers in front of one upstream; the model ``x-<plugin>`` is that plugin's."""
    lines = [top, "[retry]\nattempts = 1\n[breaker]\nfailures = 0\nerror_rate = 0"]
    for plugin, (_, path, more) in PROVIDERS.items():
        lines.append(
            f'[providers.{plugin}]\ntype = "{plugin}"\nbase_url = "http://127.0.0.1:{port}{path}"\n{more}\n'
            f'[models.x-{plugin}]\ntargets = [{{ provider = "{plugin}", model = "upstream-model" }}]'
        )
    # A second one without the API of Responses: its clients are translated.
    lines.append(
        f'[providers.chat_only]\ntype = "openai_compat"\nbase_url = "http://127.0.0.1:{port}/v1"\nresponses = false\n'
        '[models.x-chat_only]\ntargets = [{ provider = "chat_only", model = "upstream-model" }]'
    )
    return "\n".join(lines)


def path_of(dialect: str, model: str, streamed: bool, array: bool = False) -> str:
    """Where a client posts; ``array``: without the ``alt=sse`` that all but curl send to Gemini."""
    if dialect != "gemini":
        return _PATHS[dialect]
    action = "streamGenerateContent" if streamed else "generateContent"
    return f"/v1beta/models/{model}:{action}" + ("?alt=sse" if streamed and not array else "")


def request_of(dialect: str, model: str, streamed: bool, **more: Any) -> dict[str, Any]:
    """The smallest request; it asks for thoughts and usage, where there are such things to ask for."""
    body: dict[str, Any] = {"model": model, "stream": streamed}
    user = {"role": "user", "content": "hi"}
    if dialect == "openai_chat":
        body |= {"messages": [user]} | ({"stream_options": {"include_usage": True}} if streamed else {})
    elif dialect == "openai_responses":
        body |= {"input": "hi", "store": False}
    elif dialect == "anthropic_messages":
        body |= {"max_tokens": 4096, "messages": [user]}
    elif dialect == "ollama":
        body |= {"messages": [user]}
    elif dialect == "ollama_generate":
        body |= {"prompt": "hi"}
    else:
        body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    return body | more


async def ask(url: str, path: str, body: Mapping[str, Any] | bytes) -> tuple[Response, bool]:
    """The answer, and whether it was cut; then it is what had come."""
    raw = body if isinstance(body, bytes) else json_bytes(body)
    async with RawClient(url) as client:
        await client.request("POST", path, {"Content-Type": "application/json"}, raw)
        head: Head | None = None
        received = b""
        try:
            head = await client.read_head()
            async for piece in client.body():
                received += piece
        except Truncated as cut:
            assert head is not None
            return Response(_status(head), head, received + cut.received), True
        return Response(_status(head), head, received), False


def _status(head: Head) -> int:
    return int(head.start.split(" ")[1])


def has_sdk(dialect: str) -> bool:
    try:
        return importlib.util.find_spec(SDKS[dialect]) is not None
    except ModuleNotFoundError:
        return False


def accepted(dialect: str, reply: Response) -> Told:
    """What an answer tells its client, once the client's official SDK has taken it (where that is installed)."""
    kind = reply.header("content-type") or ""
    if kind.startswith(("text/event-stream", "application/x-ndjson")):
        _names(dialect, reply.body)
        for event in told.events(reply.body):
            _validate(dialect, event, "stream")
    elif isinstance(whole := json.loads(reply.body), list):
        for piece in whole:
            _validate(dialect, piece, "stream")
    else:
        _validate(dialect, whole, "whole")
    return told.read(dialect, reply.body, kind)


def _names(dialect: str, body: bytes) -> None:
    """Anthropic's and Responses' SDKs go by the ``event:`` line."""
    if dialect in ("anthropic_messages", "openai_responses"):
        named = [line.removeprefix(b"event: ").decode() for line in body.split(b"\n") if line.startswith(b"event: ")]
        assert named == [event["type"] for event in told.events(body)]


def _validate(dialect: str, body: Any, form: str) -> None:
    if has_sdk(dialect) and not body.get("error"):
        _types(dialect, form).validate_python(body)


@cache
def _types(dialect: str, form: str) -> Any:
    from pydantic import TypeAdapter  # comes with the SDKs

    if dialect == "openai_chat":
        from openai.types.chat import ChatCompletion, ChatCompletionChunk

        return TypeAdapter(ChatCompletion if form == "whole" else ChatCompletionChunk)
    if dialect == "openai_responses":
        from openai.types.responses import Response as Whole
        from openai.types.responses import ResponseStreamEvent

        return TypeAdapter(Whole if form == "whole" else ResponseStreamEvent)
    if dialect == "anthropic_messages":
        from anthropic.types import Message, RawMessageStreamEvent

        # Not an event to the SDK's types, but to its decoder: it passes over it.
        ping = TypeAdapter(RawMessageStreamEvent)
        return TypeAdapter(Message) if form == "whole" else _Passing(ping)
    if dialect.startswith("ollama"):
        from ollama import ChatResponse, GenerateResponse

        return TypeAdapter(ChatResponse if dialect == "ollama" else GenerateResponse)
    from google.genai.types import GenerateContentResponse

    return TypeAdapter(GenerateContentResponse)


class _Passing:
    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    def validate_python(self, body: Any) -> None:
        if body.get("type") != "ping":
            self._adapter.validate_python(body)
