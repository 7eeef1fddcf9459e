"""``gateway.config.load``: the file that ships, what must hold between tables, and every problem at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config import CORE_KEYS, DEFAULT_CHAIN, Config, Document, Key, ProviderConfig, Secret, Timeouts, load
from gateway.errors import ConfigError
from gateway.exchange import Target
from gateway.units import Duration

SHIPPED = Path(__file__).parents[1] / "gateway.toml"
DIGESTS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(3)]
KEYS = f"[keys.alice]\nsha256 = '{DIGESTS[0]}'\n"

MENTIONED = [
    "default_provider", "[plugins.rate_limit]", "requests_per_minute", "[keys.alice]", "sha256", "models =",
    "tokens_per_minute", "max_concurrency", "[providers.agents]", "type =", "url =", '[models."gpt-4o"]', "targets = [",
    "    {", "]", "fallbacks", '[prices.models."openai/gpt-5*"]', "input = 1.25", "cached_input", "output = 10",
    "flex = ",
]  # fmt: skip

Load = Callable[..., tuple[Config, list[str]]]


@pytest.fixture
def read(tmp_path: Path) -> Load:
    """Load a text; the configuration and its problems without the file's name."""

    def read(text: str, environ: Mapping[str, str] = {}, **overrides: Any) -> tuple[Config, list[str]]:
        config, document = load_text(tmp_path, text, environ, overrides)
        return config, [problem.replace(f"{document.path}:", "") for problem in document.problems]

    return read


def load_text(
    folder: Path, text: str | bytes, environ: Mapping[str, str] = {}, overrides: Mapping[str, Any] = {}
) -> tuple[Config, Document]:
    path = folder / "gateway.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load(path, environ, overrides)


@attrs.frozen(kw_only=True)
class Upstream:
    """Settings as a provider plugin has them."""

    base_url: str
    api_key: Secret | None = None
    timeouts: Timeouts = attrs.field(factory=Timeouts)


def test_the_shipped_file_starts_with_nothing() -> None:
    config, document = load(SHIPPED, {})
    document.raise_problems()
    assert document.warnings == []
    assert config.plugins.chain == DEFAULT_CHAIN
    assert {name: provider.type for name, provider in config.providers.items()} == {
        "echo": "echo", "ollama": "ollama", "openai": "openai_compat",
    }  # fmt: skip
    assert (config.server.host, config.default_provider, config.keys) == ("127.0.0.1", None, {})
    openai = document.structure(Upstream, ("providers", "openai"), ignore=CORE_KEYS)
    assert openai == Upstream(base_url="https://api.openai.com/v1")


def test_the_shipped_file_takes_the_key_that_is_there() -> None:
    _, document = load(SHIPPED, {"OPENAI_API_KEY": "sk-canary"})
    openai = document.structure(Upstream, ("providers", "openai"), ignore=CORE_KEYS)
    assert openai is not None
    assert openai.api_key is not None
    assert openai.api_key.reveal() == "sk-canary"


def test_what_the_shipped_file_only_mentions_is_right(read: Load) -> None:
    """Its commented examples, uncommented, and the provider they name."""
    text = SHIPPED.read_text()
    for example in MENTIONED:
        assert f"\n# {example}" in text
        text = text.replace(f"\n# {example}", f"\n{example}")
    text = text.replace("…", DIGESTS[0]).replace('"azure"', '"ollama"')
    config, problems = read(text + "\n[models.llama3]\ntargets = [{ provider = 'ollama' }]")
    assert problems == []
    assert config.keys["alice"].models == ("gpt-*", "llama3")
    assert config.models["gpt-4o"].targets == (Target("openai", "gpt-4o", 3, 20), Target("ollama", "gpt-4o"))
    assert config.plugins.tables == {"rate_limit": {"requests_per_minute": 600}}
    assert config.prices.models["openai/gpt-5*"].input == 1.25


def test_where_a_provider_is_called_is_known_from_its_table_or_its_preset(read: Load) -> None:
    text = """
[providers.own]
type = "openai_compat"
base_url = "http://127.0.0.1:8000/v1"
[providers.groq]
type = "openai_compat"
preset = "groq"
[providers.echo]
type = "echo"
"""
    config, problems = read(text, {"GATEWAY__PROVIDERS__OWN__BASE_URL": "http://127.0.0.1:9000/v1"})
    assert problems == []
    assert [config.providers[name].base_url for name in ("own", "groq", "echo")] == [
        "http://127.0.0.1:9000/v1", "https://api.groq.com/openai/v1", "",
    ]  # fmt: skip


