"""Certificates: what a trusted proxy says of one decides, what anybody else says is as if it had not been said."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

import pytest
import tomli
from cattrs.errors import BaseValidationError
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway import Principal, Runtime
from gateway.config import Config, Key, Plugins, Server
from gateway.errors import Unauthenticated
from gateway.structure import make_converter, mistakes
from gateway_plugins.middleware import auth_mtls
from tests.support.exchanges import make_exchange
from tests.support.programs import ROOT

PROXY, STRANGER = "10.0.0.1", "10.0.0.2"
ALICE, BOB = "CN=alice,O=Example", "CN=bob\\, jr.,OU=R\\+D,O=Example"
SHA1, SHA256 = "3f" * 20, "a7" * 32
PRINCIPALS = {ALICE: "alice", BOB: "bob", SHA1: "alice", SHA256: "bob"}
KEYS = {"alice": Key(models=("gpt-*",), requests_per_minute=7, tokens_per_minute=8, max_concurrency=9), "bob": Key()}
VERIFY, SUBJECT, FINGERPRINT = "X-SSL-Client-Verify", "X-SSL-Client-S-DN", "X-SSL-Client-Fingerprint"


def make(
    *,
    chain: tuple[str, ...] = ("auth_mtls",),
    host: str = "127.0.0.1",
    proxies: tuple[str, ...] = (f"{PROXY}/32",),
    **settings: Any,
) -> auth_mtls.Plugin:
    server = Server(host=host, trusted_proxies=tuple(map(ip_network, proxies)))
    upstream: Any = None  # nothing is called
    runtime = Runtime(Config(server=server, plugins=Plugins(chain=chain), keys=KEYS), upstream, "auth_mtls")
    return auth_mtls.Plugin(auth_mtls.Settings(**{"principals": PRINCIPALS} | settings), runtime)


PLUGIN = make()
LENIENT = make(chain=("auth_mtls", "auth_jwt"))
"""One that leaves whom it does not know to the next."""


def verified(subject: str = ALICE, **more: str) -> dict[str, str]:
    return {VERIFY: "SUCCESS", SUBJECT: subject} | more


def asked(headers: Mapping[str, str], plugin: auth_mtls.Plugin = PLUGIN, peer: str = PROXY) -> Principal | None:
    exchange = make_exchange(headers, peer=peer)
    plugin.on_request(exchange)
    return exchange.principal


def refuses(headers: Mapping[str, str], plugin: auth_mtls.Plugin = PLUGIN, peer: str = PROXY) -> None:
    with pytest.raises(Unauthenticated) as refused:
        asked(headers, plugin, peer)
    assert refused.value.message == Unauthenticated().message


def test_a_subject_is_somebody_with_her_models_and_limits() -> None:
    assert asked(verified()) == Principal("alice", ("gpt-*",), 7, 8, 9)
    assert asked(verified(BOB)) == Principal("bob")


@pytest.mark.parametrize("digits", [SHA1, SHA1.upper(), ":".join(["3F"] * 20)], ids=["nginx", "upper case", "openssl"])
def test_a_fingerprint_is_somebody(digits: str) -> None:
    headers = {VERIFY: "SUCCESS", FINGERPRINT: digits}
    assert asked(headers) == asked(headers, make(principals={digits: "alice"})) == asked(verified())


def test_a_sha256_is_a_fingerprint_too() -> None:
    assert asked({VERIFY: "SUCCESS", FINGERPRINT: SHA256}) == Principal("bob")


def test_both_must_mean_the_same() -> None:
    assert asked(verified(X_SSL="", **{FINGERPRINT: SHA1})) == asked(verified())
    assert asked(verified(**{FINGERPRINT: "0" * 40})) == asked(verified())
    for plugin in (PLUGIN, LENIENT):
        refuses(verified(**{FINGERPRINT: SHA256}), plugin)


@pytest.mark.parametrize(
    "subject",
    [
        "", "CN=alice", "O=Example", "CN=alice,O=Example,C=DE", "cn=alice,o=example", "CN=alice, O=Example", SHA1,
        "O=Example,CN=alice", "/O=Example/CN=alice", "CN=alice\\,O\\=Example", f"{ALICE} ", "*", "CN=*,O=Example",
    ],
)  # fmt: skip
def test_a_subject_is_all_of_it_or_nobodys(subject: str) -> None:
    refuses(verified(subject))
    assert asked(verified(subject), LENIENT) is None


@pytest.mark.parametrize("headers", [{}, {VERIFY: "NONE"}, {SUBJECT: ALICE}, {FINGERPRINT: SHA1}], ids=str)
def test_without_a_certificate_it_is_left_to_the_next(headers: dict[str, str]) -> None:
    assert asked(headers, LENIENT) is None
    refuses(headers)


@pytest.mark.parametrize(
    "word",
    ["", "FAILED", "FAILED:certificate has expired", "success", "SUCCESS ", "SUCCESS,SUCCESS", "none", "0", "SUCCESSS"],
)
def test_what_is_not_verified_is_refused_whatever_comes_next(word: str) -> None:
    for plugin in (PLUGIN, LENIENT):
        refuses(verified() | {VERIFY: word}, plugin)


@pytest.mark.parametrize("name", [VERIFY, SUBJECT, FINGERPRINT])
@pytest.mark.parametrize("second", ["same", "another"])
def test_a_header_that_is_there_twice_is_refused(name: str, second: str) -> None:
    headers = CIMultiDict(verified(**{FINGERPRINT: SHA1}))
    headers.add(name.lower(), headers[name] if second == "same" else "NONE")
    for plugin in (PLUGIN, LENIENT):
        refuses(headers, plugin)


@pytest.mark.parametrize("character", ["\0", "\t", "\x7f", "\x85", "\u202e", "\N{SNOWMAN}", "\udcff", "ä"], ids=ascii)
@pytest.mark.parametrize("name", [VERIFY, SUBJECT, FINGERPRINT])
def test_what_nginx_does_not_write_is_refused(name: str, character: str) -> None:
    headers = verified(**{FINGERPRINT: SHA1})
    for plugin in (PLUGIN, LENIENT):
        refuses(headers | {name: headers[name] + character}, plugin)


@given(st.lists(st.tuples(st.sampled_from([VERIFY, SUBJECT, FINGERPRINT]), st.text(max_size=60)), max_size=4))
def test_r14_no_headers_break_it(headers: list[tuple[str, str]]) -> None:
    refuses(CIMultiDict(headers))


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=60))
def test_r14_no_subject_breaks_it(subject: str) -> None:
    refuses(verified(subject))


# Who says it.


@pytest.mark.parametrize("peer", [STRANGER, "", "::1", "127.0.0.1", "junk"])
def test_r25_a_stranger_is_not_believed(peer: str) -> None:
    refuses(verified(), peer=peer)
    assert asked(verified(), LENIENT, peer) is None
    assert asked({VERIFY: "FAILED"}, LENIENT, peer) is None  # nor in that; it is as if it were not there


def test_r25_on_a_unix_socket_the_proxy_is_this_machine() -> None:
    plugin = make(host="unix:/run/gateway.sock", proxies=("127.0.0.0/8",))
    assert asked(verified(), plugin, peer="") == asked(verified())


@pytest.mark.parametrize(
    ("host", "proxies"),
    [("127.0.0.1", ()), ("unix:/run/gateway.sock", ()), ("unix:/run/gateway.sock", ("10.0.0.0/8",))],
    ids=str,
)
def test_r25_it_does_not_start_where_nobody_is_believed(host: str, proxies: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"^\[server\] trusted_proxies must have the address of the proxy"):
        make(host=host, proxies=proxies)


@pytest.mark.parametrize("everybody", ["0.0.0.0/0", "::/0"])
def test_r25_it_does_not_start_where_everybody_is_believed(everybody: str) -> None:
    with pytest.raises(ValueError, match=r"^\[server\] trusted_proxies has every address"):
        make(proxies=("10.0.0.1/32", everybody))


def test_headers_may_have_other_names() -> None:
    plugin = make(verify_header="v", subject_header="s", fingerprint_header="f")
    assert asked({"V": "SUCCESS", "S": ALICE}, plugin) == asked(verified())
    refuses(verified(), plugin)


def test_whom_auth_has_found_it_does_not_ask() -> None:
    bob = Principal("bob")
    exchange = make_exchange(verified(), peer=PROXY, principal=bob)
    PLUGIN.on_request(exchange)
    assert exchange.principal is bob


# Its settings.


def test_a_holder_must_be_there() -> None:
    with pytest.raises(ValueError, match=r"there is no \[keys.alise\]. Did you mean 'alice'\?"):
        make(principals={ALICE: "alise"})


def test_a_certificate_has_one_holder() -> None:
    with pytest.raises(ValueError, match="stands there twice"):
        make(principals={SHA1: "alice", SHA1.upper(): "bob"})


@pytest.mark.parametrize(
    "wrong",
    ["alice", "", "/O=Example/CN=alice", "CN=alice, O=Example", "O = Example, CN = alice", SHA1[1:], "sha1:" + SHA1,
     "CN=a\n", "CN=Bärbel"],
)  # fmt: skip
def test_a_certificate_nginx_cannot_name_cannot_be_configured(wrong: str) -> None:
    with pytest.raises(BaseValidationError) as caught:
        make_converter().structure({"principals": {wrong: "alice"}}, auth_mtls.Settings)
    ((path, message),) = mistakes(caught.value)
    assert path == ("principals",) and "is neither a subject such as" in message


@pytest.mark.parametrize("settings", [{}, {"principals": {}}, {"subject_header": "a_b", "principals": {SHA1: "a"}}])
def test_it_needs_certificates_and_names_of_headers(settings: dict[str, Any]) -> None:
    with pytest.raises(BaseValidationError) as caught:
        make_converter().structure(settings, auth_mtls.Settings)
    assert len(list(mistakes(caught.value))) == 1


def test_the_example_in_the_shipped_configuration_is_right() -> None:
    text = (ROOT / "gateway.toml").read_text()
    example = text[text.index("# [plugins.auth_mtls]") :].partition("\n\n")[0].replace("\n# ", "\n").removeprefix("# ")
    settings = make_converter().structure(tomli.loads(example)["plugins"]["auth_mtls"], auth_mtls.Settings)
    assert settings.principals == {ALICE: "alice"}


def test_nginx_sends_the_headers_it_reads() -> None:
    settings = auth_mtls.Settings(principals=PRINCIPALS)
    sent = (ROOT / "deploy/nginx.conf").read_text().lower()
    for name, variable in (
        (settings.verify_header, "verify"),
        (settings.subject_header, "s_dn"),
        (settings.fingerprint_header, "fingerprint"),
    ):
        assert f"proxy_set_header {name} $ssl_client_{variable};" in sent
