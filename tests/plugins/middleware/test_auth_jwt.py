"""Tokens: a good one says who is calling; every other one is refused alike, and whatever it is breaks nothing."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import time
from typing import Any

import attrs
import pytest
import tomli
from cattrs.errors import BaseValidationError
from hypothesis import given
from hypothesis import strategies as st

from gateway import Exchange, Principal, Runtime
from gateway.config import Config, Plugins
from gateway.errors import Unauthenticated
from gateway.structure import make_converter, mistakes
from gateway_plugins.middleware import auth_jwt
from tests.support.exchanges import make_exchange
from tests.support.issuer import AUDIENCE, SigningKey, claims, key_set, segment
from tests.support.programs import ROOT

RSA, EC, ED = SigningKey("RS256", "rsa"), SigningKey("ES256", "ec"), SigningKey("EdDSA", "ed")
STRANGER = SigningKey("RS256", "rsa")
ISSUER = "https://issuer.example"


def make(keys: Mapping[str, Any] | None = None, chain: tuple[str, ...] = ("auth_jwt",), **more: Any) -> auth_jwt.Plugin:
    """The plugin with the keys of a file."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(keys or key_set(RSA, EC, ED), file)
        file.flush()
        upstream: Any = None  # nothing is fetched
        runtime = Runtime(Config(plugins=Plugins(chain=chain)), upstream, "auth_jwt")
        settings: Any = {"audience": AUDIENCE, "jwks": f"file:{file.name}"} | more
        return auth_jwt.Plugin(auth_jwt.Settings(**settings), runtime)


PLUGIN = make()


async def asked(token: str, plugin: auth_jwt.Plugin = PLUGIN, header: str = "authorization") -> Principal:
    exchange = make_exchange({header: f"Bearer {token}" if header == "authorization" else token})
    waiting = plugin.on_request(exchange)
    if waiting is not None:
        await waiting
    assert exchange.principal is not None
    return exchange.principal


async def refuses(token: str, plugin: auth_jwt.Plugin = PLUGIN) -> None:
    for _ in range(2):  # also when it has been seen before
        with pytest.raises(Unauthenticated) as refused:
            await asked(token, plugin)
        assert refused.value.message == Unauthenticated().message
        assert refused.value.__cause__ is None


@pytest.mark.parametrize("key", [RSA, EC, ED], ids=["RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key", "x-goog-api-key"])
async def test_a_good_token_says_who_is_calling_wherever_an_sdk_puts_it(key: SigningKey, header: str) -> None:
    for _ in range(2):
        assert await asked(key.sign(claims()), header=header) == Principal("jwt:alice")


async def test_other_algorithms_are_taken_when_they_are_configured() -> None:
    other = SigningKey("ES384", "other")
    plugin = make(key_set(RSA, other), algorithms=("PS256", "ES384"))
    assert await asked(RSA.sign(claims(), algorithm="PS256"), plugin) == Principal("jwt:alice")
    assert await asked(other.sign(claims()), plugin) == Principal("jwt:alice")
    await refuses(RSA.sign(claims()), plugin)


async def test_a_token_without_kid_is_taken_where_one_key_alone_can_be_meant() -> None:
    assert await asked(RSA.sign(claims(), kid=None)) == Principal("jwt:alice")
    await refuses(RSA.sign(claims(), kid=None), make(key_set(RSA, SigningKey("RS256", "second"))))


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1}, {"exp": None}, {"exp": "soon"}, {"exp": [1]}, {"exp": True}, {"nbf": 1 << 40}, {"nbf": "x"},
        {"iat": 1 << 40}, {"iat": {}}, {"aud": None}, {"aud": "another"}, {"aud": ["another"]}, {"aud": [1]},
        {"aud": {AUDIENCE: 1}}, {"aud": AUDIENCE + "x"}, {"sub": None}, {"sub": ""}, {"sub": 7}, {"sub": ["alice"]},
        {"sub": "a" * 256}, {"sub": "a\nb"}, {"sub": "a\0"}, {"sub": "\ud800"}, {"exp": 10**400}, {"jti": 7},
    ],
    ids=lambda changes: str(changes)[:40],
)  # fmt: skip
async def test_claims_that_do_not_hold_are_refused(changes: dict[str, Any]) -> None:
    await refuses(RSA.sign(claims(**changes)))


async def test_clocks_may_differ_by_the_leeway() -> None:
    now = int(time())
    plugin = make(leeway=60.0)
    await asked(RSA.sign(claims(exp=now - 30)), plugin)
    await asked(RSA.sign(claims(nbf=now + 30)), plugin)
    await refuses(RSA.sign(claims(exp=now - 90)), plugin)
    await refuses(RSA.sign(claims(nbf=now + 90)), plugin)