def test_an_empty_file_is_a_configuration(read: Load) -> None:
    assert read("") == (Config(), [])


def test_every_problem_is_told_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    config, document = load_text(
        tmp_path,
        """\
default_provider = "opnai"
typo = 1
[server]
prot = 1
host = "0.0.0.0"
[plugins]
chain = ["request_id", "request_id"]
chian = []
[plugins.cache]
anything = 1
[providers.openai]
type = "openai_compat"
[providers.broken]
type = 5
[models.a]
targets = [{ provider = "opena", weight = 0 },
           { provider = "openai", modle = "x" }]
fallbacks = ["a", "aa"]
[admin]
port = "x"
[poll]
""",
    )
    with pytest.raises(ConfigError) as caught:
        document.raise_problems()
    assert [problem.replace(f"{document.path}:", "") for problem in caught.value.problems] == [
        "1: default_provider: there is no provider 'opnai'. Did you mean 'openai'?",
        "2: typo: unknown key.",
        "4: server.prot: unknown key. Did you mean 'port'?",
        "5: server.host: there are no [keys], so the gateway is open to everybody and may listen on loopback only "
        "(127.0.0.1). gateway keys new NAME makes a key.",
        "7: plugins.chain[1]: 'request_id' stands in the chain twice.",
        "8: plugins.chian: unknown key. Did you mean 'chain'?",
        "14: providers.broken.type: expected a string, not a whole number.",
        "16: models.a.targets[0].provider: there is no provider 'opena'. Did you mean 'openai'?",
        "16: models.a.targets[0].weight: expected 1 or more.",
        "17: models.a.targets[1].modle: unknown key. Did you mean 'model'?",
        "18: models.a.fallbacks[0]: 'a' falls back to itself.",
        "18: models.a.fallbacks[1]: there is no model 'aa'. Did you mean 'a'?",
        "20: admin.port: expected a whole number, not a string.",
        "21: poll: unknown key. Did you mean 'pool'?",
    ]
    assert list(config.providers) == ["openai"]
    assert config.server == Config().server
    assert config.plugins.tables == {"cache": {"anything": 1}}


def test_problems_of_plugins_come_on_top(tmp_path: Path) -> None:
    _, document = load_text(tmp_path, "typo = 1\n[providers.a]\ntype = 'x'\nbase_ulr = 'y'")
    assert document.structure(Upstream, ("providers", "a"), ignore=CORE_KEYS) is None
    with pytest.raises(ConfigError) as caught:
        document.raise_problems()
    assert caught.value.problems == [
        f"{document.path}:1: typo: unknown key.",
        f"{document.path}:2: providers.a.base_url: is missing.",
        f"{document.path}:4: providers.a.base_ulr: unknown key. Did you mean 'base_url'?",
    ]


@pytest.mark.parametrize("section", ["keys", "providers", "models", "server", "admin", "plugins", "pool", "state"])
def test_a_section_is_a_table(read: Load, section: str) -> None:
    config, problems = read(f"\n{section} = 5")
    assert config == Config()
    assert problems[0].startswith(f"2: {section}: expected a table")
    assert len(problems) == 1


OPEN = "so the gateway is open to everybody and may listen on loopback only"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_r03_without_keys_loopback_is_fine(read: Load, host: str) -> None:
    assert read(f"[server]\nhost = '{host}'")[1] == []


@pytest.mark.parametrize("keys", ["", KEYS, "[keys.alice]\n"], ids=["no keys", "keys", "a holder without one"])
@pytest.mark.parametrize("chain", ["'auth_jwt'", "'auth', 'auth_jwt'", "'auth_mtls'", "'auth', 'auth_mtls'"])
def test_r03_with_certificates_or_tokens_it_is_not_open(read: Load, keys: str, chain: str) -> None:
    assert read(f"{keys}[server]\nhost = '0.0.0.0'\n[plugins]\nchain = [{chain}]")[1] == []


def test_r03_with_keys_in_a_database_it_is_not_open(read: Load) -> None:
    assert read("[state]\nkeys = true\n[server]\nhost = '0.0.0.0'")[1] == []
    (problem,) = read("[state]\nkeys = true\n[server]\nhost = '0.0.0.0'\n[plugins]\nchain = []")[1]
    assert problem.startswith(f"4: server.host: 'auth' is not in the chain, {OPEN}")


