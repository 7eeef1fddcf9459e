"""Loading plugins: what is named is loaded and checked, nothing else is run, every mistake is told with its place."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway import Target, config, plugins
from gateway.errors import ConfigError
from gateway.upstream import Upstream

GOOD = "from gateway import hookimpl\nclass Plugin:\n    def __init__(self, settings, runtime): pass\n"


async def load(folder: Path, toml: str, **files: str) -> tuple[plugins.Plugins, config.Document]:
    (folder / "plugins").mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / "plugins" / f"{name}.py").write_text(text)
    (folder / "gateway.toml").write_text(toml)
    settings, document = config.load(folder / "gateway.toml", {})
    upstream = Upstream(settings.pool)
    try:
        return plugins.load(settings, document, plugins.Runtime(settings, upstream)), document
    finally:
        await upstream.close()


BROKEN = {
    "misspelt hook": (
        "    @hookimpl\n    def on_requst(self, exchange): pass\n",
        "no hook 'on_requst'. Did you mean 'on_request'?",
    ),
    "wrong parameter": ("    @hookimpl\n    def on_request(self, exchnge): pass\n", "exchnge"),
    "async wrapper": (
        "    @hookimpl(wrapper=True)\n    async def on_request(self, exchange):\n        yield\n",
        "on_request",
    ),
    "wrapper": (
        "    @hookimpl(wrapper=True)\n    def on_request(self, exchange):\n        return (yield)\n",
        "wrappers",
    ),
    "async event": ("    @hookimpl\n    async def on_event(self, exchange, event): pass\n", "plain function"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_hook_is_refused_with_plugin_file_and_reason(name: str, tmp_path: Path) -> None:
    body, reason = BROKEN[name]
    _, document = await load(tmp_path, '[plugins]\nchain = ["mine"]\n', mine=GOOD + body)
    assert len(document.problems) == 1
    assert "gateway.toml:2: " in document.problems[0]
    assert "'mine'" in document.problems[0] and "mine.py" in document.problems[0] and reason in document.problems[0]


async def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    toml = """[plugins]
chain = ["rate_limt", "broken", "bare", "rate_limit"]
[plugins.rate_limit]
requests_per_minut = 5
[plugins.lonely]
x = 1
[providers.p]
type = "openai_compatt"
[providers.q]
type = "openai_compat"
base_urll = "x"
"""
    _, document = await load(tmp_path, toml, broken="import nothing_of_that_name\n", bare="x = 1\n")
    text = "\n".join(document.problems)
    for expected in (
        "no middleware plugin 'rate_limt'. Did you mean 'rate_limit'?", "nothing_of_that_name", "no class Plugin",
        ":4: ", "Did you mean 'requests_per_minute'?", "[plugins.lonely] has no effect",
        "no provider plugin 'openai_compatt'. Did you mean 'openai_compat'?", "Did you mean 'base_url'?",
    ):  # fmt: skip
        assert expected in text
    with pytest.raises(ConfigError):
        document.raise_problems()


NEEDY = """
import attrs

@attrs.frozen
class Settings:
    url: str

class Plugin:
    def __init__(self, settings, runtime): pass
"""


async def test_settings_that_are_missing_or_not_wanted_are_told(tmp_path: Path) -> None:
    toml = '[plugins]\nchain = ["needy", "plain"]\n[plugins.plain]\nx = 1\n'
    _, document = await load(tmp_path, toml, needy=NEEDY, plain=GOOD)
    with pytest.raises(ConfigError) as raised:
        document.raise_problems()
    where = tmp_path / "gateway.toml"
    assert raised.value.problems == [
        f"{where}:1: plugins.needy.url: is missing.", f"{where}:4: plugins.plain.x: unknown key.",
    ]  # fmt: skip


async def test_a_provider_forwards_or_tells_its_health(tmp_path: Path) -> None:
    toml = '[plugins]\nchain = []\n[providers.mine]\ntype = "mine"\n'
    _, document = await load(tmp_path, toml, mine=GOOD)
    (problem,) = document.problems
    assert "gateway.toml:4: " in problem
    assert "a provider needs a forward or check_health hook" in problem


async def test_only_what_is_named_is_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    lying = f"open({str(marker)!r}, 'w')\n"
    _, document = await load(tmp_path, "[plugins]\nchain = []\n", lying=lying)
    assert not marker.exists()
    assert any("lying" in warning for warning in document.warnings)


async def test_hooks_run_in_chain_order_and_replies_in_reverse(tmp_path: Path) -> None:
    hooks = GOOD + "    @hookimpl\n    def on_request(self): pass\n    @hookimpl\n    def on_reply(self, reply): pass\n"
    loaded, document = await load(tmp_path, '[plugins]\nchain = ["a", "b", "c"]\n', a=hooks, b=hooks, c=hooks)
    assert not document.problems
    assert [call.plugin for call in loaded.on_request] == ["a", "b", "c"]
    assert [call.plugin for call in loaded.on_reply] == ["c", "b", "a"]
    assert [(item.name, item.hooks) for item in loaded.loaded] == [(n, ("on_reply", "on_request")) for n in "abc"]


async def test_an_implementation_may_leave_parameters_out(tmp_path: Path) -> None:
    hooks = GOOD + "    @hookimpl\n    def on_reply(self, reply): return reply\n"
    loaded, _ = await load(tmp_path, '[plugins]\nchain = ["a"]\n', a=hooks)
    assert loaded.on_reply[0].function("exchange", "reply") == "reply"


async def test_tryfirst_is_respected(tmp_path: Path) -> None:
    first = GOOD + "    @hookimpl(tryfirst=True)\n    def on_request(self): pass\n"
    plain = GOOD + "    @hookimpl\n    def on_request(self): pass\n"
    loaded, _ = await load(tmp_path, '[plugins]\nchain = ["a", "b"]\n', a=plain, b=first)
    assert [call.plugin for call in loaded.on_request] == ["b", "a"]


PROVIDER = """
import attrs
from gateway import hookimpl

