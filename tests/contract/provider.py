"""What every provider plugin must do, whatever its provider speaks. A provider's test is a subclass with its answers.

    class TestContract(ProviderContract):
        type = "ollama"
        spoken = Spoken(…)

Each test has the gateway as a process in front of a scripted provider.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import ClassVar

import pytest

from gateway.testing import (
    Ending,
    GatewayFactory,
    GatewayProcess,
    RawClient,
    Received,
    Response,
    Script,
    ScriptedUpstream,
    Truncated,
    fetch_chat,
    free_ports,
    redirect,
    stream,
    whole,
)
from gateway.testing.answers import JSON
from tests.contract.clients import CLIENTS, THEIRS, fresh
from tests.contract.spoken import Spoken, speaks
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
    type: ClassVar[str]
    """The plugin's name."""
    spoken: ClassVar[Spoken]
    """What its provider answers."""
    path: ClassVar[str] = ""
    """What ``base_url`` ends with."""
    settings: ClassVar[str] = 'api_key = "env:PROVIDER_KEY"'
    """Further lines of its table."""
    secret: ClassVar[str] = "7Qz4hV9tLpXw2RbK8sYd"
    """What is in the environment as ``PROVIDER_KEY``."""
    sent: ClassVar[tuple[str, str]] = ("authorization", "Bearer {}")
    """The header that carries the credential, and its value."""
    env: ClassVar[Mapping[str, str]] = {}
    """Further environment."""
    refusal_headers: ClassVar[Mapping[str, str]] = {}
    """Further headers of an error answer."""

    def credential(self, call: Received) -> None:
        """Asserts that a request carries the provider's own credential, and once."""
        name, value = self.sent
        assert [given for each, given in call.headers if each.lower() == name] == [value.format(self.secret)]

    def refusal(self, status: int, message: str, wait: str = "0") -> Script:
        headers = {**JSON, **self.refusal_headers, "Retry-After": wait}
        return whole(status, self.spoken.error(status, message), headers)

    def stream(self, count: int, ending: Ending = "end") -> Script:
        """The beginning of a streamed answer; ``half`` has the half of one more event, in the provider's own words."""
        events = list(self.spoken.events[:count])
        if ending == "half":
            after = self.spoken.events[count]
            events, ending = [*events, after[: len(after) // 2]], "close"
        return stream(events, headers=self.spoken.headers, ending=ending)

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
        async with ScriptedUpstream(speaks(self.spoken), port=port, models=()) as scripted:
            yield scripted

    async def test_a_whole_answer(self, gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
        reply = await fetch_chat(gateway.url, "m")
        assert reply.status == 200
        assert reply.json["choices"][0]["message"]["content"] == self.spoken.text
        assert reply.json["choices"][0]["finish_reason"] == "stop"
        assert (reply.json["usage"]["prompt_tokens"], reply.json["usage"]["completion_tokens"]) == (5, 2)
        await self._books(gateway, reply)
        (call,) = upstream.calls
        assert b"upstream-model" in call.target.encode() + call.body
        self.credential(call)

    @pytest.mark.parametrize("asked", [True, False])
    async def test_a_streamed_answer(self, gateway: GatewayProcess, upstream: ScriptedUpstream, asked: bool) -> None:
        reply = await fetch_chat(gateway.url, "m", stream=True, stream_options={"include_usage": asked})
        assert (reply.header("content-type") or "").startswith("text/event-stream")
        *events, last, rest = reply.body.split(b"\n\n")
        assert (last, rest) == (b"data: [DONE]", b"")
        chunks = [json.loads(event.removeprefix(b"data: ")) for event in events]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        assert "".join(choice["delta"].get("content") or "" for choice in choices) == self.spoken.text
        assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
        told = [chunk["usage"]["completion_tokens"] for chunk in chunks if chunk.get("usage")]
        assert told == ([2] if asked else [])
        await self._books(gateway, reply)

    @pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
    @pytest.mark.parametrize("client", CLIENTS)
    async def test_every_client_is_answered_and_counted(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, client: str, streams: bool
    ) -> None:
        reply = await CLIENTS[client].send(gateway, fresh(), streams)
        assert (reply.status, CLIENTS[client].text(reply, streams)) == (200, self.spoken.text), reply.body
        await self._books(gateway, reply)

    async def _books(self, gateway: GatewayProcess, reply: Response) -> None:
        (line,) = await gateway.wait_log(id=reply.header("x-request-id"))
        assert line["outcome"] == "ok"
        assert (line["usage"]["input"], line["usage"]["output"]) == (5, 2)

    @pytest.mark.parametrize("client", CLIENTS)
    async def test_only_our_credential_goes_out(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, client: str
    ) -> None:
        theirs = {"Authorization": f"Bearer {THEIRS}", "x-api-key": THEIRS, "api-key": THEIRS, "x-goog-api-key": THEIRS}
        reply = await CLIENTS[client].send(gateway, fresh(), False, theirs | {"Cookie": f"a={THEIRS}"})
        assert reply.status == 200
        (call,) = upstream.calls
        self.credential(call)
        assert THEIRS not in str(call.headers) + call.target and call.header("cookie") is None
        assert self.secret not in call.target
        assert self.secret.encode() not in call.body + reply.head.raw + reply.body

    @pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
    @pytest.mark.parametrize("client", CLIENTS)
    @pytest.mark.parametrize("status", [400, 404, 413, 422, 429, 500, 503])
    async def test_a_refusal_keeps_its_status_and_message(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, client: str, status: int, streams: bool
    ) -> None:
        upstream.script = self.refusal(status, "Said by the provider.")
        reply = await CLIENTS[client].send(gateway, fresh(), streams)
        assert reply.status == status
        message = reply.json["error"]["message"]
        assert message.removesuffix(f" (request id: {reply.header('x-request-id')})") == "Said by the provider."
        assert len(upstream.calls) == 1

    @pytest.mark.parametrize("client", CLIENTS)
    async def test_a_wait_that_is_asked_for_is_passed_on(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, client: str
    ) -> None:
        upstream.script = self.refusal(429, "Slowly.", "17")
        reply = await CLIENTS[client].send(gateway, fresh(), True)
        assert (reply.status, reply.header("retry-after")) == (429, "17")

    @pytest.mark.parametrize("client", CLIENTS)
    @pytest.mark.parametrize("status", [401, 403])
    async def test_a_refused_credential_is_not_the_client_s_affair(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, client: str, status: int
    ) -> None:
        upstream.script = self.refusal(status, f"Said by the provider of {self.secret}.")
        reply = await CLIENTS[client].send(gateway, fresh(), False)
        assert reply.status == 502
        assert b"Said by the provider" not in reply.body and self.secret.encode() not in reply.body

    @pytest.mark.parametrize("client", CLIENTS)
    async def test_an_error_that_shows_the_credential_is_not_passed_on(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, client: str
    ) -> None:
        upstream.script = self.refusal(400, f"bad key {self.secret}")
        reply = await CLIENTS[client].send(gateway, fresh(), False)
        assert reply.status == 400
        assert not [form for form in disguises(self.secret) if form in reply.head.raw + reply.body]

    async def test_the_credential_goes_to_its_origin_and_nowhere_else(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream
    ) -> None:
        async with ScriptedUpstream(speaks(self.spoken)) as canary:
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
        total = len(self.spoken.events)
        # A piece more each time, the last time all but the terminal marker.
        for count in range(total - 1) if ending == "close" else (1, total - 2):
            upstream.script = self.stream(count, ending)
            received = await self._broken(gateway)
            assert b"[DONE]" not in received
            last = json.loads(received.rstrip().rsplit(b"\n\n", 1)[-1].removeprefix(b"data: "))
            assert last["error"]["message"]

    @pytest.mark.parametrize("ending", ["end", "close", "reset", "half"])
    @pytest.mark.parametrize("client", CLIENTS)
    async def test_no_client_takes_a_cut_stream_for_an_answer(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, client: str, ending: Ending
    ) -> None:
        upstream.script = self.stream(len(self.spoken.begun()), ending)
        with pytest.raises(Truncated) as caught:
            await CLIENTS[client].send(gateway, fresh(), True)
        assert b"error" in caught.value.received
        for mark in (b"[DONE]", b"message_stop", b"response.completed", b'"STOP"'):
            assert mark not in caught.value.received

    async def test_an_error_inside_a_stream(self, gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
        # One chunk per event: the text is on its way before the error is known.
        events = [*self.spoken.begun(), self.spoken.failure]
        upstream.script = stream(events, headers=self.spoken.headers, pause=0.1)
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

    @pytest.mark.parametrize("client", CLIENTS)
    async def test_an_answer_that_is_none_is_no_success(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream, client: str
    ) -> None:
        upstream.script = whole(200, b"<html>", {"Content-Type": "text/html"})
        reply = await CLIENTS[client].send(gateway, fresh(), True)
        assert reply.status in (200, 502)
        assert self.spoken.text.encode() not in reply.body and b"[DONE]" not in reply.body

    async def test_a_client_that_leaves_takes_its_call_along(
        self, gateway: GatewayProcess, upstream: ScriptedUpstream
    ) -> None:
        upstream.script = self.stream(len(self.spoken.begun()), "stall")
        async with RawClient(gateway.url) as client:
            await client.chat(fresh(), stream=True)
            await client.read_head()
            await anext(client.body())
        await upstream.wait_aborted(within=5)