def test_a_key_is_missing_where_nothing_else_is_asked_for(read: Load) -> None:
    for key in ("", "sha256 = ''\n"):
        (problem,) = read(f"{KEYS}[keys.bob]\n{key}")[1]
        assert problem.startswith("3: keys.bob.sha256: is missing")
    assert read(f"{KEYS}[keys.bob]\n[keys.eve]\n[plugins]\nchain = ['auth', 'auth_mtls']")[1] == []


def test_nothing_stands_between_those_who_ask_who_it_is(read: Load) -> None:
    (problem,) = read(f"{KEYS}[plugins]\nchain = ['auth', 'cache', 'auth_mtls']")[1]
    assert problem.startswith("4: plugins.chain: 'auth', 'auth_mtls' must stand directly behind one another")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "gateway.example.com", "127.0.0.1.evil.test"])
def test_r03_without_keys_nothing_but_loopback_is(read: Load, host: str) -> None:
    (problem,) = read(f"[server]\nhost = '{host}'")[1]
    assert problem.startswith(f"2: server.host: there are no [keys], {OPEN}")
    assert read(f"[server]\nhost = '{host}'\n{KEYS}")[1] == []


def test_r03_keys_nobody_asks_for_do_not_count(read: Load) -> None:
    (problem,) = read(f"[server]\nhost = '0.0.0.0'\n[plugins]\nchain = ['rate_limit']\n{KEYS}")[1]
    assert problem.startswith(f"2: server.host: 'auth' is not in the chain, {OPEN}")


@pytest.mark.parametrize("how", ["environment", "option"])
def test_r03_the_host_is_checked_wherever_it_comes_from(read: Load, how: str) -> None:
    if how == "option":
        (problem,) = read("", host="0.0.0.0")[1]
        assert problem.startswith("--host: server.host: ")
    else:
        (problem,) = read("", {"GATEWAY__SERVER__HOST": "0.0.0.0"})[1]
        assert problem.startswith("environment:GATEWAY__SERVER__HOST: server.host: ")


def test_options_win_over_the_environment_over_the_file(read: Load) -> None:
    environ = {"GATEWAY__SERVER__PORT": "2", "GATEWAY__SERVER__MAX_BODY": "1MiB"}
    config, problems = read("[server]\nport = 1\nmax_body = 7\nbody_total = 5", environ, port=3)
    assert problems == []
    assert (config.server.port, config.server.max_body, config.server.body_total) == (3, 1 << 20, 5.0)


def test_overrides_of_unknown_settings_are_problems(read: Load) -> None:
    environ = {"GATEWAY__SERVER__PROT": "2", "GATEWAY__SRVER__PORT": "2"}
    assert sorted(read("", environ)[1]) == [
        "environment:GATEWAY__SERVER__PROT: server.prot: unknown key. Did you mean 'port'?",
        "environment:GATEWAY__SRVER__PORT: srver: unknown key. Did you mean 'server'?",
    ]


def test_the_token_of_the_earlier_router_is_a_key(read: Load) -> None:
    config, problems = read("", {"ROUTER_AUTH_TOKEN": "t0ken", "GATEWAY__SERVER__HOST": "0.0.0.0"})
    assert problems == []
    assert config.keys == {"router": Key(sha256=hashlib.sha256(b"t0ken").hexdigest())}


def test_keys_are_told_apart_by_their_digest(read: Load) -> None:
    text = f"{KEYS}[keys.bob]\nsha256 = '{DIGESTS[1]}'\n[keys.eve]\nsha256 = '{DIGESTS[0].upper()}'"
    assert read(text)[1] == ["6: keys.eve.sha256: this is the key of keys.alice, too."]