@attrs.frozen
class Settings:
    speed: int = 1
    {field}: int = 1

class Plugin:
    def __init__(self, settings, runtime): pass

    @hookimpl
    async def forward(self, exchange, target): pass
"""


async def test_a_provider_shares_its_table_with_the_core(tmp_path: Path) -> None:
    toml = "[providers.p]\ntype = 'mine'\nmax_concurrency = 2\nspeed = 3\nquue = 5\nsped = 7\n"
    loaded, document = await load(tmp_path, toml, mine=PROVIDER.format(field="other"))
    assert [problem.partition("gateway.toml:")[2] for problem in document.problems] == [
        "5: providers.p.quue: unknown key. Did you mean 'queue'?",
        "6: providers.p.sped: unknown key. Did you mean 'speed'?",
    ]
    toml = toml.partition("quue")[0]
    loaded, document = await load(tmp_path, toml, mine=PROVIDER.format(field="other"))
    assert not document.problems
    assert "p" in loaded.providers


async def test_a_provider_cannot_have_a_setting_of_the_cores(tmp_path: Path) -> None:
    _, document = await load(tmp_path, "[providers.p]\ntype = 'mine'\n", mine=PROVIDER.format(field="queue"))
    (problem,) = document.problems
    assert "gateway.toml:2: " in problem and "the core has a setting 'queue' of its own" in problem


async def test_a_dropped_file_comes_before_the_shipped_one_of_its_name(tmp_path: Path) -> None:
    loaded, _ = await load(tmp_path, '[plugins]\nchain = ["auth"]\n', auth=GOOD)
    assert loaded.loaded[0].file == str(tmp_path / "plugins" / "auth.py")


def test_the_standard_library_keeps_its_names_and_providers_load_lazily(tmp_path: Path) -> None:
    """Counts what a start imports: no provider that nobody named, nothing heavy, and ``logging`` is Python's."""
    (tmp_path / "gateway.toml").write_text('[providers.e]\ntype = "echo"\n')
    code = """
import asyncio, sys
from pathlib import Path
from gateway import Target, config, plugins
from gateway.upstream import Upstream
async def main():
    settings, document = config.load(Path(sys.argv[1]), {})
    upstream = Upstream(settings.pool)
    plugins.load(settings, document, plugins.Runtime(settings, upstream))
    document.raise_problems()
    await upstream.close()
asyncio.run(main())
import logging
assert "gateway" not in (logging.__file__ or ""), logging.__file__
names = [name for name in sys.modules if name.startswith("gateway_plugins.providers.")]
assert names == ["gateway_plugins.providers.echo"], names
heavy = {"botocore", "google.auth", "sqlalchemy", "hiredis", "gateway.dialects.ollama"} & set(sys.modules)
assert not heavy, heavy
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "gateway.toml")], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


async def test_plugins_are_given_what_is_known_of_the_targets_under_the_configured_settings(tmp_path: Path) -> None:
    text = "[retry]\nbudget = 0\n[breaker]\nfailures = 1\n[plugins]\nchain = []\n"
    loaded, document = await load(tmp_path, text)
    assert not document.problems
    state = loaded.runtime.targets.of(Target("a"))
    assert loaded.runtime.named("x", "").targets.of(Target("a")) is state
    assert not state.withdraw(1.0)
    state.failed(state.begin(1.0), 1.0)
    assert not state.admits(1.0)
