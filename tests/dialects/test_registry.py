"""Every dialect of our clients is complete: its error is one its official SDK raises, its stream one its reader reads.

The SDKs answer to a transport made by hand here: no network, their own parsing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson
import pytest

from gateway.dialects import registry
from gateway.dialects.chat_shapes import Chunks, completion
from gateway.dialects.openai_chat import ERROR, PASS
from gateway.dialects.sse import parse_events, parse_lines
from gateway.events import StreamReader
from gateway.exchange import Usage
from gateway.surfaces import ACTIONS, OLLAMA, SURFACES

SURFACES_OF_ALL = [*(each[2] for each in SURFACES), *ACTIONS.values(), *(each[1] for each in OLLAMA)]
USER = [{"role": "user", "content": "hi"}]
REQUESTS: dict[str, dict[str, Any]] = {
    "openai_chat": {"model": "m", "messages": USER},
    "openai_responses": {"model": "m", "input": "hi"},
    "anthropic_messages": {"model": "m", "max_tokens": 9, "messages": USER},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
    "ollama": {"model": "m", "messages": USER},
    "ollama_generate": {"model": "m", "prompt": "hi"},
}
# What says in each dialect that an answer is complete.
MARKERS = (b"[DONE]", b"response.completed", b"message_stop", b"finishReason", b'"done":true')


def test_every_surface_has_its_client() -> None:
    assert {surface.dialect for surface in SURFACES_OF_ALL} <= set(registry.CLIENTS)
    assert {surface.name for surface in SURFACES_OF_ALL if surface.embeds} == set(registry.EMBEDS)
    assert set(REQUESTS) == set(registry.CLIENTS)


def read(dialect: str, raw: bytes) -> StreamReader:
    """The dialect's own reader, behind its own stream."""
    client = registry.client(dialect)
    reader = client.reader()
    parse = parse_lines if client.media == registry.NDJSON else parse_events
    for _, name, data in parse(raw):
        if data:
            assert reader.event(name, data) == PASS
    return reader


@pytest.mark.parametrize("dialect", registry.CLIENTS)
def test_a_request_is_understood(dialect: str) -> None:
    chat, dropped = registry.client(dialect).request_to_chat(REQUESTS[dialect])
    assert chat["messages"][-1]["content"] in ("hi", [{"type": "text", "text": "hi"}])
    assert dropped == []


@pytest.mark.parametrize("dialect", registry.CLIENTS)
def test_a_whole_answer_says_what_was_said(dialect: str) -> None:
    chat = completion("x", "m", {"content": "Hello"}, {"finish_reason": "stop"}, Usage(3, 4))
    made = registry.client(dialect).reply_from_chat(chat, REQUESTS[dialect])
    assert b'"Hello"' in orjson.dumps(made)


@pytest.mark.parametrize("dialect", registry.CLIENTS)
def test_a_stream_is_read_by_its_own_reader(dialect: str) -> None:
    request = {**REQUESTS[dialect], "stream": True, "stream_options": {"include_usage": True}}
    encoder = registry.client(dialect).encoder(request)
    chunks = Chunks("x", "m")
    pieces = [
        *chunks.delta({"content": "Hel"}),
        *chunks.delta({"content": "lo"}),
        *chunks.finish({"finish_reason": "stop"}),
    ]
    begun = b"".join([encoder.feed(chunk) for chunk in pieces])
    reader = read(dialect, begun)
    assert reader.started
    assert not reader.done or reader.until_eof, "the end is not said before it is there"
    whole = begun + encoder.feed(chunks.usage(Usage(3, 4))) + encoder.end()
    reader = read(dialect, whole)
    assert reader.done and reader.finished
    assert reader.usage is not None and (reader.usage.input_tokens, reader.usage.output_tokens) == (3, 4)
    assert any(marker in whole for marker in MARKERS)


@pytest.mark.parametrize("dialect", registry.CLIENTS)
def test_an_error_is_told_as_one(dialect: str) -> None:
    client = registry.client(dialect)
    body = client.error_body(429, "rate_limit_exceeded", "slow down", "rid")
    assert orjson.loads(body)["error"]
    assert b"slow down" in body and b"rid" in body
    event = client.error_event(502, "stream_interrupted", "it broke", "rid")
    assert b"it broke" in event and event.endswith(b"\n")
    assert not [marker for marker in MARKERS if marker in event]
    parse = parse_lines if client.media == registry.NDJSON else parse_events
    ((_, name, data),) = parse(event)
    reader = client.reader()
    assert reader.event(name, data) == ERROR
    assert not reader.done or dialect == "gemini"
    status, told = reader.refusal(data)
    assert 400 <= status < 600
    assert b"it broke" in told


# The official SDKs.

Ask = Callable[[Callable[..., Any], bool], Any]
"""Ask by a client behind a handler of httpx; streamed or not."""


