"""Virtual keys: who has one is known by its digest, who has none learns nothing."""

from __future__ import annotations

import ast
import hashlib
import inspect
import random
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import Exchange, Principal
from gateway.config import DEFAULT_CHAIN, Config, Key, Plugins, State
from gateway.errors import Overloaded, Unauthenticated
from gateway_plugins.middleware import auth
from tests.support.exchanges import make_exchange, make_runtime

ALICE, BOB = "hg-alice-0123456789abcdef", "hg-bob-0123456789abcdef"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def make(chain: tuple[str, ...] = DEFAULT_CHAIN, /, **keys: Key) -> auth.Plugin:
    return auth.Plugin(None, make_runtime(config=Config(keys=keys, plugins=Plugins(chain=chain))))


@pytest.fixture(scope="module")
def plugin() -> auth.Plugin:
    return make(
        alice=Key(
            sha256=digest(ALICE), models=("gpt-*",), requests_per_minute=7, tokens_per_minute=8, max_concurrency=9
        ),
        bob=Key(sha256=digest(BOB).upper()),
    )


def asked(plugin: auth.Plugin, **headers: str) -> Exchange:
    exchange = make_exchange({name.replace("_", "-"): value for name, value in headers.items()})
    plugin.on_request(exchange)
    return exchange


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {ALICE}"},
        {"authorization": f"bearer {ALICE}"},
        {"Authorization": f"BEARER   {ALICE}  "},
        {"x_api_key": ALICE},
        {"api_key": ALICE},
        {"x_goog_api_key": ALICE},
        {"Authorization": "Basic dXNlcjpwYXNz", "x_api_key": ALICE},
        {"Authorization": "Bearer ", "x_api_key": ALICE},
    ],
    ids=str,
)
def test_every_sdks_way_to_send_a_key(plugin: auth.Plugin, headers: dict[str, str]) -> None:
    principal = asked(plugin, **headers).principal
    assert principal is not None and principal.name == "alice"


def test_the_principal_carries_what_its_key_may_do(plugin: auth.Plugin) -> None:
    principal = asked(plugin, x_api_key=ALICE).principal
    assert principal is not None
    assert (principal.models, principal.requests_per_minute) == (("gpt-*",), 7)
    assert (principal.tokens_per_minute, principal.max_concurrency) == (8, 9)
    assert ALICE not in repr(principal) and digest(ALICE) not in repr(principal)


def test_keys_are_not_mixed_up(plugin: auth.Plugin) -> None:
    assert [asked(plugin, x_api_key=key).principal.name for key in (BOB, ALICE)] == ["bob", "alice"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Authorization": ""}, {"Authorization": "Bearer"}, {"Authorization": f"Bearer {ALICE}x"},
        {"Authorization": ALICE}, {"Authorization": f"Token {ALICE}"}, {"Authorization": f"Bearer {ALICE[:-1]}"},
        {"Authorization": f"Bearer {ALICE} {BOB}"}, {"x_api_key": ALICE.upper()}, {"Cookie": f"key={ALICE}"},
        {"x_api_key": digest(ALICE)}, {"x_api_key": bytes.fromhex(digest(ALICE)).decode("latin-1")},
        {"Authorization": f"Bearer {BOB}x", "x_api_key": ALICE},
    ],
    ids=str,
)  # fmt: skip
def test_r11_all_else_is_refused_also_the_stored_digest(plugin: auth.Plugin, headers: dict[str, str]) -> None:
    with pytest.raises(Unauthenticated) as refused:
        asked(plugin, **headers)
    assert refused.value.message == Unauthenticated().message


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=600))
def test_r14_no_key_breaks_it(key: str) -> None:
    plugin = make(alice=Key(sha256=digest(ALICE)))
    for header in ("x_api_key", "Authorization"):
        with pytest.raises(Unauthenticated):
            asked(plugin, **{header: f"Bearer {key}" if header == "Authorization" else key})


def test_r14_a_key_too_long_is_not_even_hashed(plugin: auth.Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "sha256", None)
    with pytest.raises(Unauthenticated):
        asked(plugin, x_api_key="k" * 513)


def test_r12_keys_with_a_long_common_beginning_are_never_mixed_up() -> None:
    common = "hg-" + "c" * 57
    keys = {name: common + name for name in ("kept", "revoked", "other")}
    plugin = make(**{name: Key(sha256=digest(key)) for name, key in keys.items() if name != "revoked"})
    order = random.Random(7)
    for name in order.choices(list(keys), k=1000):
        if name == "revoked":
            with pytest.raises(Unauthenticated):
                asked(plugin, x_api_key=keys[name])
        else:
            assert asked(plugin, x_api_key=keys[name]).principal.name == name  # type: ignore[union-attr]


def test_r11_nothing_it_holds_is_a_key(plugin: auth.Plugin) -> None:
    assert ALICE not in str(vars(plugin)) and BOB not in str(vars(plugin))


