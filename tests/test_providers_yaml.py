"""The providers file of an earlier router: its own YAML is read, any other is refused with its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.providers_yaml import YamlError, parse

GOOD = """\
---
# who answers
providers:
  - name: local          # a comment
    type: openai
    base_url: "http://127.0.0.1:8000/v1"
    api_key_env: LOCAL_KEY

  - base_url: 'http://h:11434/#x'
    name: home
    type: ollama
    api_key_env: null
"""


def test_what_such_files_hold() -> None:
    assert parse(GOOD) == {
        "local": (4, {"type": "openai_compat", "base_url": "http://127.0.0.1:8000/v1", "api_key": "env:LOCAL_KEY"}),
        "home": (9, {"type": "ollama", "base_url": "http://h:11434/#x"}),
    }


def test_lists_need_no_indentation() -> None:
    text = (
        "providers:\n- name: a\n  type: ollama\n  base_url: http://x\n- name: b\n  type: ollama\n  base_url: http://y"
    )
    assert list(parse(text)) == ["a", "b"]


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "providers:\n"])
def test_no_providers(text: str) -> None:
    assert parse(text) == {}


ENTRY = "providers:\n  - name: a\n    type: ollama\n    base_url: http://x\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("models:\n", 1, 'expected "providers:"'),
        ("providers: []\n", 1, 'expected "providers:"'),
        ("providers:\n  name: a", 2, "indentation"),
        ("providers:\n  - name: a\n   type: ollama", 3, "indentation"),
        (ENTRY + "     - name: b", 5, "indentation"),
        (ENTRY + "other:\n", 5, "indentation"),
        ("providers:\n  - a", 2, "other YAML is not read"),
        ("providers:\n\t- name: a", 2, "other YAML is not read"),
        (ENTRY + "    tpye: x", 5, "unknown key 'tpye'. Did you mean 'type'?"),
        (ENTRY + "    name: x", 5, "given twice"),
        (ENTRY + ENTRY.partition("\n")[2], 5, "a second provider is called 'a'"),
        (
            "providers:\n  - name: a\n    type: opnai\n    base_url: x",
            2,
            "type must be openai or ollama. Did you mean 'openai'?",
        ),
        ("providers:\n  - name: a\n    base_url: x", 2, "has no type"),
        ("providers:\n  - name:\n    type: ollama\n    base_url: x", 2, "has no name"),
    ],
)
def test_what_is_refused(text: str, line: int, message: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert caught.value.line == line


@pytest.mark.parametrize(
    "value",
    ["[a]", "{a: b}", "&a b", "*a", "!t a", "|", ">", "'a", '"a', '"a\\n"', "a: b", "- a", "'it''s'", '"', "@a"],
)
def test_other_yaml_is_not_guessed_at(value: str) -> None:
    with pytest.raises(YamlError, match=r"other YAML is not read") as caught:
        parse(f"providers:\n  - name: {value}")
    assert caught.value.line == 2


@given(
    st.text()
    | st.lists(st.sampled_from([*GOOD.splitlines(), "-", ":", "  ", "\t", "providers:", "  - "])).map("\n".join)
)
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    try:
        assert all(table["type"] in ("openai_compat", "ollama") for _, table in parse(text).values())
    except YamlError as error:
        assert 1 <= error.line <= len(text.splitlines())
