"""Which target a model name goes to: exact, glob, provider/model, the providers' lists, the default; then fallbacks."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic, perf_counter
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import Target
from gateway.config import Config, Model, ProviderConfig
from gateway.routing import estimated_tokens, named_targets
from gateway.testing import LocalGateway, RawClient, Response, fetch, fetch_chat

PLUGIN = """
import asyncio
import attrs
from gateway import Reply, hookimpl
from gateway.errors import UpstreamUnreachable

@attrs.frozen
class Settings:
    models: tuple[str, ...] = ()
    fails: bool = False
    slow: bool = False
    lists: bool = True

class Plugin:
    def __init__(self, settings, runtime):
        self.settings, self.name, self.lists = settings, runtime.name, 0

    @hookimpl
    async def forward(self, exchange, target):
        if self.settings.fails:
            raise UpstreamUnreachable("down", target=target.name)
        return Reply(200, {"content-type": "application/json"}, b"{}")

    @hookimpl
    async def list_models(self):
        self.lists += 1
        if self.settings.slow:
            await asyncio.sleep(60)
        if not self.settings.lists:
            raise UpstreamUnreachable("no list")
        return [{"id": name} for name in self.settings.models]
"""
KEYS = {name: f"hg-routing-{name}" for name in ("all", "some")}
CONFIG = f"""
[retry]
budget = 1.0
backoff = "1ms"
[breaker]
failures = 0
error_rate = 0

[keys.all]
sha256 = "{hashlib.sha256(KEYS["all"].encode()).hexdigest()}"
[keys.some]
sha256 = "{hashlib.sha256(KEYS["some"].encode()).hexdigest()}"
models = ["first", "third"]

[providers.a]
type = "own"
models = ["shared", "only-a", "named", "gpt-listed"]
[providers.b]
type = "own"
models = ["shared", "only-b", "org/only-b"]
[providers.down]
type = "own"
fails = true
lists = false

[models.named]
targets = [{{ provider = "b" }}]
[models.renamed]
targets = [{{ provider = "b", model = "real-name" }}]
[models."gpt-*"]
targets = [{{ provider = "b" }}]
[models."gpt-4?"]
targets = [{{ provider = "a" }}]
[models."gpt-4o"]
targets = [{{ provider = "a" }}]

[models.first]
targets = [{{ provider = "down" }}]
fallbacks = ["second", "third"]
[models.second]
targets = [{{ provider = "down", model = "x" }}, {{ provider = "a" }}]
[models.third]
targets = [{{ provider = "b", model = "y" }}]
[models.broken]
targets = [{{ provider = "down", weight = 9 }}, {{ provider = "down", model = "z" }}]
[models.half]
targets = [{{ provider = "down" }}, {{ provider = "a" }}]

