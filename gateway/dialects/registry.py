"""The dialects that clients speak, each as one object: what it takes to understand them and to answer them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import attrs
import orjson

from gateway.dialects import (
    anthropic_client,
    anthropic_encoder,
    anthropic_messages_reply,
    anthropic_messages_stream,
    anthropic_usage,
    gemini_client,
    gemini_embed,
    gemini_encoder,
    gemini_error,
    gemini_reply,
    gemini_stream,
    ollama_client,
    ollama_embed,
    ollama_encoder,
    openai_chat,
    openai_chat_reply,
    openai_responses,
    openai_responses_reply,
    openai_responses_stream,
    openai_responses_to_chat,
)
from gateway.events import StreamReader
from gateway.exchange import Usage

Translated = tuple[dict[str, Any], list[str]]
"""A request in another dialect, and the names of what it does not carry."""
SSE = "text/event-stream; charset=utf-8"
NDJSON = "application/x-ndjson"


class Encoder(Protocol):
    """Canonical chunks → the client's stream."""

    def feed(self, chunk: dict[str, Any]) -> bytes: ...

    def end(self) -> bytes:
        """The terminal events; asked for only when the upstream's own terminal marker has come."""
        ...


@attrs.frozen(kw_only=True)
class Client:
    """A dialect as its clients speak it."""

    request_to_chat: Callable[[Mapping[str, Any]], Translated]
    """The client's chat request as a canonical one. Raises ``InvalidRequest``."""
    reply_from_chat: Callable[[dict[str, Any], Mapping[str, Any]], Mapping[str, Any]]
    """A canonical reply, and the client's request → the client's reply."""
    encoder: Callable[..., Encoder]
    """For a stream that answers the client's request, which is its argument."""
    reader: Callable[[], StreamReader]
    """For a stream that is in this dialect already."""
    error_body: Callable[[int, str, str, str], bytes]
    """Status, code, message, request id → a whole error."""
    error_event: Callable[[int, str, str, str], bytes]
    """The same as the event that ends a stream."""
    usage: Callable[[bytes], Usage | None] = openai_chat.usage_of
    """What a whole answer in this dialect used."""
    count_to_chat: Callable[[Mapping[str, Any]], Translated] = lambda body: (dict(body), [])
    """The client's question for the number of tokens as a canonical request."""
    count_reply: Callable[[int], dict[str, Any]] = lambda tokens: {"input_tokens": tokens}
    """The answer to it."""
    media: str = SSE
    """Content type of a stream."""
    plain_encoder: Callable[..., Encoder] | None = None
    """For clients of Gemini that do not ask for events (``alt=sse``): a stream as one JSON array."""


def _itself(body: Mapping[str, Any]) -> Translated:
    return dict(body), []


def _usage_by(usage_of: Callable[[dict[str, Any]], Usage | None]) -> Callable[[bytes], Usage | None]:
    def usage(body: bytes) -> Usage | None:
        try:
            told = orjson.loads(body)
        except ValueError:
            return None
        # Gemini streams a list where nobody asks for events: the last piece has the whole count.
        pieces = told if isinstance(told, list) else [told]
        found = (usage_of(piece) for piece in reversed(pieces) if isinstance(piece, dict))
        return next((each for each in found if each is not None), None)

    return usage


CLIENTS = {
    "openai_chat": Client(
        request_to_chat=_itself,
        reply_from_chat=openai_chat_reply.reply_from_chat,
        encoder=openai_chat_reply.Encoder,
        reader=openai_chat.ChatStream,
        error_body=openai_chat_reply.error_body,
        error_event=openai_chat_reply.error_event,
    ),
    "openai_responses": Client(
        request_to_chat=openai_responses_to_chat.request_to_chat,
        reply_from_chat=openai_responses_reply.reply_from_chat,
        encoder=openai_responses_stream.Encoder,
        reader=openai_responses.ResponsesStream,
        error_body=openai_chat_reply.error_body,
        error_event=openai_responses_stream.error_event,
    ),
    "anthropic_messages": Client(
        request_to_chat=anthropic_client.request_to_chat,
        reply_from_chat=anthropic_messages_reply.reply_from_chat,
        encoder=anthropic_encoder.Encoder,
        reader=anthropic_messages_stream.Reader,
        error_body=anthropic_messages_reply.error_body,
        error_event=anthropic_messages_reply.error_event,
        usage=_usage_by(anthropic_usage.usage_of),
        count_to_chat=anthropic_client.count_to_chat,
    ),
    "gemini": Client(
        request_to_chat=gemini_client.request_to_chat,
        reply_from_chat=gemini_reply.reply_from_chat,
        encoder=gemini_encoder.Encoder,
        plain_encoder=partial(gemini_encoder.Encoder, sse=False),
        reader=gemini_stream.Reader,
        error_body=gemini_error.error_body,
        error_event=gemini_error.error_event,
        usage=_usage_by(gemini_reply.usage_of),
        count_to_chat=gemini_client.count_to_chat,
        count_reply=gemini_client.count_body,
    ),
    "ollama": Client(
        request_to_chat=ollama_client.request_to_chat,
        reply_from_chat=ollama_encoder.reply_from_chat,
        encoder=ollama_encoder.Encoder,
        reader=ollama_client.Reader,
        error_body=ollama_client.error_body,
        error_event=ollama_client.error_event,
        media=NDJSON,
    ),
    "ollama_generate": Client(
        request_to_chat=ollama_client.generate_to_chat,
        reply_from_chat=ollama_encoder.generate_from_chat,
        encoder=ollama_encoder.GenerateEncoder,
        reader=ollama_client.Reader,
        error_body=ollama_client.error_body,
        error_event=ollama_client.error_event,
        media=NDJSON,
    ),
}
"""Dialect → how its clients are served."""


def client(dialect: str) -> Client:
    """The dialect of a surface."""
    return CLIENTS[dialect]


@attrs.frozen
class Embeds:
    """A surface that embeds, as its clients use it."""

    request_to_canonical: Callable[[Mapping[str, Any]], Translated]
    """The client's request as OpenAI's. Raises ``InvalidRequest``."""
    reply_from_canonical: Callable[[dict[str, Any]], Mapping[str, Any]]
    """OpenAI's list, its vectors in the form asked for → the client's answer."""


EMBEDS = {
    "embeddings": Embeds(_itself, lambda answer: answer),
    "embed_content": Embeds(
        gemini_embed.embed_to_canonical, lambda answer: gemini_embed.embed_from_canonical(answer, batch=False)
    ),
    "batch_embed_contents": Embeds(
        gemini_embed.embed_to_canonical, lambda answer: gemini_embed.embed_from_canonical(answer, batch=True)
    ),
    "ollama_embed": Embeds(ollama_embed.embed_to_canonical, ollama_embed.embed_from_canonical),
    "ollama_embeddings": Embeds(ollama_embed.embeddings_to_canonical, ollama_embed.embeddings_from_canonical),
}
"""Name of a surface → how its clients ask for embeddings."""