def test_a_key_itself_is_not_repeated(read: Load) -> None:
    (problem,) = read("[keys.alice]\nsha256 = 'hg-canary'")[1]
    assert problem.startswith("2: keys.alice.sha256: expected the 64 hexadecimal digits")
    assert "canary" not in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[state]\nredis = 'env:REDIS_URL'", "2: state.redis: the environment variable REDIS_URL is not set."),
        ("[state]\nredis = 'localhost'", "2: state.redis: expected a URL such as redis://localhost:6379/0"),
        ("[state]\nredis = 'redis://:hunter2@localhost'", "2: state.redis: expected a reference to a secret"),
        ("[state]\nredis = 'http://localhost'", "2: state.redis: expected redis://HOST[:PORT][/DB], rediss://… or"),
        ("[state]\nredis = 'redis://localhost/x'", "2: state.redis: the database behind the / must be a number."),
        ("[state]\nredis = 'rediss://a?ssl_ca_certs=/no/where'", "2: state.redis: [Errno 2] No such file"),
        ("[state]\nledger = 'sqlite:///x'", "2: state.ledger has no effect, because 'ledger' is not in the chain."),
        ("[state]\nkeys = true\nledger = 'mysql://h/d'", "3: [state] ledger: expected sqlite:///FILE or postgresql://"),
        ("[admin]\ntoken = 'env:TOKEN'", "2: admin.token: the environment variable TOKEN is not set."),
        ("[admin]\ntoken = 'hunter2'", "2: admin.token: expected a reference to a secret"),
        (KEYS + "budget = { tokens = 20, per = 'day' }", "3: keys.alice.budget: 'budget': expected an amount of money"),
        (KEYS + "budget = { usd = 20, per = 'hour' }", "3: keys.alice.budget.per: 'per': of usd expected one of day"),
        (KEYS + "limits = [{ requests = 1 }]", "3: keys.alice.limits[0].per: 'per': of requests expected one of"),
        (KEYS + "team = 'red'\n[teams.reds]", "3: keys.alice.team: there is no team 'red' in [teams]. Did you mean"),
    ],
)
def test_what_is_wrong_with_limits_and_state_is_told(read: Load, text: str, problem: str) -> None:
    (found,) = read(text)[1]
    assert found.startswith(problem)


def test_teams_may_be_in_a_database(read: Load) -> None:
    assert read(f"{KEYS}team = 'red'\n[state]\nkeys = true\nledger = 'sqlite:///x.db'")[1] == []


def test_a_token_of_the_admin_listener_is_no_word(tmp_path: Path) -> None:
    for token, count in (("x" * 15, 1), ("x" * 16, 0)):
        _, document = load_text(tmp_path, "[admin]\ntoken = 'env:TOKEN'", {"TOKEN": token})
        assert len(document.problems) == count
        assert token not in "".join(document.problems)


def test_redis_needs_its_extra(read: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[state]\nredis = 'redis://localhost'"
    assert read(text)[1] == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert read(text)[1] == ["2: state.redis: needs hiredis: pip install 'hookgate[redis]'"]


def test_a_principal_has_the_limits_of_its_key(read: Load) -> None:
    text = (
        KEYS + "budget = { usd = 20, per = 'month' }\nlimits = [{ tokens = 9, per = 'day' }]\non_disconnect = 'drain'"
    )
    config, problems = read(text)
    principal = config.keys["alice"].principal("alice")
    assert not problems
    assert [(limit.unit, limit.amount) for limit in principal.limits] == [("usd", 20 * 10**9), ("tokens", 9)]
    assert principal.drains


@pytest.mark.parametrize("text", ["[state]", "[state]\nredis = ''\nledger = ''", "[server]\nworkers = 1"])
def test_asking_for_nothing_of_it_is_fine(read: Load, text: str) -> None:
    assert read(text)[1] == []


@pytest.mark.parametrize("section", ["server", "admin", "pool", "models.a", "plugins"])
@pytest.mark.parametrize("key", ["redis", "budget"])
def test_keys_of_one_section_are_unknown_in_another(read: Load, section: str, key: str) -> None:
    problems = read(f"[{section}]\n{key} = 1")[1]
    assert any(problem.startswith(f"2: {section}.{key}: unknown key.") for problem in problems)


def test_a_misspelt_key_of_a_provider_is_looked_for_among_the_cores_and_the_plugins(tmp_path: Path) -> None:
    text = "[providers.a]\ntype = 'x'\nbase_url = 'y'\nmax_concurency = 5\nqueue_timeuot = '1s'\napi_kye = 'env:X'\n"
    _, document = load_text(tmp_path, text)
    assert document.structure(Upstream, ("providers", "a"), ignore=CORE_KEYS) is None
    assert sorted(problem.replace(f"{document.path}:", "") for problem in document.problems) == [
        "4: providers.a.max_concurency: unknown key. Did you mean 'max_concurrency'?",
        "5: providers.a.queue_timeuot: unknown key. Did you mean 'queue_timeout'?",
        "6: providers.a.api_kye: unknown key. Did you mean 'api_key'?",
    ]


def test_the_core_takes_its_keys_of_any_provider(read: Load) -> None:
    text = "[providers.a]\ntype='x'\nmax_concurrency=5\nqueue=7\nqueue_timeout='2s'\nretry_ambiguous=false\nother=1"
    config, problems = read(text)
    assert problems == []
    assert attrs.evolve(config.providers["a"], digest="") == ProviderConfig(
        type="x", max_concurrency=5, queue=7, queue_timeout=Duration(2.0), retry_ambiguous=False
    )


LIMITED = "[providers.e]\ntype='echo'\n[models.'m*']\ntargets=[{provider='e', model='x', max_concurrency=2}]\n"


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("max_concurrency=-1", "expected 0 or more."),
        ("max_concurrency=3, model='x'", 'the limit of e/x is 2 in models."m*".targets[0].max_concurrency.'),
        ("max_concurrency=3", "a limit is for one model, but this target takes any; name its model."),
    ],
)
def test_limits_of_targets_that_cannot_be_meant(read: Load, target: str, problem: str) -> None:
    (found,) = read(f"{LIMITED}[models.'n*']\ntargets=[{{provider='e', {target}}}]")[1]
    assert found == f'6: models."n*".targets[0].max_concurrency: {problem}'


