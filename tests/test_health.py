"""Health of the providers, and the list of models."""

from __future__ import annotations

import hashlib
from pathlib import Path
from time import monotonic

import pytest

from gateway import health
from gateway.testing import LocalGateway, ScriptedUpstream, chat, error, fetch, free_ports, hang_up, silent, whole

ECHO = '[providers.echo]\ntype = "echo"\n'
PROBE = '[providers.{name}]\ntype = "probe"\nurl = "{url}"\n'
PLUGIN = """
import asyncio
from gateway import Reply, hookimpl

class Plugin:
    def __init__(self, settings, runtime):
        self.name = runtime.name

    @hookimpl
    async def forward(self, exchange, target):
        return Reply(200, {}, b"{}")

    @hookimpl
    async def check_health(self):
        if self.name == "hangs":
            await asyncio.sleep(60)
        if self.name == "breaks":
            raise KeyError("secret detail")
        return "on strike" if self.name == "says" else None
"""


def own(folder: Path, *names: str) -> str:
    """Providers whose ``check_health`` does what their name says."""
    (folder / "plugins").mkdir()
    (folder / "plugins/own.py").write_text(PLUGIN)
    return "".join(f'[providers.{name}]\ntype = "own"\n' for name in names)


async def test_providers_are_asked_at_once_and_one_that_hangs_costs_its_own_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "LIMIT", 0.4)
    async with ScriptedUpstream(silent, models=()) as upstream:
        dead = "".join(PROBE.format(name=f"dead{index}", url=upstream.url) for index in range(3))
        async with LocalGateway(tmp_path, ECHO + own(tmp_path, "hangs") + dead) as gateway:
            began = monotonic()
            reply = await fetch(f"{gateway.url}/health")
            assert 0.4 <= monotonic() - began < 0.8
        await upstream.wait_aborted(3)
    assert (reply.status, reply.json["status"]) == (200, "degraded")
    found = reply.json["providers"]
    assert found["echo"]["status"] == "ok"
    for name in ("hangs", "dead0", "dead1", "dead2"):
        assert (found[name]["status"], found[name]["reason"]) == ("failing", "no answer in time")
        assert found[name]["ms"] >= 390


async def test_what_a_check_says_is_passed_on_and_what_it_breaks_of_is_not(tmp_path: Path) -> None:
    async with LocalGateway(tmp_path, own(tmp_path, "says", "breaks", "well")) as gateway:
        reply = await fetch(f"{gateway.url}/health")
    found = {name: item.get("reason") for name, item in reply.json["providers"].items()}
    assert found == {"says": "on strike", "breaks": "the check failed: KeyError", "well": None}
    assert b"secret detail" not in reply.body


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        (whole(200, b"fine"), "ok", None),
        (whole(204, b""), "ok", None),
        (error(404), "failing", "answered 404"),
        (error(500), "failing", "answered 500"),
        (hang_up, "failing", "The provider closed the connection without an answer."),
    ],
    ids=["200", "204", "404", "500", "closed"],
)
async def test_a_probe_watches_what_is_no_model_provider(
    tmp_path: Path, script: object, status: str, reason: str | None
) -> None:
    async with ScriptedUpstream(script, models=()) as upstream:  # type: ignore[arg-type]
        config = ECHO + PROBE.format(name="agents", url=f"{upstream.url}/healthz")
        async with LocalGateway(tmp_path, config) as gateway:
            found = (await fetch(f"{gateway.url}/health")).json["providers"]["agents"]
            listed = (await fetch(f"{gateway.url}/v1/models")).json["data"]
            refused = await fetch(f"{gateway.url}/p/agents/run", "POST", (), b"{}")
        assert (found["status"], found.get("reason")) == (status, reason)
        assert {call.target for call in upstream.calls} == {"/healthz"}
    assert [model["id"] for model in listed] == ["echo"]
    assert refused.status == 404


@pytest.mark.parametrize(("config", "status"), [("", 503), (ECHO, 200)], ids=["all down", "one well"])
async def test_health_fails_when_no_provider_is_well(tmp_path: Path, config: str, status: int) -> None:
    (port,) = free_ports(1)
    async with LocalGateway(tmp_path, config + PROBE.format(name="gone", url=f"http://127.0.0.1:{port}")) as gateway:
        reply = await fetch(f"{gateway.url}/health")
        assert (await fetch(f"{gateway.url}/health/ready")).status == 200
    assert reply.status == status
    assert reply.json["status"] == ("down" if status == 503 else "degraded")
    assert str(port).encode() not in reply.body


KEY = "hg-health"
LISTS = f"""
[keys.k]
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
models = ["gpt-*", "smart"]
[models.smart]
targets = [{{ provider = "up" }}]
[models.hidden]
targets = [{{ provider = "up" }}]
[models."gpt-*"]
targets = [{{ provider = "up" }}]
"""


