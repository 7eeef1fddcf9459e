"""Between a client's dialect and a provider's: the request as canonical Chat, the answer back, event by event."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from gateway.dialects.stream_error import StreamError
from gateway.errors import InvalidRequest, UpstreamError, UpstreamRefused, openai_type
from gateway.exchange import Exchange, Reply, Usage

if TYPE_CHECKING:
    from gateway.upstream import Answer

_JSON = {"content-type": "application/json"}
_EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


class Decoder(Protocol):
    """A provider's stream → canonical chunks."""

    done: bool
    usage: Usage | None

    def feed(self, block: bytes) -> list[dict[str, Any]]: ...

    def end(self) -> list[dict[str, Any]]: ...


async def chat_of(exchange: Exchange) -> dict[str, Any]:
    """The exchange's request as a canonical chat request. Treat it as read-only.

    Raises ``InvalidRequest``, also where the operation is none that can be told as a chat.
    """
    if exchange.surface.name != "chat":
        raise InvalidRequest("The provider of this model does not serve this operation.")
    body: dict[str, Any] = (await exchange.read()).json()
    return body


async def whole(exchange: Exchange, chat: dict[str, Any], usage: Usage | None) -> Reply:
    """A canonical whole answer as the client's reply."""
    return Reply(200, _JSON, orjson.dumps(chat), usage=usage)


async def streamed(exchange: Exchange, answer: Answer, decoder: Decoder) -> Reply:
    """A provider's stream as the client's. An error inside it is told as an answer of its own status would be."""
    options = (await exchange.read()).json().get("stream_options")
    asked = isinstance(options, dict) and bool(options.get("include_usage"))
    return Reply(200, _EVENTS, stream=_encoded(exchange, answer, decoder, asked), close=answer.close)


async def _encoded(exchange: Exchange, answer: Answer, decoder: Decoder, asked: bool) -> AsyncIterator[bytes]:
    try:
        try:
            async for block in answer.chunks():
                chunks = decoder.feed(block)
                exchange.usage = decoder.usage
                if events := _events(chunks, asked):
                    yield events
        except UpstreamError:
            if not decoder.done:  # behind the terminal marker nothing is missing, however the connection ended
                raise
        chunks = decoder.end()
        exchange.usage = decoder.usage
    except StreamError as error:
        refusal = refused(exchange, error.status, error.code, error.message)
        if refusal.http_status == error.status:  # else it is our own credential's affair
            refusal.message = f"The provider reported an error: {error.message}"
        raise refusal from error
    yield _events(chunks, asked) + b"data: [DONE]\n\n"


def _events(chunks: list[dict[str, Any]], asked: bool) -> bytes:
    return b"".join([b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks if asked or chunk["choices"]])


def refused(exchange: Exchange, status: int, code: str, message: str, **more: Any) -> UpstreamRefused:
    """A provider's refusal, told in the client's dialect."""
    param = "model" if code == "model_not_found" else None
    error: Mapping[str, Any] = {"message": message, "type": openai_type(status), "param": param, "code": code}
    target = exchange.target.name if exchange.target is not None else None
    return UpstreamRefused(status, orjson.dumps({"error": error}), _JSON, target=target, **more)
