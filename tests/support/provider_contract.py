"""What every provider behind HTTP must do, whatever its dialect: a test class to inherit, and the dialects' answers.

A module has the fixtures ``gateway`` and ``upstream``; ``CANARY`` is its provider's credential.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Any, ClassVar

import attrs
import pytest

from gateway.testing import (
    Ending,
    GatewayProcess,
    RawClient,
    Response,
    Script,
    ScriptedUpstream,
    Truncated,
    chat_body,
    chat_events,
    fetch,
    stream,
    whole,
)
from gateway.testing.answers import JSON, SSE, USAGE
from gateway.testing.wire import json_bytes

TEXT = "w0 w1 w2 "
"""What all of the good answers say, with 5 tokens in and 2 out."""
_numbers = count()


def fresh(provider: str = "p") -> str:
    """A model nobody has called yet: no breaker has opened for it."""
    return f"{provider}/m{next(_numbers)}"


@attrs.frozen(kw_only=True)
class Spoken:
    """A provider's dialect."""

    body: bytes
    events: tuple[bytes, ...]
    error: Callable[[int, str], Any]
    """Status and message → the body of a refusal."""
    marker: bool = True
    """The last event is the end, and nothing else is."""


def _named(name: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\n".encode() + b"data: " + json.dumps({"type": name, **data}).encode() + b"\n\n"


_STARTED: dict[str, Any] = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
    "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 1},
}  # fmt: skip
ANTHROPIC = Spoken(
    body=json_bytes(
        _STARTED
        | {"content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn"}
        | {"usage": {"input_tokens": 5, "output_tokens": 2}}
    ),
    events=(
        _named("message_start", {"message": _STARTED}),
        _named("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        *(
            _named("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": f"w{number} "}})
            for number in range(3)
        ),
        _named("content_block_stop", {"index": 0}),
        _named(
            "message_delta",
            {"delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 2}},
        ),
        _named("message_stop", {}),
    ),
    error=lambda status, message: {"type": "error", "error": {"type": "api_error", "message": message}},
)


def _piece(text: str, **more: Any) -> dict[str, Any]:
    counts = {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}
    candidate = {"index": 0, "content": {"role": "model", "parts": [{"text": text}]}, **more}
    return {"candidates": [candidate], "usageMetadata": counts, "modelVersion": "m", "responseId": "r1"}


GEMINI = Spoken(
    body=json_bytes(_piece(TEXT, finishReason="STOP")),
    events=tuple(
        b"data: " + json_bytes(each) + b"\r\n\r\n"
        for each in (_piece("w0 "), _piece("w1 "), _piece("w2 "), _piece("", finishReason="STOP"))
    ),
    error=lambda status, message: {"error": {"code": status, "message": message, "status": "UNKNOWN"}},
)
OPENAI = Spoken(
    body=chat_body(TEXT),
    events=tuple(chat_events(3, usage=USAGE)),
    error=lambda status, message: {"error": {"message": message, "type": "t", "param": None, "code": "c"}},
)


def speaks(spoken: Spoken) -> Script:
    """Answers in the dialect, streamed where the request or its path asks for it."""
    answers = (whole(200, spoken.body), stream(spoken.events))

    async def script(call: Any) -> None:
        body = call.request.json
        await answers[bool(body.get("stream")) or "streamGenerateContent" in call.request.target](call)

    return script


def cut(pieces: Iterable[bytes], ending: Ending) -> Script:
    return stream(pieces, headers=SSE, ending=ending)


# How clients of each dialect ask, and where the text of a whole and of a streamed answer is.
def _texts(path: tuple[Any, ...], values: Iterable[Any]) -> str:
    found = []
    for value in values:
        for step in path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                value = ""
        found.append(value or "")
    return "".join(found)


@attrs.frozen
class Asks:
    path: str
    body: Mapping[str, Any]
    whole: tuple[Any, ...]
    piece: tuple[Any, ...]
    streamed: str = ""
    """Path of the streamed form, where it has its own."""

    async def send(
        self, gateway: GatewayProcess, model: str, streams: bool, headers: Mapping[str, str] = {}
    ) -> Response:
        path = (self.streamed or self.path) if streams else self.path
        body = {**self.body, **({} if "{model}" in path else {"model": model})}
        if streams and not self.streamed:
            body["stream"] = True
        url = gateway.url + path.replace("{model}", model)
        return await fetch(url, "POST", {**JSON, **headers}, json.dumps(body).encode())

    def text(self, reply: Response, streams: bool) -> str:
        if not streams:
            return _texts(self.whole, [reply.json])
        lines = [line[5:] for line in reply.body.splitlines() if line.startswith(b"data:") and b"[DONE]" not in line]
        return _texts(self.piece, map(json.loads, lines))


_HI = [{"role": "user", "content": "hi"}]
_CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
_PARTS = ("candidates", 0, "content", "parts", 0, "text")
CLIENTS = {
    "chat": Asks(
        "/v1/chat/completions",
        {"messages": _HI},
        ("choices", 0, "message", "content"),
        ("choices", 0, "delta", "content"),
    ),
    "responses": Asks("/v1/responses", {"input": "hi"}, ("output", 0, "content", 0, "text"), ("delta",)),
    "messages": Asks(
        "/v1/messages", {"messages": _HI, "max_tokens": 50}, ("content", 0, "text"), ("delta", "text")
    ),
    "gemini": Asks(
        "/v1beta/models/{model}:generateContent",
        _CONTENTS,
        _PARTS,
        _PARTS,
        "/v1beta/models/{model}:streamGenerateContent?alt=sse",
    ),
}  # fmt: skip
CANARY = "sk-canary-4f1c-of-this-provider"
THEIRS = "sk-virtual-of-the-client-8d2P"