@pytest.mark.parametrize("target", ["max_concurrency=2, model='x'", "model='x'", "max_concurrency=0", "model='y'"])
def test_limits_of_targets_that_agree(read: Load, target: str) -> None:
    assert read(f"{LIMITED}[models.'n*']\ntargets=[{{provider='e', {target}}}]")[1] == []


def test_fallbacks_may_be_matched_by_a_glob(read: Load) -> None:
    text = "[providers.e]\ntype='echo'\n[models.'llama*']\ntargets=[{provider='e'}]\n"
    text += "[models.a]\ntargets=[{provider='e'}]\nfallbacks="
    assert read(text + "['llama3']")[1] == []
    assert read(text + "['lama3']")[1] == [
        "7: models.a.fallbacks[0]: there is no model 'lama3'. Did you mean 'llama*'?"
    ]


@pytest.mark.parametrize("name", ["a/b", "", "a b", ".x", "x" * 65, "é"])
def test_names_of_providers_fit_into_paths_and_model_names(read: Load, name: str) -> None:
    (problem,) = read(f"[providers.'{name}']\ntype = 'echo'")[1]
    assert problem.endswith("a provider's name has letters, digits and ._- only.")


@pytest.mark.parametrize("header", ["Authorization", "x-api-key", "Cookie", "X-Auth-Token", "client-secret"])
def test_r61_credentials_in_headers_are_references_too(read: Load, header: str) -> None:
    text = f"[providers.a]\ntype = 'x'\nheaders = {{ {header} = 'canary', a = 'plain' }}"
    assert read(text)[1] == [
        f"3: providers.a.headers.{header}: looks like a credential; write it as env:NAME or file:/path."
    ]
    assert read(text.replace("canary", "env:X"))[1] == []
    assert read("allow_inline_secrets = true\n" + text)[1] == []


def test_the_listeners_need_ports_of_their_own(read: Load) -> None:
    assert read("[admin]\nport = 8080")[1] == ["2: admin.port: 8080 is the port of [server], too."]
    assert read("[admin]\nport = 8080\nenabled = false")[1] == []
    assert read("[admin]\nport = 0\n[server]\nport = 0")[1] == []
    assert read("[admin]\nport = 8079\n[server]\nworkers = 2")[1] == [
        "2: admin.port: worker 1 would listen on 8080, the port of [server]."
    ]
    assert read("[admin]\nport = 8079")[1] == read("[admin]\nport = 8078\n[server]\nworkers = 2")[1] == []
    assert read("[admin]\nport = 8080\n[server]\nhost = 'unix:/x'")[1] == []


def test_a_unix_socket_is_as_open_as_loopback(read: Load) -> None:
    assert read("[server]\nhost = 'unix:/run/hookgate/gateway.sock'")[1] == []


def test_a_providers_digest_changes_with_its_table(read: Load) -> None:
    def digest(table: str) -> str:
        config, problems = read(f"[providers.a]\ntype = 'echo'\n{table}")
        assert problems == []
        return str(config.providers["a"].digest)

    assert digest("x = 1") == digest("x = 1") != digest("x = 2")
    assert digest("digest = 'mine'") != "mine"


def warnings(folder: Path, text: str) -> list[str]:
    _, document = load_text(folder, text)
    document.raise_problems()
    return [warning.replace(f"{document.path}:", "") for warning in document.warnings]