[models.weighted]
targets = [{{ provider = "a", weight = 3 }}, {{ provider = "b" }}]
[models.pool]
targets = [{{ provider = "a", model = "p1" }}, {{ provider = "a", model = "p2" }}, {{ provider = "a", model = "p3" }}]
"""


def plugin(folder: Path, name: str = "own", text: str = PLUGIN) -> None:
    (folder / "plugins").mkdir(exist_ok=True)
    (folder / f"plugins/{name}.py").write_text(text)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LocalGateway]:
    plugin(tmp_path)
    async with LocalGateway(tmp_path, CONFIG) as running:
        yield running


async def chat(gateway: LocalGateway, model: str, key: str = "all") -> Response:
    return await fetch_chat(gateway.url, model, key=KEYS[key])


@pytest.mark.parametrize(
    ("model", "target"),
    [
        ("named", "b"),  # [models] comes before the lists
        ("renamed", "b/real-name"),
        ("gpt-4o", "a"),  # an exact name comes before globs
        ("gpt-4x", "b"),  # of two globs, the one that stands first
        ("gpt-listed", "b"),  # a glob comes before the lists
        ("a/anything", "a/anything"),
        ("b/org/model", "b/org/model"),
        ("only-a", "a"),
        ("only-b", "b"),
        ("shared", "a"),  # of two providers, the one that stands first
        ("org/only-b", "b"),  # no provider is called org
    ],
)
async def test_a_name_goes_where_the_rules_say(gateway: LocalGateway, model: str, target: str) -> None:
    reply = await chat(gateway, model)
    assert (reply.status, reply.header("x-gateway-target")) == (200, target)


@pytest.mark.parametrize("model", ["nobodys", "GPT-4O", "c/model", "a/", "/model", "gpt-", "named "])
async def test_a_name_nobody_serves_is_a_404_or_a_globs(gateway: LocalGateway, model: str) -> None:
    reply = await chat(gateway, model)
    if model == "gpt-":
        assert (reply.status, reply.header("x-gateway-target")) == (200, "b")
    else:
        assert (reply.status, reply.json["error"]["code"]) == (404, "model_not_found")
        assert reply.json["error"]["param"] == "model"


async def test_the_default_provider_takes_what_nobody_knows(tmp_path: Path) -> None:
    plugin(tmp_path)
    async with LocalGateway(tmp_path, 'default_provider = "b"\n' + CONFIG) as gateway:
        assert (await chat(gateway, "nobodys")).header("x-gateway-target") == "b"
        assert (await chat(gateway, "only-a")).header("x-gateway-target") == "a"
        headers = {"Authorization": f"Bearer {KEYS['all']}"}
        assert (await fetch(f"{gateway.url}/v1/assistants", headers=headers)).header("x-gateway-target") == "b"


async def test_without_a_default_provider_a_path_without_a_model_is_a_404(gateway: LocalGateway) -> None:
    headers = {"Authorization": f"Bearer {KEYS['all']}"}
    reply = await fetch(f"{gateway.url}/v1/assistants", headers=headers)
    assert (reply.status, reply.json["error"]["code"]) == (404, "not_found")


async def test_a_request_must_name_its_model(gateway: LocalGateway) -> None:
    headers = {"Authorization": f"Bearer {KEYS['all']}", "Content-Type": "application/json"}
    reply = await fetch(f"{gateway.url}/v1/chat/completions", "POST", headers, b'{"messages":[]}')
    assert (reply.status, reply.json["error"]["code"]) == (400, "invalid_request")


def tried(gateway: LocalGateway) -> list[str]:
    return gateway.exchanges[-1].tried


async def test_fallbacks_come_after_all_targets(gateway: LocalGateway) -> None:
    reply = await chat(gateway, "first")
    assert reply.status == 200
    names = tried(gateway)
    # A fallback's target without a model of its own gets the fallback's name, not that of the model that failed.
    assert names[0] == "down" and names[-1] == reply.header("x-gateway-target") == "a/second"
    assert set(names) <= {"down", "down/x", "a/second"}


async def test_fallbacks_are_only_those_the_key_may_use(gateway: LocalGateway) -> None:
    for _ in range(10):
        reply = await chat(gateway, "first", "some")
        assert (reply.status, reply.header("x-gateway-target")) == (200, "b/y")
        assert tried(gateway) == ["down", "b/y"]


@pytest.mark.parametrize("model", ["second", "a/second", "only-a", "nobodys"])
async def test_a_model_the_key_may_not_use_is_a_403_whether_it_exists_or_not(gateway: LocalGateway, model: str) -> None:
    reply = await chat(gateway, model, "some")
    assert (reply.status, reply.json["error"]["code"]) == (403, "forbidden")
    assert tried(gateway) == []


async def test_when_all_targets_fail_the_last_failure_is_told(gateway: LocalGateway) -> None:
    reply = await chat(gateway, "broken")
    assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_unreachable")
    assert reply.header("x-should-retry") == "false"
    first, second, third = tried(gateway)
    assert {first, second} == {"down", "down/z"}
    assert third == second == reply.header("x-gateway-target")


async def test_a_target_that_fails_is_replaced_by_the_next(gateway: LocalGateway) -> None:
    orders = set()
    async with RawClient(gateway.url) as client:
        for _ in range(60):
            await client.chat("half", key=KEYS["all"])
            assert (await client.read()).header("x-gateway-target") == "a"
            orders.add(tuple(tried(gateway)))
    assert orders == {("down", "a"), ("a",)}  # both within 60 draws, but for one run in 2**59


async def chosen(gateway: LocalGateway, model: str, count: int) -> Counter[str | None]:
    counted: Counter[str | None] = Counter()
    async with RawClient(gateway.url) as client:
        for _ in range(count):
            await client.chat(model, key=KEYS["all"])
            counted[(await client.read()).header("x-gateway-target")] += 1
    return counted


async def test_weights_are_shares(gateway: LocalGateway) -> None:
    counted = await chosen(gateway, "weighted", 400)
    assert set(counted) == {"a", "b"}
    assert 250 <= counted["a"] <= 350  # 300 expected; outside of this once in 10**8 runs


async def test_equal_targets_share_equally(gateway: LocalGateway) -> None:
    counted = await chosen(gateway, "pool", 300)
    assert set(counted) == {"a/p1", "a/p2", "a/p3"}
    assert min(counted.values()) >= 50  # 100 expected; fewer once in 10**9 runs


SELECTOR = """
from gateway import Target, hookimpl

class Plugin:
    def __init__(self, settings, runtime):
        pass

    @hookimpl
    def select(self, targets, exchange):
        wish = exchange.headers.get("x-app")
        if wish == "last":
            return sorted(targets, key=lambda target: target.name, reverse=True)