async def test_the_issuer_must_be_the_one_that_is_configured() -> None:
    plugin = make(issuer=ISSUER)
    await asked(RSA.sign(claims(iss=ISSUER)), plugin)
    for wrong in (None, "https://another.example", ISSUER + "/", [ISSUER], 7):
        await refuses(RSA.sign(claims(iss=wrong)), plugin)


async def test_one_audience_of_several_will_do() -> None:
    plugin = make(audience=("first", "second"))
    for good in ("first", "second", ["other", "second"]):
        assert await asked(RSA.sign(claims(aud=good)), plugin) == Principal("jwt:alice")
    for wrong in ("firstsecond", "f", ["other"], [], None, AUDIENCE):
        await refuses(RSA.sign(claims(aud=wrong)), plugin)


async def test_required_claims_are_what_they_must_be() -> None:
    plugin = make(required_claims={"tier": "gold", "realm_access.roles": ["llm", "admin"], "active": True})
    good = {"tier": "gold", "realm_access": {"roles": ["user", "llm"]}, "active": True}
    assert await asked(RSA.sign(claims(**good)), plugin) == Principal("jwt:alice")
    for changes in ({"tier": "silver"}, {"tier": None}, {"active": 1}, {"realm_access": {"roles": ["user"]}},
                    {"realm_access": ["llm"]}, {"realm_access": None, "roles": ["llm"]}):  # fmt: skip
        await refuses(RSA.sign(claims(**good | changes)), plugin)


# Signatures.


def hs256(secret: bytes, **header: Any) -> str:
    """A token "signed" with what everybody knows."""
    signed = f"{segment({'alg': 'HS256', 'typ': 'JWT'} | header)}.{segment(claims())}"
    return f"{signed}.{segment(hmac.digest(secret, signed.encode(), 'sha256'))}"


async def test_a_public_key_is_no_secret() -> None:
    raw = base64.urlsafe_b64decode(ED.jwk["x"] + "=")
    for secret in (RSA.pem, RSA.pem.strip(), EC.pem, ED.pem, raw, json.dumps(RSA.jwk).encode(), b""):
        for kid in ("rsa", "ec", "ed"):
            await refuses(hs256(secret, kid=kid))
        await refuses(hs256(secret))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, 7, ["RS256"], {"RS256": 1}], ids=repr)
async def test_no_signature_is_none(algorithm: Any) -> None:
    head, body = segment({"alg": algorithm, "kid": "rsa"}), segment(claims())
    signature = RSA.sign(claims()).rpartition(".")[2]
    for token in (f"{head}.{body}.", f"{head}.{body}.{signature}", f"{head}.{body}"):
        await refuses(token)


async def test_what_was_signed_cannot_be_changed() -> None:
    head, body, signature = RSA.sign(claims()).split(".")
    await refuses(f"{head}.{segment(claims(sub='root'))}.{signature}")
    await refuses(f"{segment({'alg': 'RS256', 'kid': 'rsa', 'x': 1})}.{body}.{signature}")
    await refuses(f"{head}.{body}.{signature[:-8]}AAAAAAA_")
    await refuses(f"{head}.{body}.")
    await refuses(f"{head}.{body}.{signature}.")
    await refuses(f"{head}.{body}.{signature}.{signature}.{signature}")


async def test_a_key_is_used_with_its_own_algorithm_only() -> None:
    await refuses(RSA.sign(claims(), kid="ec"))
    await refuses(EC.sign(claims(), kid="rsa"))
    await refuses(RSA.sign(claims(), algorithm="PS256"))
    await refuses(RSA.sign(claims(), algorithm="RS512"))


@pytest.mark.parametrize(
    "kid", ["", "RSA", "rsa ", "../rsa", "/dev/null", "' OR 1=1 --", "rsa\0", "\ud800", "k" * 9000, "*", "None"]
)
async def test_a_kid_is_a_name_and_nothing_else(kid: str) -> None:
    head = segment({"alg": "RS256", "kid": kid})
    await refuses(f"{head}.{segment(claims())}.{RSA.sign(claims()).rpartition('.')[2]}")


@pytest.mark.parametrize("kid", [7, True, ["rsa"], {"rsa": 1}], ids=repr)
async def test_a_kid_that_is_no_string_is_refused(kid: Any) -> None:
    await refuses(f"{segment({'alg': 'RS256', 'kid': kid})}.{segment(claims())}.AAAA")


async def test_a_token_cannot_say_by_which_key_it_is_judged() -> None:
    for header in ({"jwk": STRANGER.jwk}, {"jku": "http://127.0.0.1:9/"}, {"x5u": "http://127.0.0.1:9/"}):
        await refuses(STRANGER.sign(claims(), **header))
        await refuses(STRANGER.sign(claims(), kid=None, **header))
    await refuses(STRANGER.sign(claims(), x5c=["AAAA"]))


