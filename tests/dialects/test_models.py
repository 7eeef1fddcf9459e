"""The table of capabilities against the names that models really have: the vendors' own, and those of clouds."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import attrs
import pytest

from gateway.dialects.capabilities import Capabilities
from gateway.dialects.models import TABLE, Models

OPUS = ("claude-opus-4-5-20251101", "claude-opus-4-6", "claude-opus-4-7", "claude-opus-4-8", "claude-opus-5",
        "claude-opus-5-5")  # fmt: skip
SONNET = ("claude-sonnet-4-20250514", "claude-sonnet-4-5-20250929", "claude-sonnet-4-6", "claude-sonnet-5",
          "claude-sonnet-5-5")  # fmt: skip
HAIKU = ("claude-3-haiku-20240307", "claude-3-5-haiku-20241022", "claude-haiku-4-5-20251001", "claude-haiku-5-5")
OLD = ("claude-3-5-sonnet-20241022", "claude-3-7-sonnet-20250219", "claude-opus-4-20250514", "claude-opus-4-1-20250805")
NEWEST = ("claude-fable-5", "claude-fable-5-1", "claude-mythos-5", "claude-mythos-5-1", "claude-mythos-preview")
CLAUDES = (*OPUS, *SONNET, *HAIKU, *OLD, *NEWEST)
OTHERS = (
    "gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-3.5-turbo", "chatgpt-4o-latest", "gpt-5", "gpt-5-mini", "gpt-5.1", "o1",
    "o1-mini", "o3", "o3-mini", "o4-mini", "gemini-1.5-pro", "gemini-2.0-flash", "gemini-2.5-pro",
    "gemini-3-pro-preview", "models/gemini-3-flash", "llama3:8b", "mistral-large-latest", "command-a-03-2025",
)  # fmt: skip
# As Bedrock, Vertex and OpenRouter call them.
CLOUDS = ("{}", "us.anthropic.{}-v1:0", "anthropic.{}", "{}@20260101", "anthropic/{}")

MODELS = Models()
# Facts of PROTOCOLS, part 2 (LiteLLM's table and pydantic-ai's profiles): which of Anthropic's models …
FACTS: dict[str, set[str]] = {
    "no sampling": {"claude-opus-4-7", "claude-opus-4-8", "claude-opus-5", "claude-opus-5-5", "claude-sonnet-5",
                    "claude-sonnet-5-5", "claude-haiku-5-5", *NEWEST},
    "no prefill": {"claude-opus-4-6", "claude-opus-4-7", "claude-opus-4-8", "claude-opus-5", "claude-opus-5-5",
                   "claude-sonnet-4-6", "claude-sonnet-5", "claude-sonnet-5-5", "claude-haiku-5-5", *NEWEST},
    "always thinks": {"claude-opus-5-5", "claude-sonnet-5-5", *NEWEST},
    "no forced tools": {"claude-fable-5-1", "claude-mythos-5-1", "claude-opus-5-5", "claude-sonnet-5-5"},
    "mid system": {"claude-opus-4-8", "claude-opus-5", "claude-opus-5-5", "claude-sonnet-5", "claude-sonnet-5-5",
                   "claude-haiku-5-5", *NEWEST},
    "an effort": {*OPUS, "claude-sonnet-4-6", "claude-sonnet-5", "claude-sonnet-5-5", "claude-haiku-5-5", *NEWEST},
    "the effort xhigh": {"claude-opus-4-7", "claude-opus-4-8", "claude-opus-5", "claude-opus-5-5", "claude-sonnet-5",
                         "claude-sonnet-5-5", "claude-haiku-5-5", *NEWEST},
}  # fmt: skip
QUESTIONS: dict[str, Any] = {
    "no sampling": lambda caps: not caps.sampling,
    "no prefill": lambda caps: not caps.prefill,
    "always thinks": lambda caps: caps.always_thinks,
    "no forced tools": lambda caps: not caps.forced_tools,
    "mid system": lambda caps: caps.mid_system,
    "an effort": lambda caps: bool(caps.efforts),
    "the effort xhigh": lambda caps: "xhigh" in caps.efforts,
}


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("fact", FACTS)
def test_claudes_are_what_their_vendor_says(fact: str, cloud: str) -> None:
    assert {name for name in CLAUDES if QUESTIONS[fact](MODELS.of(cloud.format(name)))} == FACTS[fact]


@pytest.mark.parametrize("name", CLAUDES)
def test_every_claude_has_a_most_of_tokens(name: str) -> None:
    expected = 4096 if "3-haiku" in name else 8192 if "claude-3" in name else 32000
    assert MODELS.of(name).max_output == expected


def test_a_model_that_thinks_adaptively_knows_an_effort() -> None:
    for name in CLAUDES:
        caps = MODELS.of(name)
        assert caps.efforts or not caps.adaptive_thinking, name
        assert caps.adaptive_thinking or caps.budget_thinking, name


@pytest.mark.parametrize(
    ("name", "sampling", "efforts"),
    [
        ("gpt-4o", True, ()), ("gpt-3.5-turbo", True, ()), ("chatgpt-4o-latest", True, ()),
        ("gpt-5-mini", False, ("minimal", "low", "medium", "high", "xhigh")),
        ("o3-mini", False, ("minimal", "low", "medium", "high")),
        ("gemini-2.0-flash", True, ()), ("gemini-3-pro-preview", True, ("minimal", "low", "medium", "high")),
    ],
)  # fmt: skip
def test_others_are_what_their_vendors_say(name: str, sampling: bool, efforts: tuple[str, ...]) -> None:
    caps = MODELS.of(name)
    assert (caps.sampling, caps.efforts) == (sampling, efforts)


def test_what_nobody_lists_has_the_defaults() -> None:
    assert MODELS.of("llama3:8b") == Capabilities()


@pytest.mark.parametrize("glob", sorted({glob for globs, _ in TABLE for glob in globs}))
def test_every_glob_means_a_model(glob: str) -> None:
    future = ("claude-haiku-5",)
    assert any(fnmatchcase(name, glob) for name in (*CLAUDES, *OTHERS, *future))


def test_every_flag_is_one() -> None:
    known = {field.name for field in attrs.fields(Capabilities)}
    assert all(set(flags) <= known for _, flags in TABLE)


def test_the_configuration_comes_on_top_and_the_last_word_counts() -> None:
    models = Models([(("claude-opus-5*",), {"sampling": True}), (("*-5",), {"efforts": ("low",), "images": False})])
    caps = models.of("claude-opus-5")
    assert (caps.sampling, caps.efforts, caps.images) == (True, ("low",), False)
    assert caps.mid_system, "the rest stays"
    assert models.of("claude-opus-5-5").sampling
    assert not MODELS.of("claude-opus-5").sampling


def test_a_name_is_looked_up_once() -> None:
    assert MODELS.of("gpt-4o") is MODELS.of("gpt-4o")
