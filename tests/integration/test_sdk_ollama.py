"""Ollama's own Python client in front of the gateway, with providers that do not speak Ollama."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.testing import GatewayFactory, GatewayProcess, RawClient, fetch

ollama = pytest.importorskip("ollama", reason="the ollama client is not installed")

KEYS = {name: f"hg-ollama-{name}" for name in ("alice", "bob")}
CONFIG = f"""
[plugins]
folders = ["$plugins"]
[plugins.rate_limit]
requests_per_minute = 0
[providers.echo]
type = "echo"
[providers.slow]
type = "echo"
model = "slow"
delay = "20ms"
[providers.worker]
type = "worker"
[keys.alice]
sha256 = "{hashlib.sha256(KEYS["alice"].encode()).hexdigest()}"
[keys.bob]
sha256 = "{hashlib.sha256(KEYS["bob"].encode()).hexdigest()}"
models = ["slow"]
"""
# A provider that thinks, calls a tool, and answers with the tool's result; model "broken" breaks off.
WORKER = """
import asyncio
from gateway import Usage, hookimpl
from gateway.errors import UpstreamProtocolError
from gateway.translation import chat_of, told, whole


def calls(name, text):
    return [{"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": text}}]


class Plugin:
    def __init__(self, settings, runtime):
        pass

    @hookimpl
    async def forward(self, exchange, target):
        chat = await chat_of(exchange)
        used = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        last = chat["messages"][-1]
        name = chat["tools"][0]["function"]["name"] if chat.get("tools") else None
        if last["role"] == "tool":
            said, reason = {"content": f"{last['tool_call_id']}: {last['content']}"}, "stop"
        else:
            said, reason = {"reasoning_content": "Hm.", "tool_calls": calls(name, '{"city":"Bern"}')}, "tool_calls"
        if not exchange.stream:
            choice = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": reason}
            return await whole(exchange, {"model": "w", "choices": [choice], "usage": used}, Usage(3, 4))
        return await told(exchange, self.chunks(said, reason, used, exchange.model), Usage(3, 4))

    async def chunks(self, said, reason, used, model):
        pieces = [{name: value} for name, value in said.items()]
        if "tool_calls" in said:
            pieces[-1:] = [{"tool_calls": calls("get_weather", "")}]
            for text in ('{"city"', ':"Bern"}'):
                pieces.append({"tool_calls": [{"index": 0, "function": {"arguments": text}}]})
        for piece in pieces:
            yield {"model": "w", "choices": [{"index": 0, "delta": piece, "finish_reason": None}]}
            await asyncio.sleep(0.01)
            if model.endswith("broken"):
                raise UpstreamProtocolError("The provider broke off.")
        yield {"model": "w", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
        yield {"model": "w", "choices": [], "usage": used}
"""
MESSAGES: Any = [{"role": "user", "content": "Hello, dear gateway"}]


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, tmp_path_factory: pytest.TempPathFactory) -> GatewayProcess:
    folder = tmp_path_factory.mktemp("worker")
    (folder / "worker.py").write_text(WORKER)
    return shared_gateway_server(CONFIG, plugins=str(folder))


Connect = Callable[[str], Any]


@pytest.fixture
async def connect(gateway: GatewayProcess) -> AsyncIterator[Connect]:
    made: list[Any] = []

    def make(key: str) -> Any:
        # No proxy of the environment: this is 127.0.0.1.
        headers = {"Authorization": f"Bearer {key}"}
        made.append(ollama.AsyncClient(host=gateway.url, headers=headers, trust_env=False))
        return made[-1]

    yield make
    for client in made:
        await client.close()


@pytest.fixture
def client(connect: Connect) -> Any:
    return connect(KEYS["alice"])


async def test_chat(client: Any) -> None:
    answer = await client.chat(model="echo", messages=MESSAGES)
    assert answer.message.content == "Hello, dear gateway"
    assert (answer.model, answer.done, answer.done_reason) == ("echo", True, "stop")
    assert (answer.prompt_eval_count, answer.eval_count) == (3, 3)


async def test_a_stream(client: Any) -> None:
    parts = [part async for part in await client.chat(model="slow:latest", messages=MESSAGES, stream=True)]
    assert [part.message.content for part in parts] == ["Hello,", " dear", " gateway", ""]
    assert [part.done for part in parts] == [False, False, False, True]
    assert parts[-1].eval_count == 3
    assert parts[-1].eval_duration > 20_000_000, "nanoseconds, measured"
    assert parts[0].model == "slow:latest"


def get_weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: Where.
    """
    return f"sun in {city}"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_tool_loop(client: Any, streamed: bool) -> None:
    async def turn(messages: list[Any]) -> Any:
        answer = await client.chat(
            model="worker/w", messages=messages, tools=[get_weather], think=True, stream=streamed
        )
        if not streamed:
            return answer.message
        message = ollama.Message(role="assistant", content="")
        async for part in answer:
            message.content += part.message.content or ""
            message.thinking = (message.thinking or "") + (part.message.thinking or "")
            message.tool_calls = part.message.tool_calls or message.tool_calls
        return message

    first = await turn(MESSAGES)
    assert first.thinking == "Hm."
    (call,) = first.tool_calls
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Bern"})
    result = {"role": "tool", "tool_name": call.function.name, "content": get_weather(**call.function.arguments)}
    second = await turn([*MESSAGES, first, result])
    assert second.content == "call_0: sun in Bern", "the client forgets the id; the order tells"


async def test_generate(client: Any) -> None:
    answer = await client.generate(model="echo", prompt="so it goes", system="Be brief.")
    assert (answer.response, answer.prompt_eval_count) == ("so it goes", 5)
    parts = [part async for part in await client.generate(model="echo", prompt="so it goes", stream=True)]
    assert "".join(part.response for part in parts) == "so it goes"
    assert parts[-1].done


async def test_embeddings(client: Any) -> None:
    answer = await client.embed(model="echo", input=["a", "b c"])
    assert len(answer.embeddings) == 2
    assert answer.prompt_eval_count == 3
    one = await client.embeddings(model="echo", prompt="a")
    assert one.embedding == answer.embeddings[0]


async def test_models(client: Any, connect: Connect) -> None:
    listed = await client.list()
    assert [model.model for model in listed.models] == ["echo:latest", "slow:latest"]
    assert [model.model for model in (await connect(KEYS["bob"]).list()).models] == ["slow:latest"]
    shown = await client.show(listed.models[0].model)
    assert "completion" in shown.capabilities
    assert (await client.ps()).models == []


async def test_errors_are_of_their_status(client: Any, connect: Connect) -> None:
    async def status(who: Any, **request: Any) -> int:
        with pytest.raises(ollama.ResponseError) as raised:
            await who.chat(**request)
        assert raised.value.error and "{" not in raised.value.error
        code: int = raised.value.status_code
        return code

    assert await status(client, model="nobody", messages=MESSAGES) == 404
    assert await status(client, model="echo", messages=[]) == 400
    assert await status(connect("hg-wrong"), model="echo", messages=MESSAGES) == 401
    assert await status(connect(KEYS["bob"]), model="echo", messages=MESSAGES) == 403
    with pytest.raises(ollama.ResponseError) as raised:
        await client.show("nobody")
    assert raised.value.status_code == 404
    with pytest.raises(ollama.ResponseError):
        await client.pull("echo")


async def test_a_broken_stream_raises(client: Any) -> None:
    seen = []
    with pytest.raises(ollama.ResponseError, match="broke off"):
        async for part in await client.chat(model="worker/broken", messages=MESSAGES, stream=True):
            seen.append(part)
    assert [part.message.thinking for part in seen] == ["Hm."]
    assert not any(part.done for part in seen)


async def test_the_command_line_looks_at_the_root_and_the_version(gateway: GatewayProcess, client: Any) -> None:
    async with RawClient(gateway.url) as raw:
        await raw.request("HEAD", "/")
        assert " 200 " in (await raw.read_head()).start
    fields = {"Authorization": f"Bearer {KEYS['alice']}"}
    assert (await fetch(f"{gateway.url}/api/version", headers=fields)).json["version"]
