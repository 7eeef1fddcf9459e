"""What providers behind HTTP share; how they behave over the wire is in ``tests/contract``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import Any

import attrs
import pytest

from gateway import Runtime, Secret, Target, Timeouts
from gateway.config import Config
from gateway.errors import InvalidRequest, UpstreamProtocolError
from gateway.http_provider import HttpProvider, HttpSettings, json_object
from gateway.testing import ScriptedUpstream, whole
from gateway.translation import in_turns
from gateway.upstream import Upstream
from gateway_plugins.providers import bedrock, cohere, ollama, openai_compat
from tests.support.exchanges import make_exchange

KEY = "7Qz4hV9tLpXw"


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    upstream = Upstream(Config().pool)
    yield Runtime(Config(), upstream, name="p")
    await upstream.close()


@attrs.frozen(kw_only=True)
class Ours(HttpSettings):
    base_url: str = "http://127.0.0.1:1"


@pytest.mark.parametrize("module", [bedrock, cohere, ollama, openai_compat], ids=lambda module: str(module.__name__))
def test_every_provider_behind_http_has_the_common_settings(module: Any) -> None:
    assert issubclass(module.Settings, HttpSettings)
    names = [field.name for field in attrs.fields(module.Settings)]
    assert len(names) == len(set(names)) and {field.name for field in attrs.fields(HttpSettings)} <= set(names)
    assert isinstance(attrs.fields_dict(module.Settings)["timeouts"].default, Timeouts)


async def test_a_key_is_a_bearer_token_and_the_operator_s_headers_go_along(runtime: Runtime) -> None:
    async with ScriptedUpstream(whole(200, {})) as upstream:
        settings = Ours(base_url=f"{upstream.url}/root/", api_key=Secret(KEY), headers={"X-Plain": "plain"})
        provider = HttpProvider(settings, runtime, settings.bearer())
        await (await provider.endpoint.send(None, "GET", "/x")).read()
        (call,) = upstream.calls
        assert call.target == "/root/x"
        assert (call.header("authorization"), call.header("x-plain")) == (f"Bearer {KEY}", "plain")


async def test_a_provider_may_work_its_address_out(runtime: Runtime) -> None:
    async with ScriptedUpstream(whole(200, {})) as upstream:
        provider = HttpProvider(Ours(), runtime, {}, upstream.url)
        await (await provider.endpoint.send(None, "GET", "/x")).read()
        assert upstream.calls[0].header("authorization") is None


async def test_the_target_names_the_model_before_the_client(runtime: Runtime) -> None:
    provider = HttpProvider(Ours(), runtime, {})
    assert provider.model(make_exchange(model="alias"), Target("p", "real")) == "real"
    assert provider.model(make_exchange(model="alias"), Target("p")) == "alias"
    with pytest.raises(InvalidRequest, match="model"):
        provider.model(make_exchange(), Target("p"))


async def test_a_refusal_shows_no_secret(runtime: Runtime) -> None:
    seen: list[bytes] = []

    def read(status: int, body: bytes) -> tuple[int, str, str]:
        seen.append(body)
        return 503, "code", "message"

    for header, body in (("api", f"key {KEY}"), ("api", "key other-secret"), ("plain", "nothing to hide")):
        async with ScriptedUpstream(whole(500, {header: body}, {"Retry-After": "7"})) as upstream:
            settings = Ours(base_url=upstream.url, api_key=Secret(KEY), headers={"X-Key": Secret("other-secret")})
            provider = HttpProvider(settings, runtime, settings.bearer())
            answer = await provider.endpoint.send(None, "GET", "/")
            refusal = await provider.refusal(make_exchange(target=Target("p", "m")), answer, read)
        assert (refusal.upstream_status, refusal.retry_after, refusal.target) == (503, 7.0, "p/m")
    assert seen == [b"", b"", b'{"plain":"nothing to hide"}']


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"1"])
def test_what_is_no_object_is_no_answer(raw: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        json_object(raw)
    assert json_object(b'{"a":1}') == {"a": 1}


async def test_a_long_computation_lets_others_have_their_turn() -> None:
    turns = 0

    def steps() -> Generator[None, None, int]:
        for _ in range(100):
            yield
        return turns

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.get_running_loop().create_task(other())
    assert await in_turns(steps()) >= 2
    task.cancel()