class ProviderContract:
    """Inherit it as ``TestContract``; the module has the fixtures ``gateway`` and ``upstream``."""

    spoken: ClassVar[Spoken]
    provider: ClassVar[str] = "p"
    sent: ClassVar[tuple[str, str]] = ("authorization", f"Bearer {CANARY}")
    """The header that carries the credential, and its value."""

    @pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
    @pytest.mark.parametrize("client", CLIENTS)
    async def test_every_client_is_answered_and_counted(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, client: str, streams: bool
    ) -> None:
        upstream.script = speaks(self.spoken)
        reply = await CLIENTS[client].send(gateway, fresh(self.provider), streams)
        assert (reply.status, CLIENTS[client].text(reply, streams)) == (200, TEXT), reply.body
        (line,) = await gateway.wait_log(id=reply.header("x-request-id"))
        assert (line["usage"]["input"], line["usage"]["output"]) == (5, 2)

    @pytest.mark.parametrize("client", CLIENTS)
    async def test_only_our_credential_goes_out(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, client: str
    ) -> None:
        upstream.script = speaks(self.spoken)
        theirs = {"Authorization": f"Bearer {THEIRS}", "x-api-key": THEIRS, "api-key": THEIRS, "x-goog-api-key": THEIRS}
        reply = await CLIENTS[client].send(gateway, fresh(self.provider), False, theirs | {"Cookie": f"a={THEIRS}"})
        assert reply.status == 200
        (call,) = upstream.calls
        name, value = self.sent
        assert [each for each in call.headers if each[0].lower() == name] == [(call_name(call, name), value)]
        assert THEIRS not in str(call.headers) + call.target
        assert CANARY not in call.target and CANARY.encode() not in call.body + reply.head.raw + reply.body

    @pytest.mark.parametrize("client", CLIENTS)
    @pytest.mark.parametrize("status", [400, 404, 413, 422, 500, 503])
    async def test_a_refusal_keeps_its_status_and_message(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, client: str, status: int
    ) -> None:
        upstream.script = whole(status, self.spoken.error(status, "Said by the provider."))
        reply = await CLIENTS[client].send(gateway, fresh(self.provider), False)
        assert reply.status == status and b"Said by the provider." in reply.body

    @pytest.mark.parametrize("client", CLIENTS)
    async def test_a_wait_that_is_asked_for_is_passed_on(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, client: str
    ) -> None:
        upstream.script = whole(429, self.spoken.error(429, "Slowly."), JSON | {"Retry-After": "17"})
        reply = await CLIENTS[client].send(gateway, fresh(self.provider), True)
        assert (reply.status, reply.header("retry-after")) == (429, "17")

    @pytest.mark.parametrize("client", CLIENTS)
    @pytest.mark.parametrize("status", [401, 403])
    async def test_a_refusal_of_our_own_credential_is_our_own_affair(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, client: str, status: int
    ) -> None:
        upstream.script = whole(status, self.spoken.error(status, f"The key {CANARY} is not good."))
        reply = await CLIENTS[client].send(gateway, fresh(self.provider), False)
        assert reply.status == 502 and CANARY.encode() not in reply.body and b"not good" not in reply.body

    @pytest.mark.parametrize("client", CLIENTS)
    async def test_an_error_that_shows_our_credential_is_withheld(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, client: str
    ) -> None:
        upstream.script = whole(400, self.spoken.error(400, f"The key {CANARY} may not do that."))
        reply = await CLIENTS[client].send(gateway, fresh(self.provider), False)
        assert reply.status == 400 and CANARY.encode() not in reply.body

    @pytest.mark.parametrize("ending", ["end", "close", "reset", "half"])
    @pytest.mark.parametrize("client", CLIENTS)
    async def test_a_stream_that_is_cut_never_looks_complete(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, client: str, ending: Ending
    ) -> None:
        kept = next(at for at, event in enumerate(self.spoken.events) if b"w0 " in event) + 1
        upstream.script = cut(self.spoken.events[:kept], ending)
        with pytest.raises(Truncated) as caught:
            await CLIENTS[client].send(gateway, fresh(self.provider), True)
        assert b"error" in caught.value.received
        for mark in (b"[DONE]", b"message_stop", b"response.completed", b'"STOP"'):
            assert mark not in caught.value.received

    @pytest.mark.parametrize("client", CLIENTS)
    async def test_an_answer_that_is_none_is_no_success(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, client: str
    ) -> None:
        upstream.script = whole(200, b"<html>", {"Content-Type": "text/html"})
        reply = await CLIENTS[client].send(gateway, fresh(self.provider), True)
        assert reply.status in (200, 502)
        assert TEXT.encode() not in reply.body and b"[DONE]" not in reply.body

    async def test_a_client_that_leaves_takes_its_call_along(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream
    ) -> None:
        kept = next(at for at, event in enumerate(self.spoken.events) if b"w0 " in event) + 1
        upstream.script = cut(self.spoken.events[:kept], "stall")
        async with RawClient(gateway.url) as client:
            await client.chat(fresh(self.provider), stream=True)
            await client.read_head()
            await anext(client.body())
        await upstream.wait_aborted(within=5)


def call_name(call: Any, name: str) -> str:
    """The header's name as it was sent."""
    return next((each for each, _ in call.headers if each.lower() == name), name)
