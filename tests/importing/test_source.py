"""YAML as plain values with lines; hostile or broken files are a line, and none of their content."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.importing.source import read

pytest.importorskip("yaml")


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(Path("x.yaml"), text)
    (only,) = caught.value.problems
    return only


def test_values_have_their_lines() -> None:
    source = read(Path("x"), "a: 1\nlist:\n  - {b: yes, c: 1.5}\n  - d: null\n    version: 2024-10-21\n")
    assert source.data == {"a": 1, "list": [{"b": True, "c": 1.5}, {"d": None, "version": "2024-10-21"}]}
    assert [source.line(path) for path in [("a",), ("list", 0, "c"), ("list", 1, "version")]] == [1, 3, 5]
    assert source.line(("list", 1, "nothing")) == 4


def test_anchors_and_merges_are_followed() -> None:
    source = read(Path("x"), "base: &base\n  key: k\n  n: 1\nother:\n  <<: *base\n  n: 2\nsame: *base\n")
    assert source.data["other"] == {"key": "k", "n": 2}
    assert source.data["same"] == source.data["base"]
    assert source.line(("other", "key")) == 2


def test_an_empty_file_is_nothing() -> None:
    assert read(Path("x"), "# nothing\n").data is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: b\nkey: [sk-secret\n", 3),
        ("a: b\nkey: 'sk-secret", 2),
        ("a: b\nkey: sk-secret\n  other: x", 3),
        ("a: b\n? [sk-secret]\n: c", 2),
        ("a: b\n--- \nsk-secret", 2),
        ("a: b\nkey: !!bool sk-secret", 2),
        ("a: \0sk-secret", 1),
        ('a: "\\ud800 sk-secret"', 1),
        ("a: &a [sk-secret, *a]", 1),
        ("[" * 2000, 1),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line_and_nothing_of_it(text: str, line: int) -> None:
    told = problem(text)
    assert told.startswith(f"x.yaml:{line}: ")
    assert "secret" not in told


def test_aliases_of_aliases_end_somewhere() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert "too many values" in problem("\n".join(lines))


def test_tags_of_python_make_nothing() -> None:
    assert read(Path("x"), "a: !!python/object/apply:os.getcwd []").data == {"a": []}


def test_without_pyyaml_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert "pip install 'hookgate[import]'" in problem("a: b")


@given(
    st.text()
    | st.lists(st.sampled_from(["a: ", "- ", "\n", " ", "&a ", "*a", "<<: ", "{", "}", "[", "1"])).map("".join)
)
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    try:
        read(Path("x"), text)
    except ConfigError as error:
        assert all(problem.startswith("x:") for problem in error.problems)
