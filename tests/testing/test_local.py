from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.testing import LocalGateway, ScriptedUpstream, Truncated, chat_stream, fetch, fetch_chat

TAG = """
import attrs
from gateway import Exchange, Reply, Runtime, hookimpl

@attrs.frozen
class Settings:
    team: str
    \"\"\"Who pays.\"\"\"

class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self.settings, self.seen = settings, 0

    @hookimpl
    def on_reply(self, exchange: Exchange, reply: Reply) -> None:
        self.seen += 1
        reply.headers["x-team"] = self.settings.team
"""
CONFIG = """
[plugins]
folders = ["."]
chain = ["tag", "metrics"]
[plugins.tag]
team = "blue"
[providers.echo]
type = "echo"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tag.py").write_text(TAG)
    return tmp_path


async def test_a_plugin_and_its_exchanges_are_at_hand(folder: Path) -> None:
    async with LocalGateway(folder, CONFIG) as gateway:
        reply = await fetch_chat(gateway.url, "echo", "hello")
        assert reply.header("x-team") == "blue"
        assert gateway.plugin("tag").seen == 1
        (exchange,) = gateway.exchanges
        assert (exchange.outcome, exchange.status, exchange.model) == ("ok", 200, "echo")
        assert (await fetch(f"{gateway.admin_url}/metrics")).status == 200
        with pytest.raises(LookupError, match="another"):
            gateway.plugin("another")


async def test_its_provider_can_be_scripted(folder: Path) -> None:
    async with ScriptedUpstream(chat_stream(3, after=2, ending="close")) as upstream:
        config = f'{CONFIG}[providers.stub]\ntype = "openai_compat"\nbase_url = "{upstream.url}/v1"\n'
        async with LocalGateway(folder, config) as gateway:
            with pytest.raises(Truncated) as cut:
                await fetch_chat(gateway.url, "stub/m", stream=True)
            assert b"stream_interrupted" in cut.value.received
            assert [exchange.outcome for exchange in gateway.exchanges] == ["upstream_failed"]


async def test_a_wrong_configuration_tells_everything(folder: Path) -> None:
    gateway = LocalGateway(folder, CONFIG.replace("team", "tean") + "[server]\nhots = 'x'\n")
    with pytest.raises(ConfigError) as caught:
        await gateway.__aenter__()
    assert len(caught.value.problems) >= 2
    with pytest.raises(LookupError, match="not running"):
        gateway.plugin("tag")


async def test_it_sees_no_environment_but_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY__PLUGINS__TAG__TEAM", "red")
    async with LocalGateway(folder, CONFIG) as gateway:
        assert gateway.plugin("tag").settings.team == "blue"
    async with LocalGateway(folder, CONFIG, {"GATEWAY__PLUGINS__TAG__TEAM": "red"}) as gateway:
        assert gateway.plugin("tag").settings.team == "red"
