"""Keys of tokens: which are taken from a set, when the set is fetched, who waits, what a failure leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Pool
from gateway.errors import GatewayError
from gateway.jwks import PAUSE, Jwks, Known, from_file, from_issuer, from_url, keys_of
from gateway.testing import Script, ScriptedUpstream, error, hang_up, raw, redirect, whole
from gateway.upstream import Upstream
from tests.support.issuer import Issuer, SigningKey, key_set

ALL = ("RS256", "PS256", "ES256", "ES384", "EdDSA")
RSA, EC, ED = SigningKey("RS256", "rsa"), SigningKey("ES256", "ec"), SigningKey("EdDSA", "ed")


def test_each_key_is_used_with_the_algorithms_of_its_kind() -> None:
    assert set(keys_of(key_set(RSA, EC, ED), ALL)) == {
        ("rsa", "RS256"), ("rsa", "PS256"), ("ec", "ES256"), ("ed", "EdDSA"),
        (None, "RS256"), (None, "PS256"), (None, "ES256"), (None, "EdDSA"),
    }  # fmt: skip
    assert set(keys_of(key_set(RSA, EC), ("ES256",))) == {("ec", "ES256"), (None, "ES256")}


def test_a_token_without_kid_has_a_key_only_where_one_alone_can_be_meant() -> None:
    other = SigningKey("ES256", None)
    assert set(keys_of(key_set(EC, other, ED), ALL)) == {("ec", "ES256"), ("ed", "EdDSA"), (None, "EdDSA")}
    assert set(keys_of(key_set(other), ALL)) == {(None, "ES256")}


@pytest.mark.parametrize(
    "unusable",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "x"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "x", "alg": "RS256"},
        RSA.jwk | {"use": "enc"},
        RSA.jwk | {"alg": "RSA-OAEP"},
        RSA.jwk | {"key_ops": ["encrypt"]},
        RSA.jwk | {"key_ops": "verify"},
        RSA.jwk | {"n": "!"},
        RSA.jwk | {"n": 7},
        RSA.jwk | {"kty": ["RSA"]},
        SigningKey("RS256", "short", bits=1024).jwk,
        RSA.private_jwk,
        EC.private_jwk,
        EC.jwk | {"crv": "secp256k1"},
        EC.jwk | {"x": EC.jwk["y"]},
        {"kid": "x"},
        "rsa",
        None,
    ],
    ids=[
        "secret",
        "secret for RS256",
        "for encryption",
        "for another algorithm",
        "to encrypt",
        "no list",
        "no number",
        "a number",
        "no kind",
        "too short",
        "private RSA",
        "private EC",
        "another curve",
        "no point",
        "nothing",
        "text",
        "null",
    ],
)
def test_a_key_that_is_no_public_key_for_signatures_is_passed_over(unusable: Any) -> None:
    assert set(keys_of({"keys": [unusable, ED.jwk]}, ALL)) == {("ed", "EdDSA"), (None, "EdDSA")}
    with pytest.raises(ValueError, match="no key"):
        keys_of({"keys": [unusable]}, ALL)


def test_a_kid_that_is_no_string_is_none() -> None:
    assert set(keys_of({"keys": [ED.jwk | {"kid": ["ed"]}]}, ALL)) == {(None, "EdDSA")}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(["kty", "crv", "kid", "alg", "use", "key_ops", "n", "e", "x", "y"])


@given(
    st.sampled_from([RSA.jwk, EC.jwk, ED.jwk, {}]),
    st.dictionaries(FIELDS, json_values | st.sampled_from(["RSA", "EC", "OKP", "P-256", "AQAB", "AA"]), max_size=4),
)
def test_no_set_of_keys_breaks_it(base: dict[str, Any], changes: dict[str, Any]) -> None:
    for document in ({"keys": [base | changes]}, changes, [changes], {"keys": changes}):
        try:
            assert keys_of(document, ALL)
        except ValueError:
            pass


class Giver:
    """Gives out ``document`` when it is let; ``now`` is the clock."""

    def __init__(self, refresh: float = 600.0) -> None:
        self.now = 1000.0
        self.document: Any = key_set(RSA)
        self.failure: Exception | None = None
        self.asked = 0
        self.asks: asyncio.Queue[int] = asyncio.Queue()
        self.open = asyncio.Event()
        self.open.set()
        self.tasks: list[asyncio.Task[Any]] = []
        self.known = Known()
        self.jwks = Jwks(self.known, self.fetch, ALL, refresh, self.spawn, lambda: self.now)

    async def fetch(self) -> Any:
        self.asked += 1
        self.asks.put_nowait(self.asked)
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        return self.document

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        self.tasks.append(asyncio.get_running_loop().create_task(coro, name=name))
        return self.tasks[-1]

    def kids(self) -> set[str | None]:
        return {kid for kid, _ in self.known.keys if kid is not None}


async def test_all_who_wait_wait_for_one_fetch() -> None:
    giver = Giver()
    giver.open.clear()
    waiting = [asyncio.ensure_future(giver.jwks.look_again()) for _ in range(100)]
    await giver.asks.get()
    waiting.pop().cancel()  # who leaves does not take the fetch along
    giver.open.set()
    await asyncio.gather(*waiting)
    assert giver.asked == 1 and giver.kids() == {"rsa"}


async def test_strangers_cannot_make_it_ask_more_often() -> None:
    giver = Giver()
    for _ in range(1000):
        await giver.jwks.look_again()
    assert giver.asked == 1
    giver.now += PAUSE - 0.1
    await giver.jwks.look_again()
    assert giver.asked == 1
    giver.now += 0.1
    giver.document = key_set(EC)
    await giver.jwks.look_again()
    assert giver.asked == 2 and giver.kids() == {"ec"}


@pytest.mark.parametrize(
    "failure",
    [GatewayError("No."), OSError("down"), TimeoutError(), ValueError("junk"), RuntimeError("a bug")],
    ids=repr,
)
async def test_a_failure_keeps_the_keys_and_is_logged(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    giver = Giver()
    await giver.jwks.look_again()
    keys = giver.known.keys
    giver.now += PAUSE
    giver.failure = failure
    await giver.jwks.look_again()
    assert giver.asked == 2 and giver.known.keys is keys
    assert [record.levelno >= logging.WARNING for record in caplog.records] == [True]


@pytest.mark.parametrize("document", [None, [], {"keys": []}, {"keys": None}, {"keys": [{"kty": "oct"}]}], ids=str)
async def test_a_set_without_a_usable_key_is_a_failure(document: Any) -> None:
    giver = Giver()
    await giver.jwks.look_again()
    giver.now += PAUSE
    giver.document = document
    await giver.jwks.look_again()
    assert giver.kids() == {"rsa"}


async def test_keys_are_replaced_only_when_they_are_others() -> None:
    giver = Giver()
    await giver.jwks.look_again()
    keys = giver.known.keys
    giver.now += PAUSE
    giver.document = key_set(RSA)
    await giver.jwks.look_again()
    assert giver.asked == 2 and giver.known.keys is keys


async def test_it_fetches_at_once_and_then_again_and_again_whatever_happens() -> None:
    giver = Giver(refresh=0.01)
    giver.failure = RuntimeError("a bug")
    running = asyncio.ensure_future(giver.jwks.keep_fresh())
    for _ in range(3):
        await giver.asks.get()
    giver.failure = None
    for _ in range(3):
        await giver.asks.get()
    assert giver.kids() == {"rsa"}
    running.cancel()


# Where keys come from.


async def test_an_issuers_configuration_says_where_its_keys_are() -> None:
    issuer = Issuer(RSA)
    upstream = Upstream(Pool())
    async with ScriptedUpstream(issuer) as server:
        issuer.url = server.url
        fetch = from_issuer(upstream, server.url)
        assert await fetch() == key_set(RSA)
        issuer.keys = [EC]
        assert await fetch() == key_set(EC)  # nothing is kept on the way
        assert [call.target for call in server.requests] == ["/.well-known/openid-configuration", "/keys?tenant=1"] * 2
    await upstream.close()


@pytest.mark.parametrize(
    "told",
    [
        {"issuer": "https://another.example"}, {"issuer": None}, {"jwks_uri": None}, {"jwks_uri": ["x"]},
        {"jwks_uri": "http://192.0.2.1/keys"}, {"jwks_uri": "file:///etc/passwd"}, {"jwks_uri": "/keys"},
        {"jwks_uri": "https://user@/"}, {"jwks_uri": "https://host:x/"}, {"jwks_uri": ""},
    ],
    ids=str,
)  # fmt: skip
async def test_a_configuration_that_is_wrong_is_not_followed(told: dict[str, Any]) -> None:
    issuer = Issuer(RSA)
    issuer.told = told
    upstream = Upstream(Pool())
    async with ScriptedUpstream(issuer) as server:
        issuer.url = server.url
        with pytest.raises(ValueError, match=r"."):
            await from_issuer(upstream, server.url)()
        assert len(server.requests) == 1
    await upstream.close()


@pytest.mark.parametrize(
    "script",
    [error(500), hang_up, raw(b"junk\r\n\r\n"), redirect(302, "http://127.0.0.1:1/"), whole(200, b"{"), whole(404, {})],
    ids=["500", "hang up", "no http", "redirect", "no json", "404"],
)
async def test_what_a_bad_server_does_is_an_error_of_ours(script: Script) -> None:
    upstream = Upstream(Pool())
    async with ScriptedUpstream(script) as server:
        with pytest.raises((GatewayError, ValueError, OSError)):
            await from_url(upstream, f"{server.url}/keys")()
    await upstream.close()


@pytest.mark.parametrize(
    "url", ["http://issuer.example/keys", "ftp://127.0.0.1/", "keys", "https://", "", "https:///x"]
)
async def test_an_address_where_anybody_could_change_the_keys_is_refused(url: str) -> None:
    upstream = Upstream(Pool())
    for make in (from_url, from_issuer):
        with pytest.raises(ValueError, match="https"):
            make(upstream, url)
    await upstream.close()


async def test_a_file_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    fetch = from_file(file)
    with pytest.raises(OSError, match="No such file"):
        await fetch()
    for text, found in (("[1]", [1]), ("[2]", [2])):
        file.write_text(text)
        assert await fetch() == found
