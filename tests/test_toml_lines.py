"""``gateway.toml_lines``: every key tomli finds is found, on the line where it is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from gateway.toml_lines import KeyPath, locate

EXAMPLE = '''\
title = "x"                       # 1

[server]                          # 3
host = "[not.a.header]"
port = 8080

[models."gpt-4o".more]            # 7
a.b.c = 1
a.'d e' = 2
targets = [                       # 10
    { provider = "openai",        # 11
      model = "}, {" },

    # { provider = "nobody" },
    { provider = "azure" },       # 15
]
text = """
[no.table]
no = "key"
"""                               # 20
last = \'\'\'
'' ]\'\'\'

[[lists]]                         # 24
name = 1
[lists.inner]
name = 2
[[lists.many]]
name = 3
[[lists]]                         # 30
name = 4
[[lists.many]]
name = 5
[models]                          # 34
"\\u00e9" = 1979-05-27 07:32:00
'''
EXPECTED: dict[KeyPath, int] = {
    ("title",): 1,
    ("server",): 3,
    ("server", "host"): 4,
    ("server", "port"): 5,
    ("models",): 34,
    ("models", "gpt-4o"): 7,
    ("models", "gpt-4o", "more"): 7,
    ("models", "gpt-4o", "more", "a"): 8,
    ("models", "gpt-4o", "more", "a", "b"): 8,
    ("models", "gpt-4o", "more", "a", "b", "c"): 8,
    ("models", "gpt-4o", "more", "a", "d e"): 9,
    ("models", "gpt-4o", "more", "targets"): 10,
    ("models", "gpt-4o", "more", "targets", 0): 11,
    ("models", "gpt-4o", "more", "targets", 0, "provider"): 11,
    ("models", "gpt-4o", "more", "targets", 0, "model"): 12,
    ("models", "gpt-4o", "more", "targets", 1): 15,
    ("models", "gpt-4o", "more", "targets", 1, "provider"): 15,
    ("models", "gpt-4o", "more", "text"): 17,
    ("models", "gpt-4o", "more", "last"): 21,
    ("lists",): 24,
    ("lists", 0): 24,
    ("lists", 0, "name"): 25,
    ("lists", 0, "inner"): 26,
    ("lists", 0, "inner", "name"): 27,
    ("lists", 0, "many"): 28,
    ("lists", 0, "many", 0): 28,
    ("lists", 0, "many", 0, "name"): 29,
    ("lists", 1): 30,
    ("lists", 1, "name"): 31,
    ("lists", 1, "many"): 32,
    ("lists", 1, "many", 0): 32,
    ("lists", 1, "many", 0, "name"): 33,
    ("models", "é"): 35,
}


def paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from paths(inner, (*path, key))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_form_of_key(newline: str) -> None:
    text = EXAMPLE.replace("\n", newline)
    assert set(paths(tomli.loads(text))) == set(EXPECTED)
    assert locate(text) == EXPECTED


@pytest.mark.parametrize(
    "text", ["", "\n\n# nothing\n", "   ", 'a = ""', "a = ''", 'a = """"""', "a = ''''''", "a = []"]
)
def test_empty_things(text: str) -> None:
    assert locate(text) == dict.fromkeys(paths(tomli.loads(text)), 1)


@pytest.mark.parametrize(
    "value", ['"""a"""""', '""""a""""', "'''a'''''", r'"\\"', r'"\""', '"""\\""""', '"""\\\n  b"""']
)
def test_strings_that_end_in_quotes_or_escapes(value: str) -> None:
    text = f"a = {value}\nb = 1"
    assert locate(text) == {("a",): 1, ("b",): 1 + text.count("\n")}


class Writer:
    """Writes random TOML in which every key is new and holds its number, so that its line can be looked up."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data
        self._keys = 0
        self._lists: list[str] = []

    def choose(self, *options: str) -> str:
        return self._data.draw(st.sampled_from(options))

    def count(self, most: int) -> range:
        return range(self._data.draw(st.integers(0, most)))

    def key(self) -> str:
        self._keys += 1
        return self.choose("k{}_", '"k{}_"', "'k{}_'", '"\\u006b{}_"', '"] {}_ = ["').format(self._keys)

    def dotted(self) -> str:
        return self.choose(".", " . ").join(self.key() for _ in range(self._data.draw(st.integers(1, 3))))

    def value(self, depth: int = 0) -> str:
        kind = self.choose("scalar", "scalar", "list", "table") if depth < 3 else "scalar"
        if kind == "scalar":
            return self.choose(
                "1", "-0.5e3", "inf", "true", "0xff", "1979-05-27 07:32:00", "07:32:00", '""', '"# no"',
                '"[a] \\" , }"', "'[\"'", '"""\n[[a]]\nb = """', '"""x\\"""""', "'''\n#'''", "'''a''''",
                '"\\\\"', '"é\U0001f600"',
            )  # fmt: skip
        inside = self.value if kind == "list" else self.pair
        gap = self.choose("", " ", "\n", " # ] } ,\n", "\n\n\t")
        items = f"{gap},{gap}".join(inside(depth + 1) for _ in self.count(3))
        return f"[{gap}{items}{gap}]" if kind == "list" else f"{{{gap}{items}{gap}}}"

    def pair(self, depth: int = 0) -> str:
        return f"{self.dotted()}{self.choose('=', ' = ')}{self.value(depth)}"

    def header(self) -> str:
        if self._lists and self.choose("old", "new") == "old":
            known = self.choose(*self._lists)
            return self.choose(f"[[{known}]]", f"[{known}.{self.key()}]", f"[[{known}.{self.key()}]]")
        name = self.dotted()
        if self.choose("table", "list") == "table":
            return f"[{name}]"
        self._lists.append(name)
        return f"[[ {name} ]]"

    def document(self) -> str:
        lines = [self.pair() for _ in self.count(3)]
        for _ in self.count(5):
            lines += [self.header(), *(self.choose("", "# [x]", self.pair()) for _ in self.count(4))]
        return self.choose("\n", " # [y] = 1\n", "\n\n").join(lines)


@given(st.data())
def test_every_key_tomli_finds_is_on_its_line(data: st.DataObject) -> None:
    text = Writer(data).document()
    found = locate(text)
    assert set(found) == set(paths(tomli.loads(text)))
    for path, line in found.items():
        number = re.search(r"\d+_", path[-1]) if isinstance(path[-1], str) else None
        if number is not None and not any(isinstance(part, int) for part in path):
            position = re.search(rf"(?<!\d){number[0]}", text)
            assert position is not None
            assert line == text.count("\n", 0, position.start()) + 1


def test_deep_nesting_is_a_recursion_error_not_a_crash() -> None:
    deep = "a = " + "[" * 399 + "]" * 399
    try:
        assert len(locate(deep)) == 399
    except RecursionError:
        pass  # depends on how deep the caller's own stack is; the caller reports it