async def test_what_must_be_understood_and_is_not_is_refused() -> None:
    await refuses(RSA.sign(claims(), crit=["b64"], b64=True))
    await refuses(RSA.sign(claims(), crit=["exp"], exp=1))


async def test_a_token_too_long_is_not_even_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    await asked(RSA.sign(claims(groups=["g" * 20] * 200)))
    token = RSA.sign(claims(groups=["g" * 20] * 300))
    assert len(token) > 8192
    monkeypatch.setattr(auth_jwt, "sha256", None)
    await refuses(token)


# Junk.

parts = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=()), max_size=40),
    st.binary(max_size=40).map(segment),
    st.sampled_from([*RSA.sign(claims()).split("."), *ED.sign(claims()).split(".")]),
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(["RS256", "rsa"]),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["alg", "kid", "crit", "exp", "sub"]), inner)
        ),
    ).map(segment),
)


@given(st.lists(parts, max_size=5).map(".".join))
def test_r14_no_token_breaks_it(token: str) -> None:
    with pytest.raises(Unauthenticated):
        asyncio.run(asked(token))


@given(
    st.dictionaries(
        st.sampled_from(["exp", "nbf", "iat", "aud", "sub", "iss", "jti", "team", "models", "rpm"]),
        st.none() | st.integers() | st.floats() | st.text(max_size=9) | st.lists(st.text(max_size=3), max_size=3),
        max_size=4,
    )
)
def test_no_claims_of_a_good_signature_break_it(changes: dict[str, Any]) -> None:
    plugin = make(
        team_claim="team", models_claim="models", limits=auth_jwt.Limits(requests_per_minute="rpm"), issuer=ISSUER
    )
    try:
        principal = asyncio.run(asked(ED.sign({"iss": ISSUER} | claims() | changes), plugin))
    except Unauthenticated:
        assert changes
    else:
        assert principal.name.isprintable() and (principal.requests_per_minute or 0) >= 0


@pytest.mark.parametrize("nested", [b"[" * 1500, b'{"a":' * 400, b'{"alg":"RS256","kid":' + b"[" * 1000], ids=len)
async def test_nestings_break_nothing(nested: bytes) -> None:
    await refuses(f"{segment(nested)}.{segment(nested)}.AAAA")
    head = segment({"alg": "RS256", "kid": "rsa"})
    await refuses(f"{head}.{segment(nested)}.AAAA")


# What a token says.


async def test_claims_say_what_the_principal_may_do() -> None:
    plugin = make(
        principal_claim="email",
        team_claim="https://example.com/team",
        models_claim="models",
        models=("small",),
        limits=auth_jwt.Limits(requests_per_minute="rpm", tokens_per_minute="tpm", max_concurrency="parallel"),
        tokens_per_minute=5,
        max_concurrency=6,
    )
    more: dict[str, Any] = {"https://example.com/team": "red", "models": ["gpt-*", "llama3"], "rpm": 7, "parallel": 0}
    rich, poor = claims(email="a@example.com", **more), claims(email="b@example.com")
    assert await asked(RSA.sign(rich), plugin) == Principal("jwt:a@example.com", ("gpt-*", "llama3"), 7, 5, 0, "red")
    assert await asked(RSA.sign(poor), plugin) == Principal("jwt:b@example.com", ("small",), None, 5, 6)
    assert (await asked(RSA.sign(rich | {"models": "gpt-* llama3"}), plugin)).models == ("gpt-*", "llama3")
    assert (await asked(RSA.sign(rich | {"models": []}), plugin)).models == ()
    await refuses(RSA.sign(claims()), plugin)


async def test_claims_lie_in_tables_of_claims() -> None:
    plugin = make(
        principal_claim="user.mail",
        team_claim="https://example.com/claims.team",
        models_claim="realm_access.models",
        limits=auth_jwt.Limits(max_concurrency="limits.parallel"),
    )
    told: dict[str, Any] = {
        "user": {"mail": "a@example.com"},
        "https://example.com/claims": {"team": "red"},
        "realm_access": {"models": ["gpt-*"]},
        "limits": {"parallel": 3},
    }
    principal = Principal("jwt:a@example.com", ("gpt-*",), max_concurrency=3, team="red")
    assert await asked(RSA.sign(claims(**told)), plugin) == principal
    assert (await asked(RSA.sign(claims(**told | {"limits": None})), plugin)).max_concurrency is None
    for wrong in ({"limits": 3}, {"limits": {"parallel": "3"}}, {"realm_access": ["gpt-*"]}, {"user": None}):
        await refuses(RSA.sign(claims(**told | wrong)), plugin)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rpm": "7"},
        {"rpm": -1},
        {"rpm": True},
        {"rpm": 1.5},
        {"models": 7},
        {"models": ["a", 1]},
        {"team": 7},
        {"team": ""},
    ],
    ids=str,
)
async def test_a_limit_nobody_can_read_is_not_none(wrong: dict[str, Any]) -> None:
    limits = auth_jwt.Limits(requests_per_minute="rpm")
    plugin = make(team_claim="team", models_claim="models", limits=limits)
    await refuses(RSA.sign(claims(**wrong)), plugin)