"""


async def test_a_plugin_can_choose_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    plugin(tmp_path)
    plugin(tmp_path, "selector", SELECTOR)
    config = '[plugins]\nchain = ["auth", "selector"]\n' + CONFIG
    async with LocalGateway(tmp_path, config) as gateway:
        for _ in range(10):
            reply = await fetch_chat(gateway.url, "pool", key=KEYS["all"], headers={"x-app": "last"})
            assert reply.header("x-gateway-target") == "a/p3"
        assert set(await chosen(gateway, "pool", 60)) == {"a/p1", "a/p2", "a/p3"}


async def test_lists_are_kept(gateway: LocalGateway) -> None:
    for _ in range(3):
        assert (await chat(gateway, "only-b")).status == 200
        assert (await chat(gateway, "nobodys")).status == 404
    assert {name: lists(gateway, name) for name in ("a", "b", "down")} == {"a": 1, "b": 1, "down": 1}


async def test_lists_are_fetched_again_when_they_are_old(tmp_path: Path) -> None:
    plugin(tmp_path)
    async with LocalGateway(tmp_path, 'models_ttl = "1ms"\n' + CONFIG) as gateway:
        for _ in range(2):
            await chat(gateway, "nobodys")
            await asyncio.sleep(0.02)
        assert lists(gateway, "a") == 2


def lists(gateway: LocalGateway, name: str) -> Any:
    return gateway.plugin(name).lists


async def test_a_list_that_hangs_holds_up_nothing_another_list_has(tmp_path: Path) -> None:
    plugin(tmp_path)
    config = CONFIG + '[providers.slow]\ntype = "own"\nslow = true\n'
    async with LocalGateway(tmp_path, config) as gateway:
        began = monotonic()
        assert (await chat(gateway, "only-b")).header("x-gateway-target") == "b"
        assert monotonic() - began < 1.0


async def test_the_log_says_where_a_list_could_not_be_had(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plugin(tmp_path)
    config = CONFIG + '[providers.off]\ntype = "openai_compat"\nbase_url = "http://127.0.0.1:9/v1"\n'
    async with LocalGateway(tmp_path, config) as gateway:
        await chat(gateway, "nobodys")
    logged = next(line for line in caplog.messages if "provider off" in line)
    assert "cannot be reached" in logged and "127.0.0.1:9 " in logged
    assert "model list of provider down: no list" in caplog.messages


def test_the_targets_a_configuration_names_are_known_by_the_names_they_are_called_by() -> None:
    own, any_model = Target("a", "x", weight=3), Target("b")
    config = Config(
        providers={name: ProviderConfig(type="echo") for name in ("a", "b", "c")},
        models={
            "first": Model(targets=(own,), fallbacks=("second-1", "nobody")),
            "second-*": Model(targets=(any_model,)),
        },
    )
    assert named_targets(config) == {
        "a": Target("a"), "b": any_model, "c": Target("c"), "a/x": own, "b/second-1": Target("b", "second-1"),
    }  # fmt: skip


TAGGED = f"""
[keys.all]
sha256 = "{hashlib.sha256(KEYS["all"].encode()).hexdigest()}"
[keys.some]
sha256 = "{hashlib.sha256(KEYS["some"].encode()).hexdigest()}"
models = ["plain", "exact:latest"]
[providers.a]
type = "echo"
model = "listed:latest"
[providers.b]
type = "echo"
model = "plain"
[models."exact:latest"]
targets = [{{ provider = "a", model = "exact" }}]
[models.exact]
targets = [{{ provider = "b", model = "other" }}]
"""


@pytest.mark.parametrize(
    ("key", "model", "target"),
    [
        ("all", "plain", "b"), ("all", "plain:latest", "b"), ("all", "a/x:latest", "a/x"),
        ("all", "listed:latest", "a/listed:latest"), ("all", "listed", "a/listed:latest"),
        ("all", "exact:latest", "a/exact"), ("all", "exact", "b/other"), ("all", "plain:8b", None),
        ("some", "plain:latest", "b"), ("some", "exact:latest", "a/exact"), ("some", "exact", None),
        ("some", "listed:latest", None),
    ],
)  # fmt: skip
async def test_clients_of_ollama_may_put_latest_behind_a_name_without_a_tag(
    tmp_path: Path, key: str, model: str, target: str | None
) -> None:
    async with LocalGateway(tmp_path, TAGGED) as gateway:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": False}
        headers = {"Authorization": f"Bearer {KEYS[key]}", "Content-Type": "application/json"}
        reply = await fetch(f"{gateway.url}/api/chat", "POST", headers, json.dumps(body).encode())
        assert reply.header("x-gateway-target") == target
        assert (reply.status == 200) is (target is not None)
        if target is not None:
            assert reply.json["model"] == model, "Ollama answers by the name it was asked by"


def test_r38_tokens_of_a_long_request_are_estimated_from_some_places_of_it() -> None:
    text, image = b'"%b"' % (b"hello world " * 250_000), b'"data:image/png;base64,%b"' % (b"iVBORw0K" * 500_000)
    for raw, texts in (
        (b"[%b]" % text, 3_000_000),
        (b"[%b]" % image, 0),
        (b"[%b,%b]" % (text, image), 3_000_000),
        (b"[%b,%b,%b]" % (image, text, image), 3_000_000),
    ):
        began = perf_counter()
        tokens = estimated_tokens(SimpleNamespace(raw=raw))
        assert perf_counter() - began < 0.05
        assert tokens == pytest.approx(texts / 4, rel=0.05, abs=len(raw) / 200)
    assert estimated_tokens(SimpleNamespace(raw=None)) == estimated_tokens(None) == 0