def _openai(handler: Any, streamed: bool) -> Any:
    openai = pytest.importorskip("openai", reason="the openai SDK is not installed")
    httpx = _httpx(openai._base_client)
    http = httpx.Client(transport=httpx.MockTransport(handler))
    client = openai.OpenAI(base_url="http://gateway/v1", api_key="k", max_retries=0, http_client=http)
    answer = client.chat.completions.create(model="m", messages=USER, stream=streamed)
    return list(answer) if streamed else answer


def _responses(handler: Any, streamed: bool) -> Any:
    openai = pytest.importorskip("openai", reason="the openai SDK is not installed")
    httpx = _httpx(openai._base_client)
    http = httpx.Client(transport=httpx.MockTransport(handler))
    client = openai.OpenAI(base_url="http://gateway/v1", api_key="k", max_retries=0, http_client=http)
    answer = client.responses.create(model="m", input="hi", stream=streamed)
    return list(answer) if streamed else answer


def _anthropic(handler: Any, streamed: bool) -> Any:
    anthropic = pytest.importorskip("anthropic", reason="the anthropic SDK is not installed")
    httpx = _httpx(anthropic._base_client)
    http = httpx.Client(transport=httpx.MockTransport(handler))
    client = anthropic.Anthropic(base_url="http://gateway", api_key="k", max_retries=0, http_client=http)
    answer = client.messages.create(model="m", max_tokens=9, messages=USER, stream=streamed)
    return list(answer) if streamed else answer


def _gemini(handler: Any, streamed: bool) -> Any:
    genai = pytest.importorskip("google.genai", reason="the google-genai SDK is not installed")
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")
    options = {"base_url": "http://gateway", "client_args": {"transport": httpx.MockTransport(handler)}}
    client = genai.Client(api_key="k", http_options=options)
    if streamed:
        return list(client.models.generate_content_stream(model="m", contents="hi"))
    return client.models.generate_content(model="m", contents="hi")


def _ollama(handler: Any, streamed: bool) -> Any:
    ollama = pytest.importorskip("ollama", reason="the ollama client is not installed")
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")
    client = ollama.Client(host="http://gateway", transport=httpx.MockTransport(handler))
    answer = client.chat(model="m", messages=USER, stream=streamed)
    return list(answer) if streamed else answer


def _httpx(module: Any) -> Any:
    """The HTTP client that an SDK was built on: ``httpx``, or from 2026 on ``httpx2``."""
    return getattr(module, "httpx", None) or module.httpx2


ASKERS: dict[str, Ask] = {
    "openai_chat": _openai, "openai_responses": _responses, "anthropic_messages": _anthropic, "gemini": _gemini,
    "ollama": _ollama,
}  # fmt: skip
# Status → class by dialect.
OPENAI = {400: "BadRequestError", 401: "AuthenticationError", 403: "PermissionDeniedError", 404: "NotFoundError",
          429: "RateLimitError", 500: "InternalServerError", 503: "InternalServerError"}  # fmt: skip
CLASSES: dict[str, Mapping[int, str]] = {
    "openai_chat": OPENAI,
    "openai_responses": OPENAI,
    "anthropic_messages": {**OPENAI, 503: "ServiceUnavailableError", 529: "OverloadedError"},
    "gemini": dict.fromkeys((400, 401, 403, 404, 429), "ClientError") | dict.fromkeys((500, 503), "ServerError"),
    "ollama": dict.fromkeys((400, 401, 403, 404, 429, 500, 503), "ResponseError"),
}


@pytest.mark.parametrize("dialect", ASKERS)
def test_the_official_sdk_raises_the_class_of_the_status(dialect: str) -> None:
    for status, kind in CLASSES[dialect].items():
        body = registry.client(dialect).error_body(status, "some_code", "it broke", "rid")

        def handler(request: Any, status: int = status, body: bytes = body) -> Any:
            return _response(request, status, "application/json", [body])

        with pytest.raises(Exception, match="it broke") as raised:
            ASKERS[dialect](handler, False)
        assert type(raised.value).__name__ == kind


@pytest.mark.parametrize("dialect", ASKERS)
def test_the_official_sdk_raises_in_the_middle_of_a_stream(dialect: str) -> None:
    client = registry.client(dialect)
    request = {**REQUESTS[dialect], "stream": True}
    encoder, chunks = client.encoder(request), Chunks("x", "m")
    begun = b"".join([encoder.feed(chunk) for chunk in chunks.delta({"content": "Hel"})])
    event = client.error_event(502, "stream_interrupted", "it broke", "rid")

    def handler(asked: Any) -> Any:
        return _response(asked, 200, client.media, [begun, event])

    with pytest.raises(Exception, match="it broke"):
        ASKERS[dialect](handler, True)


def _response(request: Any, status: int, media: str, blocks: list[bytes]) -> Any:
    """Of the package that the request is of."""
    import sys

    package = sys.modules[type(request).__module__.partition(".")[0]]

    class Blocks(package.SyncByteStream):  # type: ignore[misc,name-defined]  # known at run time only
        def __iter__(self) -> Iterator[bytes]:
            return iter(blocks)

    return package.Response(status, headers={"content-type": media}, stream=Blocks())