def test_r11_digests_are_compared_in_constant_time() -> None:
    tree = ast.parse(inspect.getsource(auth))
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert "hmac.compare_digest" in called
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(isinstance(op, (ast.Eq, ast.NotEq)) for op in node.ops):
            names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
            assert not names & {"digest", "stored", "credential", "token"}, ast.unparse(node)


def test_without_keys_everybody_comes_in() -> None:
    assert asked(make()).principal is None


def test_where_nobody_has_a_key_nobody_comes_in() -> None:
    plugin = make(alice=Key())
    for headers in ({}, {"x_api_key": ALICE}, {"x_api_key": ""}, {"Authorization": "Bearer "}):
        with pytest.raises(Unauthenticated):
            asked(plugin, **headers)


@pytest.mark.parametrize("next_one", ["auth_mtls", "auth_jwt"])
@pytest.mark.parametrize("bob", [{}, {"bob": Key()}], ids=["alone", "bob"])
def test_what_is_no_key_is_left_to_the_next_that_asks(next_one: str, bob: dict[str, Key]) -> None:
    plugin = make(("auth", next_one), alice=Key(sha256=digest(ALICE)), **bob)
    assert asked(plugin, x_api_key=ALICE).principal == Principal("alice")
    for headers in ({"x_api_key": BOB}, {"x_api_key": "k" * 5000}, {}):
        assert asked(plugin, **headers).principal is None


class Ring:
    """A keyring that knows what it is told."""

    known = True

    def __init__(self, **ends: float) -> None:
        digests = {name: hashlib.sha256(f"hg-{name}".encode()).digest() for name in ends}
        self.holders = {digests[name]: (digests[name], Principal(name), end) for name, end in ends.items()}


def make_with(ring: Ring, chain: tuple[str, ...] = DEFAULT_CHAIN, /, **keys: Key) -> auth.Plugin:
    known = Config(keys=keys, plugins=Plugins(chain=chain), state=State(keys=True))
    return auth.Plugin(None, make_runtime(config=known, keys=ring))


def test_keys_of_the_database_open_behind_those_of_gateway_toml() -> None:
    ring = Ring(carl=inf)
    plugin = make_with(ring, alice=Key(sha256=digest(ALICE)))
    assert [asked(plugin, x_api_key=key).principal for key in (ALICE, "hg-carl")] == [
        Principal("alice"), Principal("carl"),
    ]  # fmt: skip
    ring.holders = {}
    with pytest.raises(Unauthenticated):
        asked(plugin, x_api_key="hg-carl")
    ring.holders = Ring(carl=inf).holders
    assert asked(plugin, x_api_key="hg-carl").principal == Principal("carl"), "each request looks anew"


def test_r13_a_key_ends_at_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = make_with(Ring(carl=1000.0))
    monkeypatch.setattr(auth, "time", lambda: 999.9)
    assert asked(plugin, x_api_key="hg-carl").principal == Principal("carl")
    monkeypatch.setattr(auth, "time", lambda: 1000.0)
    with pytest.raises(Unauthenticated):
        asked(plugin, x_api_key="hg-carl")


def test_r11_the_digest_of_a_key_in_the_database_opens_nothing() -> None:
    ring = Ring(carl=inf)
    (stored,) = ring.holders
    for shown in (stored.hex(), stored.hex().upper(), stored.decode("latin-1"), "", "hg-"):
        with pytest.raises(Unauthenticated):
            asked(make_with(ring), x_api_key=shown)


def test_without_any_key_a_gateway_with_a_database_is_closed() -> None:
    for headers in ({}, {"x_api_key": "hg-x"}, {"Authorization": "Bearer x"}):
        with pytest.raises(Unauthenticated):
            asked(make_with(Ring()), **headers)
    # As gateway check has it: no database is read, nobody is let in.
    with pytest.raises(Unauthenticated):
        asked(auth.Plugin(None, make_runtime(config=Config(state=State(keys=True)))))


def test_r48_while_nobody_could_look_keys_are_told_to_come_again() -> None:
    ring = Ring()
    ring.known = False
    plugin = make_with(ring, alice=Key(sha256=digest(ALICE)))
    assert asked(plugin, x_api_key=ALICE).principal == Principal("alice")
    with pytest.raises(Overloaded) as refused:
        asked(plugin, x_api_key="hg-carl")
    assert refused.value.retry_after
    with pytest.raises(Unauthenticated):
        asked(plugin)
    followed = make_with(ring, ("auth", "auth_jwt"))
    assert asked(followed, x_api_key="a.b.c").principal is None, "a token is the next one's"
    with pytest.raises(Overloaded):
        asked(followed, x_api_key="hg-carl")


def test_a_key_whose_team_is_in_the_database_is_known_with_it() -> None:
    """Before, nobody can tell what it may use."""
    waiting = Key(sha256=hashlib.sha256(b"hg-alice").hexdigest(), team="red")
    with pytest.raises(Unauthenticated):
        asked(make_with(Ring(), alice=waiting), x_api_key="hg-alice")
    assert asked(make_with(Ring(alice=inf), alice=waiting), x_api_key="hg-alice").principal == Principal("alice")
