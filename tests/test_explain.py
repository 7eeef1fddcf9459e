"""What ``gateway explain`` finds out: the same as the gateway does."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import attrs
import pytest

from gateway import config as configuration
from gateway import plugins
from gateway.errors import ConfigError
from gateway.explain import Explainer, Explanation
from gateway.routing import Router
from gateway.testing import LocalGateway, fetch_chat
from gateway.upstream import Upstream

KEYS = {name: f"hg-explain-{name}" for name in ("all", "some")}
TABLES = f"""
[keys.all]
sha256 = "{hashlib.sha256(KEYS["all"].encode()).hexdigest()}"
[keys.some]
sha256 = "{hashlib.sha256(KEYS["some"].encode()).hexdigest()}"
models = ["gpt-*", "fast"]
requests_per_minute = 0
"""
PROVIDERS = """
[providers.a]
type = "echo"
model = "listed"
max_concurrency = 4
queue = 7
[providers.b]
type = "openai_compat"
base_url = "http://127.0.0.1:9/v1"
models = []
retry_ambiguous = false
timeouts = { idle = "9s" }
"""
MODELS = """
[models.gpt-4o]
targets = [{ provider = "a", model = "x", weight = 3, max_concurrency = 2 }, { provider = "a" }]
fallbacks = ["fast", "slow"]
[models."gpt-*"]
targets = [{ provider = "a", model = "y" }]
[models.fast]
targets = [{ provider = "a" }]
[models.slow]
targets = [{ provider = "b" }]
"""
ALL = TABLES + PROVIDERS + MODELS
LIVE = {
    "targets": {"a/x": {"state": "open"}},
    "gates": {"a": {"running": 1}, "b": {"running": 2}},
}


async def explain(
    folder: Path, text: str, key: str | None, model: str, *, ask: bool = False, live: Any = None
) -> Explanation:
    path = folder / "explained.toml"
    path.write_text(text)
    config, document = configuration.load(path, {})
    upstream = Upstream(config.pool)
    try:
        loaded = plugins.load(config, document, plugins.Runtime(config, upstream))
        document.raise_problems()
        router = Router(config, loaded)
        explainer = Explainer(document, loaded, router, live, "http://there" if live else None)
        return await explainer.explain(key, model, ask)
    finally:
        await router.catalog.close()
        await upstream.close()


@pytest.mark.parametrize("default", ["", 'default_provider = "a"\n'], ids=["no default", "default"])
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "model", ["gpt-4o", "gpt-5", "fast", "a/gpt-4o", "listed", "gpt-listed", "nobodys", "c/x", "gpt-4o/x"]
)
async def test_the_gateway_does_what_is_explained(tmp_path: Path, default: str, key: str, model: str) -> None:
    text = default + ALL
    found = await explain(tmp_path, text, key, model, ask=True)
    async with LocalGateway(tmp_path, text) as gateway:
        reply = await fetch_chat(gateway.url, model, key=KEYS[key])
        (exchange,) = gateway.exchanges
    assert reply.status == (found.status or 200), found
    assert (found.answer == "refused") == (reply.status >= 400)
    if found.answer == "forwarded":
        assert reply.header("x-gateway-target") in {hop.target for hop in found.targets}
        assert exchange.tried == [reply.header("x-gateway-target")]


@pytest.mark.parametrize(
    ("model", "rule", "says"),
    [
        ("gpt-4o", "exact", "[models.gpt-4o] (FILE:21)"),
        ("gpt-5", "glob", '[models."gpt-*"] (FILE:24)'),
        ("a/any", "provider", "[providers.a] (FILE:9)"),
        ("listed", "unknown", "the lists of 'a', 'b' decide"),
    ],
)
async def test_the_rule_and_its_place_are_told(tmp_path: Path, model: str, rule: str, says: str) -> None:
    found = await explain(tmp_path, ALL, "all", model)
    assert found.resolution.rule == rule
    assert says.replace("FILE", str(tmp_path / "explained.toml")) in found.resolution.why
    assert found.answer == ("undecided" if rule == "unknown" else "forwarded")


@pytest.mark.parametrize(
    ("model", "rule", "says"), [("listed", "list", "[providers.a]"), ("lsted", "nowhere", "Did you mean 'listed'?")]
)
async def test_lists_are_asked_on_request(tmp_path: Path, model: str, rule: str, says: str) -> None:
    found = await explain(tmp_path, ALL, "all", model, ask=True)
    assert found.resolution.rule == rule and says in found.resolution.why


async def test_without_anybody_who_lists_models_there_is_nobody_to_ask(tmp_path: Path) -> None:
    found = await explain(tmp_path, '[providers.p]\ntype = "probe"\nurl = "http://127.0.0.1:9"\n', None, "m")
    assert (found.resolution.rule, found.status) == ("nowhere", 404)


@pytest.mark.parametrize(("model", "meant"), [("gpt4o", "gpt-4o"), ("a1/x", "a/x"), ("slwo", "slow")])
async def test_what_was_meant_is_guessed(tmp_path: Path, model: str, meant: str) -> None:
    found = await explain(tmp_path, ALL, "all", model)
    assert f"Did you mean '{meant}'?" in found.resolution.why


async def test_which_glob_lets_a_key_use_a_model_is_told(tmp_path: Path) -> None:
    place = f"keys.some.models ({tmp_path / 'explained.toml'}:6)"
    allowed = (await explain(tmp_path, ALL, "some", "gpt-4o")).access
    assert (allowed.allowed, allowed.why) == (True, f"'gpt-*' matches, {place}")
    refused = await explain(tmp_path, ALL, "some", "slow")
    assert (refused.answer, refused.status) == ("refused", 403)
    assert refused.access.why == f"none of 'gpt-*', 'fast' matches, {place}"
    assert (await explain(tmp_path, ALL, "all", "slow")).access.why.startswith("key 'all' may use all models")


async def test_keys_are_asked_for_where_there_are_any(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'some'"):
        await explain(tmp_path, ALL, "sone", "slow")
    with pytest.raises(ConfigError, match="--key: all, some"):
        await explain(tmp_path, ALL, None, "slow")
    with pytest.raises(ConfigError, match="the gateway is open"):
        await explain(tmp_path, PROVIDERS, "all", "a/x")
    assert (await explain(tmp_path, PROVIDERS, None, "a/x")).access.why.endswith("there are no [keys]")
    unasked = await explain(tmp_path, ALL + '[plugins]\nchain = ["cache"]\n', "some", "slow")
    assert unasked.key is None and unasked.access.why.endswith("'auth' is not in the chain")


async def test_who_comes_with_a_certificate_has_a_name_in_keys(tmp_path: Path) -> None:
    text = PROVIDERS + (
        '[server]\ntrusted_proxies = ["127.0.0.1/32"]\n[plugins]\nchain = ["auth_mtls"]\n[plugins.auth_mtls]\n'
        'principals = { "CN=alice" = "alice" }\n[keys.alice]\nmodels = ["a/*"]\n'
    )
    assert (await explain(tmp_path, text, "alice", "a/x")).access.why.startswith("'a/*' matches, keys.alice.models")
    assert not (await explain(tmp_path, text, "alice", "b/x")).access.allowed
    with pytest.raises(ConfigError, match="--key: alice"):
        await explain(tmp_path, text, None, "a/x")


async def test_what_a_token_may_use_is_not_in_the_configuration(tmp_path: Path) -> None:
    text = (
        PROVIDERS + '[plugins]\nchain = ["auth_jwt"]\n[plugins.auth_jwt]\naudience = "a"\nissuer = "https://i.test"\n'
    )
    found = await explain(tmp_path, text, None, "a/x")
    assert found.access.allowed and "[plugins.auth_jwt]" in found.access.why


async def test_limits_are_the_keys_own_or_the_plugins(tmp_path: Path) -> None:
    text = ALL + "[plugins.rate_limit]\ntokens_per_minute = 5\n"
    limits = {limit.name: limit for limit in (await explain(tmp_path, text, "some", "fast")).limits}
    assert {name: limit.value for name, limit in limits.items()} == {
        "requests_per_minute": 0, "tokens_per_minute": 5, "max_concurrency": 0,
    }  # fmt: skip
    assert limits["requests_per_minute"].where.startswith("keys.some.requests_per_minute (")
    assert limits["tokens_per_minute"].where.startswith("plugins.rate_limit.tokens_per_minute (")
    assert limits["max_concurrency"].where == "default of plugins.rate_limit"
    assert (await explain(tmp_path, text, "all", "fast")).limits[0].value == 600
    assert (await explain(tmp_path, PROVIDERS, None, "a/x")).limits[0].value == 600
    unlimited = PROVIDERS + '[plugins]\nchain = ["cache"]\n'
    assert (await explain(tmp_path, unlimited, None, "a/x")).limits == ()


async def test_targets_come_with_shares_and_all_that_holds_for_them(tmp_path: Path) -> None:
    first, second = (await explain(tmp_path, ALL, "all", "gpt-4o")).targets
    assert (first.target, first.model, first.weight, first.share) == ("a/x", "x", 3, 0.75)
    assert (second.target, second.model, second.weight, second.share) == ("a", "gpt-4o", 1, 0.25)
    assert (first.at_once, first.queue) == ({"a/x": 2, "a": 4}, 7)
    assert second.at_once == {"a": 4}
    assert first.timeouts is None and first.retry_ambiguous
    (slow,) = (await explain(tmp_path, ALL, "all", "slow")).targets
    assert slow.timeouts == {"connect": 5.0, "head": 0.0, "first_token": 60.0, "idle": 9.0, "total": 0.0}
    assert not slow.retry_ambiguous and slow.at_once == {}


async def test_a_fallback_the_key_may_not_use_is_skipped(tmp_path: Path) -> None:
    fast, slow = (await explain(tmp_path, ALL, "some", "gpt-4o")).fallbacks
    assert (fast.model, fast.skipped, [hop.target for hop in fast.targets]) == ("fast", "", ["a/fast"])
    assert slow.model == "slow" and slow.targets == ()
    assert slow.skipped.startswith("none of 'gpt-*', 'fast' matches")
    assert not any(fallback.skipped for fallback in (await explain(tmp_path, ALL, "all", "gpt-4o")).fallbacks)


async def test_policies_of_the_chain_are_told_in_order(tmp_path: Path) -> None:
    chain = '[plugins]\nchain = ["auth", "sticky", "priority"]\n[plugins.priority]\nmodels = ["fast"]\n'
    sticky, priority = (await explain(tmp_path, ALL + chain, "all", "gpt-4o")).policies
    assert (sticky.plugin, sticky.asked, priority.plugin, priority.asked) == ("sticky", True, "priority", False)
    assert sticky.about.startswith("Sends the requests of a session to one target")


@pytest.mark.parametrize(
    ("settings", "may", "says"),
    [
        ("", True, "temperature 0"),
        (
            "[plugins.cache]\nalways = true\nttl = '90s'\n",
            True,
            "every complete answer (plugins.cache.always); for 90 s",
        ),
        ("[plugins.cache]\nscope = 'global'\n", True, "for all keys together"),
        ("[plugins.cache]\nmodels = ['slow']\n", False, "none of 'slow' matches"),
        ("[plugins]\nchain = ['auth', 'rate_limit']\n", False, "not in the chain"),
    ],
    ids=["default", "always", "global", "models", "no cache"],
)
async def test_whether_an_answer_could_be_cached_is_told(tmp_path: Path, settings: str, may: bool, says: str) -> None:
    cache = (await explain(tmp_path, ALL + settings, "all", "fast")).cache
    assert cache.may == may and says in cache.why


async def test_what_the_running_gateway_tells_is_put_where_it_belongs(tmp_path: Path) -> None:
    found = await explain(tmp_path, ALL, "all", "gpt-4o", live=LIVE)
    first, second = found.targets
    assert (first.now, second.now) == ({"state": "open"}, None)
    assert first.gates == second.gates == {"a": {"running": 1}}
    assert found.running == "http://there"
    assert attrs.asdict(found)["targets"][0]["now"] == {"state": "open"}


async def test_the_price_of_each_target_is_told_with_its_source(tmp_path: Path) -> None:
    text = ALL + "[prices]\nfree = []\nmodels.'a/x' = { input = 1.25, output = 10 }\n"
    found = await explain(tmp_path, text, "all", "gpt-4o")
    assert [hop.price for hop in found.targets] == [
        {"input": "1.25", "output": "10", "source": '[prices.models."a/x"]'},
        None,
    ]
