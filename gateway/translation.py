"""Between a client's dialect and a provider's: the request as canonical Chat, the answer back, event by event.

A provider that speaks the client's own dialect passes bytes through and needs nothing of this. Any other asks for
``chat_of(exchange)`` and answers with ``whole``, ``streamed`` or ``told``; for embeddings, ``embeddings_of`` and
``embedded``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from typing import Any, Protocol, TypeVar

import orjson

from gateway.answer import Answer
from gateway.dialects import registry, vectors
from gateway.dialects.openai_chat import PlainStream, adds, read_usage
from gateway.dialects.stream_error import StreamError
from gateway.dialects.tokens import estimate_tokens
from gateway.errors import InvalidRequest, UpstreamError, UpstreamProtocolError, UpstreamRefused
from gateway.events import EventStream, StreamReader
from gateway.exchange import Exchange, Reply, Usage

_JSON = {"content-type": "application/json"}
_NOTE = "translation"
_STEPS = 32  # vectors translated at a time: 2 ms at 1,024 dimensions
_Result = TypeVar("_Result")


class Decoder(Protocol):
    """A provider's stream → canonical chunks."""

    @property
    def done(self) -> bool:
        """The provider's own terminal marker has come."""
        ...

    @property
    def usage(self) -> Usage | None: ...

    def feed(self, block: bytes) -> list[dict[str, Any]]: ...

    def end(self) -> list[dict[str, Any]]: ...


async def chat_of(exchange: Exchange) -> dict[str, Any]:
    """The exchange's request as a canonical chat request: translated once, also when several targets are tried.

    Raises ``InvalidRequest``, also where the operation is none that can be told as a chat. Treat it as read-only.
    """
    known: dict[str, Any] | None = exchange.notes.get(_NOTE)
    if known is not None:
        return known
    if not exchange.surface.chat:
        raise InvalidRequest("The provider of this model does not serve this operation.")
    body = (await exchange.read()).json()
    chat, dropped = registry.client(exchange.surface.dialect).request_to_chat(body)
    exchange.drop(dropped)
    if exchange.stream:
        chat = {**chat, "stream": True}
    exchange.notes[_NOTE] = chat
    return chat


async def counted(exchange: Exchange, tokens: int | None = None) -> Reply:
    """The answer to a question for the number of tokens; an estimate, and said so, where the provider cannot count."""
    body = (await exchange.read()).json()
    dialect = registry.client(exchange.surface.dialect)
    if tokens is None:
        chat, _ = dialect.count_to_chat(body)
        tokens = estimate_tokens(chat)
        exchange.drop(("exact_count",))
    return Reply(200, _JSON, orjson.dumps(dialect.count_reply(tokens)))


async def whole(exchange: Exchange, chat: dict[str, Any], usage: Usage | None) -> Reply:
    """A canonical whole answer as the client's reply."""
    request = (await exchange.read()).json()
    body = registry.client(exchange.surface.dialect).reply_from_chat(chat, request)
    reply = Reply(200, _JSON, orjson.dumps(body), usage=usage)
    reply.translated = True
    return reply


async def answered(
    exchange: Exchange,
    answer: Answer,
    to_chat: Callable[[Any], dict[str, Any]],
    usage_of: Callable[[Any], Usage | None],
) -> Reply:
    """A provider's whole answer as the client's: read, understood by its dialect, told in the client's."""
    raw = await answer.read()
    try:
        body = orjson.loads(raw)
        if not isinstance(body, dict):
            raise UpstreamProtocolError("The provider's answer is not an object.")
        chat = to_chat(body)
    except StreamError as error:
        raise refused(exchange, error.status, error.code, error.message) from error
    except ValueError as error:
        raise UpstreamProtocolError("The provider's answer is not valid JSON.") from error
    return await whole(exchange, chat, usage_of(body))


async def streamed(exchange: Exchange, answer: Answer, decoder: Decoder) -> Reply:
    """A provider's stream as the client's. An error inside it is told as an answer of its own status would be."""
    dialect = registry.client(exchange.surface.dialect)
    request: Mapping[str, Any] = (await exchange.read()).json()
    make, media = dialect.encoder, dialect.media
    reader: StreamReader | None = dialect.reader()
    if dialect.plain_encoder is not None and "alt=sse" not in exchange.query:
        make, media, reader = dialect.plain_encoder, "application/json", None
    events = TranslatedStream(exchange, answer, decoder, make(request), reader, media == registry.NDJSON)
    reply = Reply(200, {"content-type": media}, stream=events.blocks(), close=answer.close)
    reply.events = events
    return reply


async def told(exchange: Exchange, chunks: AsyncIterator[dict[str, Any]], usage: Usage | None) -> Reply:
    """Canonical chunks, made here and complete when they end, as the client's stream."""
    dialect = registry.client(exchange.surface.dialect)
    stream = _told(chunks, dialect.encoder((await exchange.read()).json()))
    return Reply(200, {"content-type": dialect.media}, stream=stream, usage=usage)


async def _told(chunks: AsyncIterator[dict[str, Any]], encoder: registry.Encoder) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        if events := encoder.feed(chunk):
            yield events
    yield encoder.end()


