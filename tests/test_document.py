"""``gateway.document``: where things stand, what overrides them, secrets in context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.document import Document, dotted
from gateway.errors import ConfigError
from gateway.secret import Secret

Make = Callable[..., Document]


NONE = Secret("none")


@attrs.frozen(kw_only=True)
class Provider:
    url: str
    api_key: Secret | None = None
    token: Secret = NONE
    headers: Mapping[str, str | Secret] = attrs.field(factory=dict)
    nets: tuple[IPv4Network | IPv6Network, ...] = ()


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def document(text: str | bytes, environ: Mapping[str, str] = {}, mode: int = 0o600) -> Document:
        path = tmp_path / "gateway.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(mode)
        return Document(path, environ)

    return document


def told(document: Document) -> list[str]:
    """The problems, with the file's name left out of them."""
    return [problem.replace(f"{document.path}:", "") for problem in document.problems]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a = 1\nb = \n", "2: Invalid value (column 5)."),
        ("a = 1\r\n\r\na = 2", "3: Cannot overwrite a value (column 6)."),
        (b"a = 1\nb = '\xff'", "2: not UTF-8 text."),
        (f"\na = {'9' * 5000}", "1: cannot be read: Exceeds the limit"),
        (f"a = {'[' * 5000}", "1: cannot be read: "),
        ("\ufeffa = 1", "1: Invalid statement (column 1)."),
    ],
    ids=["syntax", "twice", "encoding", "digits", "depth", "byte-order-mark"],
)
def test_a_file_that_is_not_toml(make: Make, text: str | bytes, problem: str) -> None:
    document = make(text)
    assert len(document.problems) == 1
    assert told(document)[0].startswith(problem)
    assert document.table() == {}


