"""What every provider plugin must do, whatever its provider speaks. A provider's test is a subclass with its answers.

    class TestContract(ProviderContract):
        type = "ollama"
        …

Each test has the gateway as a process in front of a scripted provider.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

import pytest

from gateway.testing import (
    Ending,
    GatewayFactory,
    GatewayProcess,
    RawClient,
    Received,
    Script,
    ScriptedUpstream,
    Truncated,
    fetch_chat,
    free_ports,
    redirect,
    stream,
    whole,
)
from gateway.testing.answers import SSE
from tests.support.exchanges import disguises

_CONFIG = """
[retry]
budget = 0
[breaker]
failures = 0
error_rate = 0
[providers.p]
type = "$type"
base_url = "http://127.0.0.1:$port$path"
timeouts = { connect = "1s", first_token = "1s", idle = "1s" }
$settings
[models.m]
targets = [{ provider = "p", model = "upstream-model" }]
"""


class ProviderContract:
    """The answers say "Hello" in two pieces, and cost 5 tokens in and 2 out."""

    type: ClassVar[str]
    """The plugin's name."""
    path: ClassVar[str] = ""
    """What ``base_url`` ends with."""
    settings: ClassVar[str] = 'api_key = "env:PROVIDER_KEY"'
    """Further lines of its table."""
    secret: ClassVar[str] = "7Qz4hV9tLpXw2RbK8sYd"
    """What is in the environment as ``PROVIDER_KEY``."""
    env: ClassVar[Mapping[str, str]] = {}
    """Further environment."""
    stream_headers: ClassVar[Mapping[str, str]] = SSE

    def answer(self) -> Any:
        """The body of a whole answer."""
        raise NotImplementedError

    def pieces(self) -> list[bytes]:
        """The events of a streamed one, the terminal marker last."""
        raise NotImplementedError

    def refusal(self, status: int, message: str) -> Script:
        """An error answer as the provider writes it."""
        raise NotImplementedError

    def failure(self) -> bytes | None:
        """An error event inside a stream that says ``It broke.``; ``None`` where the provider has none."""
        return None

    def credential(self, call: Received) -> None:
        """Asserts that a request carries the provider's own credential."""
        assert call.header("authorization") == f"Bearer {self.secret}"

    @pytest.fixture(scope="class")
    @classmethod
    def port(cls) -> int:
        return free_ports(1)[0]

    @pytest.fixture(scope="class")
    @classmethod
    def gateway(cls, shared_gateway_server: GatewayFactory, port: int) -> GatewayProcess:
        env = {"PROVIDER_KEY": cls.secret, **cls.env}
        return shared_gateway_server(
            _CONFIG, env=env, type=cls.type, path=cls.path, settings=cls.settings, port=str(port)
        )

    @pytest.fixture
    async def upstream(self, port: int) -> AsyncIterator[ScriptedUpstream]:
        async with ScriptedUpstream(whole(200, self.answer()), port=port) as scripted:
            yield scripted

    async def test_a_whole_answer(self, gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
        reply = await fetch_chat(gateway.url, "m")
        assert reply.status == 200
        assert reply.json["choices"][0]["message"]["content"] == "Hello"
        assert reply.json["choices"][0]["finish_reason"] == "stop"
        assert (reply.json["usage"]["prompt_tokens"], reply.json["usage"]["completion_tokens"]) == (5, 2)
        await self._books(gateway, reply.header("x-request-id"), "ok")
        (call,) = upstream.calls
        assert b"upstream-model" in call.target.encode() + call.body
        self.credential(call)

    @pytest.mark.parametrize("asked", [True, False])
    async def test_a_streamed_answer(self, gateway: GatewayProcess, upstream: ScriptedUpstream, asked: bool) -> None:
        upstream.script = stream(self.pieces(), headers=self.stream_headers)
        reply = await fetch_chat(gateway.url, "m", stream=True, stream_options={"include_usage": asked})
        assert (reply.header("content-type") or "").startswith("text/event-stream")
        *events, last, rest = reply.body.split(b"\n\n")
        assert (last, rest) == (b"data: [DONE]", b"")
        chunks = [json.loads(event.removeprefix(b"data: ")) for event in events]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        assert "".join(choice["delta"].get("content") or "" for choice in choices) == "Hello"
        assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
        told = [chunk["usage"]["completion_tokens"] for chunk in chunks if chunk.get("usage")]
        assert told == ([2] if asked else [])
        await self._books(gateway, reply.header("x-request-id"), "ok")

    async def _books(self, gateway: GatewayProcess, request_id: str | None, outcome: str) -> None:
        (line,) = await gateway.wait_log(id=request_id)
        assert line["outcome"] == outcome
        assert (line["usage"]["input"], line["usage"]["output"]) == (5, 2)

    @pytest.mark.parametrize("streamed", [True, False])
    @pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
    async def test_an_error_is_passed_on(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, status: int, streamed: bool
    ) -> None:
        upstream.script = self.refusal(status, "Said by the provider.")
        reply = await fetch_chat(gateway.url, "m", stream=streamed)
        assert reply.status == status
        assert reply.json["error"]["message"].removesuffix(f" (request id: {reply.header('x-request-id')})") == (
            "Said by the provider."
        )
        assert len(upstream.calls) == 1

    @pytest.mark.parametrize("status", [401, 403])
    async def test_a_refused_credential_is_not_the_client_s_affair(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, status: int
    ) -> None:
        upstream.script = self.refusal(status, "Said by the provider.")
        reply = await fetch_chat(gateway.url, "m")
        assert reply.status == 502
        assert b"Said by the provider." not in reply.body

    async def test_an_error_that_shows_the_credential_is_not_passed_on(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream
    ) -> None:
        upstream.script = self.refusal(400, f"bad key {self.secret}")
        reply = await fetch_chat(gateway.url, "m")
        assert reply.status == 400
        assert not [form for form in disguises(self.secret) if form in reply.head.raw + reply.body]

    async def test_the_credential_goes_to_its_origin_and_nowhere_else(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream
    ) -> None:
        async with ScriptedUpstream(whole(200, self.answer())) as canary:
            upstream.script = redirect(307, f"{canary.url}/elsewhere")
            reply = await fetch_chat(gateway.url, "m", headers={"Authorization": "Bearer sk-client", "Cookie": "a=b"})
            assert reply.status == 502
            assert canary.connections == []
        (call,) = upstream.calls
        self.credential(call)
        assert "sk-client" not in str(call.headers) and call.header("cookie") is None

    @pytest.mark.parametrize("ending", ["end", "close", "reset", "stall"])
    async def test_a_stream_that_is_cut_never_looks_complete(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, ending: Ending
    ) -> None:
        pieces = self.pieces()
        # A piece more each time, the last time all but the terminal marker.
        for count in range(len(pieces) - 1) if ending == "close" else (1, len(pieces) - 2):
            upstream.script = stream(pieces[:count], headers=self.stream_headers, ending=ending)
            received = await self._broken(gateway)
            assert b"[DONE]" not in received
            last = json.loads(received.rstrip().rsplit(b"\n\n", 1)[-1].removeprefix(b"data: "))
            assert last["error"]["message"]

    async def test_an_error_inside_a_stream(self, gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
        if (failure := self.failure()) is None:
            pytest.skip("this provider tells no errors inside a stream")
        first = self.pieces()[:2]
        # One chunk per event: the text is on its way before the error is known.
        upstream.script = stream([*first, failure], headers=self.stream_headers, pause=0.1)
        received = await self._broken(gateway)
        assert b"It broke." in received and b"[DONE]" not in received

    async def _broken(self, gateway: GatewayProcess) -> bytes:
        """What a client gets who must not take it for an answer: an error with its status, or an aborted stream."""
        async with RawClient(gateway.url) as client:
            await client.chat("m", stream=True)
            try:
                reply = await client.read()
            except Truncated as cut:
                return cut.received
        assert reply.status >= 500
        return reply.body