def test_what_may_be_meant_but_has_no_effect_is_a_warning(tmp_path: Path) -> None:
    assert warnings(tmp_path, "[server]\nworkers = 2") == [
        "2: server.workers: each of them counts limits and keeps its cache alone; [state] redis lets them share."
    ]
    assert warnings(tmp_path, f"{KEYS}max_concurrency = 2\n[plugins]\nchain = []") == [
        "1: [keys]: nobody asks for them, because 'auth' is not in the chain.",
        "3: keys.alice.max_concurrency: nobody counts, because 'rate_limit' is not in the chain.",
    ]
    assert warnings(tmp_path, "[state]\nkeys = true\n[plugins]\nchain = []") == [
        "2: state.keys: nobody asks for them, because 'auth' is not in the chain."
    ]
    money = f"{KEYS}budget = {{ usd = 1, per = 'day' }}\n[plugins.rate_limit]\ntotal = [{{ usd = 1 }}]"
    assert warnings(tmp_path, money) == [
        "3: keys.alice.budget: begins anew at every start, because 'ledger' is not in the chain.",
        "5: plugins.rate_limit.total[0].usd: begins anew at every start, because 'ledger' is not in the chain.",
    ]
    assert warnings(tmp_path, "[admin]\nhost = '0.0.0.0'") == [
        "2: admin.host: not loopback; whoever reaches it sees the metrics without a key."
    ]


def test_a_broken_file_is_one_problem(read: Load) -> None:
    assert read("[server\n", {"GATEWAY__PROVIDERS__OLLAMA__BASE_URL": "http://x"}) == (
        Config(), ["1: Expected ']' at the end of a table declaration (column 8)."],
    )  # fmt: skip


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    config, document = load(tmp_path / "none.toml", {})
    assert config == Config()
    assert document.problems == [f"{tmp_path}/none.toml:1: cannot be read: No such file or directory."]


LINES = [
    *SHIPPED.read_text().splitlines(),
    KEYS,
    "[[models]]",
    "[models.a]",
    "targets = [{ provider = 'echo', x = 1 }]",
]
VALUES = [
    "1", "-1", "'x'", "''", "[]", "{}", "[1]", "[[]]", "[{}]", "{ a = 1 }", "nan", "2020-01-01", "true", "'env:X?'",
    "9e999",
]  # fmt: skip
KNOWN = [
    "host", "port", "chain", "type", "sha256", "targets", "fallbacks", "models", "headers", "budget", "redis",
    "workers", "default_provider", "allow_inline_secrets", "timeouts", "provider", "weight", "max_concurrency",
]  # fmt: skip
HEADERS = [
    "[server]", "[admin]", "[plugins]", "[keys]", "[keys.a]", "[providers.a]", "[models.a]", "[state]", "[pool]",
    "[plugins.cache]", "[[keys]]", "[models.'*']", "[]",
]  # fmt: skip
statements = st.builds("{} = {}".format, st.sampled_from(KNOWN), st.sampled_from(VALUES)) | st.sampled_from(HEADERS)


def told_with_places(document: Document) -> None:
    """Problems have a place and nothing else went wrong: an exception would have failed the test."""
    document.structure(Upstream, ("providers", "a"), ignore=CORE_KEYS)
    assert all(problem.startswith((f"{document.path}:", "environment:")) for problem in document.problems)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(statements, max_size=12, unique=True).map("\n".join))
def test_any_toml_is_a_configuration_or_has_problems(tmp_path: Path, text: str) -> None:
    config, document = load_text(tmp_path, text)
    assert isinstance(config, Config)
    told_with_places(document)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.data())
def test_any_mutation_of_the_shipped_file_is_a_configuration_or_has_problems(
    tmp_path: Path, data: st.DataObject
) -> None:
    lines = [line for line in LINES if data.draw(st.integers(0, 20))]
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(lines) - 1))
        cut = data.draw(st.integers(0, len(lines[place])))
        lines[place] = lines[place][:cut] + data.draw(st.sampled_from([*VALUES, "", "=", '"', "\x00", "#", "é"])) + (
            lines[place][cut + data.draw(st.integers(0, 3)) :]
        )  # fmt: skip
    config, document = load_text(tmp_path, "\n".join(lines), {"HTTP_TIMEOUT_S": "5", "OLLAMA_BASE": "http://x"})
    assert isinstance(config, Config)
    told_with_places(document)