@pytest.mark.parametrize(("name", "reason"), [("none", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, reason: str) -> None:
    document = Document(tmp_path / name, {})
    assert document.problems == [f"{tmp_path / name}:1: cannot be read: {reason}."]


def test_where_a_key_stands(make: Make) -> None:
    document = make("a = 1\n[t.u]\nb = 2\n")
    assert [document.where(path).rpartition(":")[2] for path in [("a",), ("t", "u", "b"), ("t", "u", "c"), ("x",)]] == [
        "1", "3", "2", "1",
    ]  # fmt: skip


def test_all_problems_are_raised_at_once_each_once_in_order(make: Make) -> None:
    document = make("a = 1\n" + "\n" * 8 + "b = 2")
    document.raise_problems()
    document.set(("c",), 3, "environment:C")
    for key in ("b", "c", "a", "b"):
        document.problem((key,), f"{key} is wrong.")
    with pytest.raises(ConfigError) as caught:
        document.raise_problems()
    assert caught.value.problems == [
        f"{document.path}:1: a is wrong.", f"{document.path}:10: b is wrong.", "environment:C: c is wrong.",
    ]  # fmt: skip


def test_structure_reports_and_returns_nothing(make: Make) -> None:
    document = make("[p]\ntype = 'x'\nurl = 1\nnope = 2\n[q]\ntype = 'x'\nurl = 'u'")
    assert document.structure(Provider, ("p",), ignore=("type",)) is None
    assert told(document) == ["3: p.url: expected a string, not a whole number.", "4: p.nope: unknown key."]
    assert document.structure(Provider, ("q",), ignore=("type",)) == Provider(url="u")


def test_a_table_that_is_not_there_is_an_empty_one(make: Make) -> None:
    document = make("\n[p]\n")
    assert document.structure(Provider, ("p", "q")) is None
    assert told(document) == ["2: p.q.url: is missing."]


def test_settings_that_cannot_be_structured_are_a_problem_not_a_traceback(make: Make) -> None:
    @attrs.frozen
    class Odd:
        what: complex

    @attrs.frozen
    class Unresolvable:
        what: Nowhere  # type: ignore[name-defined]  # noqa: F821

    document = make("[p]\nwhat = 1")
    assert document.structure(Odd, ("p",)) is None
    assert document.structure(Unresolvable, ("p",)) is None
    assert len(document.problems) == 2


def test_find(make: Make) -> None:
    document = make("[m.a]\nt = [{p = 1}, {p = 2}, {q = 3}, 4]\n[m.b]\nt = 5\n[n]\n")
    assert list(document.find("m", "*", "t", "*", "p")) == [(("m", "a", "t", 0, "p"), 1), (("m", "a", "t", 1, "p"), 2)]
    assert list(document.find("m", "*", "t", "*", "p", "*")) == list(document.find("x")) == []


def test_overrides_replace_the_line_by_their_origin(make: Make) -> None:
    document = make("[p]\nurl = 'u'\n[p.headers]\na = 'b'")
    document.set(("p", "url"), 1, "environment:URL")
    document.set(("p", "headers"), {"c": 2}, "other.yaml:7")
    document.set(("new", "table", "x"), 3, "environment:X")
    assert document.structure(Provider, ("p",)) is None
    assert told(document) == [
        "environment:URL: p.url: expected a string, not a whole number.",
        "other.yaml:7: p.headers.c: expected a string.",
    ]
    assert document.table("new", "table") == {"x": 3}
    document.set(("p", "url", "deeper"), 1, "environment:DEEPER")
    assert document.problems[-1] == "environment:DEEPER: 'url' is not a table."


def test_secrets_by_reference(make: Make, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("from-file\n")
    key.chmod(0o600)
    document = make(
        f"[p]\nurl = 'u'\napi_key = 'env:KEY'\ntoken = 'file:{key}'\nheaders = {{ a = 'env:KEY', b = 'plain' }}",
        {"KEY": "from-env"},
        mode=0o644,
    )
    found = document.structure(Provider, ("p",))
    assert found is not None
    assert found.api_key is not None
    assert found.api_key.reveal() == "from-env"
    assert found.token.reveal() == "from-file"
    assert found.headers["b"] == "plain"
    header = found.headers["a"]
    assert isinstance(header, Secret)
    assert header.reveal() == "from-env"
    assert "from-" not in repr(found)


def test_optional_secrets_that_are_not_there(make: Make) -> None:
    document = make("[p]\nurl = 'u'\napi_key = 'env:KEY?'\n[q]\nurl = 'u'\ntoken = 'env:KEY?'\nheaders.a = 'env:KEY?'")
    found = document.structure(Provider, ("p",))
    assert found is not None
    assert found.api_key is None
    assert document.structure(Provider, ("q",)) is None
    assert told(document) == [
        "6: q.token: env:KEY is not there, and this setting cannot do without it.",
        "7: q.headers.a: env:KEY is not there, and this setting cannot do without it.",
    ]


def test_r61_missing_references_name_the_reference(make: Make) -> None:
    document = make("[p]\nurl = 'u'\napi_key = 'env:KEY'\ntoken = 'file:/nowhere/key'")
    assert document.structure(Provider, ("p",)) is None
    assert told(document) == [
        "3: p.api_key: the environment variable KEY is not set.",
        "4: p.token: there is no file /nowhere/key.",
    ]


def test_r61_inline_secrets_are_refused_unless_allowed(make: Make) -> None:
    table = "[p]\nurl = 'u'\napi_key = 'sk-canary'"
    document = make(table)
    assert document.structure(Provider, ("p",)) is None
    assert told(document) == [
        '3: p.api_key: expected a reference to a secret, "env:NAME" or "file:/path". '
        "Secrets in this file need allow_inline_secrets = true."
    ]
    found = make(f"allow_inline_secrets = true\n{table}").structure(Provider, ("p",))
    assert found is not None
    assert found.api_key is not None
    assert found.api_key.reveal() == "sk-canary"


@pytest.mark.parametrize("mode", [0o640, 0o644, 0o606, 0o666])
def test_r61_a_file_with_inline_secrets_that_others_can_use_is_refused(make: Make, mode: int) -> None:
    document = make("allow_inline_secrets = true\n[p]\nurl = 'u'\napi_key = 'sk-canary'", mode=mode)
    assert document.structure(Provider, ("p",)) is None
    assert told(document) == [
        f"4: p.api_key: this file holds secrets and can be read or written by others (mode {mode:04o}): chmod 600."
    ]


@pytest.mark.parametrize("value", ["1", "[]", "{}", "true", "2024-10-21"])
def test_a_secret_is_a_string(make: Make, value: str) -> None:
    document = make(f"[p]\nurl = 'u'\napi_key = {value}")
    assert document.structure(Provider, ("p",)) is None
    assert told(document) == ['3: p.api_key: expected a reference to a secret, "env:NAME" or "file:/path".']


def test_networks(make: Make) -> None:
    document = make(
        "[p]\nurl = 'u'\nnets = ['127.0.0.1', '10.0.0.0/8', '::1/128']\n[q]\nurl = 'u'\nnets = ['10.0.0.1/8', 'x', 1]"
    )
    found = document.structure(Provider, ("p",))
    assert found is not None
    assert found.nets == tuple(map(ip_network, ("127.0.0.1/32", "10.0.0.0/8", "::1/128")))
    assert document.structure(Provider, ("q",)) is None
    assert [problem.partition(" ")[0] for problem in told(document)] == ["6:", "6:", "6:"]
    assert "10.0.0.1/8 has host bits set" in document.problems[0]


def test_dotted() -> None:
    assert dotted(("models", "gpt-4o", "x y", "targets", 0, "provider")) == 'models.gpt-4o."x y".targets[0].provider'
    assert dotted(()) == ""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40) | st.text("ab.=[]{}\"'\n#1,", max_size=40).map(str.encode))
def test_any_bytes_are_a_document_or_one_problem(make: Make, content: bytes) -> None:
    document = make(content)
    known: Any = document.table()
    assert len(document.problems) <= 1
    assert not (document.problems and known)
    assert all(problem.startswith(f"{document.path}:") for problem in document.problems)
