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
    gemini_client,
    gemini_embed,
    gemini_encoder,
    gemini_error,
    gemini_reply,
    gemini_stream,
    ollama_embed,
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
    count_to_chat: Callable[[Mapping[str, Any]], Translated] = lambda body: (dict(body), [])
    """The client's question for the number of tokens as a canonical request."""
    count_reply: Callable[[int], dict[str, Any]] = lambda tokens: {"input_tokens": tokens}
    """The answer to it."""
    usage: Callable[[Any], Usage | None] | None = None
    """A whole answer's body in this dialect, parsed → what it used; ``None``: OpenAI's, which is read unparsed."""
    media: str = SSE
    """Content type of a stream."""
    plain_encoder: Callable[..., Encoder] | None = None
    """For clients of Gemini that do not ask for events (``alt=sse``): a stream as one JSON array."""


def _itself(body: Mapping[str, Any]) -> Translated:
    return dict(body), []


def _of_object(read: Callable[[Mapping[str, Any]], Usage | None]) -> Callable[[Any], Usage | None]:
    return lambda body: read(body) if isinstance(body, dict) else None


def _of_pieces(body: Any) -> Usage | None:
    """Gemini's answer, or its stream as an array: the last count holds."""
    pieces = body if isinstance(body, list) else [body]
    return next((used for piece in reversed(pieces) if (used := gemini_reply.usage_of(piece)) is not None), None)


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
        count_to_chat=anthropic_client.count_to_chat,
        usage=_of_object(anthropic_messages_reply.usage_of),
    ),
    "gemini": Client(
        request_to_chat=gemini_client.request_to_chat,
        reply_from_chat=gemini_reply.reply_from_chat,
        encoder=gemini_encoder.Encoder,
        plain_encoder=partial(gemini_encoder.Encoder, sse=False),
        reader=gemini_stream.Reader,
        error_body=gemini_error.error_body,
        error_event=gemini_error.error_event,
        count_to_chat=gemini_client.count_to_chat,
        count_reply=gemini_client.count_body,
        usage=_of_pieces,
    ),
}
"""Dialect → how its clients are served."""


def client(dialect: str) -> Client:
    """The dialect of a surface."""
    return CLIENTS[dialect]


def usage_of(dialect: str, body: bytes) -> Usage | None:
    """What a whole answer in a client's dialect says it used; ``None`` if it does not say."""
    known = CLIENTS.get(dialect)
    if known is None or known.usage is None:
        return openai_chat.usage_of(body)
    try:
        return known.usage(orjson.loads(body))
    except ValueError:
        return None


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