class TranslatedStream(EventStream):
    """A provider's stream as the client's events.

    They are ours, so they are not taken apart again to be judged: but for the last ones, and where a plugin looks at
    each. Usage is what the provider reported, not what a client's dialect demands a number for.
    """

    __slots__ = ("_decoder", "_encoder", "_exchange", "_judged", "_started")

    def __init__(
        self,
        exchange: Exchange,
        answer: Answer,
        decoder: Decoder,
        encoder: registry.Encoder,
        reader: StreamReader | None,
        lines: bool,
    ) -> None:
        """``reader``: the client's dialect's own; ``None`` for a stream that is none of events."""
        super().__init__(answer.chunks(), reader or PlainStream(), True, lines=lines)
        self._exchange = exchange
        self._decoder = decoder
        self._encoder = encoder
        self._judged = reader is not None
        self._started = False

    @property
    def started(self) -> bool:
        return self._started or self.reader.started

    @property
    def usage(self) -> Usage | None:
        return self._decoder.usage

    @property
    def counted(self) -> bool:
        return self._decoder.done

    async def blocks(self) -> AsyncIterator[bytes]:
        """The client's events, as many as each upstream read makes. Raises as those of ``EventStream`` do."""
        decoder, encode = self._decoder, self._encoder.feed
        early = not getattr(decoder, "until_eof", False)
        ended = False
        try:
            async for block in self._source:
                if chunks := decoder.feed(block):
                    events = encode(chunks[0]) if len(chunks) == 1 else b"".join([encode(chunk) for chunk in chunks])
                    if events:
                        yield self._given(events, chunks)
                        if self.failed is not None:
                            raise self.failed
                if early and not ended and decoder.done:
                    # Not at the end of the HTTP message, which some servers keep their clients waiting for.
                    ended = True
                    yield self._last()
                    self._complete_or_raise()
            if not ended:
                yield self._last()
                self._complete_or_raise()
        except StreamError as error:
            raise self._refusal(error) from error
        except UpstreamError:
            # Behind the terminal marker nothing is missing, however the connection ended.
            if not self.delivered:
                raise

    def _refusal(self, error: StreamError) -> UpstreamRefused:
        refusal = refused(self._exchange, error.status, error.code, error.message)
        if self._exchange.committed and refusal.http_status == error.status:  # else our own credential's affair
            refusal.message = f"The provider reported an error: {error.message}"
        return refusal

    def _given(self, events: bytes, chunks: list[dict[str, Any]]) -> bytes:
        if not self._started:
            self._started = any(adds(choice) for chunk in chunks for choice in chunk.get("choices") or ())
        return self._check(events) if self.observer is not None else events

    def _last(self) -> bytes:
        rest = self._decoder.end()
        events = b"".join([*[self._encoder.feed(chunk) for chunk in rest], self._encoder.end()])
        return self._check(events) if self._judged else events

    def _complete_or_raise(self) -> None:
        if self.failed is not None:
            raise self.failed
        self.delivered = True


def refused(exchange: Exchange, status: int, code: str, message: str, **more: Any) -> UpstreamRefused:
    """A provider's refusal, told in the client's dialect."""
    body = registry.client(exchange.surface.dialect).error_body(status, code, message, exchange.id)
    target = exchange.target.name if exchange.target is not None else None
    error = UpstreamRefused(status, body, _JSON, target=target, **more)
    if error.http_status == status:
        error.message = message  # what a stream that has begun ends with; of our own credential nothing is told
    return error


async def embeddings_of(exchange: Exchange) -> dict[str, Any]:
    """The exchange's request as one for OpenAI's embeddings. As ``chat_of``; the model is the client's word for it."""
    known: dict[str, Any] | None = exchange.notes.get(_NOTE)
    if known is not None:
        return known
    if not exchange.surface.embeds:
        raise InvalidRequest("The provider of this model does not serve this operation.")
    body = (await exchange.read()).json()
    request, dropped = registry.EMBEDS[exchange.surface.name].request_to_canonical(body)
    exchange.drop(dropped)
    exchange.notes[_NOTE] = request
    return request


async def embedded(exchange: Exchange, answer: bytes | Mapping[str, Any], usage: Usage | None) -> Reply:
    """OpenAI's list of embeddings, as JSON or an object, as the client's reply.

    Vectors become base64 where the client asked for it and numbers where not, whichever they are. ``usage`` is read
    out of the list where it is ``None``. Raises ``UpstreamProtocolError`` for what is no such list.
    """
    base64 = (await embeddings_of(exchange)).get("encoding_format") == "base64"
    surface = exchange.surface
    if isinstance(answer, bytes) and surface.name == "embeddings" and vectors.fits(answer, base64):
        return Reply(200, _JSON, answer, usage=usage)
    try:
        listed = await in_turns(vectors.as_asked(answer, base64))
    except ValueError as error:
        raise UpstreamProtocolError("The provider's answer is no list of embeddings.") from error
    body = orjson.dumps(registry.EMBEDS[surface.name].reply_from_canonical(listed))
    return Reply(200, _JSON, body, usage=usage or read_usage(listed))


async def in_turns(steps: Generator[None, None, _Result]) -> _Result:
    """Run a long computation in pieces, between which the event loop serves others."""
    while True:
        try:
            for _ in range(_STEPS):
                next(steps)
        except StopIteration as end:
            result: _Result = end.value
            return result
        await asyncio.sleep(0)
