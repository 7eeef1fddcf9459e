"""R49: two requests have one key only if they are the same request of the same owner."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from gateway import Principal
from gateway.state.cache_key import Keys, Scope, digest
from tests.support.caching import CHAT

NO_HEADERS = CIMultiDictProxy(CIMultiDict[str]())


@given(st.text(), st.text(), st.text(), st.text())
def test_r49_no_two_lists_of_fields_encode_alike(a: str, b: str, c: str, d: str) -> None:
    assert (digest([a, b], b"") == digest([c, d], b"")) == ((a, b) == (c, d))
    assert digest([a + b], b"") != digest([a, b], b"")
    assert digest([a], b.encode("utf-8", "surrogatepass")) != digest([a, b], b"")


def test_r49_no_two_of_thirty_thousand_inputs_made_to_collide_do() -> None:
    """Every list of up to two fields and a body made of up to two of the encoding's own characters: 4.7e8 pairs."""
    texts = ["".join(pick) for size in range(3) for pick in itertools.product("a:1|0", repeat=size)]
    lists = [fields for size in range(3) for fields in itertools.product(texts, repeat=size)]
    keys = {digest(fields, body.encode()) for fields in lists for body in texts}
    assert len(keys) == len(lists) * len(texts) == 30_783


def test_r49_twins_in_unicode_and_bytes_no_text_has_are_told_apart() -> None:
    texts = ["é", "e\u0301", "é".encode("latin-1").decode("ascii", "surrogateescape"), "\udce9\udce9", "Å", "\u212b"]
    assert len({digest([text], b"") for text in texts}) == len(texts)


# What separators and normalisation could make the same: a:b + c and a + b:c, composed and decomposed.
WORDS = (
    "", "a", "b", "c", "a:b", "b:c", "a:b:c", "1:a", "a|", "key", "team", "nobody",
    "\u00e9", "e\u0301", "\u00c5", "\u212b", "\ufb01", "fi",
)  # fmt: skip


def key(keys: Keys, owner: Principal | None, path: str, query: str, body: bytes) -> str:
    exchange: Any = SimpleNamespace(surface=CHAT, path=path, query=query, principal=owner)
    return keys.of(exchange, NO_HEADERS, body)


@pytest.mark.parametrize("scope", ["key", "team"])
def test_r49_no_two_of_a_hundred_thousand_owners_and_requests_made_alike_have_one_key(scope: Scope) -> None:
    keys = Keys(scope, "routes")
    owners = [None, *(Principal(word) for word in WORDS)]
    if scope == "team":
        owners += [Principal("a", team=word) for word in WORDS]
    places = [(path, query) for path in WORDS for query in WORDS]
    bodies = [b'{"seed":1}', b'{"seed": 1}', b"\xe9", b"\x00", *(word.encode() for word in WORDS)]
    bodies = bodies[: 100_000 // (len(owners) * len(places)) + 1]
    asked = itertools.product(owners, places, bodies)
    found = [key(keys, owner, *place, body) for owner, place, body in asked]
    assert len(set(found)) == len(found) >= 100_000


def test_r49_another_scope_and_other_routes_are_other_keys() -> None:
    made = [Keys(scope, routes) for scope in ("key", "team", "global") for routes in ("a", "b")]
    assert len({key(keys, Principal("a"), "/", "", b"") for keys in made}) == len(made)


def test_a_team_is_one_owner_and_everybody_is_with_global() -> None:
    ann, ben, eve = Principal("ann", team="red"), Principal("ben", team="red"), Principal("eve")

    def owners(scope: Scope) -> int:
        return len({key(Keys(scope, ""), owner, "/", "", b"") for owner in (ann, ben, eve, None)})

    assert (owners("key"), owners("team"), owners("global")) == (4, 3, 1)
