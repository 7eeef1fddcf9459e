"""What is written is read back as it was."""

from __future__ import annotations

import tomli
from hypothesis import given
from hypothesis import strategies as st

from gateway.importing.toml_text import write

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = TEXTS | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=20)


@given(st.dictionaries(TEXTS, VALUES))
def test_tomli_reads_what_was_written(document: dict[str, object]) -> None:
    assert tomli.loads(write(document)) == document


def test_tables_have_headers_and_long_lists_a_line_for_each_element() -> None:
    targets = [{"provider": "a" * 60}, {"provider": "b" * 60}]
    document = {"strict": True, "models": {"gpt 4": {"targets": targets}}, "providers": {"p": {"t": {"idle": 1.5}}}}
    assert write(document).splitlines() == [
        "strict = true",
        "",
        '[models."gpt 4"]',
        "targets = [",
        f'    {{ provider = "{"a" * 60}" }},',
        f'    {{ provider = "{"b" * 60}" }},',
        "]",
        "",
        "[providers.p]",
        "t = { idle = 1.5 }",
    ]


def test_a_models_price_has_a_header() -> None:
    document = {"prices": {"models": {"a/b*": {"input": 0.25, "tiers": [{"above": 9, "input": 1}]}}}}
    assert write(document).splitlines() == [
        '[prices.models."a/b*"]', "input = 0.25", "tiers = [{ above = 9, input = 1 }]",
    ]  # fmt: skip