async def test_models_are_those_the_key_may_use(tmp_path: Path) -> None:
    async with ScriptedUpstream(chat(), models=("gpt-4o", "org/gpt-x", "o3")) as upstream:
        up = f'[providers.up]\ntype = "openai_compat"\nbase_url = "{upstream.url}/v1"\n'
        async with LocalGateway(tmp_path, LISTS + up) as gateway:
            headers = {"Authorization": f"Bearer {KEY}"}
            listed = (await fetch(f"{gateway.url}/v1/models", headers=headers)).json
            one = await fetch(f"{gateway.url}/v1/models/gpt-4o", headers=headers)
            hidden = await fetch(f"{gateway.url}/v1/models/o3", headers=headers)
            unknown = await fetch(f"{gateway.url}/v1/models/gpt-5", headers=headers)
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["smart", "gpt-4o"]
    assert (one.status, one.json["owned_by"]) == (200, "test")
    # What a key may not use looks like what is not there.
    assert hidden.status == unknown.status == 404
    assert hidden.json["error"]["code"] == unknown.json["error"]["code"] == "model_not_found"


async def test_models_with_a_slash_can_be_asked_for(tmp_path: Path) -> None:
    async with ScriptedUpstream(chat(), models=("org/model",)) as upstream:
        up = f'[providers.up]\ntype = "openai_compat"\nbase_url = "{upstream.url}/v1"\n'
        async with LocalGateway(tmp_path, up) as gateway:
            for name in ("org/model", "org%2Fmodel"):
                assert (await fetch(f"{gateway.url}/v1/models/{name}")).json["id"] == "org/model"


async def test_models_do_not_wait_twice_for_a_dead_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.routing.LIST_LIMIT", 0.3)
    async with ScriptedUpstream(silent, models=()) as upstream:
        up = f'[providers.up]\ntype = "openai_compat"\nbase_url = "{upstream.url}/v1"\n'
        async with LocalGateway(tmp_path, ECHO + up) as gateway:
            times = []
            for _ in range(3):
                began = monotonic()
                reply = await fetch(f"{gateway.url}/v1/models")
                times.append(monotonic() - began)
                assert [model["id"] for model in reply.json["data"]] == ["echo"]
            assert 0.3 <= times[0] < 0.8 and max(times[1:]) < 0.2
        assert len(upstream.calls) == 1


TROUBLED = """
from time import monotonic
from gateway import Target, hookimpl

class Plugin:
    def __init__(self, settings, runtime):
        self.targets = runtime.targets

    @hookimpl
    def on_startup(self):
        now = monotonic()
        self.targets.of(Target("echo")).cool(now, 30.0)
        self.targets.of(Target("echo", "fine"))
        self.targets.of(Target("echo", "a-clients-own")).cool(now, 30.0)
        state = self.targets.of(Target("echo", "down"))
        for _ in range(5):
            state.failed(state.begin(now), now)
"""
TWO_KEYS = f"""
[plugins]
chain = ["auth", "troubled"]
[breaker]
open_for = "50s"
max_open = "50s"
[models.m]
targets = [{{ provider = "echo", model = "down" }}, {{ provider = "echo", model = "fine" }}]
[keys.all]
sha256 = "{hashlib.sha256(b"hg-all").hexdigest()}"
[keys.some]
sha256 = "{hashlib.sha256(b"hg-some").hexdigest()}"
models = ["other"]
"""


async def test_targets_left_alone_are_told_but_no_name_the_caller_may_not_use(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/troubled.py").write_text(TROUBLED)
    async with LocalGateway(tmp_path, ECHO + TWO_KEYS) as gateway:
        told = {
            key: (await fetch(f"{gateway.url}/health", headers={"Authorization": f"Bearer hg-{key}"})).json
            for key in ("all", "some")
        }
        assert (await fetch(f"{gateway.url}/health/ready")).body == b"ok\n"
    targets = told["all"]["providers"]["echo"].pop("targets")
    assert told["all"]["providers"]["echo"].keys() == {"status", "ms"}
    assert {name: each["state"] for name, each in targets.items()} == {"echo": "closed", "echo/down": "open"}
    assert 20 < targets["echo"]["wait"] <= 30 < targets["echo/down"]["wait"] <= 50
    assert targets["echo"].keys() == {"state", "wait"}
    assert told["some"]["providers"]["echo"]["targets"].keys() == {"echo"}


async def test_a_provider_that_nothing_is_wrong_with_has_no_targets_in_its_entry(tmp_path: Path) -> None:
    async with LocalGateway(tmp_path, ECHO) as gateway:
        assert (await fetch(f"{gateway.url}/health")).json["providers"]["echo"].keys() == {"status", "ms"}
