"""What providers that speak OpenAI's API do alike: the usage of streams, translation, the list of models."""

from __future__ import annotations

from typing import Any

import attrs
import orjson

from gateway.dialects import openai_chat_provider as dialect
from gateway.dialects.presets import Preset
from gateway.errors import InvalidRequest, UpstreamProtocolError
from gateway.exchange import Exchange, Reply, Target
from gateway.http_provider import HttpProvider
from gateway.translation import answered, chat_of, embedded, embeddings_of, streamed


def edits(exchange: Exchange, target: Target, ask_usage: bool) -> dict[str, bytes]:
    """What is changed in a body that passes through, beside the name of its model.

    The usage of a stream is asked for where its client does not, and taken out again (``strip_usage``). A model that
    only the client's path names (Azure's form) is put into the body. Raises ``InvalidRequest``.
    """
    changed: dict[str, bytes] = {}
    payload = exchange.payload
    if exchange.model is not None and payload.model is None and payload.raw:
        changed["model"] = orjson.dumps(target.model or exchange.model)
    if not exchange.stream or not ask_usage or exchange.surface.name not in ("chat", "completions"):
        return changed
    options = payload.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise InvalidRequest("stream_options must be an object.")
    if not (options or {}).get("include_usage"):
        exchange.notes["strip_usage"] = True
        changed["stream_options"] = orjson.dumps({**(options or {}), "include_usage": True})
    return changed


async def embeddings(http: HttpProvider, exchange: Exchange, target: Target, path: str) -> Reply:
    """Embeddings for a client of another dialect."""
    request = {**await embeddings_of(exchange), "model": http.model(exchange, target)}
    answer = await http.ask(exchange, path, request, dialect.error_to_chat)
    return await embedded(exchange, await answer.read(), None)


async def translated(
    http: HttpProvider, exchange: Exchange, target: Target, preset: Preset, path: str, query: str = ""
) -> Reply:
    """The answer of the chat completions at ``path`` to a client of any dialect."""
    chat = await chat_of(exchange)
    model = http.model(exchange, target)
    caps = http.caps(model)
    if preset.capabilities:
        caps = attrs.evolve(caps, **preset.capabilities)
    request, dropped = dialect.request_from_chat(chat, model, caps=caps, usage=preset.stream_usage)
    request, more = preset.fit(request)
    exchange.drop((*dropped, *more))
    answer = await http.ask(exchange, path, request, dialect.error_to_chat, query=query)
    if exchange.stream:
        return await streamed(exchange, answer, dialect.Decoder(preset.done_marker))
    return await answered(exchange, answer, dialect.reply_to_chat, dialect.usage_of)


def models_in(listed: Any, provider: str) -> list[dict[str, Any]]:
    """The models of a list; some servers send it bare. Raises ``UpstreamProtocolError``."""
    models = listed.get("data") if isinstance(listed, dict) else listed
    if not isinstance(models, list):
        raise UpstreamProtocolError("The provider's model list is not a list.", target=provider)
    return [model for model in models if isinstance(model, dict) and isinstance(model.get("id"), str)]