# What is remembered.


async def test_r12_tokens_with_a_long_common_beginning_are_never_mixed_up() -> None:
    plugin = make()
    common = claims(groups=["g" * 60])
    tokens = {name: RSA.sign(common | {"sub": name}) for name in ("a", "b", "c")}
    for _ in range(100):
        for name, token in tokens.items():
            assert (await asked(token, plugin)).name == f"jwt:{name}"
            await refuses(token[:-4] + "AAAA", plugin)


async def test_what_is_remembered_ends_with_the_token() -> None:
    plugin = make(leeway=0.0)
    token = RSA.sign(claims())
    await asked(token, plugin)
    ends = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["exp"]
    for now, remembered in ((ends - 0.001, True), (ends, False)):
        plugin.clock = lambda now=now: now
        digest = hashlib.sha256(token.encode()).digest()
        assert (plugin._remembered(digest) is not None) is remembered


async def test_no_more_tokens_are_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth_jwt, "_REMEMBERED", 3)
    plugin = make()
    for number in range(9):
        await asked(ED.sign(claims(sub=f"u{number}")), plugin)
        assert len(plugin._verified) <= 3


async def test_r12_nothing_it_holds_is_a_token() -> None:
    plugin = make()
    token = RSA.sign(claims())
    await asked(token, plugin)
    assert not [part for part in token.split(".") if part in str(vars(plugin))]


# Its place and settings.


async def test_whom_auth_has_found_it_does_not_ask() -> None:
    alice = Principal("alice")
    exchange: Exchange = make_exchange({"authorization": "Bearer hg-key"}, principal=alice)
    assert PLUGIN.on_request(exchange) is None
    assert exchange.principal is alice


def test_without_an_issuer_and_keys_it_cannot_be_configured() -> None:
    with pytest.raises(ValueError, match="one of issuer and jwks"):
        auth_jwt.Settings(audience="a")


def test_the_example_in_the_shipped_configuration_is_right() -> None:
    text = (ROOT / "gateway.toml").read_text()
    example = text[text.index("# [plugins.auth_jwt]") :].partition("\n\n")[0].replace("\n# ", "\n").removeprefix("# ")
    settings = make_converter().structure(tomli.loads(example)["plugins"]["auth_jwt"], auth_jwt.Settings)
    assert settings.issuer == "https://login.example.com" and settings.models_claim == "models"
    assert settings.limits == auth_jwt.Limits(requests_per_minute="rpm")


def test_an_algorithm_with_a_shared_secret_cannot_be_configured() -> None:
    for name in ("HS256", "none", "rs256"):
        with pytest.raises(BaseValidationError) as caught:
            make_converter().structure({"audience": "a", "issuer": "i", "algorithms": [name]}, auth_jwt.Settings)
        assert [path for path, _ in mistakes(caught.value)] == [("algorithms", 0)]


@pytest.mark.parametrize("audience", [["a", ""], [], "", ["a", 1], 7], ids=str)
def test_an_audience_that_is_none_cannot_be_configured(audience: Any) -> None:
    with pytest.raises(BaseValidationError) as caught:
        make_converter().structure({"audience": audience, "issuer": "i"}, auth_jwt.Settings)
    assert [path for path, _ in mistakes(caught.value)] == [("audience",)]


@pytest.mark.parametrize("wanted", [[], 1.5, {"roles": "llm"}, ["llm", 1.5], [["llm"]]], ids=str)
def test_a_demand_nothing_can_meet_cannot_be_configured(wanted: Any) -> None:
    table = {"audience": "a", "issuer": "i", "required_claims": {"realm_access": wanted}}
    with pytest.raises(BaseValidationError) as caught:
        make_converter().structure(table, auth_jwt.Settings)
    ((path, message),) = mistakes(caught.value)
    assert path == ("required_claims",) and "'realm_access' must be" in message


def test_every_limit_can_come_from_a_claim() -> None:
    limits = {field.name for field in attrs.fields(Principal)} - {"name", "models", "team", "limits", "drains"}
    assert {field.name for field in attrs.fields(auth_jwt.Limits)} == limits
    assert limits < {field.name for field in attrs.fields(auth_jwt.Settings)}


def test_without_pyjwt_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth_jwt, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'hookgate\[jwt\]'"):
        make()


def test_a_file_of_keys_must_be_right_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{}")
    for name in ("keys.json", "absent.json"):
        with pytest.raises((ValueError, OSError)):
            make(jwks=f"file:{tmp_path}/{name}")
